/**
 * Every parameter of a generation decided: what a call says, what configs say, and what is so when nobody does.
 *
 * @module
 */
import type { KvDType } from "../cache/kv_dtype.ts";
import { isRecord, show } from "../config_fields.ts";
import { InvalidArgument } from "../errors.ts";
import { checkCache, extraKwargs } from "../models/inputs.ts";
import { warnOnce } from "../notice.ts";
import { fieldsNotApplied, GenerationConfig, KNOWN_FIELDS, parametersOf } from "./generation_config.ts";
import type { GenerateRequest } from "./options.ts";
import {
  checkParameter,
  type GenerationParameters,
  type ParameterName,
  PARAMETERS,
  RULES,
} from "./parameters.ts";
import { checkProcessors, type LogitsProcessorFunction } from "./processors.ts";
import {
  checkCriteria,
  checkDecoder,
  type StoppingCriterionFunction,
  type TextDecoding,
} from "./stopping.ts";

/** Tokens added when nothing says how many, as in Transformers. */
const DEFAULT_NEW_TOKENS = 20;

/** What a generation does: every parameter decided. */
export interface Settings {
  /** Length of a row, prompt included, at most. */
  readonly max_length: number;
  /** Length below which no end token is chosen. */
  readonly min_length: number;
  readonly do_sample: boolean;
  readonly temperature: number;
  readonly top_k: number;
  readonly top_p: number;
  readonly min_p: number | null;
  readonly repetition_penalty: number;
  readonly seed: number;
  readonly num_beams: number;
  readonly length_penalty: number;
  readonly early_stopping: boolean | "never";
  readonly num_return_sequences: number;
  /** Tokens that end a row. */
  readonly eos: readonly number[];
  /** Fills rows that ended. */
  readonly pad: number;
  /** A padding token that somebody named, which prompts may be padded with. */
  readonly prompt_pad: number | null;
  readonly stop_strings: readonly string[];
  readonly tokenizer: TextDecoding | null;
  readonly logits_processor: readonly LogitsProcessorFunction[];
  readonly stopping_criteria: readonly StoppingCriterionFunction[];
  /** As given; which cache that means is checked where one is made. */
  readonly cache_implementation: GenerationParameters["cache_implementation"];
  /** Type a cache that is made keeps keys and values in, or null for the model's. */
  readonly kv_dtype: KvDType | null;
  readonly num_assistant_tokens: number;
  readonly prompt_lookup_num_tokens: number | null;
  readonly max_matching_ngram_size: number;
  readonly return_dict: boolean;
  readonly output_scores: boolean;
  readonly output_logits: boolean;
  readonly output_attentions: boolean;
  readonly output_hidden_states: boolean;
}

/** Scores of one step, at most: 4 GiB of them, which is what a WASM memory holds. */
const MOST_SCORES = 2 ** 30;

/** Values of parameters, and who said them. */
type Said = { readonly [name in ParameterName]?: { readonly value: unknown; readonly where: string } };

/**
 * Decides every parameter, for `batch` prompts of `length` tokens and a vocabulary of `vocab_size`.
 *
 * @throws {InvalidArgument} for values that do not fit, alone or together
 */
export function settle(
  options: GenerateRequest,
  model: GenerationConfig,
  { batch, length, vocab_size }: {
    readonly batch: number;
    readonly length: number;
    readonly vocab_size: number;
  },
): Settings {
  const said = merge(options, model);
  const get = <T>(name: ParameterName, otherwise: T): T => (said[name]?.value ?? otherwise) as T;
  const do_sample = get("do_sample", false);
  const num_beams = get("num_beams", 1);
  checkUsed(said, { sampling: do_sample, beams: num_beams > 1 });
  const { seed } = options;
  const return_dict_in_generate = options["return_dict_in_generate"];
  refuseUnless(
    seed === undefined || (Number.isSafeInteger(seed) && seed >= 0),
    `seed ${String(seed)}: expected an integer ≥ 0`,
  );
  refuseUnless(
    return_dict_in_generate === undefined || typeof return_dict_in_generate === "boolean",
    `return_dict_in_generate ${String(return_dict_in_generate)}: expected true or false`,
  );
  const num_return_sequences = get("num_return_sequences", 1);
  refuseUnless(
    num_return_sequences === 1 || do_sample || num_beams > 1,
    `num_return_sequences ${num_return_sequences}: greedy decoding has one result; expected do_sample or num_beams`,
  );
  const rows = batch * Math.max(num_beams, num_return_sequences);
  refuseUnless(
    rows * vocab_size <= MOST_SCORES,
    `${rows} rows, of ${batch} prompts with num_beams ${num_beams} and num_return_sequences ${num_return_sequences}: for ${vocab_size} tokens expected at most ${
      Math.floor(MOST_SCORES / vocab_size)
    }`,
  );
  refuseUnless(
    num_beams === 1 || num_return_sequences <= num_beams,
    `num_return_sequences ${num_return_sequences}: expected at most num_beams, which is ${num_beams}`,
  );
  refuseUnless(
    num_beams === 1 || options.streamer === undefined,
    `a streamer and num_beams ${num_beams}: which tokens are chosen is known only at the end; expected num_beams 1`,
  );
  const eos = [get<number | number[]>("eos_token_id", [])].flat();
  const named = said.pad_token_id?.value as number | undefined;
  // Old conversions say −1 for none.
  const prompt_pad = named === undefined || named < 0 ? null : named;
  // An end that the vocabulary does not have is never generated, and pads nothing.
  const pad = prompt_pad ?? eos.find((id) => id >= 0 && id < vocab_size) ?? 0;
  refuseUnless(
    pad < vocab_size,
    `pad_token_id ${pad}${said.pad_token_id?.where ?? ""}: the vocabulary has ids 0…${vocab_size - 1}`,
  );
  const stop_strings = [get<string | string[]>("stop_strings", [])].flat();
  const tokenizer = checkDecoder(options.tokenizer);
  refuseUnless(
    stop_strings.length === 0 || tokenizer !== null,
    `stop_strings without tokenizer: expected the model's tokenizer as the option tokenizer`,
  );
  const flags = ["output_scores", "output_logits", "output_attentions", "output_hidden_states"] as const;
  for (const name of flags.filter((n) => get(n, false) && return_dict_in_generate !== true)) {
    warnOnce(`generate:${name}`, `${name} has no effect without return_dict_in_generate`);
  }
  return {
    ...lengths(said, length),
    do_sample,
    temperature: get("temperature", 1),
    top_k: get("top_k", 50),
    top_p: get("top_p", 1),
    min_p: get("min_p", null),
    repetition_penalty: get("repetition_penalty", 1),
    seed: seed ?? crypto.getRandomValues(new Uint32Array(1))[0]!,
    num_beams,
    length_penalty: get("length_penalty", 1),
    early_stopping: get("early_stopping", false),
    num_return_sequences,
    eos,
    pad,
    prompt_pad,
    stop_strings,
    tokenizer,
    logits_processor: checkProcessors(options.logits_processor, num_beams > 1),
    stopping_criteria: checkCriteria(options.stopping_criteria),
    cache_implementation: said.cache_implementation?.value as Settings["cache_implementation"],
    kv_dtype: get<KvDType | null>("kv_dtype", null),
    num_assistant_tokens: get("num_assistant_tokens", 5),
    prompt_lookup_num_tokens: get("prompt_lookup_num_tokens", null),
    max_matching_ngram_size: get("max_matching_ngram_size", 2),
    return_dict: return_dict_in_generate === true,
    output_scores: get("output_scores", false),
    output_logits: get("output_logits", false),
    output_attentions: get("output_attentions", false),
    output_hidden_states: get("output_hidden_states", false),
  };
}

/** Who says what: the call, else its generation config, else the model's. Null of the call says that there is none. */
function merge(options: GenerateRequest, model: GenerationConfig): Said {
  const given = options.generation_config ?? undefined;
  // A field that nobody knows is kept in a config, but not one that is misspelt here.
  if (given !== undefined && !(given instanceof GenerationConfig)) extraKwargs(given, KNOWN_FIELDS, "");
  const between = given === undefined || given instanceof GenerationConfig
    ? given ?? {}
    : new GenerationConfig(given);
  const call = Object.fromEntries(
    PARAMETERS.filter((n) => options[n] !== undefined).map((n) => [n, options[n]]),
  );
  const said: Record<string, { value: unknown; where: string }> = {};
  for (
    const [values, where] of [
      [parametersOf(model), " of model.generation_config"],
      [parametersOf(between), " of generation_config"],
      [call, ""],
    ] as const
  ) {
    for (const [name, value] of Object.entries(values)) said[name] = { value, where };
  }
  for (const name of new Set([...fieldsNotApplied(model), ...fieldsNotApplied(between)])) {
    warnOnce(`generation_config:${name}`, `${name} of the generation config has no effect here`);
  }
  const cache = said["cache_implementation"];
  // Older checkpoints name what the reference now always does; and a cache that is given is the caller's choice.
  if (
    cache?.where === " of model.generation_config" &&
    (String(cache.value).startsWith("hybrid") || options.past_key_values !== undefined)
  ) delete said["cache_implementation"];
  return said;
}

/** Checks what the call says, and of what configs say that which is used. */
function checkUsed(said: Said, uses: { readonly sampling: boolean; readonly beams: boolean }): void {
  for (const name of PARAMETERS) {
    const { value, where } = said[name] ?? {};
    if (where === undefined || name === "cache_implementation") continue;
    const { only } = RULES[name];
    if (where !== "" && ((only !== undefined && !uses[only]) || name === "pad_token_id")) continue;
    checkParameter(name, value, where);
  }
}

function refuseUnless(fits: boolean, what: string): void {
  if (!fits) throw new InvalidArgument(`Cannot generate with ${what}`);
}

/** Bounds of a row's length, prompt included: `max_new_tokens` and `min_new_tokens` come before the others. */
function lengths(said: Said, length: number): { max_length: number; min_length: number } {
  const get = (name: ParameterName) => (said[name]?.value ?? null) as number | null;
  const bound = (fresh: "max_new_tokens" | "min_new_tokens", all: "max_length" | "min_length") => {
    const [added, total] = [get(fresh), get(all)];
    if (added === null) return total;
    if (total !== null && total > 0) {
      warnOnce(
        `generate:${all}`,
        `${fresh} (${added}) takes precedence over ${all} (${total}): both are given`,
      );
    }
    return length + added;
  };
  const max_length = bound("max_new_tokens", "max_length") ?? length + DEFAULT_NEW_TOKENS;
  const min_length = bound("min_new_tokens", "min_length") ?? 0;
  refuseUnless(
    max_length > length,
    `max_length ${max_length}${said.max_length?.where ?? ""}: the prompt has ${length} tokens already`,
  );
  if (min_length > max_length) {
    warnOnce(
      "generate:lengths",
      `rows end at ${max_length} tokens, so that a minimum of ${min_length} is never reached`,
    );
  }
  return { max_length, min_length };
}

/**
 * Checks that there are options.
 *
 * @throws {InvalidArgument}
 */
export function checkGiven(options: unknown): void {
  if (isRecord(options)) return;
  throw new InvalidArgument(`Cannot generate with ${show(options)}: expected options, with input_ids`);
}

/**
 * Checks the objects among the options, which come from outside.
 *
 * @throws {InvalidArgument}
 */
export function checkParts({ streamer, past_key_values, signal, generation_config }: GenerateRequest): void {
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
  if (
    (generation_config ?? null) !== null && typeof generation_config !== "object"
  ) {
    refuse("generation_config", "a GenerationConfig or an object with its fields");
  }
}
