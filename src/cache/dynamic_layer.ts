/**
 * Layers that grow: all tokens, or the last ones of a window.
 *
 * @module
 */
import type { KvDType } from "./kv_dtype.ts";
import { CacheLayer, type States } from "./layer.ts";

/** Tokens a buffer has room for, at least. */
const SMALLEST = 64;

/**
 * Keeps every token, or with a window of w the w − 1 tokens that the next one may see, and returns those and the new
 * ones. Buffers grow by half of what is needed; that of a window stops at twice the window.
 *
 * Method: Transformers' `DynamicLayer` and `DynamicSlidingWindowLayer`; a window of 1 keeps nothing.
 */
export class DynamicLayer extends CacheLayer {
  readonly is_sliding: boolean;
  protected readonly zeroed = false;
  readonly #stays: number;

  /** `window` in tokens, or null; keys and values are kept as `dtype`. */
  constructor(window: number | null, dtype: KvDType | null = null) {
    super(dtype);
    this.is_sliding = window !== null;
    this.#stays = window === null ? Infinity : window - 1;
  }

  get_mask_sizes(query_length: number): [number, number] {
    const stored = Math.min(this.seen, this.#stays);
    return [stored + query_length, this.seen - stored];
  }

  filled(seen: number): number {
    return Math.min(seen, this.#stays);
  }

  refusesCrop(n: number): string | null {
    if (n >= this.seen || this.seen <= this.#stays) return null;
    return `its window of ${this.#stays + 1} has moved on after ${this.seen} tokens`;
  }

  protected override capacityFor(needed: number): number {
    const most = this.#stays === 0 ? 0 : Math.max(SMALLEST, 2 * this.#stays);
    return Math.min(most, Math.max(SMALLEST, Math.ceil(needed * 1.5)));
  }

  protected override add(states: States, n: number): States {
    return this.append(this.start, states, n, this.#stays);
  }
}
