/**
 * Mistral: Llama's decoder, where a token sees a window of those before it (Jiang et al. 2023, arXiv 2310.06825).
 *
 * The window reaches every attention function twice, as in the reference: in the mask, and as `sliding_window` for
 * those whose masks hold padding only.
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import type { Parameters } from "../layers/parameter.ts";
import { settle } from "./decoder_config.ts";
import { LlamaDecoder } from "./llama.ts";
import { mistralConfig } from "./mistral_config.ts";

/** The layers of Mistral. */
export class MistralDecoder extends LlamaDecoder {
  /**
   * Builds the decoder from a checked config.
   *
   * @throws {InvalidArgument | ModelFileError} for a field out of range, or missing or misshapen weights
   */
  constructor(config: PretrainedConfig, parameters: Parameters) {
    const fields = mistralConfig(config);
    super(config, parameters, fields);
    settle(config, { sliding_window: fields.sliding_window });
  }
}
