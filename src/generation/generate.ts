/**
 * Autoregressive generation.
 *
 * @module
 */
import { builtinOf } from "../attention/builtin.ts";
import type { Cache } from "../cache/cache.ts";
import type { PretrainedConfig } from "../config.ts";
import { InvalidArgument } from "../errors.ts";
import { checkCache, checkIds, extraKwargs } from "../models/inputs.ts";
import { reshape } from "../ops/shape.ts";
import { hostData, Tensor } from "../tensor.ts";
import { cacheOf } from "./cache.ts";
import { chooser, type SamplingOptions } from "./sampling.ts";

/** Receives tokens as they are generated. */
export interface Streamer {
  /** The new token of every row, once per step (finished rows give the padding token). */
  put(tokens: number[]): void | Promise<void>;
  /** Called once after the last token, also when generation was aborted. */
  end(): void | Promise<void>;
}

/** Options of `model.generate`. Unknown keys are passed to `forward`, and from there to an attention function of yours. */
export interface GenerateOptions extends SamplingOptions {
  /** (B, N) prompts, int32 or int64, padded on the left. With `past_key_values`, the whole sequence so far. */
  input_ids: Tensor;
  /** (B, N) with 1 for real tokens; default: everything but the padding token, where the prompt has any. */
  attention_mask?: Tensor;
  /** Tokens to add at most; default 20. */
  max_new_tokens?: number;
  /** Tokens that end a row; default: the config's. */
  eos_token_id?: number | readonly number[] | null;
  /** Token that fills rows which ended; default: the config's, else the first end token. */
  pad_token_id?: number;
  /** Receives every token at once. */
  streamer?: Streamer;
  /** A cache to continue; it is extended in place and stays the caller's. */
  past_key_values?: Cache;
  /**
   * The cache made where none is given: `"dynamic"` (default) grows, `"static"` has room for the prompt and
   * `max_new_tokens` from the start.
   */
  cache_implementation?: "dynamic" | "static";
  /** Stops the generation: the promise rejects with its reason. */
  signal?: AbortSignal;
  /** Passed to `forward`. */
  [kwarg: string]: unknown;
}

/** What generation needs of a model. */
export interface Generative {
  readonly config: PretrainedConfig;
  readonly vocab_size: number;
  /** Whether the model has a language-modelling head. */
  can_generate(): boolean;
  forward(inputs: Record<string, unknown>): Promise<{ logits?: Tensor }>;
}

/** Keys `generate` knows; `is_causal` is passed on to `forward`. */
const KEYS = [
  "is_causal",
  "input_ids",
  "attention_mask",
  "max_new_tokens",
  "do_sample",
  "temperature",
  "top_k",
  "top_p",
  "seed",
  "eos_token_id",
  "pad_token_id",
  "streamer",
  "past_key_values",
  "cache_implementation",
  "signal",
];

/** Tokens added when nothing says how many, as in the reference. */
const DEFAULT_NEW_TOKENS = 20;

/**
 * Generates tokens after `options.input_ids`. Returns (B, N + new) int64; the cache, if given, then holds every
 * token but the last.
 *
 * @throws {InvalidArgument} for options that do not fit, before anything is computed
 */
export async function generate(model: Generative, options: GenerateOptions): Promise<Tensor> {
  const { input_ids, streamer, signal } = options;
  if (!model.can_generate()) {
    throw new InvalidArgument(
      "Cannot generate with a model that has no language-modelling head: load it with AutoModelForCausalLM",
    );
  }
  const implementation = model.config._attn_implementation ?? "sdpa";
  const extra = extraKwargs(options, KEYS, builtinOf(implementation) === undefined ? implementation : null);
  const prompt = rowsOf(checkIds(input_ids, model.vocab_size));
  checkParts(options);
  const max_new_tokens = options.max_new_tokens ?? DEFAULT_NEW_TOKENS;
  if (!Number.isInteger(max_new_tokens) || max_new_tokens < 1) {
    throw new InvalidArgument(`Cannot generate max_new_tokens ${max_new_tokens}: expected an integer ≥ 1`);
  }
  const [batch, length] = input_ids.shape as [number, number];
  const choose = chooser(options, batch);
  const eos = endTokens(options, model.config);
  const pad = options.pad_token_id ?? idOf(model.config, "pad_token_id") ?? eos[0] ?? 0;
  if (!(Number.isInteger(pad) && pad >= 0 && pad < model.vocab_size)) {
    throw new InvalidArgument(
      `Cannot generate with pad_token_id ${String(pad)}: the vocabulary has ids 0…${model.vocab_size - 1}`,
    );
  }
  const mask = promptMask(options, prompt, batch, length, eos, idOf(model.config, "pad_token_id"));
  const cache = cacheOf(options, model.config, length + max_new_tokens);
  const past = cache.get_seq_length();
  if (past >= length) {
    throw new InvalidArgument(
      `Cannot continue a cache of ${past} tokens with input_ids of ${length}: expected the whole sequence, with at least one token the cache does not hold`,
    );
  }
  const rows: number[][] = prompt.map((row) => [...row]);
  const finished = new Array<boolean>(batch).fill(false);
  using _own = options.past_key_values === undefined || options.past_key_values === null ? cache : null;
  try {
    let from = past;
    for (let step = 0; step < max_new_tokens; step++) {
      const total = length + step;
      using ids = Tensor.from(rows.map((row) => row.slice(from)), {
        dtype: "int32",
        shape: [batch, total - from],
      });
      using masking = mask?.tensors(from, total) ?? null;
      const output = await model.forward({
        ...extra,
        ...(options["is_causal"] === undefined ? {} : { is_causal: options["is_causal"] }),
        input_ids: ids,
        past_key_values: cache,
        logits_to_keep: 1,
        ...(masking === null
          ? {}
          : { attention_mask: masking.attention_mask, position_ids: masking.position_ids }),
        ...(signal === undefined ? {} : { signal }),
      });
      const tokens = await pick(output.logits!, batch, choose);
      for (let row = 0; row < batch; row++) {
        if (finished[row]) tokens[row] = pad;
        rows[row]!.push(tokens[row]!);
        finished[row] ||= eos.includes(tokens[row]!);
      }
      from = total;
      await streamer?.put([...tokens]);
      if (finished.every(Boolean)) break;
    }
  } catch (error) {
    // What ended the generation matters more than what a stream says while it is closed.
    await endQuietly(streamer);
    throw error;
  }
  await streamer?.end();
  return Tensor.from(rows.flat(), { dtype: "int64", shape: [batch, rows[0]!.length] });
}

async function pick(
  logits: Tensor,
  batch: number,
  choose: (logits: Tensor) => Promise<number[]>,
): Promise<number[]> {
  using last = logits;
  using flat = reshape(last, [batch, last.shape[2]!]);
  return await choose(flat);
}

async function endQuietly(streamer: Streamer | undefined): Promise<void> {
  try {
    await streamer?.end();
  } catch {
    // See the caller.
  }
}

/**
 * Checks the objects among the options, which come from outside.
 *
 * @throws {InvalidArgument}
 */
function checkParts({ streamer, past_key_values, signal }: GenerateOptions): void {
  const has = (x: unknown, ...methods: string[]) =>
    typeof x === "object" && x !== null &&
    methods.every((m) => typeof (x as Record<string, unknown>)[m] === "function");
  const refuse = (what: string, expected: string): never => {
    throw new InvalidArgument(`Cannot generate with this ${what}: expected ${expected}`);
  };
  if (streamer !== undefined && !has(streamer, "put", "end")) {
    refuse("streamer", "an object with put(tokens) and end()");
  }
  checkCache(past_key_values);
  if (signal !== undefined && !(signal instanceof AbortSignal)) refuse("signal", "an AbortSignal");
}

function rowsOf(t: Tensor): number[][] {
  const [batch, length] = t.shape as [number, number];
  const host = hostData(t);
  return Array.from(
    { length: batch },
    (_, b) => Array.from(host.subarray(b * length, (b + 1) * length), Number),
  );
}

/** A token id of the config. Old conversions say −1 for none. */
function idOf(config: PretrainedConfig, name: string): number | undefined {
  const id = config[name];
  return typeof id === "number" && id >= 0 ? id : undefined;
}

function endTokens(options: GenerateOptions, config: PretrainedConfig): readonly number[] {
  const given = options.eos_token_id === undefined ? config["eos_token_id"] : options.eos_token_id;
  const list = given === null || given === undefined
    ? []
    : Array.isArray(given)
    ? given as unknown[]
    : [given];
  return list.map((id) => {
    if (typeof id !== "number" || !Number.isInteger(id)) {
      throw new InvalidArgument(
        `Cannot end generation at token ${String(id)}: expected an integer, a list of them or null`,
      );
    }
    return id;
  });
}

/** Masks and positions of padded prompts, growing by a real token a step. */
class PromptMask {
  constructor(readonly rows: readonly (readonly number[])[]) {}

  /** For tokens `from…total`: the mask of everything so far (B, total), and the tokens' positions (B, total − from). */
  tensors(from: number, total: number): { attention_mask: Tensor; position_ids: Tensor } & Disposable {
    const full = this.rows.map((row) => [...row, ...new Array<number>(total - row.length).fill(1)]);
    const positions = full.map((row) => {
      let real = 0;
      // Positions count real tokens; padding sits at 0.
      return row.map((m) => m === 1 ? real++ : 0).slice(from);
    });
    const attention_mask = Tensor.from(full, { dtype: "int32" });
    const position_ids = Tensor.from(positions, { dtype: "int32" });
    return {
      attention_mask,
      position_ids,
      [Symbol.dispose]() {
        attention_mask[Symbol.dispose]();
        position_ids[Symbol.dispose]();
      },
    };
  }
}

/** The mask given, else one that hides the padding token where it can only be padding; null when nothing is padded. */
function promptMask(
  options: GenerateOptions,
  prompt: readonly (readonly number[])[],
  batch: number,
  length: number,
  eos: readonly number[],
  configPad: number | undefined,
): PromptMask | null {
  const { attention_mask } = options;
  const pad = options.pad_token_id ?? configPad;
  let rows: number[][];
  if (attention_mask !== undefined && attention_mask !== null) {
    if (
      !(attention_mask instanceof Tensor) || attention_mask.shape.length !== 2 ||
      attention_mask.shape[0] !== batch || attention_mask.shape[1] !== length
    ) {
      const got = attention_mask instanceof Tensor
        ? `shape [${attention_mask.shape}]`
        : typeof attention_mask;
      throw new InvalidArgument(
        `Cannot generate with an attention_mask of ${got}: expected (B, N) = [${batch},${length}]`,
      );
    }
    rows = rowsOf(attention_mask);
    const odd = rows.flat().find((m) => m !== 0 && m !== 1);
    if (odd !== undefined) {
      throw new InvalidArgument(`Cannot generate with ${odd} in the attention_mask: expected 0 and 1`);
    }
  } else {
    const hides = pad !== undefined && !eos.includes(pad);
    rows = prompt.map((row) => row.map((id) => hides && id === pad ? 0 : 1));
  }
  if (rows.every((row) => row.every((m) => m === 1))) return null;
  const ragged = rows.findIndex((row) => row[length - 1] === 0);
  if (ragged >= 0) {
    throw new InvalidArgument(
      `Cannot generate after padding: row ${ragged} ends with it. Pad prompts on the left (tokenizer(texts, { padding: true, padding_side: "left" }))`,
    );
  }
  return new PromptMask(rows);
}
