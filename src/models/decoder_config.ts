/**
 * What the configurations of decoders have in common, checked before anything is allocated from them.
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import type { Fields } from "../config_fields.ts";
import type { Activation } from "../layers/mlp.ts";

/** Names that configurations use for activations. */
export const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  silu: "silu",
  swish: "silu",
  gelu: "gelu",
  gelu_new: "gelu_tanh",
  gelu_pytorch_tanh: "gelu_tanh",
  gelu_fast: "gelu_tanh",
  quick_gelu: "quick_gelu",
  relu: "relu",
};

/** Rotary position embedding, https://arxiv.org/abs/2104.09864; `inverse frequency = theta^(-2i/D)`, then scaled. */
export type RopeParameters =
  | { readonly rope_type: "default"; readonly rope_theta: number }
  | { readonly rope_type: "linear"; readonly rope_theta: number; readonly factor: number }
  | {
    readonly rope_type: "llama3";
    readonly rope_theta: number;
    readonly factor: number;
    readonly low_freq_factor: number;
    readonly high_freq_factor: number;
    readonly original_max_position_embeddings: number;
  };

/** The checked fields every decoder has. */
export interface DecoderFields {
  /** Rows of the embedding. */
  readonly vocab_size: number;
  /** Width of the residual stream. */
  readonly hidden_size: number;
  /** Width of the feed-forward layer. */
  readonly intermediate_size: number;
  /** Number of decoder layers. */
  readonly num_hidden_layers: number;
  /** H */
  readonly num_attention_heads: number;
  /** Hkv, divides H. */
  readonly num_key_value_heads: number;
  /** D, even. */
  readonly head_dim: number;
  /** Added to the mean square before its root. */
  readonly rms_norm_eps: number;
  /** Rotary embedding. */
  readonly rope: RopeParameters;
  /** Whether the four attention projections have a bias. */
  readonly attention_bias: boolean;
  /** Whether the output projection is the embedding. */
  readonly tie_word_embeddings: boolean;
  /** Activation of the gate. */
  readonly hidden_act: Activation;
  /** Positions the model was trained for. */
  readonly max_position_embeddings: number;
  /** Used in training only. */
  readonly attention_dropout: number;
  /** Token that begins a text. */
  readonly bos_token_id: number | null;
  /** Tokens that end a text; empty when none does. */
  readonly eos_token_ids: readonly number[];
  /** Token that fills a batch. */
  readonly pad_token_id: number | null;
  /** null leaves it to the model, which is causal. */
  readonly is_causal: boolean | null;
}

/** What an architecture fills in where its configuration is silent. */
export interface DecoderDefaults {
  readonly hidden_size?: number;
  readonly intermediate_size?: number;
  readonly num_hidden_layers?: number;
  readonly num_attention_heads?: number;
  /** Default: hidden size over heads. */
  readonly head_dim?: number;
  readonly rms_norm_eps?: number;
  readonly rope_theta?: number;
  readonly tie_word_embeddings?: boolean;
  readonly max_position_embeddings?: number;
  /** Field that names the activation, and what it is by default. */
  readonly activation?: readonly [field: string, otherwise: string];
}

// Bounds far above any published model: they keep products exact and refuse nonsense before it costs anything.
const MAX_SIZE = 2 ** 20;
const MAX_LAYERS = 1024;
const MAX_HEADS = 4096;
const MAX_HEAD_DIM = 1024;
const MAX_IDS = 2 ** 24;
/** Most positions, and the widest window. */
export const MAX_POSITIONS = 2 ** 30;
const ROPE_TYPES = ["default", "linear", "llama3"];

/**
 * Checks the fields every decoder has and fills in defaults.
 *
 * @throws {InvalidArgument | ModelFileError} naming the field, what was expected and what was found.
 */
export function decoderFields(config: PretrainedConfig, defaults: DecoderDefaults = {}): DecoderFields {
  const read = config.read;
  const hidden_size = size(read, "hidden_size", defaults.hidden_size);
  const { heads, kvHeads } = headCounts(read, defaults.num_attention_heads);
  const max_position_embeddings = read.integer("max_position_embeddings", {
    min: 1,
    max: MAX_POSITIONS,
    default: defaults.max_position_embeddings ?? 2048,
  });
  return {
    vocab_size: vocabSize(read),
    hidden_size,
    intermediate_size: size(read, "intermediate_size", defaults.intermediate_size),
    num_hidden_layers: layerCount(read, defaults.num_hidden_layers),
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim: headDim(read, hidden_size, heads, defaults.head_dim),
    rms_norm_eps: epsilon(read, "rms_norm_eps", defaults.rms_norm_eps ?? 1e-6),
    rope: ropeParameters(read, max_position_embeddings, defaults.rope_theta),
    attention_bias: read.boolean("attention_bias", { default: false }),
    tie_word_embeddings: read.boolean("tie_word_embeddings", {
      default: defaults.tie_word_embeddings ?? false,
    }),
    hidden_act: activation(read, ...defaults.activation ?? ["hidden_act", "silu"] as const),
    max_position_embeddings,
    attention_dropout: read.number("attention_dropout", { min: 0, max: 1, default: 0 }),
    bos_token_id: tokenId(read, "bos_token_id"),
    eos_token_ids: read.integers("eos_token_id", { min: 0, max: MAX_IDS }),
    pad_token_id: tokenId(read, "pad_token_id"),
    is_causal: config.is_causal,
  };
}

/** A width. Without `otherwise` the field is required. */
export function size(read: Fields, name: string, otherwise?: number): number {
  return read.integer(name, { min: 1, max: MAX_SIZE, ...fallback(otherwise) });
}

/** Rows of the embedding. */
export function vocabSize(read: Fields): number {
  return read.integer("vocab_size", { min: 1, max: MAX_IDS });
}

/** Number of layers. */
export function layerCount(read: Fields, otherwise?: number): number {
  return read.integer("num_hidden_layers", { min: 1, max: MAX_LAYERS, ...fallback(otherwise) });
}

/** H and Hkv, which divides it. */
export function headCounts(read: Fields, otherwise?: number): { heads: number; kvHeads: number } {
  const heads = read.integer("num_attention_heads", { min: 1, max: MAX_HEADS, ...fallback(otherwise) });
  const kvHeads = read.integer("num_key_value_heads", { min: 1, max: MAX_HEADS, default: heads });
  if (heads % kvHeads !== 0) {
    throw read.refuse("num_key_value_heads", `a divisor of num_attention_heads, ${heads}`);
  }
  return { heads, kvHeads };
}

/** D: stated, or the architecture's, or hidden size over heads. Rotation pairs its halves, so it is even. */
export function headDim(read: Fields, hidden_size: number, heads: number, otherwise?: number): number {
  const rule = { min: 2, max: MAX_HEAD_DIM, multiple_of: 2 };
  if (read.has("head_dim") || otherwise !== undefined) {
    return read.integer("head_dim", { ...rule, ...fallback(otherwise) });
  }
  const head_dim = hidden_size / heads;
  if (Number.isInteger(head_dim) && head_dim % 2 === 0 && head_dim <= MAX_HEAD_DIM) return head_dim;
  throw read.refuse(
    "head_dim",
    `an even integer up to ${MAX_HEAD_DIM}, because hidden_size / num_attention_heads is ${head_dim}`,
  );
}

/** What a normalisation adds before its root. */
export function epsilon(read: Fields, name: string, otherwise: number): number {
  return read.number(name, { above: 0, max: 1, default: otherwise });
}

/** A window or chunk of tokens. `otherwise` stands for a missing field; null is no window. */
export function tokenSpan(config: PretrainedConfig, name: string, otherwise: number | null): number | null {
  if (config[name] === null) return null;
  return config.read.integer(name, { min: 1, max: MAX_POSITIONS, default: otherwise });
}

/** A cap of `c·tanh(x / c)`. `otherwise` stands for a missing field; null is no cap. */
export function softcap(config: PretrainedConfig, name: string, otherwise: number | null): number | null {
  if (config[name] === null) return null;
  return config.read.number(name, { above: 0, max: 1e6, default: otherwise });
}

/**
 * The type of every layer: listed, or by rule.
 *
 * @throws {InvalidArgument | ModelFileError} for a list of another length or an unknown type
 */
export function layerTypes(
  read: Fields,
  layers: number,
  known: readonly string[],
  otherwise: (index: number) => string,
): readonly string[] {
  if (!read.has("layer_types")) return Array.from({ length: layers }, (_, i) => otherwise(i));
  const types = read.strings("layer_types", { known });
  if (types.length !== layers) {
    throw read.refuse("layer_types", `one of ${known.join(", ")} for each of ${layers} layers`);
  }
  return types;
}

/**
 * Writes what an architecture fills in onto the config, where caches, mask builders and attention functions look for
 * it. Fields that are there stay as they are.
 */
export function settle(config: PretrainedConfig, fields: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(fields)) {
    if (config[name] === undefined) config[name] = Array.isArray(value) ? [...value] : value;
  }
}

/** An activation by the name configurations use. */
export function activation(read: Fields, name: string, otherwise: string): Activation {
  const found = read.string(name, { default: otherwise, known: Object.keys(ACTIVATIONS) });
  const known = ACTIVATIONS[found];
  if (known === undefined) throw read.refuse(name, `one of ${Object.keys(ACTIVATIONS).join(", ")}`);
  return known;
}

/** A token, or null. Old conversions say -1 for "none". */
export function tokenId(read: Fields, name: string): number | null {
  const id = read.integer(name, { min: -1, max: MAX_IDS, default: null });
  return id === -1 ? null : id;
}

/**
 * `rope_parameters`, or the older `rope_theta` with `rope_scaling`. Where a config has both, `rope_scaling` stands in the
 * place of the other, all of it, as in Transformers: a base that only `rope_parameters` has does not count.
 */
export function ropeParameters(
  read: Fields,
  max_position_embeddings: number,
  otherwise = 10000,
): RopeParameters {
  const field = ["rope_scaling", "rope_parameters"].find((name) =>
    read.has(name) && !read.object(name).is_empty
  );
  const theta = { above: 0, max: 1e15 };
  const top = read.number("rope_theta", { ...theta, default: otherwise });
  if (field === undefined) return { rope_type: "default", rope_theta: top };
  const rope = read.object(field);
  const rope_theta = rope.number("rope_theta", { ...theta, default: top });
  if (rope.number("partial_rotary_factor", { default: 1 }) !== 1) {
    throw rope.refuse("partial_rotary_factor", "1, rotating only a part of each head is not supported,");
  }
  // Before 2024 the type was called "type".
  const name = rope.has("rope_type") || !rope.has("type") ? "rope_type" : "type";
  const rope_type = rope.string(name, { default: "default", known: ROPE_TYPES });
  if (rope_type === "default") return { rope_type, rope_theta };
  const factor = rope.number("factor", { min: 1, max: 1e6 });
  if (rope_type === "linear") return { rope_type, rope_theta, factor };
  const low_freq_factor = rope.number("low_freq_factor", { above: 0, max: 1e6 });
  const high_freq_factor = rope.number("high_freq_factor", { above: low_freq_factor, max: 1e6 });
  const original_max_position_embeddings = rope.integer("original_max_position_embeddings", {
    min: 1,
    max: MAX_POSITIONS,
    default: max_position_embeddings,
  });
  return {
    rope_type: "llama3",
    rope_theta,
    factor,
    low_freq_factor,
    high_freq_factor,
    original_max_position_embeddings,
  };
}

function fallback(otherwise: number | undefined): { default?: number } {
  return otherwise === undefined ? {} : { default: otherwise };
}
