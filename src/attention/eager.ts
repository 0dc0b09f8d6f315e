/**
 * `eager`: materialises the scores, and returns the attention weights.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import { Tensor } from "../tensor.ts";
import { attend, type Attended, checkKwargs, precisionOf } from "./attend.ts";
import { type BuiltinAttention, forwardOf } from "./forward.ts";
import type { AttentionKwargs, AttentionMask, AttentionModule } from "./types.ts";

/**
 * Softmax(q·kᵀ·scaling, softcapped, + mask) · v. Only the mask matters: `is_causal` and `sliding_window` are
 * ignored, as in the reference (Transformers, `eager_attention_forward`).
 *
 * @throws {InvalidArgument} for operands, masks or keyword arguments that do not fit
 */
export const eager_attention_forward: BuiltinAttention = forwardOf(eager);

/** As {@linkcode eager_attention_forward}, with the log-sum-exp where `return_lse` asks for it. */
export function eager(
  module: AttentionModule,
  query: Tensor,
  key: Tensor,
  value: Tensor,
  attention_mask: AttentionMask,
  kwargs: AttentionKwargs,
): Attended {
  checkKwargs(kwargs, query.shape[1] ?? 0);
  precisionOf(kwargs, "eager", query.device);
  return attend(query, key, value, {
    algorithm: "eager",
    scaling: kwargs.scaling ?? module.scaling,
    softcap: kwargs.softcap,
    sinks: kwargs.s_aux,
    mask: denseMask(attention_mask, "eager"),
    weights: true,
    lse: kwargs["return_lse"] === true,
  });
}

/**
 * The mask as a tensor of rank 4.
 *
 * @throws {InvalidArgument} for block masks and 2-D masks
 */
export function denseMask(mask: AttentionMask, name: string): Tensor | null {
  if (mask === null || mask === undefined) return null;
  if (!(mask instanceof Tensor) || mask.shape.length !== 4) {
    const what = mask instanceof Tensor ? `a mask of shape [${mask.shape}]` : "a block mask";
    throw new InvalidArgument(
      `Cannot attend with "${name}" and ${what}: expected a tensor (B, H, Q, K) that may have ones; format it with AttentionMaskInterface`,
    );
  }
  return mask;
}
