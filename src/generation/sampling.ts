/**
 * Choosing tokens from scores by chance.
 *
 * Exponentials are made of + − × only, and everything else on the host is exact or ordered arithmetic, so a seed gives
 * the same tokens on every engine in deterministic mode; `Math.exp` may differ between them in its last digit.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";

export { randomGenerator } from "../random.ts";

/** How tokens are chosen. */
export interface SamplingOptions {
  /** Sample; default false: take the most probable token. */
  do_sample?: boolean;
  /** Divides the logits; default 1. */
  temperature?: number;
  /** Sample among the k most probable tokens; default 50, 0 means all. */
  top_k?: number;
  /** Sample among the most probable tokens whose probabilities reach p together; default 1. */
  top_p?: number;
  /** Sample among tokens at least this fraction as probable as the most probable one. */
  min_p?: number | null;
  /** Makes sampling repeatable; default: random. */
  seed?: number;
}

/** 2^−k. */
const HALVES = new Float64Array(1076);
for (let k = 0, value = 1; k < HALVES.length; k++, value /= 2) HALVES[k] = value;
/** ln 2 in two parts, the first with trailing zeros, so that a small multiple of it is exact (Cody & Waite 1980). */
const LN2_HIGH = 6.93147180369123816490e-1, LN2_LOW = 1.90821492927058770002e-10;
/** 1/n. */
const INVERSE = Float64Array.from({ length: 14 }, (_, n) => n === 0 ? 0 : 1 / n);

/** e^x for x ≤ 0 in arithmetic that every engine does alike; its relative error is below 10⁻¹⁵. */
export function exp(x: number): number {
  if (!(x >= -745)) return Number.isNaN(x) ? NaN : 0;
  const k = Math.round(x / Math.LN2);
  const r = x - k * LN2_HIGH - k * LN2_LOW;
  let sum = 1;
  for (let n = 13; n > 0; n--) sum = 1 + sum * (r * INVERSE[n]!);
  return sum * HALVES[-k]!;
}

/**
 * Index of the largest score, the first of equal ones.
 *
 * @throws {InvalidArgument} where one is NaN, or all are −∞
 */
export function argmaxOf(scores: Float32Array): number {
  let best = 0, top = scores[0]!;
  for (let i = 1; i < scores.length; i++) {
    // A NaN is taken, and stays.
    if (scores[i]! <= top || Number.isNaN(top)) continue;
    best = i;
    top = scores[i]!;
  }
  checkLargest(top);
  return best;
}

/**
 * Checks the largest of a row's scores.
 *
 * @throws {InvalidArgument} for NaN and −∞
 */
export function checkLargest(top: number): void {
  if (top > -Infinity) return;
  throw new InvalidArgument("Cannot choose the next token: the model's logits are not finite");
}

/** The weights of scores, e^score up to a factor, and their sum. */
export function weightsOf(scores: Float32Array): { weights: Float64Array; total: number } {
  let top = -Infinity;
  for (let i = 0; i < scores.length; i++) if (scores[i]! > top) top = scores[i]!;
  const weights = new Float64Array(scores.length);
  let total = 0;
  for (let i = 0; i < scores.length; i++) total += weights[i] = exp(scores[i]! - top);
  if (!(total > 0 && total < Infinity)) {
    throw new InvalidArgument("Cannot sample the next token: the model's logits are not finite");
  }
  return { weights, total };
}

/** Draws an index with a probability proportional to its weight. */
export function draw(weights: Float64Array, total: number, random: () => number): number {
  let left = random() * total;
  let last = 0;
  for (let i = 0; i < weights.length; i++) {
    if (weights[i] === 0) continue;
    left -= weights[i]!;
    last = i;
    if (left < 0) break;
  }
  return last;
}
