/**
 * The fields of a BERT configuration, checked before anything is allocated from them.
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import type { Activation } from "../layers/mlp.ts";
import { activation, epsilon, headCounts, layerCount, size, vocabSize } from "./decoder_config.ts";

/** A checked BERT configuration. */
export interface BertFields {
  /** Rows of the word embedding. */
  readonly vocab_size: number;
  /** Rows of the segment embedding. */
  readonly type_vocab_size: number;
  /** Rows of the position embedding: the longest text. */
  readonly max_position_embeddings: number;
  /** Width of the residual stream. */
  readonly hidden_size: number;
  /** Width of the feed-forward layer. */
  readonly intermediate_size: number;
  /** Number of layers. */
  readonly num_hidden_layers: number;
  /** H */
  readonly num_attention_heads: number;
  /** Activation of the feed-forward layer. */
  readonly hidden_act: Activation;
  /** Added to the variance before its root. */
  readonly layer_norm_eps: number;
}

/**
 * Checks the fields of a BERT configuration and fills in the defaults of the format.
 *
 * @throws {InvalidArgument | ModelFileError} naming the field, what was expected and what was found; also for BERT as
 * a decoder, which is not supported.
 */
export function bertConfig(config: PretrainedConfig): BertFields {
  const read = config.read;
  for (const name of ["is_decoder", "add_cross_attention"]) {
    if (read.boolean(name, { default: false })) throw read.refuse(name, "false, BERT is an encoder here,");
  }
  const kind = read.string("position_embedding_type", { default: "absolute", known: ["absolute"] });
  if (kind !== "absolute") throw read.refuse("position_embedding_type", "absolute");
  const hidden_size = size(read, "hidden_size", 768);
  const { heads } = headCounts(read, 12);
  if (hidden_size % heads !== 0) {
    throw read.refuse("num_attention_heads", `a divisor of hidden_size, ${hidden_size}`);
  }
  return {
    vocab_size: vocabSize(read),
    type_vocab_size: size(read, "type_vocab_size", 2),
    max_position_embeddings: size(read, "max_position_embeddings", 512),
    hidden_size,
    intermediate_size: size(read, "intermediate_size", 3072),
    num_hidden_layers: layerCount(read, 12),
    num_attention_heads: heads,
    hidden_act: activation(read, "hidden_act", "gelu"),
    layer_norm_eps: epsilon(read, "layer_norm_eps", 1e-12),
  };
}
