/**
 * What an attention function is told about who sees whom, whatever the form: a dense mask, a block mask, padding, or
 * nothing but the flags of the call.
 *
 * @module
 */
import { isFloat, minOf, present } from "../dtype.ts";
import { hostData, Tensor } from "../tensor.ts";
import type { AttentionMask, MaskFunction } from "./types.ts";

/** The flags of a call that stand for a mask. */
export interface MaskFlags {
  readonly queries: number;
  readonly keys: number;
  readonly is_causal: boolean;
  readonly sliding_window: number | null;
  /** Where the first query sits among the keys; by default the last query sits at the last key. */
  readonly query_offset?: number | undefined;
}

/**
 * Who sees whom, by indices into queries and keys, also after the mask was disposed. Null for a form nobody here can
 * read.
 */
export function visibleOf(mask: AttentionMask, flags: MaskFlags): MaskFunction | null {
  if (mask === null) return byFlags(flags);
  if (!(mask instanceof Tensor)) {
    const { mask_mod } = mask as { mask_mod?: unknown };
    return typeof mask_mod === "function" ? mask_mod as MaskFunction : null;
  }
  if (mask.storage.host === null || (mask.shape.length !== 4 && mask.shape.length !== 2)) return null;
  const dense = denseVisible(mask);
  if (mask.shape.length === 4) return dense;
  const pattern = byFlags(flags);
  // A padding mask wider than the keys ends with them.
  const first = Math.max(0, mask.shape[1]! - flags.keys);
  return (b, h, q, kv) => pattern(b, h, q, kv) && dense(b, 0, 0, first + kv);
}

/** The values of a mask (B, 1 or H, Q, N) or (B, N) that has a host copy: true where a key is visible. */
export function denseVisible(mask: Tensor): MaskFunction {
  const values = present(mask.dtype, hostData(mask));
  const limit = isFloat(mask.dtype) ? minOf(mask.dtype) / 2 : 0;
  const [B, H, Q, N] = mask.shape.length === 4
    ? mask.shape as [number, number, number, number]
    : [mask.shape[0]!, 1, 1, mask.shape[1]!] as const;
  // What has size 1 stands for all.
  const at = (index: number, size: number) => size > 1 ? index : 0;
  return (b, h, q, kv) =>
    kv < N && Number(values[((at(b, B) * H + at(h, H)) * Q + at(q, Q)) * N + kv]) > limit;
}

function byFlags({ queries, keys, is_causal, sliding_window, query_offset }: MaskFlags): MaskFunction {
  const offset = query_offset ?? keys - queries;
  const w = sliding_window ?? Infinity;
  return (_b, _h, q, kv) => {
    const distance = q + offset - kv;
    // With causality a window counts the token itself; without, it reaches to both sides.
    return is_causal ? distance >= 0 && distance < w : Math.abs(distance) <= w;
  };
}

/** A mask in words: what the attention function is given. `flags` says what takes its place where it is null. */
export function describeMask(mask: AttentionMask, flags: string): string {
  if (mask === null) return `null: ${flags}`;
  if (!(mask instanceof Tensor)) return `a block mask of shape [${mask.shape}]`;
  const kind = mask.shape.length === 2
    ? `, true = real token; ${flags}`
    : mask.dtype === "bool"
    ? ", true = visible"
    : ", added to the scores";
  return `a ${mask.dtype} tensor of shape [${mask.shape}]${kind}`;
}
