/**
 * The fields of a Llama configuration, checked before anything is allocated from them.
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import type { Fields } from "../config_fields.ts";

/** Activation of the feed-forward layer, by the name devices use. */
export type Activation = "silu" | "gelu" | "gelu_tanh" | "quick_gelu" | "relu";

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

/** A checked Llama configuration. */
export interface LlamaFields {
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
  /** Whether the feed-forward projections have a bias. */
  readonly mlp_bias: boolean;
  /** Whether the output projection is the embedding. */
  readonly tie_word_embeddings: boolean;
  /** Activation of the gate. */
  readonly hidden_act: Activation;
  /** Positions the model was trained for. */
  readonly max_position_embeddings: number;
  /** Keys a query sees, itself included, or null for all. */
  readonly sliding_window: number | null;
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

// Bounds far above any published model: they keep products exact and refuse nonsense before it costs anything.
const MAX_SIZE = 2 ** 20;
const MAX_LAYERS = 1024;
const MAX_HEADS = 4096;
const MAX_HEAD_DIM = 1024;
const MAX_IDS = 2 ** 24;
const MAX_POSITIONS = 2 ** 30;
const ROPE_TYPES = ["default", "linear", "llama3"];

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
export function llamaConfig(config: PretrainedConfig): LlamaFields {
  const read = config.read;
  const size = { min: 1, max: MAX_SIZE };
  const hidden_size = read.integer("hidden_size", size);
  const heads = read.integer("num_attention_heads", { min: 1, max: MAX_HEADS });
  const kvHeads = read.integer("num_key_value_heads", { min: 1, max: MAX_HEADS, default: heads });
  if (heads % kvHeads !== 0) {
    throw read.refuse("num_key_value_heads", `a divisor of num_attention_heads, ${heads},`);
  }
  const max_position_embeddings = read.integer("max_position_embeddings", {
    min: 1,
    max: MAX_POSITIONS,
    default: 2048,
  });
  return {
    vocab_size: read.integer("vocab_size", { min: 1, max: MAX_IDS }),
    hidden_size,
    intermediate_size: read.integer("intermediate_size", size),
    num_hidden_layers: read.integer("num_hidden_layers", { min: 1, max: MAX_LAYERS }),
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim: headDim(read, hidden_size, heads),
    rms_norm_eps: read.number("rms_norm_eps", { above: 0, max: 1, default: 1e-6 }),
    rope: ropeParameters(read, max_position_embeddings),
    attention_bias: read.boolean("attention_bias", { default: false }),
    mlp_bias: read.boolean("mlp_bias", { default: false }),
    tie_word_embeddings: read.boolean("tie_word_embeddings", { default: false }),
    hidden_act: activation(read, "hidden_act", "silu"),
    max_position_embeddings,
    sliding_window: read.integer("sliding_window", { min: 1, max: MAX_POSITIONS, default: null }),
    attention_dropout: read.number("attention_dropout", { min: 0, max: 1, default: 0 }),
    bos_token_id: tokenId(read, "bos_token_id"),
    eos_token_ids: read.integers("eos_token_id", { min: 0, max: MAX_IDS }),
    pad_token_id: tokenId(read, "pad_token_id"),
    is_causal: config.is_causal,
  };
}

/** D: stated, or hidden size over heads. Rotation pairs its halves, so it is even. */
export function headDim(read: Fields, hidden_size: number, heads: number): number {
  const rule = { min: 2, max: MAX_HEAD_DIM, multiple_of: 2 };
  if (read.has("head_dim")) return read.integer("head_dim", rule);
  const head_dim = hidden_size / heads;
  if (Number.isInteger(head_dim) && head_dim % 2 === 0 && head_dim <= MAX_HEAD_DIM) return head_dim;
  throw read.refuse(
    "head_dim",
    `an even integer up to ${MAX_HEAD_DIM}, because hidden_size / num_attention_heads is ${head_dim}`,
  );
}

/** An activation by the name configurations use. */
export function activation(read: Fields, name: string, otherwise: string): Activation {
  const found = read.string(name, { default: otherwise, known: Object.keys(ACTIVATIONS) });
  const known = ACTIVATIONS[found];
  if (known === undefined) throw read.refuse(name, `one of ${Object.keys(ACTIVATIONS).join(", ")}`);
  return known;
}

/** Old conversions say -1 for "none". */
function tokenId(read: Fields, name: string): number | null {
  const id = read.integer(name, { min: -1, max: MAX_IDS, default: null });
  return id === -1 ? null : id;
}

/** `rope_parameters`, or the older `rope_theta` with `rope_scaling`. */
export function ropeParameters(read: Fields, max_position_embeddings: number): RopeParameters {
  const field = read.has("rope_parameters")
    ? "rope_parameters"
    : read.has("rope_scaling")
    ? "rope_scaling"
    : null;
  const theta = { above: 0, max: 1e15 };
  const top = read.number("rope_theta", { ...theta, default: 10000 });
  if (field === null) return { rope_type: "default", rope_theta: top };
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
