/**
 * THE oracle: attention as nested loops in float64. Slow on purpose, compared itself with recordings of PyTorch;
 * every kernel on every device is compared with it. What it may be asked, and with which shapes, is
 * {@linkcode ReferenceCall}.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import { flat, maskValue, type ReferenceCall, type ReferenceResult, type Shape } from "./reference_call.ts";

export type { NestedValues, ReferenceArray, ReferenceCall, ReferenceResult } from "./reference_call.ts";

/**
 * Attention by its definition, in float64: query (B, H, Q, D), key (B, Hkv, K, D) and value (B, Hkv, K, Dv) give
 * output (B, Q, H, Dv), weights (B, H, Q, K) and lse (B, H, Q).
 *
 * @throws {InvalidArgument} for shapes that do not fit
 *
 * @example One query that sees two of three keys
 * ```ts
 * import { reference_attention } from "@attune/attune/testing";
 * import { assertEquals } from "@std/assert";
 *
 * const { output, weights } = reference_attention({
 *   query: [[[[0, 0]]]],
 *   key: [[[[1, 0], [0, 1], [1, 1]]]],
 *   value: [[[[2], [4], [100]]]],
 *   mask: (_b, _h, _q, kv) => kv < 2,
 * });
 * assertEquals([...output], [3]);
 * assertEquals([...weights], [0.5, 0.5, 0]);
 * ```
 */
export function reference_attention(call: ReferenceCall): ReferenceResult {
  const q = flat("query", call.query, 4), k = flat("key", call.key, 4), v = flat("value", call.value, 4);
  const [B, H, Q, D] = q.shape as Shape, [, Hkv, K] = k.shape as Shape, Dv = v.shape[3]!;
  if (`${[B, Hkv, K, D]}` !== `${k.shape}` || `${[B, Hkv, K, Dv]}` !== `${v.shape}` || H % Hkv !== 0) {
    throw new InvalidArgument(`Cannot attend query (${q.shape}) to key (${k.shape}) and value (${v.shape})`);
  }
  const { scaling = D ** -0.5, softcap, is_causal = false, query_offset = K - Q, sliding_window: w } = call;
  const [left, right] = w == null ? [-1, -1] : typeof w !== "number" ? w : is_causal ? [w - 1, -1] : [w, w];
  const sinks = call.sinks ? flat("sinks", call.sinks, 1).data : null;
  const padding = call.padding ? flat("padding", call.padding, 2).data : null;
  const mask = maskValue(call.mask ?? null, query_offset);
  const output = new Float64Array(B * Q * H * Dv), weights = new Float64Array(B * H * Q * K);
  const lse = new Float64Array(B * H * Q).fill(-Infinity);
  for (let b = 0; b < B; b++) {
    for (let h = 0; h < H; h++) {
      const kv = b * Hkv + Math.floor(h / (H / Hkv));
      for (let i = 0; i < Q; i++) {
        const row = (b * H + h) * Q + i, p = i + query_offset;
        const blank = call.zero_padded_queries && padding !== null && p >= 0 && p < K && !padding[b * K + p];
        const scores = new Float64Array(K).fill(-Infinity);
        for (let j = 0; j < K && !blank; j++) {
          if ((is_causal && j > p) || (left >= 0 && j < p - left) || (right >= 0 && j > p + right)) continue;
          const bias = padding === null || padding[b * K + j] ? mask(b, h, i, j) : -Infinity;
          if (bias === -Infinity) continue;
          let s = 0;
          for (let d = 0; d < D; d++) s += Number(q.data[row * D + d]) * Number(k.data[(kv * K + j) * D + d]);
          s *= scaling;
          if (softcap) s = softcap * Math.tanh(s / softcap);
          scores[j] = s + bias;
        }
        const sink = sinks === null ? -Infinity : Number(sinks[h]);
        const max = scores.reduce((a, s) => Math.max(a, s), sink);
        if (max === -Infinity) continue;
        const sum = scores.reduce((a, s) => a + Math.exp(s - max), Math.exp(sink - max));
        lse[row] = max + Math.log(sum);
        for (let j = 0; j < K; j++) {
          const weight = weights[row * K + j] = Math.exp(scores[j]! - max) / sum;
          if (weight === 0) continue;
          const to = ((b * Q + i) * H + h) * Dv, from = (kv * K + j) * Dv;
          for (let d = 0; d < Dv; d++) output[to + d]! += weight * Number(v.data[from + d]);
        }
      }
    }
  }
  return { output, weights, lse };
}
