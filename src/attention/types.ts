/**
 * The types every attention function shares.
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import type { AttentionPrecision } from "../devices/device.ts";
import type { AttentionMask } from "../masks/types.ts";
import type { Tensor } from "../tensor.ts";
import type { SDPBackend } from "./sdpa_kernel.ts";

export type { AttentionMask };

/** Output (B, Q, H, Dv), and the weights (B, H, Q, K) where the function has them. */
export type AttentionResult = [attn_output: Tensor, attn_weights: Tensor | null];

/** The layer an attention function is called for. */
export interface AttentionModule {
  /** The configuration of the model (or sub-model) the layer belongs to. */
  readonly config: PretrainedConfig;
  /** Index of the layer, from 0. */
  readonly layer_idx: number;
  /** Whether the layer is causal when the call does not say. */
  readonly is_causal: boolean;
  /** Factor of q·k. */
  readonly scaling: number;
  /** Query heads per key/value head. */
  readonly num_key_value_groups: number;
}

/** Keyword arguments of an attention function: the known ones, and whatever the caller passed to `forward`. */
export interface AttentionKwargs {
  /** Factor of q·k; default `module.scaling`, else D^-0.5. */
  scaling?: number | null;
  /** Must be 0: this library runs inference only. */
  dropout?: number;
  /** Overrides `module.is_causal`. */
  is_causal?: boolean | null;
  /** Keys a query sees, itself included. */
  sliding_window?: number | null;
  /** Scores become `c·tanh(score / c)` before the mask. */
  softcap?: number | null;
  /** Sink logits (H). */
  s_aux?: Tensor | null;
  /** (B, Q) positions of the queries. */
  position_ids?: Tensor | null;
  /** Kernels `sdpa` may use, the preferred one first; default: what `sdpa_kernel` selected. */
  sdpa_backends?: readonly SDPBackend[];
  /** How queries and keys are multiplied; default `"float32"`. `"int8"` is `flash_attention_3` on WASM alone. */
  precision?: AttentionPrecision;
  /** Where the first query sits among the keys: given when those behind the last one are slots that no token has filled. */
  query_offset?: number;
  /** Return the weights, whatever the implementation. */
  output_attentions?: boolean;
  /** Whatever the caller passed to `forward`. */
  [kwarg: string]: unknown;
}

/**
 * An attention function, as the registry holds it. Query (B, H, Q, D), key (B, Hkv, K, D), value (B, Hkv, K, Dv);
 * the key/value cache is already updated, so K includes the past. Inputs belong to the caller and the results to
 * the caller too; tensors made on the way are disposed for a synchronous function.
 *
 * A function must not wait for a forward, `generate`, a move or the disposal of the model that calls it: these wait for
 * that model's turn, which ends with the forward the function is part of. An abort of that forward ends the waiting for a
 * function; what it returns later is disposed.
 */
export type AttentionFunction = (
  module: AttentionModule,
  query: Tensor,
  key: Tensor,
  value: Tensor,
  attention_mask: AttentionMask,
  kwargs: AttentionKwargs,
) => AttentionResult | Promise<AttentionResult>;
