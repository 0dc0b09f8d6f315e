/**
 * The parameters of a generation: their names, what they may be, and what they are when nobody says.
 *
 * One table serves the options of a call, a `GenerationConfig` and a model's `generation_config.json`.
 *
 * @module
 */
import { KV_DTYPES, type KvDType } from "../cache/kv_dtype.ts";
import { InvalidArgument } from "../errors.ts";

/** Parameters a call and a {@linkcode GenerationConfig} have in common. Names and defaults are those of Transformers. */
export interface GenerationParameters {
  /** Tokens to add at most; default 20. */
  max_new_tokens?: number;
  /** Length of prompt and new tokens together, at most. `max_new_tokens` takes precedence. */
  max_length?: number | null;
  /** Tokens to add before one may end a row. */
  min_new_tokens?: number | null;
  /** Length of prompt and new tokens before a token may end a row; default 0. */
  min_length?: number;
  /** Texts that end a row; they stay in it. Needs `tokenizer`. */
  stop_strings?: string | readonly string[] | null;
  /** Sample; default false: take the most probable token. */
  do_sample?: boolean;
  /** Divides the logits; default 1. */
  temperature?: number;
  /** Sample among the k most probable tokens, and those as probable as the last of them; default 50, 0 means all. */
  top_k?: number;
  /** Sample among the most probable tokens whose probabilities reach p together; default 1. */
  top_p?: number;
  /** Sample among tokens at least this fraction as probable as the most probable one. */
  min_p?: number | null;
  /** Above 1, tokens that occurred are less likely (Keskar et al. 2019, arXiv 1909.05858); default 1. */
  repetition_penalty?: number;
  /** Sequences followed at once for each prompt (beam search); default 1. */
  num_beams?: number;
  /** Exponent of the length by which the score of a beam is divided; above 0 prefers long ones; default 1. */
  length_penalty?: number;
  /**
   * When a beam search ends: true as soon as there are `num_beams` finished sequences, false (default) when a
   * better one is unlikely, `"never"` when there cannot be a better one.
   */
  early_stopping?: boolean | "never";
  /** Sequences to return for each prompt; default 1. */
  num_return_sequences?: number;
  /** Tokens that end a row; default: the config's. */
  eos_token_id?: number | readonly number[] | null;
  /** Token that fills rows which ended; default: the config's, else the first end token. */
  pad_token_id?: number;
  /**
   * The cache made where none is given: `"dynamic"` (default) grows, `"static"` has room for the prompt and
   * all new tokens from the start.
   */
  cache_implementation?: "dynamic" | "static";
  /** Type the cache that is made keeps keys and values in; default: the model's, else what layers compute. */
  kv_dtype?: KvDType | null;
  /** With `assistant_model`: tokens it guesses ahead, at most; default 5. */
  num_assistant_tokens?: number;
  /** Guess at most so many tokens ahead from the text itself: what followed its last tokens before. */
  prompt_lookup_num_tokens?: number | null;
  /** With `prompt_lookup_num_tokens`: last tokens that are looked for, at most; default 2. */
  max_matching_ngram_size?: number | null;
  /** With `return_dict_in_generate`: return the processed scores of every step. */
  output_scores?: boolean;
  /** With `return_dict_in_generate`: return the logits of every step. */
  output_logits?: boolean;
  /** With `return_dict_in_generate`: return the attention weights of every step. */
  output_attentions?: boolean;
  /** With `return_dict_in_generate`: return the hidden states of every step. */
  output_hidden_states?: boolean;
}

/** Name of a parameter. */
export type ParameterName = keyof GenerationParameters;

/** What a parameter may be. */
interface Rule {
  readonly expected: string;
  readonly fits: (value: unknown) => boolean;
  /** What a file must hold, where that is less: an odd number of a checkpoint matters only once it is used. */
  readonly type: (value: unknown) => boolean;
  /** Whether null says that there is none. */
  readonly nullable: boolean;
  /** Which decoding alone reads it. */
  readonly only?: "sampling" | "beams";
}

const isNumber = (v: unknown) => typeof v === "number";
const isBoolean = (v: unknown) => typeof v === "boolean";
const isString = (v: unknown) => typeof v === "string";
const isList = (item: (v: unknown) => boolean) => (v: unknown) => Array.isArray(v) && v.every(item);

function integer(min: number, nullable = false, max = Infinity): Rule {
  const fits = (v: unknown) => Number.isSafeInteger(v) && (v as number) >= min && (v as number) <= max;
  const expected = max === Infinity ? `an integer ≥ ${min}` : `an integer from ${min} to ${max}`;
  return { expected, fits, type: isNumber, nullable };
}

function number(expected: string, inRange: (v: number) => boolean, nullable = false): Rule {
  const fits = (v: unknown) => typeof v === "number" && Number.isFinite(v) && inRange(v);
  return { expected: `a number${expected}`, fits, type: isNumber, nullable };
}

function exactly(expected: string, fits: (v: unknown) => boolean, nullable = false): Rule {
  return { expected, fits, type: fits, nullable };
}

const sampling = (rule: Rule): Rule => ({ ...rule, only: "sampling" });
const beams = (rule: Rule): Rule => ({ ...rule, only: "beams" });
const flag = exactly("true or false", isBoolean);

/** Rows that one prompt may give at most. */
const MOST_ROWS = 2 ** 16;

/** Every parameter. */
export const RULES: Readonly<Record<ParameterName, Rule>> = {
  max_new_tokens: integer(1),
  max_length: integer(1, true),
  min_new_tokens: integer(0, true),
  min_length: integer(0),
  stop_strings: exactly(
    "a string that is not empty, a list of them or null",
    (v) => [v].flat().every((s) => isString(s) && s !== ""),
    true,
  ),
  do_sample: flag,
  temperature: sampling(number(" > 0 (for greedy decoding leave do_sample out)", (v) => v > 0)),
  top_k: sampling(integer(0)),
  top_p: sampling(number(" in (0, 1]", (v) => v > 0 && v <= 1)),
  min_p: sampling(number(" in [0, 1]", (v) => v >= 0 && v <= 1, true)),
  repetition_penalty: number(" > 0", (v) => v > 0),
  num_beams: integer(1, false, MOST_ROWS),
  length_penalty: beams(number("", () => true)),
  early_stopping: beams(exactly('true, false or "never"', (v) => isBoolean(v) || v === "never")),
  num_return_sequences: integer(1, false, MOST_ROWS),
  eos_token_id: exactly(
    "an integer, a list of them or null",
    (v) => Number.isInteger(v) || isList(Number.isInteger)(v),
    true,
  ),
  pad_token_id: { ...integer(0), expected: "a token id" },
  cache_implementation: {
    ...exactly("one of dynamic, static", (v) => v === "dynamic" || v === "static"),
    type: isString,
  },
  kv_dtype: {
    ...exactly(`one of ${KV_DTYPES.join(", ")} or null`, (v) => KV_DTYPES.some((dtype) => dtype === v), true),
    type: isString,
  },
  num_assistant_tokens: integer(1),
  prompt_lookup_num_tokens: integer(1, true),
  max_matching_ngram_size: integer(1, true),
  output_scores: flag,
  output_logits: flag,
  output_attentions: flag,
  output_hidden_states: flag,
};

/** Their names. */
export const PARAMETERS = Object.keys(RULES) as ParameterName[];

/** A value as messages show it. */
export function shown(value: unknown): string {
  const text = typeof value === "string" || (typeof value === "object" && value !== null)
    ? JSON.stringify(value)
    : String(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

/**
 * Checks the value of a parameter for use; `where` says who gave it, when that was not the call.
 *
 * @throws {InvalidArgument}
 */
export function checkParameter(name: ParameterName, value: unknown, where = ""): void {
  const { expected, fits, nullable } = RULES[name];
  if (fits(value) || (nullable && value === null)) return;
  throw new InvalidArgument(`Cannot generate with ${name} ${shown(value)}${where}: expected ${expected}`);
}
