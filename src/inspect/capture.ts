/**
 * What is kept of the first side's calls until the second side's are compared with them.
 *
 * @module
 */
import { max } from "../ops/reduce.ts";
import { maximum, neg } from "../ops/elementwise.ts";
import { keep, tidy, tidySettled } from "../scope.ts";
import { Tensor } from "../tensor.ts";
import type { AttentionTrace } from "./trace.ts";

/** A call that outlives its forward. */
export interface CapturedCall extends Disposable {
  readonly trace: AttentionTrace;
  readonly bytes: number;
}

/** Bytes a call keeps alive: its keys and values are views of the cache, where there is one. */
export function captureBytes({ query, key, value, attn_output, kwargs }: AttentionTrace): number {
  const cached = kwargs["use_cache"] === true;
  return 4 * (query.size + attn_output.size + (cached ? 0 : key.size + value.size));
}

/** Keeps a call beyond the visit, without copying. */
export function capture(trace: AttentionTrace): CapturedCall {
  const view = (t: Tensor) => keep(t.view(t.shape, t.strides));
  const { query, key, value, attn_output, attention_mask } = trace;
  const [q, k, v, o] = [view(query), view(key), view(value), view(attn_output)] as const;
  const mask = attention_mask instanceof Tensor ? view(attention_mask) : attention_mask;
  return {
    trace: { ...trace, query: q, key: k, value: v, attn_output: o, attention_mask: mask },
    bytes: captureBytes(trace),
    [Symbol.dispose]() {
      for (const t of [q, k, v, o, mask]) if (t instanceof Tensor) t[Symbol.dispose]();
    },
  };
}

/** The output (B, Q, H, Dv) of the function of `of` over the operands of `over`, with everything else its own. */
export async function attendOver(
  of: AttentionTrace,
  over: AttentionTrace,
  here: boolean,
): Promise<Float32Array> {
  using operands = new DisposableStack();
  const place = async (t: Tensor) =>
    // Memories of two models are apart, also on one device.
    operands.use(
      here ? t.view(t.shape, t.strides) : await t.copied(of.query.device),
    );
  const [q, k, v] = [await place(over.query), await place(over.key), await place(over.value)];
  const result = await tidySettled(() => of.attend(of.module, q, k, v, of.attention_mask, of.kwargs));
  const [output, weights = null] = result;
  try {
    return await output.data() as Float32Array;
  } finally {
    output[Symbol.dispose]();
    weights?.[Symbol.dispose]();
  }
}

/** The largest |value| of a call, by which the error of a weighted mean grows; 1 where that is no number. */
export async function magnitudeOf({ value }: AttentionTrace): Promise<number> {
  using largest = tidy(() => max(maximum(value, neg(value))));
  const [x] = await largest.data() as Float32Array;
  return Number.isFinite(x) && x! > 0 ? x! : 1;
}
