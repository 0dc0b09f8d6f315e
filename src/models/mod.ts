/**
 * Known models: model_type → how its models are built, one line each.
 *
 * @module
 */
import { BertModel } from "./bert.ts";
import { type DecoderClass, DecoderForCausalLM, DecoderModel } from "./decoder.ts";
import { Gemma2Decoder } from "./gemma2.ts";
import { LlamaDecoder } from "./llama.ts";
import { Llama4Decoder } from "./llama4.ts";
import { LlavaForConditionalGeneration, LlavaModel } from "./llava.ts";
import { MistralDecoder } from "./mistral.ts";
import type { ModelParts, PreTrainedModel } from "./pretrained.ts";

/** Builds a model from a checked config and loaded weights. @throws {InvalidArgument | ModelFileError} */
export type BuildModel = (parts: ModelParts) => PreTrainedModel;

/** The models of one architecture, and how its checkpoints are laid out. */
export interface Architecture {
  /** Hidden states out. */
  readonly base: BuildModel;
  /** Next-token logits out. */
  readonly causal_lm?: BuildModel;
  /** Next-token logits after text and images. */
  readonly image_text_to_text?: BuildModel;
  /** What checkpoints with a head put before the names of the base model. */
  readonly prefix: string;
  /** Weights that these models do not need, by the beginning of their name. */
  readonly unused?: readonly string[];
}

function decoder(Layers: DecoderClass): Architecture {
  return {
    base: (parts) => new DecoderModel(parts, new Layers(parts.config, parts.parameters)),
    causal_lm: (parts) => new DecoderForCausalLM(parts, new Layers(parts.config, parts.parameters)),
    prefix: "model.",
    // The bare model has no head, and with tied weights the embedding stands for it.
    unused: ["lm_head."],
  };
}

/** Architectures by `model_type`. */
export const MODELS: Readonly<Record<string, Architecture>> = {
  bert: {
    base: (parts) => new BertModel(parts),
    prefix: "bert.",
    unused: ["pooler.", "bert.pooler.", "cls."],
  },
  gemma2: decoder(Gemma2Decoder),
  llama: decoder(LlamaDecoder),
  llama4_text: decoder(Llama4Decoder),
  llava: {
    base: (parts) => new LlavaModel(parts),
    image_text_to_text: (parts) => new LlavaForConditionalGeneration(parts),
    prefix: "model.",
    unused: ["vision_tower.", "model.vision_tower.", "language_model.lm_head.", "lm_head."],
  },
  mistral: decoder(MistralDecoder),
};
