/**
 * The public case table of attention: what any implementation must compute, as rows of plain data. A row says which
 * keys are visible; the implementation's own mask formatter says in which form it is told.
 *
 * @module
 */

/** A row of the table. What is left out takes the plainest value. */
export interface ConformanceCase {
  /** Unique in its table. */
  readonly name: string;
  /** B; default 1. */
  readonly batch?: number;
  /** H; default 2. */
  readonly heads?: number;
  /** Hkv, divides H; default H. */
  readonly kv_heads?: number;
  /** Q. */
  readonly queries: number;
  /** K; queries are its last positions. */
  readonly keys: number;
  /** D; default 8. */
  readonly head_dim?: number;
  /** Dv; default D. */
  readonly value_dim?: number;
  /** Keys after the query's position are hidden. Default false. */
  readonly is_causal?: boolean;
  /** w: with `is_causal` the query's position and the w − 1 before it, else |q − kv| ≤ w. */
  readonly sliding_window?: number;
  /** Real keys of each batch row, and the side on which the others lie. */
  readonly padding?: { readonly side: "left" | "right"; readonly lengths: readonly number[] };
  /** Keys are hidden where this says false: forms of mask that only some implementations take. */
  readonly visible?: (batch: number, head: number, query: number, key: number) => boolean;
  /** `c·tanh(score / c)`. */
  readonly softcap?: number;
  /** Sink logits of the heads, seeded. Default false. */
  readonly sinks?: boolean;
  /** Default D^-0.5. */
  readonly scaling?: number;
  /** Multiplies query and key. Default 1. */
  readonly magnitude?: number;
}

/** What every implementation is asked. */
export const CONFORMANCE_CASES: readonly ConformanceCase[] = [
  { name: "one query, one key", queries: 1, keys: 1 },
  { name: "no mask", batch: 2, queries: 5, keys: 7 },
  { name: "no mask, more keys than a tile", queries: 3, keys: 133 },
  { name: "causal prefill", batch: 2, queries: 9, keys: 9, is_causal: true },
  { name: "causal prefill, longer than a tile", heads: 1, queries: 70, keys: 70, is_causal: true },
  { name: "causal decode over a cache", batch: 2, queries: 1, keys: 33, is_causal: true },
  { name: "causal chunk over a cache", queries: 4, keys: 11, is_causal: true },
  { name: "grouped heads, prefill", heads: 4, kv_heads: 2, queries: 6, keys: 6, is_causal: true },
  { name: "grouped heads, decode", batch: 2, heads: 6, kv_heads: 2, queries: 1, keys: 9 },
  { name: "one key/value head", batch: 2, heads: 4, kv_heads: 1, queries: 5, keys: 5, is_causal: true },
  { name: "head dimension 64", queries: 5, keys: 9, head_dim: 64, is_causal: true },
  { name: "head dimension 6, not a multiple of 4", queries: 5, keys: 9, head_dim: 6 },
  { name: "values narrower than keys", queries: 5, keys: 9, value_dim: 4 },
  { name: "values wider than keys", queries: 3, keys: 5, value_dim: 12, is_causal: true },
  { name: "another scaling", queries: 4, keys: 4, scaling: 0.1, is_causal: true },
  { name: "large scores", queries: 4, keys: 20, magnitude: 6, scaling: 1 },
  {
    name: "left padding",
    batch: 3,
    queries: 7,
    keys: 7,
    is_causal: true,
    padding: { side: "left", lengths: [7, 4, 1] },
  },
  {
    name: "left padding, decode over a cache",
    batch: 2,
    heads: 4,
    kv_heads: 2,
    queries: 1,
    keys: 12,
    is_causal: true,
    padding: { side: "left", lengths: [12, 3] },
  },
  {
    name: "left padding, not causal",
    batch: 2,
    queries: 5,
    keys: 5,
    padding: { side: "left", lengths: [5, 2] },
  },
  {
    name: "right padding",
    batch: 2,
    queries: 6,
    keys: 6,
    is_causal: true,
    padding: { side: "right", lengths: [6, 3] },
  },
  {
    name: "right padding, not causal",
    batch: 2,
    queries: 6,
    keys: 6,
    padding: { side: "right", lengths: [2, 6] },
  },
  {
    name: "a sequence of nothing but padding: zeros",
    batch: 2,
    queries: 4,
    keys: 4,
    is_causal: true,
    padding: { side: "left", lengths: [4, 0] },
  },
  { name: "window", queries: 12, keys: 12, is_causal: true, sliding_window: 4 },
  { name: "window 1: each position sees itself", queries: 6, keys: 6, is_causal: true, sliding_window: 1 },
  { name: "window wider than the keys", queries: 6, keys: 6, is_causal: true, sliding_window: 50 },
  { name: "window on decode", queries: 1, keys: 40, is_causal: true, sliding_window: 7 },
  { name: "window, not causal", queries: 11, keys: 11, sliding_window: 2 },
  {
    name: "window with left padding",
    batch: 2,
    queries: 9,
    keys: 9,
    is_causal: true,
    sliding_window: 3,
    padding: { side: "left", lengths: [9, 6] },
  },
  { name: "softcap", queries: 5, keys: 9, softcap: 2, magnitude: 3, is_causal: true },
  { name: "softcap on decode", queries: 1, keys: 17, softcap: 30, magnitude: 8, is_causal: true },
  { name: "sinks", batch: 2, heads: 4, kv_heads: 2, queries: 5, keys: 5, sinks: true, is_causal: true },
  { name: "sinks on decode", heads: 4, queries: 1, keys: 19, sinks: true },
  {
    name: "sinks, softcap, window, padding and groups at once",
    batch: 2,
    heads: 4,
    kv_heads: 2,
    queries: 10,
    keys: 10,
    sinks: true,
    softcap: 5,
    is_causal: true,
    sliding_window: 4,
    padding: { side: "left", lengths: [10, 7] },
  },
  {
    name: "a predicate: every other key",
    queries: 5,
    keys: 8,
    visible: (_b, _h, q, kv) => (q + kv) % 2 === 0,
  },
  {
    name: "a predicate that depends on the row of the batch",
    batch: 2,
    queries: 4,
    keys: 6,
    visible: (b, _h, _q, kv) => kv > b,
  },
  {
    name: "a predicate that hides whole rows: zeros",
    queries: 5,
    keys: 70,
    visible: (_b, _h, q) => q % 2 === 0,
  },
  {
    name: "a predicate that hides whole rows, with sinks: zeros",
    queries: 4,
    keys: 4,
    sinks: true,
    visible: (_b, _h, q) => q !== 2,
  },
];
