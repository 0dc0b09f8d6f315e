/**
 * Layers of fixed size: the keys attention sees keep their length from step to step.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import type { KvDType } from "./kv_dtype.ts";
import { CacheLayer, type States } from "./layer.ts";

/**
 * `size` slots, allocated once; what no token has filled yet holds zeros and is handed out too.
 *
 * Method: Transformers' `StaticLayer`.
 */
export class StaticLayer extends CacheLayer {
  readonly is_sliding = false;
  protected readonly zeroed = true;
  readonly #size: number;

  /** `size` in tokens; keys and values are kept as `dtype`. */
  constructor(size: number, dtype: KvDType | null = null) {
    super(dtype);
    this.#size = size;
  }

  get_mask_sizes(_query_length: number): [number, number] {
    return [this.#size, 0];
  }

  filled(seen: number): number {
    return Math.min(seen, this.#size);
  }

  refusesCrop(_n: number): null {
    return null;
  }

  protected override capacityFor(_needed: number): number {
    return this.#size;
  }

  protected override add(states: States, n: number): States {
    if (this.seen + n > this.#size) {
      throw new InvalidArgument(
        `Cannot cache ${n} more tokens as max_cache_len is ${this.#size}: the cache holds ${this.seen}`,
      );
    }
    this.append(0, states, n, Infinity);
    return this.views(0, this.#size);
  }
}

/**
 * The last `window` tokens. Until the window is full its slots are handed out, zeros included; from then on the
 * `window` − 1 tokens before the new ones, and these. Its buffer has twice the size of the window and is exchanged
 * for another one when its end is reached.
 *
 * Method: Transformers' `StaticSlidingWindowLayer`.
 */
export class StaticSlidingLayer extends CacheLayer {
  readonly is_sliding = true;
  protected readonly zeroed = true;
  readonly #window: number;

  /** `window` in tokens, at most the length of the cache; keys and values are kept as `dtype`. */
  constructor(window: number, dtype: KvDType | null = null) {
    super(dtype);
    this.#window = window;
  }

  get_mask_sizes(query_length: number): [number, number] {
    if (this.seen + query_length <= this.#window) return [this.#window, 0];
    const before = Math.min(this.seen, this.#window - 1);
    return [before + query_length, this.seen - before];
  }

  filled(seen: number): number {
    return Math.min(seen, this.#window);
  }

  refusesCrop(n: number): string | null {
    if (n >= this.seen || this.seen <= this.#window) return null;
    return `its window of ${this.#window} has moved on after ${this.seen} tokens`;
  }

  protected override capacityFor(_needed: number): number {
    return 2 * this.#window;
  }

  protected override add(states: States, n: number): States {
    if (this.seen + n <= this.#window) {
      this.append(0, states, n, this.#window);
      return this.views(0, this.#window);
    }
    const from = Math.max(this.start, this.end - (this.#window - 1));
    return this.append(from, states, n, this.#window);
  }
}
