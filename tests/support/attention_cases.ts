/**
 * The attention case table at kernel level: shapes and corners as rows of plain data. Each row runs with every
 * algorithm on every device and is compared with the oracle.
 *
 * @module
 */
import type { AttentionCall } from "../../src/devices/device.ts";
import type { DType } from "../../src/dtype.ts";
import { reference_attention, type ReferenceResult } from "../../src/attention/reference.ts";
import { type BlockCase, denseTogether, placeBlocks, randomBlockMask } from "./block_cases.ts";
import { seeded } from "./random.ts";
import { type Bench, type Layout, sizeOf } from "./views.ts";

/** How key and value lie in memory; each is (B, Hkv, K, D) as a view. */
export type KvLayout =
  | "contiguous"
  | "projected" // (B, K, Hkv, D) in memory, as a projection leaves it
  | "capacity" // a cache with room for more keys than there are
  | "shared_heads"; // Hkv heads that are one head, by a stride of 0

/** A row of the table. What is left out takes the plainest value. */
export interface AttentionCase {
  readonly name: string;
  readonly B?: number;
  readonly H?: number;
  readonly Hkv?: number;
  readonly Q?: number;
  readonly K?: number;
  readonly D?: number;
  readonly Dv?: number;
  /** Dtype of key and value. */
  readonly kv?: DType;
  readonly kvLayout?: KvLayout;
  /** Query as a projection leaves it, (B, Q, H, D) in memory, instead of contiguous. */
  readonly queryProjected?: boolean;
  readonly causal?: boolean;
  /** Default K − Q when causal or windowed, else 0. */
  readonly query_offset?: number;
  readonly window?: readonly [left: number, right: number];
  readonly softcap?: number;
  readonly scaling?: number;
  readonly sinks?: boolean;
  /** Real keys per batch row, and the side on which the others lie. */
  readonly padding?: { readonly side: "left" | "right"; readonly lengths: readonly number[] };
  readonly zero_padded_queries?: boolean;
  /** A random dense mask stored with these dims (1 = broadcast), `all_masked` rows fully masked. */
  readonly mask?: {
    readonly type: "bool" | "additive";
    readonly stored: readonly ("B" | "H" | "Q" | "K" | 1)[];
    readonly masked_rows?: readonly number[];
  };
  /** A random mask by blocks. */
  readonly blocks?: BlockCase;
  /** Multiplies query and key, to make scores large. */
  readonly magnitude?: number;
}

const range = (n: number) => Array.from({ length: n }, (_, i) => i);
const headDims = [1, 3, 4, 6, 8, 10, 12, 16, 20, 64, 80, 128];
const keyLengths = [1, 2, 63, 64, 65, 129, 200];

/** The table. */
export const ATTENTION_CASES: readonly AttentionCase[] = [
  { name: "smallest: one query, one key" },
  { name: "no keys: output is zero", H: 2, Q: 3, K: 0 },
  { name: "no keys, causal", H: 2, Q: 1, K: 0, causal: true },
  { name: "no keys but sinks", H: 2, Q: 2, K: 0, sinks: true },
  { name: "no queries", H: 2, Q: 0, K: 5 },
  ...headDims.map((D) => ({ name: `head dimension ${D}`, H: 2, Q: 5, K: 13, D, causal: true })),
  ...keyLengths.map((K) => ({
    name: `decode, one query over ${K} keys`,
    H: 2,
    Q: 1,
    K,
    D: 16,
    causal: true,
  })),
  ...keyLengths.map((K) => ({ name: `prefill ${K}, causal`, Q: K, K, D: 8, causal: true })),
  { name: "prefill 130 over 200 keys, not causal", H: 2, Q: 130, K: 200, D: 16 },
  ...[2, 3, 4, 6, 7, 8, 9, 15, 16, 17].map((Q) => ({
    name: `a few queries: ${Q}, grouped, over a cache of 70`,
    H: 4,
    Hkv: 2,
    Q,
    K: 70,
    D: 12,
    causal: true,
  })),
  { name: "many keys: 3 queries over 3000", H: 2, Hkv: 1, Q: 3, K: 3000, D: 16, causal: true },
  { name: "many keys: 40 queries over 3000", Q: 40, K: 3000, D: 16, causal: true },
  { name: "value dimension smaller than query's", H: 2, Q: 5, K: 9, D: 8, Dv: 4 },
  { name: "value dimension larger, not a multiple of 4", H: 2, Q: 5, K: 70, D: 8, Dv: 14 },
  { name: "value dimension 1", Q: 3, K: 9, D: 8, Dv: 1 },
  { name: "multi-query: 4 heads share 1", B: 2, H: 4, Hkv: 1, Q: 7, K: 7, D: 8, causal: true },
  { name: "grouped: 4 heads over 2", B: 2, H: 4, Hkv: 2, Q: 5, K: 9, D: 16, causal: true },
  { name: "grouped: 6 heads over 2, decode", B: 2, H: 6, Hkv: 2, Q: 1, K: 33, D: 8 },
  { name: "grouped: 6 heads over 2, prefill 70", H: 6, Hkv: 2, Q: 70, K: 70, D: 8, causal: true },
  {
    name: "causal, upper-left (offset 0) with more keys than queries",
    H: 2,
    Q: 3,
    K: 8,
    causal: true,
    query_offset: 0,
  },
  { name: "causal, more queries than keys: first rows see nothing", H: 2, Q: 8, K: 3, causal: true },
  { name: "causal, chunk in the middle of a cache", H: 2, Q: 17, K: 150, causal: true, query_offset: 90 },
  { name: "causal, offset beyond the keys", H: 2, Q: 3, K: 8, causal: true, query_offset: 20 },
  { name: "window 1: each position sees itself", H: 2, Q: 9, K: 9, causal: true, window: [0, 0] },
  { name: "window 4, causal", H: 2, Q: 20, K: 20, causal: true, window: [3, -1] },
  { name: "window wider than the keys", H: 2, Q: 9, K: 9, causal: true, window: [100, -1] },
  { name: "window narrower than a tile, long", Q: 150, K: 150, causal: true, window: [9, -1] },
  { name: "window on decode over 200 keys", H: 2, Q: 1, K: 200, D: 16, causal: true, window: [15, -1] },
  {
    name: "window that has left all keys behind",
    Q: 2,
    K: 8,
    causal: true,
    window: [2, -1],
    query_offset: 30,
  },
  { name: "bidirectional window 2", H: 2, Q: 11, K: 11, window: [2, 2] },
  { name: "bidirectional window 3, 100 positions", Q: 100, K: 100, window: [3, 3] },
  { name: "right window without left", Q: 9, K: 9, window: [-1, 2] },
  {
    name: "left padding, causal",
    B: 3,
    H: 2,
    Q: 9,
    K: 9,
    causal: true,
    padding: { side: "left", lengths: [9, 5, 1] },
  },
  {
    name: "left padding with zeroed rows",
    B: 3,
    H: 2,
    Q: 9,
    K: 9,
    causal: true,
    padding: { side: "left", lengths: [9, 5, 1] },
    zero_padded_queries: true,
  },
  { name: "right padding", B: 2, H: 2, Q: 7, K: 7, padding: { side: "right", lengths: [7, 3] } },
  {
    name: "right padding with zeroed rows, causal",
    B: 2,
    H: 2,
    Q: 7,
    K: 7,
    causal: true,
    padding: { side: "right", lengths: [7, 3] },
    zero_padded_queries: true,
  },
  { name: "padding longer than a tile", B: 2, Q: 3, K: 200, padding: { side: "left", lengths: [200, 60] } },
  {
    name: "padding on decode with a cache",
    B: 2,
    H: 4,
    Hkv: 2,
    Q: 1,
    K: 70,
    D: 16,
    causal: true,
    padding: { side: "left", lengths: [70, 2] },
    zero_padded_queries: true,
  },
  {
    name: "a sequence that is all padding",
    B: 2,
    H: 2,
    Q: 4,
    K: 6,
    padding: { side: "right", lengths: [6, 0] },
  },
  {
    name: "a sequence that is all padding, with sinks",
    B: 2,
    H: 2,
    Q: 4,
    K: 6,
    sinks: true,
    padding: { side: "right", lengths: [6, 0] },
  },
  {
    name: "bool mask (B,1,Q,K)",
    B: 2,
    H: 2,
    Q: 5,
    K: 70,
    mask: { type: "bool", stored: ["B", 1, "Q", "K"] },
  },
  {
    name: "bool mask (B,H,Q,K)",
    B: 2,
    H: 3,
    Q: 5,
    K: 9,
    mask: { type: "bool", stored: ["B", "H", "Q", "K"] },
  },
  { name: "bool mask (1,1,Q,K)", B: 2, H: 2, Q: 5, K: 9, mask: { type: "bool", stored: [1, 1, "Q", "K"] } },
  { name: "bool mask (1,1,1,K)", B: 2, H: 2, Q: 5, K: 9, mask: { type: "bool", stored: [1, 1, 1, "K"] } },
  { name: "bool mask (1,H,Q,1)", B: 2, H: 2, Q: 5, K: 9, mask: { type: "bool", stored: [1, "H", "Q", 1] } },
  {
    name: "bool mask with fully masked rows",
    B: 2,
    H: 2,
    Q: 5,
    K: 70,
    mask: { type: "bool", stored: ["B", 1, "Q", "K"], masked_rows: [0, 3] },
  },
  {
    name: "bool mask and causal",
    H: 2,
    Q: 9,
    K: 9,
    causal: true,
    mask: { type: "bool", stored: [1, 1, "Q", "K"] },
  },
  {
    name: "additive mask (B,1,Q,K)",
    B: 2,
    H: 2,
    Q: 5,
    K: 70,
    mask: { type: "additive", stored: ["B", 1, "Q", "K"] },
  },
  {
    name: "additive mask (1,1,Q,K)",
    B: 2,
    H: 2,
    Q: 5,
    K: 9,
    mask: { type: "additive", stored: [1, 1, "Q", "K"] },
  },
  {
    name: "additive mask (1,1,1,K)",
    B: 2,
    H: 2,
    Q: 5,
    K: 9,
    mask: { type: "additive", stored: [1, 1, 1, "K"] },
  },
  {
    name: "position bias (1,H,Q,K)",
    B: 2,
    H: 2,
    Q: 5,
    K: 9,
    mask: { type: "additive", stored: [1, "H", "Q", "K"] },
  },
  {
    name: "additive mask with fully masked rows",
    B: 2,
    H: 2,
    Q: 5,
    K: 70,
    mask: { type: "additive", stored: ["B", 1, "Q", "K"], masked_rows: [1, 4] },
  },
  {
    name: "fully masked rows with sinks",
    H: 2,
    Q: 5,
    K: 9,
    sinks: true,
    mask: { type: "bool", stored: [1, 1, "Q", "K"], masked_rows: [2] },
  },
  {
    name: "all masks at once",
    B: 2,
    H: 4,
    Hkv: 2,
    Q: 20,
    K: 70,
    D: 16,
    causal: true,
    window: [30, -1],
    softcap: 20,
    sinks: true,
    padding: { side: "left", lengths: [70, 40] },
    zero_padded_queries: true,
    mask: { type: "additive", stored: ["B", 1, "Q", "K"] },
  },
  ...([[128, 128], [64, 64], [16, 16], [8, 24], [100, 50], [7, 65], [1, 1], [3, 5], [300, 300]] as const).map(
    (
      size,
    ) => ({ name: `blocks of ${size[0]} × ${size[1]}`, H: 2, Q: 150, K: 210, D: 12, blocks: { size } }),
  ),
  ...[1, 2, 7].map((Q) => ({
    name: `blocks, ${Q} queries, grouped, over 200 keys`,
    B: 2,
    H: 4,
    Hkv: 2,
    Q,
    K: 200,
    D: 16,
    blocks: { size: [2, 48], stored: ["B", "H"] } as const,
  })),
  {
    name: "blocks by batch row and head, fully masked rows",
    B: 2,
    H: 4,
    Hkv: 2,
    Q: 70,
    K: 140,
    blocks: { size: [32, 32], stored: ["B", "H"], masked_rows: [0, 9, 40] },
  },
  {
    name: "blocks by head, sinks, softcap",
    B: 2,
    H: 4,
    Hkv: 2,
    Q: 70,
    K: 140,
    softcap: 3,
    sinks: true,
    magnitude: 3,
    blocks: { size: [16, 64], stored: [1, "H"], masked_rows: [5] },
  },
  {
    name: "blocks and every other mask",
    B: 2,
    H: 4,
    Hkv: 2,
    Q: 40,
    K: 150,
    causal: true,
    window: [90, -1],
    sinks: true,
    padding: { side: "left", lengths: [150, 130] },
    zero_padded_queries: true,
    mask: { type: "additive", stored: ["B", 1, "Q", "K"] },
    blocks: { size: [20, 36], stored: ["B", 1] },
  },
  { name: "blocks, causal, decode", H: 2, Q: 1, K: 300, causal: true, blocks: { size: [128, 128] } },
  {
    name: "blocks over a cache of float16",
    H: 2,
    Q: 12,
    K: 150,
    kv: "float16",
    kvLayout: "capacity",
    blocks: { size: [8, 40] },
  },
  {
    name: "blocks that are all hidden",
    H: 2,
    Q: 9,
    K: 70,
    blocks: { size: [300, 8], masked_rows: range(9) },
  },
  { name: "softcap 50", H: 2, Q: 5, K: 9, softcap: 50, magnitude: 4 },
  { name: "softcap 1 on large scores", H: 2, Q: 5, K: 70, softcap: 1, magnitude: 8, causal: true },
  { name: "softcap on decode", H: 2, Q: 1, K: 65, softcap: 5, causal: true },
  { name: "sinks", B: 2, H: 4, Hkv: 2, Q: 5, K: 9, sinks: true, causal: true },
  { name: "sinks on decode", H: 4, Q: 1, K: 65, sinks: true },
  { name: "scaling 1, large scores do not overflow", H: 2, Q: 5, K: 70, D: 16, scaling: 1, magnitude: 4 },
  { name: "scaling 0: plain average", Q: 3, K: 9, scaling: 0 },
  ...(["float16", "bfloat16"] as const).flatMap((kv) => [
    { name: `${kv} key and value, prefill`, H: 2, Q: 9, K: 70, D: 16, kv, causal: true },
    {
      name: `${kv} key and value, decode, grouped`,
      B: 2,
      H: 4,
      Hkv: 2,
      Q: 1,
      K: 65,
      D: 64,
      kv,
      causal: true,
    },
    { name: `${kv} key and value, head dimension 6`, H: 2, Q: 3, K: 5, D: 6, kv },
    {
      name: `${kv} cache with spare capacity`,
      B: 2,
      H: 2,
      Q: 1,
      K: 9,
      kv,
      kvLayout: "capacity" as const,
      causal: true,
    },
  ]),
  {
    name: "projected query, key and value",
    B: 2,
    H: 4,
    Hkv: 2,
    Q: 7,
    K: 7,
    queryProjected: true,
    kvLayout: "projected",
  },
  {
    name: "cache with spare capacity, prefill",
    B: 2,
    H: 2,
    Q: 9,
    K: 70,
    D: 16,
    kvLayout: "capacity",
    causal: true,
  },
  { name: "cache with spare capacity, decode", B: 2, H: 4, Hkv: 2, Q: 1, K: 33, D: 64, kvLayout: "capacity" },
  { name: "heads shared by a stride of 0", B: 2, H: 4, Hkv: 4, Q: 5, K: 9, kvLayout: "shared_heads" },
];

const KV_LAYOUTS: Record<KvLayout, Layout> = {
  contiguous: {},
  projected: { order: [0, 2, 1, 3] },
  capacity: { spare: [0, 0, 11, 0], offset: 8 },
  shared_heads: { broadcast: [1] },
};

/** A row made concrete on a device: the kernel call, and what the oracle says. */
export interface PreparedAttention {
  readonly call: AttentionCall;
  readonly expected: ReferenceResult;
}

/** Places the operands of a row (seeded by its name) and asks the oracle. */
export function prepareAttention(
  bench: Bench,
  algorithm: AttentionCall["algorithm"],
  row: AttentionCase,
): PreparedAttention {
  const { B = 1, H = 1, Hkv = H, Q = 1, K = 1, D = 8, Dv = D, kv = "float32", magnitude = 1 } = row;
  const random = seeded(row.name);
  const layout = KV_LAYOUTS[row.kvLayout ?? "contiguous"];
  const storedHeads = row.kvLayout === "shared_heads" ? Math.min(1, Hkv) : Hkv;
  const query = bench.place(
    [B, H, Q, D],
    random.normal(B * H * Q * D, magnitude),
    "float32",
    row.queryProjected ? { order: [0, 2, 1, 3] } : {},
  );
  const key = bench.place([B, Hkv, K, D], random.normal(B * storedHeads * K * D, magnitude), kv, layout);
  const value = bench.place([B, Hkv, K, Dv], random.normal(B * storedHeads * K * Dv), kv, layout);
  const sinks = row.sinks ? bench.place([H], random.normal(H)) : null;
  const padding = row.padding === undefined
    ? null
    : bench.place([B, K], paddingOf(row.padding, B, K), "bool");
  const mask = row.mask === undefined ? null : maskOf(bench, row.mask, { B, H, Q, K }, random);
  const sizes = { B, H, Q, K };
  using blocks = row.blocks === undefined ? null : randomBlockMask(row.blocks, sizes, random);
  const together = blocks === null ? null : denseTogether(blocks, mask, sizes);
  const positional = row.causal || row.window !== undefined;
  const query_offset = row.query_offset ?? (positional || row.zero_padded_queries ? K - Q : 0);
  const { scaling = Math.fround(D ** -0.5), softcap = 0, causal = false, window = [-1, -1] } = row;
  const zero_padded_queries = row.zero_padded_queries ?? false;
  const expected = reference_attention({
    query: { data: query.values, shape: query.shape },
    key: { data: key.values, shape: key.shape },
    value: { data: value.values, shape: value.shape },
    scaling,
    softcap,
    sinks: sinks && { data: sinks.values, shape: [H] },
    query_offset,
    is_causal: causal,
    sliding_window: window,
    mask: together !== null ? mask === null ? blocks : { data: together, shape: [B, H, Q, K] } : mask &&
      { data: mask.type === "bool" ? Uint8Array.from(mask.values) : mask.values, shape: [B, H, Q, K] },
    padding: padding && { data: padding.values, shape: [B, K] },
    zero_padded_queries,
  });
  const call: AttentionCall = {
    algorithm,
    query: query.view,
    key: key.view,
    value: value.view,
    out: bench.empty([B, Q, H, Dv]),
    weights: algorithm === "eager" ? bench.empty([B, H, Q, K]) : null,
    lse: bench.empty([B, H, Q]),
    scaling,
    softcap,
    query_offset,
    causal,
    window_left: window[0],
    window_right: window[1],
    padding: padding?.view ?? null,
    zero_padded_queries,
    mask: mask?.view ?? null,
    blocks: blocks === null ? null : placeBlocks(bench, blocks, sizes),
    sinks: sinks?.view ?? null,
  };
  return { call, expected };
}

function paddingOf(padding: NonNullable<AttentionCase["padding"]>, B: number, K: number): number[] {
  return Array.from({ length: B * K }, (_, at) => {
    const length = padding.lengths[Math.floor(at / K)]!, j = at % K;
    return Number(padding.side === "right" ? j < length : j >= K - length);
  });
}

function maskOf(
  bench: Bench,
  mask: NonNullable<AttentionCase["mask"]>,
  sizes: Readonly<Record<"B" | "H" | "Q" | "K", number>>,
  random: ReturnType<typeof seeded>,
) {
  const stored = mask.stored.map((axis) => axis === 1 ? 1 : sizes[axis]);
  const n = sizeOf(stored), [, , rows, columns] = stored as [number, number, number, number];
  const visible = random.bools(n, 0.7);
  const bias = random.normal(n);
  const MASKED = [-3.4028234663852886e38, -Infinity, -3e38]; // all of them count as masked
  const values = Array.from({ length: n }, (_, at) => {
    const row = Math.floor(at / columns) % rows;
    const shown = visible[at] === 1 && !mask.masked_rows?.includes(row);
    if (mask.type === "bool") return Number(shown);
    return shown ? bias[at]! : MASKED[at % MASKED.length]!;
  });
  const broadcast = mask.stored.flatMap((axis, i) => axis === 1 ? [i] : []);
  const placed = bench.place(
    [sizes.B, sizes.H, sizes.Q, sizes.K],
    values,
    mask.type === "bool" ? "bool" : "float32",
    { broadcast },
  );
  return { ...placed, type: mask.type };
}
