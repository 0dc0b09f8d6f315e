/**
 * What the oracle in `reference.ts` is asked, in the forms that are easy to write in a test: nested arrays, flat
 * arrays with a shape, predicates.
 *
 * @module
 */
import { minOf } from "../dtype.ts";
import { InvalidArgument } from "../errors.ts";
import type { BlockMask } from "../masks/block_mask.ts";

/** Nested arrays, or flat row-major `data` with its `shape`. Booleans, `boolean[]` or `Uint8Array` mean a bool array. */
export type ReferenceArray = NestedValues | {
  readonly data: ArrayLike<number | boolean>;
  readonly shape: readonly number[];
};
/** Arrays of arrays of … of numbers or booleans. */
export type NestedValues = readonly (number | boolean | NestedValues)[];

/** What {@linkcode reference_attention} computes; all mask forms that are given hold at once. */
export interface ReferenceCall {
  /** (B, H, Q, D) */
  query: ReferenceArray;
  /** (B, Hkv, K, D); query head h reads key/value head floor(h / (H / Hkv)). */
  key: ReferenceArray;
  /** (B, Hkv, K, Dv) */
  value: ReferenceArray;
  /** Multiplies q·k; default D^-0.5. */
  scaling?: number;
  /** `c·tanh(score / c)` before any mask; none by default. */
  softcap?: number | null;
  /** (H): adds exp(sink) to the denominator of its head. */
  sinks?: ReferenceArray | null;
  /** Query row i stands at key position i + query_offset; default K − Q, the queries are the last positions. */
  query_offset?: number;
  /** Keys after the query's position are masked. Default false. */
  is_causal?: boolean;
  /** w: with `is_causal` the position and the w − 1 before it, else |q − kv| ≤ w. [left, right]: those many to each side, −1 unbounded. */
  sliding_window?: number | readonly [left: number, right: number] | null;
  /** A predicate of (batch, head, query position, key), a block mask, or an array broadcastable to (B, H, Q, K): bool (true = visible) or added to the score, where ≤ min(float32)/2 means masked. */
  mask?:
    | ReferenceArray
    | ((batch_idx: number, head_idx: number, q_idx: number, kv_idx: number) => boolean)
    | Pick<BlockMask, "mask_mod" | "shape">
    | null;
  /** (B, K), true = real key. */
  padding?: ReferenceArray | null;
  /** Query rows that stand on a padded key see nothing. Default false. */
  zero_padded_queries?: boolean;
}
/** Flat row-major results. A fully masked row has zero output and weights, and lse −∞ (with sinks: the sink). */
export interface ReferenceResult {
  /** (B, Q, H, Dv) */
  output: Float64Array<ArrayBuffer>;
  /** (B, H, Q, K) */
  weights: Float64Array<ArrayBuffer>;
  /** (B, H, Q): log Σ exp of the scores, sink included. */
  lse: Float64Array<ArrayBuffer>;
}

/** Four sizes or indices. */
export type Shape = readonly [number, number, number, number];

/** What a mask adds to a score: 0, a bias, or −∞ where it hides the key. */
export function maskValue(
  mask: NonNullable<ReferenceCall["mask"]> | null,
  query_offset: number,
): (...index: Shape) => number {
  if (mask === null) return () => 0;
  if (typeof mask === "function") {
    return (b: number, h: number, i: number, j: number) => mask(b, h, i + query_offset, j) ? 0 : -Infinity;
  }
  if ("mask_mod" in mask) {
    const { mask_mod, shape: [B, H] } = mask;
    return (b, h, i, j) => mask_mod(B === 1 ? 0 : b, H === 1 ? 0 : h, i, j) ? 0 : -Infinity;
  }
  const { data, shape } = flat("mask", mask);
  const bool = data instanceof Uint8Array || typeof data[0] === "boolean";
  return (...index: Shape) => {
    const own = index.slice(4 - shape.length); // right-aligned, as NumPy broadcasts
    const x = data[own.reduce((at, n, axis) => at * shape[axis]! + (shape[axis] === 1 ? 0 : n), 0)];
    return (bool ? !x : Number(x) <= minOf("float32") / 2) ? -Infinity : bool ? 0 : Number(x);
  };
}

/**
 * Checks an array and returns its values, row-major, with its shape.
 *
 * @throws {InvalidArgument}
 */
export function flat(
  name: string,
  x: ReferenceArray,
  rank?: number,
): { data: ArrayLike<number | boolean>; shape: readonly number[] } {
  const shape: number[] = [];
  for (let y: unknown = x; Array.isArray(y); y = y[0]) shape.push(y.length);
  const array = "data" in x ? x : { data: (x as number[]).flat(Infinity) as (number | boolean)[], shape };
  const length = array.shape.reduce((n, size) => n * size, 1);
  if ((rank !== undefined && array.shape.length !== rank) || array.data.length !== length) {
    throw new InvalidArgument(
      `Cannot read ${name} as ${rank ?? 4}-D: shape (${array.shape}) and ${array.data.length} values`,
    );
  }
  return array;
}
