/**
 * How the weights of a new model begin, as in Transformers' `_init_weights`.
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";

/** Numbers a weight begins with: all one value, or normal about 0, except one row of zeros where there is one. */
export type Initial =
  | { readonly value: number }
  | { readonly deviation: number; readonly zero_row?: number };

/** How the weight `name` of a model begins. */
export type Initialization = (name: string, config: PretrainedConfig) => Initial;

/** Zero biases, unit norms, everything else normal; the embedding of the padding token is zero. */
export const standardInit: Initialization = (name, { read }) => {
  const [module = "", part = ""] = name.split(".").slice(-2);
  if (part === "bias") return { value: 0 };
  if (/norm/i.test(module)) return { value: 1 };
  // As in the reference, 0 counts as missing.
  const deviation = read.number("initializer_range", { min: 0, default: 0.02 }) || 0.02;
  const padded = /^(embed_tokens|word_embeddings)$/.test(module) && read.has("pad_token_id");
  return padded ? { deviation, zero_row: read.integer("pad_token_id") } : { deviation };
};

/** Gemma's norms multiply by 1 + w. */
export const gemmaInit: Initialization = (name, config) => {
  const initial = standardInit(name, config);
  return "value" in initial ? { value: 0 } : initial;
};

/** CLIP's vision tower: deviations that shrink with width and depth, times `initializer_factor`. */
const clipInit: Initialization = (name, config) => {
  const initial = standardInit(name, config);
  if ("value" in initial) return initial;
  const { read } = config;
  const width = read.integer("hidden_size", { min: 1, default: 768 });
  const depth = read.integer("num_hidden_layers", { min: 1, default: 12 });
  const factor = read.number("initializer_factor", { min: 0, default: 1 });
  const scale = (): number => {
    if (/class_embedding$|out_proj\.weight$/.test(name)) return width ** -0.5;
    if (/[qkv]_proj\.weight$|fc2\.weight$/.test(name)) return width ** -0.5 * (2 * depth) ** -0.5;
    if (/fc1\.weight$/.test(name)) return (2 * width) ** -0.5;
    return initial.deviation;
  };
  return { deviation: scale() * factor };
};

/** LLaVA: its language model and projector by the text part, its tower as CLIP. */
export const llavaInit: Initialization = (name, config) => {
  const { text_config, vision_config } = config.sub_configs;
  return name.includes("vision_tower.")
    ? clipInit(name, vision_config ?? config)
    : standardInit(name, text_config ?? config);
};
