/**
 * Known models: model_type → how its models are built, one line each.
 *
 * @module
 */
import { BertModel } from "./bert.ts";
import { type DecoderClass, DecoderForCausalLM, DecoderModel } from "./decoder.ts";
import { Gemma2Decoder } from "./gemma2.ts";
import { gemmaInit, type Initialization, llavaInit, standardInit } from "./initial.ts";
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
  /** The same in a new checkpoint, where it differs. */
  readonly new_prefix?: string;
  /** Weights that these models do not need, by the beginning of their name. */
  readonly unused?: readonly string[];
  /** Weights that take part in nothing here but belong to the model: they are kept, for saving it. */
  readonly kept?: readonly string[];
  /** How the weights of a new model begin. */
  readonly initial: Initialization;
}

function decoder(
  Layers: DecoderClass,
  [base, causal_lm]: readonly [base: string, causal_lm: string],
  initial = standardInit,
): Architecture {
  const layers = ({ config, parameters }: ModelParts) => new Layers(config, parameters);
  return {
    base: (parts) => new DecoderModel({ ...parts, class_name: base }, layers(parts)),
    causal_lm: (parts) => new DecoderForCausalLM({ ...parts, class_name: causal_lm }, layers(parts)),
    prefix: "model.",
    // The bare model has no head, and with tied weights the embedding stands for it.
    unused: ["lm_head."],
    initial,
  };
}

/** Architectures by `model_type`. */
export const MODELS: Readonly<Record<string, Architecture>> = {
  bert: {
    base: (parts) => new BertModel({ ...parts, class_name: "BertModel" }),
    prefix: "bert.",
    unused: ["cls."],
    kept: ["pooler.", "bert.pooler."],
    initial: standardInit,
  },
  gemma2: decoder(Gemma2Decoder, ["Gemma2Model", "Gemma2ForCausalLM"], gemmaInit),
  llama: decoder(LlamaDecoder, ["LlamaModel", "LlamaForCausalLM"]),
  llama4_text: decoder(Llama4Decoder, ["Llama4TextModel", "Llama4ForCausalLM"]),
  llava: {
    base: (parts) => new LlavaModel({ ...parts, class_name: "LlavaModel" }),
    image_text_to_text: (parts) =>
      new LlavaForConditionalGeneration({ ...parts, class_name: "LlavaForConditionalGeneration" }),
    prefix: "model.",
    new_prefix: "",
    unused: ["language_model.lm_head.", "lm_head."],
    kept: ["vision_tower.", "model.vision_tower."],
    initial: llavaInit,
  },
  mistral: decoder(MistralDecoder, ["MistralModel", "MistralForCausalLM"]),
};
