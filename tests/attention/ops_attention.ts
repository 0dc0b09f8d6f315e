/**
 * An attention function as a user would write it: public operations only, masks in the form of `sdpa`.
 *
 * @module
 */
import { type AttentionFunction, ops, Tensor } from "../../mod.ts";

/** Softmax attention on `ops`: GQA by `repeat_kv`, a bool mask (B, 1, Q, K), or causal where there is none. */
export const opsAttention: AttentionFunction = (module, query, key, value, attention_mask, kwargs) => {
  const groups = query.shape[1]! / key.shape[1]!;
  const [q, k] = [query.shape[2]!, key.shape[2]!];
  const scores = ops.mul(
    ops.matmul(query, ops.repeat_kv(key, groups), { transpose_b: true }),
    kwargs.scaling ?? module.scaling,
  );
  const causal = attention_mask === null && q > 1 && (kwargs.is_causal ?? module.is_causal);
  const mask = causal ? lowerTriangle(q, k, query.device) : attention_mask as Tensor | null;
  const weights = ops.softmax(mask === null ? scores : ops.where(mask, scores, -Infinity));
  return [ops.permute(ops.matmul(weights, ops.repeat_kv(value, groups)), [0, 2, 1, 3]), weights];
};

function lowerTriangle(q: number, k: number, device: Tensor["device"]): Tensor {
  const keep = Uint8Array.from({ length: q * k }, (_, at) => Number(at % k <= Math.floor(at / k)));
  return Tensor.from(keep, { shape: [1, 1, q, k], dtype: "bool", device });
}
