/**
 * What lets a model generate.
 *
 * @module
 */
import type { KvDType } from "../cache/kv_dtype.ts";
import type { DeviceName } from "../devices/device.ts";
import type { PretrainedConfig } from "../config.ts";
import { create_masks_for_generate } from "../masks/generate.ts";
import type { AttentionMask, MaskArgs } from "../masks/types.ts";
import type { ForwardInputs, ForwardOutput } from "../models/inputs.ts";
import type { Tensor } from "../tensor.ts";
import { generate, type GenerateDictOptions, type GenerateOptions, type GenerateOutput } from "./generate.ts";
import { GenerationConfig } from "./generation_config.ts";

/** The part of a model that generates, over its `forward`. */
export abstract class GenerationMixin {
  /** Type keys and values are kept in by the caches that are made for calls; null keeps what layers compute. */
  abstract readonly kv_dtype: KvDType | null;
  /** Where the model computes. */
  abstract readonly device: DeviceName;
  /** How the model generates unless a call says otherwise; from `generation_config.json`, and yours to change. */
  generation_config: GenerationConfig;

  /**
   * Begins with the special tokens of a model's config.
   *
   * @internal
   */
  constructor(config: PretrainedConfig) {
    this.generation_config = GenerationConfig.from_model_config(config);
  }

  /** Number of tokens in the vocabulary. */
  abstract readonly vocab_size: number;
  /**
   * Keys of `forward` that only this architecture has.
   *
   * @internal
   */
  abstract get input_keys(): readonly string[];
  /**
   * The part of the config that describes the layers of tokens, by which caches are made.
   *
   * @internal
   */
  abstract get text_config(): PretrainedConfig;
  /** Computes logits. */
  abstract forward(inputs: ForwardInputs): Promise<ForwardOutput>;

  /** Whether the model has a language-modelling head. */
  can_generate(): boolean {
    return false;
  }

  /**
   * Generates tokens after `input_ids` (B, N): greedy by default, sampling with `do_sample`, searching with
   * `num_beams`. Returns (B · num_return_sequences, N + new) int64, prompts included, or with
   * `return_dict_in_generate` an object that has these as `sequences`; rows that end early are padded.
   *
   * @throws {InvalidArgument} for options that do not fit, before anything is computed, and where all scores of a row
   *   are NaN or −∞
   * @throws the signal's reason when aborted
   */
  generate(options: GenerateOptions): Promise<Tensor>;
  /** As above, as an object. */
  generate(options: GenerateDictOptions): Promise<GenerateOutput>;
  async generate(options: GenerateOptions | GenerateDictOptions): Promise<Tensor | GenerateOutput> {
    return await generate(this, options);
  }

  /**
   * The masks of one step of `generate` with a cache of fixed length and a mask (B, length) or none; a model class may
   * override it. It is called inside the forward, before the cache is extended, and must not wait for anything.
   *
   * @throws {InvalidArgument} for inputs that do not fit each other
   */
  create_masks_for_generate(args: MaskArgs): AttentionMask | Record<string, AttentionMask> {
    return create_masks_for_generate(args);
  }
}
