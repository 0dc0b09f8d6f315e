/**
 * Comparing two outputs of attention, element by element.
 *
 * @module
 */
import type { Tolerance } from "../attention/tolerance.ts";

/** An element in which two outputs differ. */
export interface ElementDifference {
  /** Row of the batch. */
  readonly batch: number;
  /** Position of the token in the sequence. */
  readonly position: number;
  /** Query head. */
  readonly head: number;
  /** Index in the head's output (Dv). */
  readonly channel: number;
  /** The first implementation's value. */
  readonly a: number;
  /** The second's. */
  readonly b: number;
}

/** How two outputs (B, Q, H, Dv) differ. */
export interface OutputDifference {
  /** Largest |a − b|; infinite where one of them is not a number. */
  readonly max_abs: number;
  /** That, in parts of the largest |a|. */
  readonly relative: number;
  /** Root of the mean square of a − b. */
  readonly rms: number;
  /** The element that exceeds its tolerance most, or comes nearest to it; null when all are equal. */
  readonly worst: ElementDifference | null;
  /** `|a − b|` of the worst element in parts of what is allowed: at most 1 where all is well. */
  readonly ratio: number;
  /** Elements beyond the tolerance. */
  readonly exceeding: number;
  /** The first token, and of it the first row and head, beyond the tolerance. */
  readonly first: { readonly batch: number; readonly position: number; readonly head: number } | null;
  /** Heads beyond the tolerance at the first token. */
  readonly heads: readonly number[];
  /** Largest ratio of each query's elements (Q). */
  readonly by_query: Float64Array<ArrayBuffer>;
}

/** What is compared. */
export interface Outputs {
  readonly a: ArrayLike<number>;
  readonly b: ArrayLike<number>;
  /** (B, Q, H, Dv). */
  readonly shape: readonly number[];
  /** Position of the first query. */
  readonly q_offset: number;
  /** `|a − b| ≤ atol + rtol·max(|a|, |b|)`. */
  readonly tolerance: Tolerance;
  /** Whether a row counts: those of padding may hold anything. */
  readonly counts: (batch: number, position: number) => boolean;
}

/** Compares two outputs. */
export function compareOutputs({ a, b, shape, q_offset, tolerance, counts }: Outputs): OutputDifference {
  const [B, Q, H, D] = shape as [number, number, number, number];
  const by_query = new Float64Array(Q);
  const heads = new Set<number>();
  let first: OutputDifference["first"] = null, worst: ElementDifference | null = null;
  let max_abs = 0, largest = 0, squares = 0, n = 0, ratio = 0, exceeding = 0;
  for (let q = 0; q < Q; q++) {
    for (let batch = 0; batch < B; batch++) {
      const position = q_offset + q;
      if (!counts(batch, position)) continue;
      for (let head = 0; head < H; head++) {
        for (let channel = 0; channel < D; channel++) {
          const at = ((batch * Q + q) * H + head) * D + channel;
          const [x, y] = [a[at]!, b[at]!];
          n++;
          if (Number.isFinite(x)) largest = Math.max(largest, Math.abs(x));
          const error = errorOf(x, y);
          if (error === 0) continue;
          max_abs = Math.max(max_abs, error);
          squares += error * error;
          const part = ratioOf(error, x, y, tolerance);
          by_query[q] = Math.max(by_query[q]!, part);
          if (part > ratio) {
            ratio = part;
            worst = { batch, position, head, channel, a: x, b: y };
          }
          if (part <= 1) continue;
          exceeding++;
          first ??= { batch, position, head };
          if (first.position === position && first.batch === batch) heads.add(head);
        }
      }
    }
  }
  return {
    max_abs,
    relative: max_abs === 0 ? 0 : max_abs / largest,
    rms: n === 0 ? 0 : Math.sqrt(squares / n),
    worst,
    ratio,
    exceeding,
    first,
    heads: [...heads],
    by_query,
  };
}

/** |x − y|: 0 for the same infinity and for two NaN, infinite where only one is a number. */
function errorOf(x: number, y: number): number {
  if (x === y || (Number.isNaN(x) && Number.isNaN(y))) return 0;
  const error = Math.abs(x - y);
  return Number.isNaN(error) ? Infinity : error;
}

function ratioOf(error: number, x: number, y: number, { atol, rtol }: Tolerance): number {
  if (error === Infinity) return Infinity;
  const allowed = atol + rtol * Math.max(Math.abs(x), Math.abs(y));
  return allowed === 0 ? Infinity : error / allowed;
}
