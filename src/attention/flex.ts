/**
 * `flex_attention`: attention under any mask that can be written as a predicate.
 *
 * The tiled kernels walk the blocks: hidden ones are not read, the others read the bits of the block mask.
 *
 * @module
 */
import { minOf } from "../dtype.ts";
import { AttentionRefused, InvalidArgument } from "../errors.ts";
import { BlockMask } from "../masks/block_mask.ts";
import { add, where } from "../ops/elementwise.ts";
import { Tensor } from "../tensor.ts";
import { attend, type Attended, checkKwargs, precisionOf } from "./attend.ts";
import { denseMask } from "./eager.ts";
import { withWeights } from "./sdpa.ts";
import { type BuiltinAttention, forwardOf } from "./forward.ts";
import type { AttentionKwargs, AttentionMask, AttentionModule } from "./types.ts";

/**
 * Attention under a block mask, or a 4-D mask that is added to the scores (or bool). Order inside a score: softcap,
 * mask, `position_bias` (broadcastable to (B, H, Q, K)). Without a mask every key is visible.
 *
 * Source: Transformers, `flex_attention_forward`; PyTorch's FlexAttention (https://arxiv.org/abs/2412.05496).
 *
 * @throws {InvalidArgument} for operands, masks or keyword arguments that do not fit
 * @throws {AttentionRefused} for a `score_mod`
 */
export const flex_attention_forward: BuiltinAttention = forwardOf(flex);

/** As {@linkcode flex_attention_forward}, with the log-sum-exp where `return_lse` asks for it. */
export function flex(
  module: AttentionModule,
  query: Tensor,
  key: Tensor,
  value: Tensor,
  attention_mask: AttentionMask,
  kwargs: AttentionKwargs,
): Attended {
  checkKwargs(kwargs, query.shape[1] ?? 0);
  precisionOf(kwargs, "flex_attention", query.device);
  checkScoreMod(kwargs["score_mod"]);
  const given = attention_mask instanceof BlockMask ? attention_mask : null;
  if (given !== null) checkShape(given, query, key);
  const mask = given === null ? denseMask(attention_mask, "flex_attention") : null;
  using biased = withBias(mask, kwargs["position_bias"]);
  const options = {
    scaling: kwargs.scaling ?? module.scaling,
    softcap: kwargs.softcap,
    sinks: kwargs.s_aux,
    mask: biased ?? mask,
    blocks: given,
  };
  const result = attend(query, key, value, {
    ...options,
    algorithm: "flash",
    lse: kwargs["return_lse"] === true,
  });
  return kwargs.output_attentions === true ? withWeights(result, query, key, value, options) : result;
}

/** @throws {AttentionRefused} */
function checkScoreMod(score_mod: unknown): void {
  if (score_mod === undefined || score_mod === null) return;
  throw new AttentionRefused(
    "Cannot attend with a score_mod: scores change by softcap, position_bias (added, broadcastable to (B, H, Q, K)) and masks only",
  );
}

/** @throws {InvalidArgument} when the mask was made for other lengths */
function checkShape(mask: BlockMask, query: Tensor, key: Tensor): void {
  const [b, h, q, k] = [query.shape[0]!, query.shape[1]!, query.shape[2]!, key.shape[2]!];
  const [mb, mh, mq, mk] = mask.shape;
  if ((mb !== 1 && mb !== b) || (mh !== 1 && mh !== h) || mq !== q || mk !== k) {
    throw new InvalidArgument(
      `Cannot attend with a block mask of shape [${mask.shape}]: expected (B, H, Q, K) = [${b},${h},${q},${k}], B and H may be 1`,
    );
  }
}

/** A float mask that adds `bias` where `mask` shows the key; null without a bias. */
function withBias(mask: Tensor | null, bias: unknown): Tensor | null {
  if (bias === undefined || bias === null) return null;
  if (!(bias instanceof Tensor) || bias.shape.length !== 4) {
    const got = bias instanceof Tensor ? `shape [${bias.shape}]` : typeof bias;
    throw new InvalidArgument(
      `Cannot attend with a position_bias of ${got}: expected a tensor that broadcasts to (B, H, Q, K)`,
    );
  }
  if (mask === null) return bias.view(bias.shape, bias.strides);
  return mask.dtype === "bool" ? where(mask, bias, minOf("float32")) : add(mask, bias);
}
