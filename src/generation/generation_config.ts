/**
 * GenerationConfig: how a model generates unless a call says otherwise.
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import { copyJson, isRecord, show } from "../config_fields.ts";
import { AttuneError, InvalidArgument, ModelFileError } from "../errors.ts";
import type { ModelFiles } from "../hub/files.ts";
import { type HubOptions, hubOptions, openFiles } from "../hub/open.ts";
import type { ReadOptions } from "../hub/source.ts";
import { type GenerationParameters, type ParameterName, PARAMETERS, RULES } from "./parameters.ts";

/** The file of a model folder. */
const GENERATION_CONFIG_FILE = "generation_config.json";

/**
 * Parameters of a generation as plain fields, as `generation_config.json` holds them; what is null or missing is
 * not said. Fields this library does not know are kept. `JSON.stringify` gives the content of a file again.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const config = new GenerationConfig({ do_sample: true, temperature: 0.7 });
 * config.top_k = 20;
 * assertEquals(JSON.stringify(config), '{"do_sample":true,"temperature":0.7,"top_k":20}');
 * ```
 *
 * Source: Transformers, `GenerationConfig`.
 */
export class GenerationConfig {
  /**
   * Copies `fields`. Their types are checked here, their ranges when they are used.
   *
   * @throws {InvalidArgument} for a field of the wrong type
   */
  constructor(fields: GenerationParameters & Readonly<Record<string, unknown>> = {}) {
    if (!isRecord(fields)) {
      throw new InvalidArgument(`Cannot make a GenerationConfig of ${show(fields)}: expected fields`);
    }
    for (const [key, value] of Object.entries(fields)) {
      if (value === undefined) continue;
      if (key in GenerationConfig.prototype) {
        throw new InvalidArgument(`Cannot set ${key} of a GenerationConfig: the name belongs to the class`);
      }
      const rule = Object.hasOwn(RULES, key) ? RULES[key as ParameterName] : null;
      if (rule !== null && value !== null && !rule.type(value)) {
        throw new InvalidArgument(
          `Cannot read ${key} of a generation config: expected ${rule.expected}, found ${show(value)}`,
        );
      }
      this[key] = copyJson(value, key);
    }
  }

  /**
   * Reads the content of a file, which errors name.
   *
   * @throws {ModelFileError} for a field of the wrong type
   */
  static from_json(json: unknown, file: string): GenerationConfig {
    if (!isRecord(json)) {
      throw new ModelFileError(`Cannot read ${file}: expected an object, found ${show(json)}`);
    }
    try {
      return new GenerationConfig(json);
    } catch (error) {
      if (!(error instanceof AttuneError)) throw error;
      throw new ModelFileError(`${error.message} (${file})`, { cause: error });
    }
  }

  /**
   * Reads `generation_config.json` of a model: of a folder, a URL or a hub's repository.
   *
   * @throws {ModelFileError} when the file is missing or malformed, or cannot be fetched
   */
  static async from_pretrained(
    idOrPathOrUrl: string | URL,
    options: HubOptions = {},
  ): Promise<GenerationConfig> {
    const files = await openFiles(idOrPathOrUrl, hubOptions(options));
    const { signal } = options;
    return await readGenerationConfig(files, signal === undefined ? {} : { signal });
  }

  /** What a model without a file begins with: the special tokens of its config. */
  static from_model_config(config: PretrainedConfig): GenerationConfig {
    const fields: Record<string, unknown> = { _from_model_config: true };
    for (const part of [...Object.values(config.sub_configs), config]) {
      for (const name of ["bos_token_id", "eos_token_id", "pad_token_id"]) {
        if ((part[name] ?? null) !== null) fields[name] = part[name];
      }
    }
    return new GenerationConfig(fields);
  }

  /** The fields as a plain object, a copy. */
  to_dict(): Record<string, unknown> {
    return Object.fromEntries(Object.entries(this).map(([key, value]) => [key, copyJson(value, key)]));
  }
}

/** The generation config among the files of a model, or null where there is none. */
export async function loadGenerationConfig(
  files: ModelFiles,
  read: ReadOptions,
): Promise<GenerationConfig | null> {
  return await files.has(GENERATION_CONFIG_FILE, read) ? await readGenerationConfig(files, read) : null;
}

async function readGenerationConfig(files: ModelFiles, read: ReadOptions): Promise<GenerationConfig> {
  const json = await files.json(GENERATION_CONFIG_FILE, undefined, read);
  return GenerationConfig.from_json(json, `${files.describe()}/${GENERATION_CONFIG_FILE}`);
}

/** The fields of a generation config, by their names. */
export interface GenerationConfig extends GenerationParameters {
  /** Any other field of the file. */
  [field: string]: unknown;
}

/** Parameters of Transformers that change what is generated and that are not computed here, with what makes them idle. */
const NOT_APPLIED: Readonly<Record<string, readonly unknown[]>> = {
  bad_words_ids: [],
  begin_suppress_tokens: [],
  constraints: [],
  diversity_penalty: [0],
  dola_layers: [],
  encoder_no_repeat_ngram_size: [0],
  encoder_repetition_penalty: [1],
  epsilon_cutoff: [0],
  eta_cutoff: [0],
  exponential_decay_length_penalty: [],
  force_words_ids: [],
  forced_bos_token_id: [],
  forced_eos_token_id: [],
  guidance_scale: [1],
  max_time: [],
  no_repeat_ngram_size: [0],
  num_beam_groups: [1],
  penalty_alpha: [0],
  remove_invalid_values: [false],
  renormalize_logits: [false],
  sequence_bias: [],
  suppress_tokens: [],
  token_healing: [false],
  top_h: [],
  typical_p: [1],
  use_cache: [true],
  watermarking_config: [],
};

/** Other parameters of Transformers' `GenerationConfig` and `generate`, which say how it computes, or what prompts are. */
const OTHERS: readonly string[] = [
  "assistant_confidence_threshold",
  "assistant_early_exit",
  "assistant_ensemble_weight",
  "assistant_lookbehind",
  "assistant_tokenizer",
  "bos_token_id",
  "cache_config",
  "compile_config",
  "continuous_batching_config",
  "custom_generate",
  "decoder_start_token_id",
  "disable_compile",
  "inputs",
  "is_assistant",
  "low_memory",
  "max_cache_len",
  "negative_prompt_attention_mask",
  "negative_prompt_ids",
  "num_assistant_tokens_schedule",
  "prefill_chunk_size",
  "prefix_allowed_tokens_fn",
  "speculation_type",
  "synced_gpus",
  "target_lookbehind",
  "use_model_defaults",
  "use_mtp",
];

/**
 * The options of a call without parameters of Transformers that are not here, where these are idle: no attention
 * function is meant by them.
 *
 * @throws {InvalidArgument} where they are not
 */
export function withoutForeign(
  options: Readonly<Record<string, unknown>>,
  known: readonly string[],
): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(options).filter(([name, value]) => {
      const applies = Object.hasOwn(NOT_APPLIED, name) || OTHERS.includes(name);
      if (known.includes(name) || !applies) return true;
      const idle = NOT_APPLIED[name] ?? [];
      if (value === undefined || value === null || idle.includes(value)) return false;
      throw new InvalidArgument(
        name === "use_cache"
          ? `Cannot generate with use_cache ${
            show(value)
          }: every step continues a cache; expected true, or a forward without one, model.forward({ use_cache: false })`
          : `Cannot generate with ${name} ${
            show(value)
          }: this parameter of Transformers is not computed here; expected null, or no such option`,
      );
    }),
  );
}

/** Fields a generation config may have, known here or to Transformers. */
export const KNOWN_FIELDS: readonly string[] = [...PARAMETERS, ...Object.keys(NOT_APPLIED), "bos_token_id"];

/** Names of fields a config sets that have no effect here. */
export function fieldsNotApplied(config: Readonly<Record<string, unknown>>): string[] {
  return Object.entries(config).filter(([name, value]) =>
    value !== null && value !== undefined &&
    ((Object.hasOwn(NOT_APPLIED, name) && !NOT_APPLIED[name]!.includes(value)) ||
      (name === "return_dict_in_generate" && value === true))
  ).map(([name]) => name);
}

/** The parameters a config says: those that are there and not null. */
export function parametersOf(
  config: Readonly<Record<string, unknown>>,
): Partial<Record<ParameterName, unknown>> {
  return Object.fromEntries(
    PARAMETERS.filter((name) => (config[name] ?? null) !== null).map((name) => [name, config[name]]),
  );
}
