/**
 * The types masks are made of: predicates, formatters, and what builders need of a config and a cache.
 *
 * @module
 */
import type { DeviceName } from "../devices/device.ts";
import type { DType } from "../dtype.ts";
import type { NestedArray } from "../tensor_data.ts";
import type { Tensor } from "../tensor.ts";

/** Whether query position `q_idx` may attend to key position `kv_idx`; positions are absolute. Must be pure. */
export type MaskFunction = (batch_idx: number, head_idx: number, q_idx: number, kv_idx: number) => boolean;

/** The shape by which a block-sparse mask is known to builders, which only pass it through. */
export interface BlockMaskLike {
  /** (B, H, Q, K). */
  readonly shape: readonly number[];
  /** Number of partly visible key blocks per query block. */
  readonly kv_num_blocks: unknown;
  /** Indices of those blocks. */
  readonly kv_indices: unknown;
}

/** What an attention function receives as its mask. */
export type AttentionMask = Tensor | BlockMaskLike | null;

/** A matrix of 0/1 values, ids or positions: a tensor with a host copy, or nested arrays. */
export type MatrixInput = Tensor | NestedArray;

/** What mask code reads of a model config. Values are checked when they are read. */
export interface MaskConfig {
  /** Active implementation name. */
  readonly _attn_implementation?: string | null;
  /** `false` makes the causal builders bidirectional. */
  readonly is_causal?: unknown;
  /** Window of the sliding builders, in tokens. */
  readonly sliding_window?: unknown;
  /** Chunk size of the chunked builder, in tokens. */
  readonly attention_chunk_size?: unknown;
  /** One type name per layer. */
  readonly layer_types?: unknown;
  /** Number of query heads, to find predicates that depend on the head. */
  readonly num_attention_heads?: unknown;
  /** Nested configs by attribute name. */
  readonly sub_configs?: unknown;
}

/** What mask builders need of a key/value cache. */
export interface MaskCache {
  /** Number of keys after `query_length` new tokens, and the absolute position of the first one. */
  get_mask_sizes(query_length: number, layer_idx?: number): [kv_length: number, kv_offset: number];
  /** Absolute position of the first new token. */
  get_query_offset(layer_idx?: number): number;
  /** Whether each layer keeps only a window. */
  readonly is_sliding: readonly boolean[];
  /** Whether shapes stay fixed from step to step (a static cache). */
  readonly is_compileable: boolean;
}

/** Arguments of a {@linkcode MaskFormatter}. `B` batch, `Q` query length, `N` key length. */
export interface MaskFormatterArgs {
  /** B. */
  batch_size: number;
  /** Q. */
  q_length: number;
  /** N. */
  kv_length: number;
  /** Absolute position of the first query; default 0. */
  q_offset?: number;
  /** Absolute position of the first key; default 0. */
  kv_offset?: number;
  /** The pattern, in absolute positions; default causal. Padding is not part of it. */
  mask_function?: MaskFunction;
  /** (B, length) bool, true for real tokens, indexed by absolute key position. */
  attention_mask?: Tensor | null;
  /** Config of the model; `num_attention_heads` is read for predicates that depend on the head. */
  config?: MaskConfig;
  /** dtype of an additive mask; default float32. */
  dtype?: DType;
  /** Where the mask will be used; default `"wasm"`. */
  device?: DeviceName;
  /** Whether null may stand for "causal". */
  allow_is_causal_skip?: boolean;
  /** Whether null may stand for "everything visible". */
  allow_is_bidirectional_skip?: boolean;
  /** Size of a local pattern (window or chunk); skips must not lose it. */
  local_size?: number;
  /** Names of the caller's constraints inside `mask_function` that no kernel argument expresses. */
  constraints?: readonly string[];
  /** Formatters must accept arguments they do not know. */
  [kwarg: string]: unknown;
}

/** Turns a predicate and padding into the form one attention function wants, or null when it needs no mask. */
export type MaskFormatter = (args: MaskFormatterArgs) => AttentionMask;

/** What builders need of `inputs_embeds`: its shape (B, Q, ·), dtype and, where it has one, device. */
export interface EmbedsLike {
  /** (B, Q, hidden); the width may be 0. */
  readonly shape: readonly number[];
  /** Element type of additive masks. */
  readonly dtype?: DType;
  /** Device of the masks. */
  readonly device?: DeviceName;
}

/** Arguments of the `create_*_mask` family. */
export interface MaskArgs {
  /** Model config; its `_attn_implementation` chooses the formatter. */
  config: MaskConfig;
  /** (B, Q, hidden). */
  inputs_embeds: EmbedsLike;
  /** (B, length) with 1 for real tokens, or a finished 4-D mask, which is returned as it is. */
  attention_mask?: MatrixInput | BlockMaskLike | null;
  /** Cache of the forward, before its update. */
  past_key_values?: MaskCache | null;
  /** (B, Q) or (1, Q) positions; restarts mark packed sequences. */
  position_ids?: MatrixInput | null;
  /** Opens what the base pattern hides. */
  or_mask_function?: MaskFunction | null;
  /** Hides what the pattern shows. */
  and_mask_function?: MaskFunction | null;
  /** (B, length) block ids; tokens of one block (id ≥ 0) see each other in both directions. */
  block_sequence_ids?: MatrixInput | null;
  /** Layer whose cache sizes count; default: the first layer of the builder's kind. */
  layer_idx?: number | null;
  /** (B, K, hidden) of an encoder: keys are its positions. */
  encoder_hidden_states?: EmbedsLike | null;
  /** Overrides `config.is_causal` for this call. */
  is_causal?: boolean | null;
  /** Whether the causal family may return null for "causal"; default true. */
  allow_is_causal_skip?: boolean;
  /** Whether the bidirectional family may return null for "everything"; default true. */
  allow_is_bidirectional_skip?: boolean;
}
