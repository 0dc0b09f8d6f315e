/**
 * What happened in a generation, token by token.
 *
 * @module
 */
import type { Streamer } from "../generation/generate.ts";
import { DEFAULT_IMPLEMENTATION } from "../models/plans.ts";
import type { PreTrainedModel } from "../models/pretrained.ts";

/** Speeds and memory of a generation. */
export interface Stats {
  /** Tokens computed before the first new one. */
  readonly prompt_tokens: number;
  /** Tokens before those, which a cache held. */
  readonly reused_tokens: number;
  readonly new_tokens: number;
  /** Until the first new token. */
  readonly prefill_ms: number;
  readonly decode_ms: number;
  /** Of the prompt; null before there is a first token. */
  readonly prefill_tokens_per_second: number | null;
  /** Of the tokens after the first; null where there are none. */
  readonly decode_tokens_per_second: number | null;
  /** Bytes the model's engine holds, and held at most. */
  readonly memory_bytes: number;
  readonly peak_memory_bytes: number;
}

/** A streamer that notes tokens, times and implementations, and passes tokens on. */
export class Recording implements Streamer {
  /** New tokens, by step: one of each row. */
  readonly steps: number[][] = [];
  /** The attention implementation that computed each step. */
  readonly implementations: string[] = [];
  readonly #times: number[] = [];
  readonly #model: PreTrainedModel;
  readonly #after: (step: number) => void | Promise<void>;
  readonly #text: Streamer | null;
  readonly #started = performance.now();
  #active: string;

  /** Begins now. Tokens go to `text`; `after` is called with the number of steps so far, before the next one. */
  constructor(
    model: PreTrainedModel,
    text: Streamer | null,
    after: (step: number) => void | Promise<void> = () => {},
  ) {
    this.#model = model;
    this.#text = text;
    this.#after = after;
    this.#active = implementationOf(model);
  }

  /** Notes a step. */
  async put(tokens: number[]): Promise<void> {
    this.steps.push([...tokens]);
    this.implementations.push(this.#active);
    this.#times.push(performance.now() - this.#started);
    await this.#text?.put(tokens);
    await this.#after(this.steps.length);
    this.#active = implementationOf(this.#model);
  }

  /** Ends the text. */
  async end(error?: unknown): Promise<void> {
    await this.#text?.end(error);
  }

  /** The implementations in the order of their use, as `sdpa → eager` where one was swapped for another. */
  get legs(): string {
    const legs = this.implementations.filter((name, i, all) => name !== all[i - 1]);
    return legs.length === 0 ? this.#active : legs.join(" → ");
  }

  /** Milliseconds from the beginning to each step. */
  get times(): readonly number[] {
    return this.#times;
  }

  /** Speeds, for a prompt of which `reused` tokens were not computed; beams write `new_tokens` in no steps. */
  stats(prompt: number, { reused = 0, new_tokens = this.steps.length } = {}): Stats {
    const prompt_tokens = prompt - reused;
    const prefill_ms = this.#times[0] ?? performance.now() - this.#started;
    const decode_ms = (this.#times.at(-1) ?? prefill_ms) - prefill_ms;
    const after = this.#times.length - 1;
    const { bytes, peak } = this.#model.memory;
    return {
      prompt_tokens,
      reused_tokens: reused,
      new_tokens,
      prefill_ms,
      decode_ms,
      prefill_tokens_per_second: this.#times.length > 0 ? prompt_tokens / prefill_ms * 1000 : null,
      decode_tokens_per_second: after > 0 ? after / decode_ms * 1000 : null,
      memory_bytes: bytes,
      peak_memory_bytes: peak,
    };
  }
}

/** What the layers of tokens compute attention with now. */
export function implementationOf(model: PreTrainedModel): string {
  return model.text_config._attn_implementation ?? DEFAULT_IMPLEMENTATION;
}

/** Statistics in a line for people. */
export function statsLine(stats: Stats): string {
  const speed = (n: number | null) => n === null ? "–" : n.toFixed(n < 10 ? 2 : 1);
  const reused = stats.reused_tokens === 0 ? "" : `${stats.reused_tokens} tokens reused · `;
  return `${reused}${stats.prompt_tokens} tokens read at ${speed(stats.prefill_tokens_per_second)}/s · ` +
    `${stats.new_tokens} written at ${speed(stats.decode_tokens_per_second)}/s · ` +
    `${size(stats.memory_bytes)}, at most ${size(stats.peak_memory_bytes)}`;
}

/** Bytes for people. */
export function size(bytes: number): string {
  const power = bytes < 2 ** 20 ? 1 : bytes < 2 ** 30 ? 2 : 3;
  return `${(bytes / 1024 ** power).toFixed(1)} ${["KiB", "MiB", "GiB"][power - 1]}`;
}
