/**
 * From what a backend computes to the function the registry holds.
 *
 * @module
 */
import type { Tensor } from "../tensor.ts";
import type { Attended } from "./attend.ts";
import type { AttentionKwargs, AttentionMask, AttentionModule, AttentionResult } from "./types.ts";

/** A backend with every result it can give. */
export type Attend = (
  module: AttentionModule,
  query: Tensor,
  key: Tensor,
  value: Tensor,
  attention_mask: AttentionMask,
  kwargs: AttentionKwargs,
) => Attended;

/** A built-in attention function: synchronous, and its keyword arguments may be left out. */
export type BuiltinAttention = (
  module: AttentionModule,
  query: Tensor,
  key: Tensor,
  value: Tensor,
  attention_mask: AttentionMask,
  kwargs?: AttentionKwargs,
) => AttentionResult;

/** `attend` with the signature of the registry. */
export function forwardOf(attend: Attend): BuiltinAttention {
  return (module, query, key, value, attention_mask, kwargs = {}) => {
    const { attn_output, attn_weights } = attend(module, query, key, value, attention_mask, kwargs);
    return [attn_output, attn_weights];
  };
}
