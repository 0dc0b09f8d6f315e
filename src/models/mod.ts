/**
 * Known models: model_type → classes, one line each.
 *
 * @module
 */
import { LlamaForCausalLM, LlamaModel } from "./llama.ts";
import type { ModelParts, PreTrainedModel } from "./pretrained.ts";

/** The classes of one architecture. */
export interface ModelClasses {
  /** Hidden states out. */
  readonly base: new (parts: ModelParts) => PreTrainedModel;
  /** Next-token logits out. */
  readonly causal_lm?: new (parts: ModelParts) => PreTrainedModel;
}

/** Architectures by `model_type`. */
export const MODELS: Readonly<Record<string, ModelClasses>> = {
  llama: { base: LlamaModel, causal_lm: LlamaForCausalLM },
};
