/**
 * The fields of a Llama configuration, checked before anything is allocated from them.
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import {
  type DecoderDefaults,
  type DecoderFields,
  decoderFields,
  layerTypes,
  tokenSpan,
} from "./decoder_config.ts";

/** A checked Llama configuration. */
export interface LlamaFields extends DecoderFields {
  /** Whether the feed-forward projections have a bias. */
  readonly mlp_bias: boolean;
  /** Keys a query sees, itself included, or null for all. */
  readonly sliding_window: number | null;
}

/**
 * Checks the fields of a Llama configuration and fills in the defaults of the format.
 *
 * @throws {InvalidArgument | ModelFileError} naming the field, what was expected and what was found.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { PretrainedConfig } from "../config.ts";
 *
 * const fields = llamaConfig(new PretrainedConfig({
 *   vocab_size: 64, hidden_size: 32, intermediate_size: 56, num_hidden_layers: 2, num_attention_heads: 4,
 * }));
 * assertEquals([fields.head_dim, fields.num_key_value_heads, fields.rope.rope_theta], [8, 4, 10000]);
 * ```
 */
export function llamaConfig(config: PretrainedConfig, defaults: DecoderDefaults = {}): LlamaFields {
  const fields = decoderFields(config, defaults);
  const sliding_window = tokenSpan(config, "sliding_window", null);
  checkAlike(config, fields.num_hidden_layers, sliding_window);
  return { ...fields, mlp_bias: config.read.boolean("mlp_bias", { default: false }), sliding_window };
}

/**
 * Checks `layer_types`, by which caches are made, where an architecture has layers of one type only. Those of a window may
 * keep every token.
 *
 * @throws {InvalidArgument | ModelFileError}
 */
export function checkAlike({ read }: PretrainedConfig, layers: number, sliding_window: number | null): void {
  const known = ["full_attention", ...(sliding_window === null ? [] : ["sliding_attention"])];
  const types = layerTypes(read, layers, known, () => known[0]!);
  if (new Set(types).size > 1) throw read.refuse("layer_types", `one type for all ${layers} layers`);
}
