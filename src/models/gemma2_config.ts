/**
 * The fields of a Gemma 2 configuration, checked before anything is allocated from them.
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import { type DecoderFields, decoderFields, layerTypes, softcap, tokenSpan } from "./decoder_config.ts";

/** A checked Gemma 2 configuration. */
export interface Gemma2Fields extends DecoderFields {
  /** Scores are scaled by its inverse root. */
  readonly query_pre_attn_scalar: number;
  /** Cap of attention scores, or null for none. */
  readonly attn_logit_softcapping: number | null;
  /** Cap of logits, or null for none. */
  readonly final_logit_softcapping: number | null;
  /** `sliding_attention` or `full_attention`, per layer. */
  readonly layer_types: readonly string[];
  /** Keys a query of a sliding layer sees, itself included. */
  readonly sliding_window: number;
}

const LAYER_TYPES = ["sliding_attention", "full_attention"];

/**
 * Checks the fields of a Gemma 2 configuration and fills in the defaults of the format.
 *
 * @throws {InvalidArgument | ModelFileError} naming the field, what was expected and what was found.
 */
export function gemma2Config(config: PretrainedConfig): Gemma2Fields {
  const read = config.read;
  const fields = decoderFields(config, {
    head_dim: 256,
    tie_word_embeddings: true,
    max_position_embeddings: 8192,
    activation: ["hidden_activation", "gelu_pytorch_tanh"],
  });
  if (read.boolean("use_bidirectional_attention", { default: false })) {
    throw read.refuse("use_bidirectional_attention", "false; pass is_causal: false to forward instead,");
  }
  const layer_types = layerTypes(read, fields.num_hidden_layers, LAYER_TYPES, (i) => LAYER_TYPES[i % 2]!);
  const window = tokenSpan(config, "sliding_window", 4096);
  if (window === null && layer_types.includes("sliding_attention")) {
    throw read.refuse(
      "sliding_window",
      "an integer of at least 1, because layer_types has sliding_attention,",
    );
  }
  return {
    ...fields,
    query_pre_attn_scalar: read.number("query_pre_attn_scalar", { above: 0, max: 1e9, default: 256 }),
    attn_logit_softcapping: softcap(config, "attn_logit_softcapping", 50),
    final_logit_softcapping: softcap(config, "final_logit_softcapping", 30),
    layer_types,
    sliding_window: window ?? fields.max_position_embeddings,
  };
}
