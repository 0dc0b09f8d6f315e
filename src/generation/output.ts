/**
 * What a generation returns beside its tokens.
 *
 * @module
 */
import type { Cache } from "../cache/cache.ts";
import type { ForwardOutput } from "../models/inputs.ts";
import { Tensor } from "../tensor.ts";
import type { Settings } from "./settings.ts";

/**
 * The result of `generate` with `return_dict_in_generate`. Lists have an entry for every step; R is the number of rows
 * that were computed: prompts times `num_beams`, or times `num_return_sequences`. All tensors are the caller's;
 * `using` gives them and a cache that was made here back.
 */
export interface GenerateOutput extends Disposable {
  /** (prompts · num_return_sequences, N + new) int64, as without `return_dict_in_generate`. */
  readonly sequences: Tensor;
  /** Beams with `output_scores`: score of every sequence (prompts · num_return_sequences). */
  readonly sequences_scores?: Tensor;
  /** `output_scores`: (R, V) scores after all processors, with beams log-probabilities; −∞ for tokens that were taken out. */
  readonly scores?: Tensor[];
  /** `output_logits`: (R, V) as the model gave them. */
  readonly logits?: Tensor[];
  /** Beams: (prompts · num_return_sequences, new) int32, the row every token was computed from, −1 behind the end. */
  readonly beam_indices?: Tensor;
  /** `output_attentions`: per layer (R, H, Q, K). */
  readonly attentions?: Tensor[][];
  /** `output_hidden_states`: after the embedding and every layer (R, Q, E). */
  readonly hidden_states?: Tensor[][];
  /** Assisted decoding: how many guesses were right. */
  readonly drafts?: DraftCounts;
  /** The cache, with every token but the last; the caller's, if it was given. */
  readonly past_key_values: Cache;
}

/** What became of the guesses of assisted decoding. */
export interface DraftCounts {
  /** Tokens that were guessed. */
  readonly proposed: number;
  /** Guessed tokens that stayed, at most up to the end of the text. */
  readonly accepted: number;
  /** Forwards of the model that checked them, the prompt's included. */
  readonly forwards: number;
}

/** What a strategy found. */
export interface Generated {
  /** Rows of one length. */
  readonly rows: readonly (readonly number[])[];
  /** Scores of beams. */
  readonly scores?: readonly number[];
  /** Rows that every new token came from. */
  readonly beam_indices?: readonly (readonly number[])[];
  readonly drafts?: DraftCounts;
}

/** Collects what is to be returned of every step, and gives it back when nobody will receive it. */
export class Recorder implements Disposable {
  readonly #settings: Settings;
  readonly #scores: Tensor[] = [];
  readonly #logits: Tensor[] = [];
  readonly #attentions: Tensor[][] = [];
  readonly #hidden: Tensor[][] = [];
  #taken = false;

  /** Collects what the settings ask for. */
  constructor(settings: Settings) {
    this.#settings = settings;
  }

  /** Whether anything with that name is collected. */
  wants(name: "output_scores" | "output_logits" | "output_attentions" | "output_hidden_states"): boolean {
    return this.#settings.return_dict && this.#settings[name];
  }

  /** Takes what a forward gave besides its logits, and looks at these (R, V). */
  add(logits: Tensor, { attentions, hidden_states }: ForwardOutput): void {
    if (this.wants("output_logits")) this.#logits.push(logits.view(logits.shape, logits.strides));
    if (attentions !== undefined) this.#attentions.push(attentions);
    if (hidden_states !== undefined) this.#hidden.push(hidden_states);
  }

  /** Takes the scores of a step (R, V). */
  addScores(scores: Tensor): void {
    this.#scores.push(scores);
  }

  /** All of it with what a strategy found; `own` says that the cache was made here. */
  take(found: Generated, cache: Cache, own: boolean): GenerateOutput {
    const { scores, beam_indices, drafts } = found;
    const lists = {
      ...(this.wants("output_scores") ? { scores: this.#scores } : {}),
      ...(this.wants("output_logits") ? { logits: this.#logits } : {}),
      ...(this.wants("output_attentions") ? { attentions: this.#attentions } : {}),
      ...(this.wants("output_hidden_states") ? { hidden_states: this.#hidden } : {}),
    };
    const single = {
      sequences: sequencesOf(found),
      ...(scores === undefined || !this.wants("output_scores")
        ? {}
        : { sequences_scores: Tensor.from(scores, { dtype: "float32" }) }),
      ...(beam_indices === undefined ? {} : { beam_indices: integers(beam_indices, "int32") }),
    };
    this.#taken = true;
    return {
      ...single,
      ...lists,
      ...(drafts === undefined ? {} : { drafts }),
      past_key_values: cache,
      [Symbol.dispose]: () => {
        for (const t of [...Object.values(single), ...Object.values(lists).flat(2)]) t[Symbol.dispose]();
        if (own) cache[Symbol.dispose]();
      },
    };
  }

  [Symbol.dispose](): void {
    if (this.#taken) return;
    for (const t of [this.#scores, this.#logits, this.#attentions, this.#hidden].flat(2)) t[Symbol.dispose]();
  }
}

/** The tokens a strategy found (rows, N + new) int64. */
export function sequencesOf({ rows }: Generated): Tensor {
  return integers(rows, "int64");
}

function integers(rows: readonly (readonly number[])[], dtype: "int32" | "int64"): Tensor {
  return Tensor.from(rows.flat(), { dtype, shape: [rows.length, rows[0]!.length] });
}
