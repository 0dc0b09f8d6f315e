/**
 * A generation under way: the seam between `generate`, which checks and prepares, and strategies, which choose tokens.
 *
 * A strategy is a function of a {@linkcode Decoding}. It asks for scores with `step()` (or, for several tokens at once,
 * `forward()`), changes them with `process()`, and hands the tokens it chose to `advance()`, which appends, streams and
 * says when every row has ended. Tokens that were computed but not accepted are taken back with `cache.crop(−n)`: what
 * a forward computes is always what the cache does not hold. `generate` disposes whatever a strategy leaves.
 *
 * @module
 */
import type { Cache } from "../cache/cache.ts";
import type { KvDType } from "../cache/kv_dtype.ts";
import type { DeviceName } from "../devices/device.ts";
import type { PretrainedConfig } from "../config.ts";
import type { AttentionMask, MaskArgs } from "../masks/types.ts";
import { CREATE_MASKS, FOLLOW_UP } from "../models/call.ts";
import { disposeOutput, type ForwardOutput } from "../models/inputs.ts";
import { untilAborted } from "../models/turns.ts";
import { warnOnce } from "../notice.ts";
import { cat, reshape, slice } from "../ops/shape.ts";
import { releasing } from "../release.ts";
import { tidy } from "../scope.ts";
import { Tensor } from "../tensor.ts";
import type { MakeDrafter } from "./drafts.ts";
import type { GenerationConfig } from "./generation_config.ts";
import type { Streamer } from "./options.ts";
import { type Generated, Recorder } from "./output.ts";
import { type LogitsProcessorFunction, processorsOf } from "./processors.ts";
import type { PromptMask } from "./prompt.ts";
import type { Settings } from "./settings.ts";
import { Stopping } from "./stopping.ts";

/** What generation needs of a model. */
export interface Generative {
  /** The part of the config that describes the layers of tokens. */
  readonly text_config: PretrainedConfig;
  /** Type caches keep keys and values in; null keeps what layers compute. */
  readonly kv_dtype: KvDType | null;
  /** Where it computes. */
  readonly device: DeviceName;
  /** Number of tokens in the vocabulary. */
  readonly vocab_size: number;
  /** How it generates unless a call says otherwise. */
  readonly generation_config: GenerationConfig;
  /** Keys of `forward` that only this model has; they are read with the prompt, and once. */
  readonly input_keys: readonly string[];
  /** Whether the model has a language-modelling head. */
  can_generate(): boolean;
  /** Computes logits. */
  forward(inputs: Record<PropertyKey, unknown>): Promise<ForwardOutput>;
  /** The masks of a step with a cache of fixed length. */
  create_masks_for_generate(args: MaskArgs): AttentionMask | Record<string, AttentionMask>;
}

/** A request, checked: nothing in it can be refused any more. */
export interface Request {
  readonly model: Generative;
  readonly settings: Settings;
  /** Guesses tokens ahead, or null. */
  readonly drafter: MakeDrafter | null;
  /** Prompts, of one length. */
  readonly prompts: readonly (readonly number[])[];
  /** Which tokens of the prompts are padding, or null. */
  readonly mask: PromptMask | null;
  /** Holds less than the prompts. */
  readonly cache: Cache;
  readonly streamer: Streamer | undefined;
  readonly signal: AbortSignal | undefined;
  /** Passed to every forward. */
  readonly kwargs: Readonly<Record<string, unknown>>;
  /** Passed to the first forward. */
  readonly prompt_kwargs: Readonly<Record<string, unknown>>;
}

/** Waits for a streamer, which may never be done: an abort ends the waiting. */
export async function streamed(work: unknown, signal: AbortSignal | undefined): Promise<void> {
  // Most streamers do not wait for anything.
  if (work !== undefined) await untilAborted(Promise.resolve(work), signal);
}

/** Notes once for a model that a text has become longer than those it was made for. */
function noteLength(model: Generative, length: number): void {
  const most = model.text_config["max_position_embeddings"];
  if (typeof most !== "number" || length <= most) return;
  warnOnce(
    "generate:max_position_embeddings",
    `the text has become longer than the ${most} tokens of max_position_embeddings: this may give unexpected results`,
    model,
  );
}

/** Finds the tokens of a decoding. */
export type Strategy = (decoding: Decoding) => Promise<Generated>;

/** Rows of tokens and what they grow by. */
export class Decoding implements Disposable {
  readonly settings: Settings;
  readonly cache: Cache;
  readonly signal: AbortSignal | undefined;
  /** Tokens of every prompt. */
  readonly prompt_length: number;
  /** Rows that are computed for every prompt, from the first step on. */
  readonly rows_per_prompt: number;
  /** Change the scores of a row before a token is chosen. */
  readonly processors: readonly LogitsProcessorFunction[];
  /** When a row ends. */
  readonly stopping: Stopping;
  /** Collects what is returned besides the tokens. */
  readonly recorder: Recorder;
  /** Tokens of every row, prompts and padding included. Before the first step there is a row for every prompt. */
  rows: number[][];
  /** The prompt every row began with. */
  #prompts: number[];
  #finished: boolean[];
  readonly #request: Request;
  #promptKwargs: Readonly<Record<string, unknown>>;

  /** Begins what a request asks for. */
  constructor(request: Request) {
    const { settings, prompts, mask } = request;
    this.#request = request;
    this.settings = settings;
    this.cache = request.cache;
    this.signal = request.signal;
    this.prompt_length = prompts[0]!.length;
    this.rows_per_prompt = Math.max(settings.num_beams, settings.num_return_sequences);
    this.rows = prompts.map((row) => [...row]);
    this.#prompts = prompts.map((_, i) => i);
    this.#finished = prompts.map(() => false);
    this.processors = processorsOf(settings, (row) => mask?.start(this.#prompts[row]!) ?? 0);
    this.stopping = new Stopping(settings, this.prompt_length);
    this.recorder = new Recorder(settings);
    this.#promptKwargs = request.prompt_kwargs;
  }

  /** Number of prompts. */
  get prompts(): number {
    return this.#request.prompts.length;
  }

  /**
   * Computes the tokens the cache does not hold, and `ahead` of them for every row those a strategy guesses. The logits
   * are those of the last `keep` positions, (R, keep, V); what is returned is the caller's.
   */
  async forward({ ahead, keep = 1, then }: {
    readonly ahead?: readonly (readonly number[])[];
    readonly keep?: number;
    /** Records work on the output, which is submitted with the forward. */
    readonly then?: ((output: ForwardOutput) => void) | undefined;
  } = {}): Promise<ForwardOutput & { logits: Tensor }> {
    const { model, cache, mask, signal, kwargs } = this.#request;
    const rows = ahead === undefined ? this.rows : this.rows.map((row, i) => [...row, ...ahead[i]!]);
    const from = cache.get_seq_length(), total = rows[0]!.length;
    noteLength(model, total);
    using ids = Tensor.from(rows.flatMap((row) => row.slice(from)), {
      dtype: "int32",
      shape: [rows.length, total - from],
    });
    using masking = mask?.tensors(this.#prompts, from, total) ?? null;
    const wants = (name: "output_attentions" | "output_hidden_states") =>
      this.recorder.wants(name) ? { [name]: true } : {};
    const prompt_kwargs = this.#promptKwargs;
    const output = await model.forward({
      ...kwargs,
      ...prompt_kwargs,
      input_ids: ids,
      past_key_values: cache,
      logits_to_keep: keep,
      ...wants("output_attentions"),
      ...wants("output_hidden_states"),
      ...(masking === null
        ? {}
        : { attention_mask: masking.attention_mask, position_ids: masking.position_ids }),
      ...(signal === undefined ? {} : { signal }),
      // Masks are made inside the forward: the implementation they are made for must be the one that reads them.
      ...(cache.is_compileable
        ? { [CREATE_MASKS]: (args: MaskArgs) => model.create_masks_for_generate(args) }
        : {}),
      [FOLLOW_UP]: then,
    });
    this.#promptKwargs = {};
    return output as ForwardOutput & { logits: Tensor };
  }

  /**
   * Logits (R, V) of the next token of every row, which are the caller's. The first step computes each prompt once;
   * from then on there are `rows_per_prompt` rows of it. `then` records work on the same logits, which is submitted with
   * the step; it is not called where one row has become several.
   */
  async step(then?: (logits: Tensor) => void): Promise<Tensor> {
    const flatten = (logits: Tensor) => tidy(() => reshape(logits, [logits.shape[0]!, logits.shape[2]!]));
    const follow = then !== undefined && this.rows.length === this.#rowsInAll;
    const output = await this.forward({
      then: !follow ? undefined : ({ logits }) => {
        releasing(flatten(logits!), then);
      },
    });
    try {
      const expanded = this.#expand(output);
      const { logits } = expanded;
      const flat = flatten(logits!);
      logits![Symbol.dispose]();
      this.recorder.add(flat, expanded);
      return flat;
    } catch (error) {
      disposeOutput(output);
      throw error;
    }
  }

  /** Rows once every prompt has all of its own. */
  get #rowsInAll(): number {
    return this.prompts * this.rows_per_prompt;
  }

  /** Makes the rows of every prompt out of one, also in an output, which is disposed then. */
  #expand(output: ForwardOutput): ForwardOutput {
    const n = this.rows_per_prompt;
    if (this.rows.length === this.#rowsInAll) return output;
    const spread = this.#prompts.flatMap((p) => new Array<number>(n).fill(p));
    this.reorderCache(spread);
    this.rows = spread.map((p) => [...this.rows[p]!]);
    this.#prompts = spread;
    this.#finished = spread.map(() => false);
    const repeated = (t: Tensor) => tidy(() => cat(spread.map((p) => slice(t, 0, p, p + 1)), 0));
    const { logits, attentions, hidden_states } = output;
    const made = tidy(() => ({
      logits: repeated(logits!),
      ...(attentions === undefined ? {} : { attentions: attentions.map(repeated) }),
      ...(hidden_states === undefined ? {} : { hidden_states: hidden_states.map(repeated) }),
    }));
    disposeOutput(output);
    return made;
  }

  /** Makes row i of the cache what row `rows[i]` was. */
  reorderCache(rows: readonly number[]): void {
    if (rows.length === this.rows.length && rows.every((r, i) => r === i)) return;
    releasing(Tensor.from(rows, { dtype: "int32" }), (order) => this.cache.reorder_cache(order));
  }

  /** Changes the scores (V) of row `row` by all processors. */
  process(scores: Float32Array, row: number): void {
    for (const process of this.processors) process(scores, this.rows[row]!, row);
  }

  /** Appends a token to every row, padding where a row has ended, and streams them. Returns whether all have ended. */
  async advance(tokens: readonly number[]): Promise<boolean> {
    const added = tokens.map((token, row) => this.#finished[row] ? this.settings.pad : token);
    added.forEach((token, i) => {
      const row = this.rows[i]!;
      row.push(token);
      this.#finished[i] ||= this.stopping.stops(row, i);
    });
    await streamed(this.#request.streamer?.put(added), this.signal);
    return this.#finished.every(Boolean);
  }

  [Symbol.dispose](): void {
    this.recorder[Symbol.dispose]();
  }
}
