/**
 * The shapes the attention bench runs, one row each.
 *
 * @module
 */
import type { KvDType } from "../src/cache/kv_dtype.ts";

/** Which runs a case belongs to: every run, quick and full runs, full runs only. */
export type Depth = "check" | "quick" | "full";

/** One shape. */
export interface AttentionShape {
  readonly name: string;
  readonly depth: Depth;
  readonly B: number;
  readonly H: number;
  readonly Hkv: number;
  readonly Q: number;
  readonly K: number;
  readonly D: number;
  readonly causal?: boolean;
  /** Keys a query sees, itself included. */
  readonly window?: number;
  /** Which keys a query sees, the same in every head: runs `flex_attention` alone, under a block mask. */
  readonly see?: (q: number, kv: number) => boolean;
  /** Type of keys and values; default float32. */
  readonly kv?: KvDType;
  /** Leave the peers out, with the reason. */
  readonly noPeer?: string;
  /** Only these peers: the others take long and said what they have to say in a case like it. */
  readonly peers?: readonly string[];
  /** Also measured on two threads. */
  readonly threaded?: boolean;
  /** Only compared, in every kind of run, never timed. */
  readonly compareOnly?: boolean;
}

/** Of 32 × 32 blocks of 128 × 128 every band sees three as a whole, every fifth band four: 90 % are empty. */
const tenthOfBlocks = (q: number, kv: number) => {
  const band = q >> 7, from = ((kv >> 7) - band + 32) % 32;
  return from < 3 || (from === 3 && band % 5 === 0);
};

const prefill = (H: number, S: number, D: number) => ({ B: 1, H, Hkv: H, Q: S, K: S, D });

/** The table. Small rows come first: they also warm the kernels up for the large ones. */
export const ATTENTION_SHAPES: readonly AttentionShape[] = [
  { name: "prefill 130, D 64, full", depth: "check", ...prefill(4, 130, 64), compareOnly: true },
  {
    name: "prefill 130, grouped 8/2, causal",
    depth: "check",
    ...prefill(8, 130, 64),
    Hkv: 2,
    causal: true,
    compareOnly: true,
  },
  {
    name: "prefill 97, D 80, causal",
    depth: "check",
    ...prefill(2, 97, 80),
    causal: true,
    compareOnly: true,
  },
  {
    name: "prefill 200, window 48",
    depth: "check",
    ...prefill(2, 200, 64),
    causal: true,
    window: 48,
    compareOnly: true,
  },
  {
    name: "prefill 300, blocks seen in part",
    depth: "check",
    ...prefill(2, 300, 64),
    see: (q, kv) => (q + kv) % 3 !== 0 && (q >> 7) !== (kv >> 7),
    noPeer: "no block masks",
    compareOnly: true,
  },
  {
    name: "decode over 777, grouped 8/2",
    depth: "check",
    B: 1,
    H: 8,
    Hkv: 2,
    Q: 1,
    K: 777,
    D: 64,
    compareOnly: true,
  },
  {
    name: "decode over 777, grouped 8/2, bfloat16",
    depth: "check",
    B: 1,
    H: 8,
    Hkv: 2,
    Q: 1,
    K: 777,
    D: 64,
    kv: "bfloat16",
    noPeer: "no bfloat16 attention",
    compareOnly: true,
  },
  {
    name: "decode over 777, grouped 8/2, int8",
    depth: "check",
    B: 1,
    H: 8,
    Hkv: 2,
    Q: 1,
    K: 777,
    D: 64,
    kv: "int8",
    noPeer: "no int8 attention",
    compareOnly: true,
  },
  { name: "prefill 128, D 64, full", depth: "check", ...prefill(8, 128, 64) },
  { name: "prefill 512, D 64, full", depth: "quick", ...prefill(8, 512, 64), threaded: true },
  { name: "prefill 512, D 64, causal", depth: "quick", ...prefill(8, 512, 64), causal: true },
  { name: "prefill 512, D 128, full", depth: "full", ...prefill(8, 512, 128) },
  { name: "prefill 1024, grouped 8/2, causal", depth: "full", ...prefill(8, 1024, 64), Hkv: 2, causal: true },
  {
    name: "prefill 2048, D 64, causal",
    depth: "quick",
    ...prefill(4, 2048, 64),
    causal: true,
    threaded: true,
  },
  { name: "prefill 4096, D 64, full", depth: "full", ...prefill(2, 4096, 64), threaded: true },
  {
    name: "prefill 4096, D 64, causal",
    depth: "full",
    ...prefill(2, 4096, 64),
    causal: true,
    peers: ["torch AVX2", "torch"],
  },
  {
    name: "prefill 4096, D 64, window 512",
    depth: "full",
    ...prefill(2, 4096, 64),
    causal: true,
    window: 512,
    peers: ["torch AVX2", "torch"],
  },
  {
    name: "prefill 4096, D 64, a tenth of the blocks",
    depth: "full",
    ...prefill(2, 4096, 64),
    see: tenthOfBlocks,
    noPeer: "no block masks",
  },
  {
    name: "prefill 4096, D 128, full",
    depth: "full",
    ...prefill(2, 4096, 128),
    peers: ["torch AVX2", "torch"],
  },
  { name: "decode over 1024, 8/2, D 64", depth: "quick", B: 1, H: 8, Hkv: 2, Q: 1, K: 1024, D: 64 },
  {
    name: "decode over 32768, 32/8, D 128 (256 MiB)",
    depth: "full",
    B: 1,
    H: 32,
    Hkv: 8,
    Q: 1,
    K: 32768,
    D: 128,
    threaded: true,
  },
  {
    name: "decode over 32768, 32/8, D 128, bfloat16 (128 MiB)",
    depth: "full",
    B: 1,
    H: 32,
    Hkv: 8,
    Q: 1,
    K: 32768,
    D: 128,
    kv: "bfloat16",
    noPeer: "no bfloat16 attention",
  },
  {
    name: "decode over 32768, 32/8, D 128, int8 (66 MiB)",
    depth: "full",
    B: 1,
    H: 32,
    Hkv: 8,
    Q: 1,
    K: 32768,
    D: 128,
    kv: "int8",
    noPeer: "no int8 attention",
  },
];

/** What threads.ts runs on one thread and on two. */
export const THREAD_SHAPES: readonly AttentionShape[] = [
  { name: "prefill 130, D 64, causal", depth: "check", ...prefill(4, 130, 64), causal: true },
  { name: "prefill 1024, D 64, full", depth: "quick", ...prefill(8, 1024, 64) },
  { name: "prefill 1024, D 64, causal", depth: "quick", ...prefill(8, 1024, 64), causal: true },
  { name: "prefill 1024, D 128, full", depth: "full", ...prefill(8, 1024, 128) },
  { name: "prefill 1024, D 128, causal", depth: "full", ...prefill(8, 1024, 128), causal: true },
  ...ATTENTION_SHAPES.filter(({ name }) =>
    [
      "prefill 4096, D 64, full",
      "prefill 4096, D 64, causal",
      "prefill 4096, D 128, full",
      "decode over 32768, 32/8, D 128 (256 MiB)",
    ].includes(name)
  ),
  { name: "prefill 4096, D 128, causal", depth: "full", ...prefill(2, 4096, 128), causal: true },
];

const DEPTHS: readonly Depth[] = ["check", "quick", "full"];

/** The rows of a run of `depth`. */
export function shapesOf(depth: Depth): AttentionShape[] {
  return ATTENTION_SHAPES.filter((s) => DEPTHS.indexOf(s.depth) <= DEPTHS.indexOf(depth));
}

/** Query-key pairs that count: what the mask leaves, per head of one batch row. */
export function visiblePairs({ Q, K, causal = false, window, see }: AttentionShape): number {
  let pairs = 0;
  for (let i = 0; i < Q; i++) {
    if (see !== undefined) {
      for (let j = 0; j < K; j++) pairs += Number(see(i, j));
      continue;
    }
    const position = i + K - Q;
    const last = causal ? Math.min(K - 1, position) : K - 1;
    const first = window === undefined ? 0 : Math.max(0, position - window + 1);
    pairs += Math.max(0, last - first + 1);
  }
  return pairs;
}

/** Floating-point operations of the two products over the visible pairs. */
export function flopsOf(shape: AttentionShape): number {
  return 4 * shape.B * shape.H * visiblePairs(shape) * shape.D;
}

/** Bytes of a row of keys or values; int8 has a float32 scale. */
const ROW_BYTES: Readonly<Record<KvDType, (D: number) => number>> = {
  float32: (D) => 4 * D,
  float16: (D) => 2 * D,
  bfloat16: (D) => 2 * D,
  int8: (D) => D + 4,
};

/** Bytes of keys and values: what a decode step must read. */
export function kvBytesOf({ B, Hkv, K, D, kv = "float32" }: AttentionShape): number {
  return 2 * B * Hkv * K * ROW_BYTES[kv](D);
}
