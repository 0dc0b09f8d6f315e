/**
 * The fields of a Mistral configuration: Llama's, with a window by default.
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import { decoderFields, tokenSpan } from "./decoder_config.ts";
import { checkAlike, type LlamaFields } from "./llama_config.ts";

/** Window where the configuration does not say (null says none). */
const WINDOW = 4096;

/**
 * Checks the fields of a Mistral configuration and fills in the defaults of the format.
 *
 * @throws {InvalidArgument | ModelFileError} naming the field, what was expected and what was found.
 */
export function mistralConfig(config: PretrainedConfig): LlamaFields {
  const fields = decoderFields(config, { max_position_embeddings: 4096 * 32 });
  const sliding_window = tokenSpan(config, "sliding_window", WINDOW);
  checkAlike(config, fields.num_hidden_layers, sliding_window);
  return { ...fields, attention_bias: false, mlp_bias: false, sliding_window };
}
