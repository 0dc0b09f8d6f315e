/**
 * The options of a call.
 *
 * @module
 */
import type { Cache } from "../cache/cache.ts";
import type { Tensor } from "../tensor.ts";
import type { Generative } from "./decoding.ts";
import type { GenerationConfig } from "./generation_config.ts";
import { type GenerationParameters, PARAMETERS } from "./parameters.ts";
import type { LogitsProcessor } from "./processors.ts";
import type { SamplingOptions } from "./sampling.ts";
import type { StoppingCriterion, TextDecoding } from "./stopping.ts";

/** Receives tokens as they are generated. */
export interface Streamer {
  /** The tokens of every row of the prompt, once before the first step, for a streamer that wants them. */
  put_prompt?(rows: number[][]): void | Promise<void>;
  /** The new token of every row, once per step (finished rows give the padding token). */
  put(tokens: number[]): void | Promise<void>;
  /** Called once at the end, however generation ended; `error` is why, where it failed or was aborted. */
  end(error?: unknown): void | Promise<void>;
}

/**
 * Options of `model.generate`. Those a {@linkcode GenerationConfig} has too come from the call, else from its
 * `generation_config`, else from the model's, else they have the defaults named here. Unknown keys are passed to
 * `forward`, and from there to an attention function of yours; parameters of Transformers that are not here are refused.
 */
export interface GenerateRequest extends SamplingOptions, GenerationParameters {
  /** (B, N) prompts, int32 or int64, padded on the left. With `past_key_values`, the whole sequence so far. */
  input_ids: Tensor;
  /** (B, N) with 1 for real tokens; default: everything but the padding token, where the prompt has any. */
  attention_mask?: Tensor;
  /** Parameters that the call does not name, instead of the model's own `generation_config`. */
  generation_config?: GenerationConfig | (GenerationParameters & Readonly<Record<string, unknown>>) | null;
  /** Change the scores before a token is chosen, after `repetition_penalty` and before `temperature`. */
  logits_processor?: readonly LogitsProcessor[];
  /** End rows for reasons of yours. */
  stopping_criteria?: readonly StoppingCriterion[];
  /** Decodes tokens for `stop_strings`. */
  tokenizer?: TextDecoding;
  /**
   * Receives every token at once; generation waits for the promises it returns, until an abort. Not with beams, whose
   * tokens are decided last.
   */
  streamer?: Streamer;
  /**
   * A cache to continue; it is extended in place and stays the caller's. Where a prompt gives several rows
   * (`num_beams`, `num_return_sequences`) its rows are repeated.
   */
  past_key_values?: Cache;
  /**
   * A smaller model with the same vocabulary, which guesses tokens that this one then checks together: fewer forwards,
   * and what is generated is distributed as without it. For one prompt, without beams.
   */
  assistant_model?: Generative;
  /** Stops the generation: the promise rejects with its reason. */
  signal?: AbortSignal;
  /** Passed to `forward`. */
  [kwarg: string]: unknown;
}

/** {@linkcode GenerateRequest} for the sequences alone. */
export interface GenerateOptions extends GenerateRequest {
  /** Return an object with the sequences and what else was asked for; default false. */
  return_dict_in_generate?: false;
}

/** {@linkcode GenerateRequest} for an object with the sequences and what else was asked for. */
export interface GenerateDictOptions extends GenerateRequest {
  /** Return that object. */
  return_dict_in_generate: true;
}

/** Keys `generate` knows; the first two are passed on to `forward`. */
export const KEYS: readonly string[] = [
  "is_causal",
  "sdpa_backends",
  "input_ids",
  "attention_mask",
  "generation_config",
  "logits_processor",
  "stopping_criteria",
  "tokenizer",
  "return_dict_in_generate",
  "seed",
  "streamer",
  "past_key_values",
  "signal",
  "assistant_model",
  ...PARAMETERS,
];
