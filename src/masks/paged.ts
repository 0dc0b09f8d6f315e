/**
 * The mask of requests that are computed together in one row.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import { checkSize } from "./algebra.ts";
import { describe } from "./structure.ts";
import type { MaskFunction } from "./types.ts";

/**
 * Several requests in one row: queries cu_seq_lens_q[r]…cu_seq_lens_q[r + 1] of request r see its keys
 * cu_seq_lens_k[r]…cu_seq_lens_k[r + 1] causally, aligned to the last key, and of those the last `sliding_window`
 * where there is one.
 *
 * `paged_mask_function([0, 2, 3], [0, 3, 5], null)`:
 *
 * ```text
 *      kv 0…4
 * q 0  ■ ■ ⬚ ⬚ ⬚
 * q 1  ■ ■ ■ ⬚ ⬚
 * q 2  ⬚ ⬚ ⬚ ■ ■
 * ```
 *
 * Method: Transformers, the attention masks of continuous batching.
 *
 * @throws {InvalidArgument} for limits that do not count up from 0, or that differ in number.
 */
export function paged_mask_function(
  cu_seq_lens_q: readonly number[],
  cu_seq_lens_k: readonly number[],
  sliding_window: number | null,
): MaskFunction {
  checkLimits(cu_seq_lens_q, cu_seq_lens_k);
  if (sliding_window !== null) checkSize(sliding_window, "a sliding window");
  const queries = cu_seq_lens_q.at(-1)!;
  const lo = new Int32Array(queries), hi = new Int32Array(queries);
  for (let r = 0; r + 1 < cu_seq_lens_q.length; r++) {
    const [from, to] = [cu_seq_lens_q[r]!, cu_seq_lens_q[r + 1]!];
    const [first, end] = [cu_seq_lens_k[r]!, cu_seq_lens_k[r + 1]!];
    for (let q = from; q < to; q++) {
      hi[q] = Math.max(first, end - to + q + 1);
      lo[q] = sliding_window === null ? first : Math.max(first, hi[q]! - sliding_window);
    }
  }
  const inside = (q: number): boolean => q >= 0 && q < queries;
  return describe((_b, _h, q, kv) => inside(q) && kv >= lo[q]! && kv < hi[q]!, {
    kind: "interval",
    lo: (_b, q) => inside(q) ? lo[q]! : 0,
    hi: (_b, q) => inside(q) ? hi[q]! : 0,
    perBatch: false,
  });
}

function checkLimits(q: readonly number[], k: readonly number[]): void {
  const counts = (list: readonly number[]) =>
    list.length > 1 && list[0] === 0 &&
    list.every((x, i) => Number.isSafeInteger(x) && x >= (list[i - 1] ?? 0));
  if (counts(q) && counts(k) && q.length === k.length) return;
  throw new InvalidArgument(
    `Cannot tell requests apart by cu_seq_lens_q [${q}] and cu_seq_lens_k [${k}]: ` +
      "expected equally many integers that count up from 0",
  );
}
