/**
 * Comparison before timing: sampled rows against the float64 oracle, and whole outputs against each other.
 *
 * @module
 */
import { reference_attention } from "../src/attention/reference.ts";
import { assertClose, type Kind, toleranceOf } from "../tests/support/tolerance.ts";
import { seeded } from "../tests/support/random.ts";
import type { AttentionShape } from "./cases.ts";

/** Operands as the kernels see them (already rounded to the stored type), row-major. */
export interface Operands {
  /** (B, H, Q, D). */
  readonly q: Float32Array<ArrayBuffer>;
  /** (B, Hkv, K, D). */
  readonly k: Float32Array<ArrayBuffer>;
  /** (B, Hkv, K, D). */
  readonly v: Float32Array<ArrayBuffer>;
}

/** The oracle's answer for some rows of the output. */
export interface SampledRows {
  /** Where each row begins in (B, Q, H, D). */
  readonly at: readonly number[];
  readonly rows: readonly Float64Array[];
}

/** Multiplications the oracle may spend on one case: keeps the comparison to about a second. */
const ORACLE_BUDGET = 1.5e8;

/** Asks the oracle for all rows of a small case, or for the first, the last and random ones of a large one. */
export function oracleRows(shape: AttentionShape, { q, k, v }: Operands): SampledRows {
  const { B, H, Hkv, Q, K, D, causal = false, window, see } = shape;
  const total = B * H * Q;
  const affordable = Math.max(12, Math.floor(ORACLE_BUDGET / (K * D)));
  const random = seeded(shape.name);
  const picked = total <= affordable
    ? Array.from({ length: total }, (_, i) => i)
    : [0, Q - 1, total - 1, ...random.ints(affordable - 3, 0, total)];
  const at: number[] = [];
  const rows = picked.map((row) => {
    const [b, h, i] = [Math.floor(row / (H * Q)), Math.floor(row / Q) % H, row % Q];
    const kv = (b * Hkv + Math.floor(h / (H / Hkv))) * K * D;
    at.push(((b * Q + i) * H + h) * D);
    return reference_attention({
      query: { data: q.subarray(row * D, (row + 1) * D), shape: [1, 1, 1, D] },
      key: { data: k.subarray(kv, kv + K * D), shape: [1, 1, K, D] },
      value: { data: v.subarray(kv, kv + K * D), shape: [1, 1, K, D] },
      is_causal: causal,
      query_offset: i + K - Q,
      ...(window === undefined ? {} : { sliding_window: window }),
      ...(see === undefined ? {} : { mask: (_b, _h, _q, j) => see(i, j) }),
    }).output;
  });
  return { at, rows };
}

/**
 * Checks an output (B, Q, H, D) against the oracle's rows and returns the largest absolute error.
 *
 * @throws {AssertionError} naming the worst element beyond the tolerance
 */
export function assertRows(output: Float32Array, sampled: SampledRows, kind: Kind, label: string): number {
  let worst = 0;
  sampled.rows.forEach((row, i) => {
    const actual = output.subarray(sampled.at[i]!, sampled.at[i]! + row.length);
    assertClose(actual, row, toleranceOf(kind, "wasm"), `${label}, row at ${sampled.at[i]}`);
    for (let d = 0; d < row.length; d++) worst = Math.max(worst, Math.abs(actual[d]! - row[d]!));
  });
  return worst;
}

/** (B, H, Q, D) as (B, Q, H, D), or back. */
export function swapAxes(data: Float32Array, [B, H, Q, D]: readonly number[]): Float32Array<ArrayBuffer> {
  const out = new Float32Array(data.length);
  for (let b = 0; b < B!; b++) {
    for (let h = 0; h < H!; h++) {
      for (let i = 0; i < Q!; i++) {
        const from = ((b * H! + h) * Q! + i) * D!;
        out.set(data.subarray(from, from + D!), ((b * Q! + i) * H! + h) * D!);
      }
    }
  }
  return out;
}

/** (rows, columns) → (columns, rows). */
export function transposed(data: Float32Array, rows: number, columns: number): Float32Array<ArrayBuffer> {
  const BLOCK = 32; // both sides of a block fit the first-level cache
  const out = new Float32Array(rows * columns);
  for (let r0 = 0; r0 < rows; r0 += BLOCK) {
    for (let c0 = 0; c0 < columns; c0 += BLOCK) {
      for (let r = r0; r < Math.min(rows, r0 + BLOCK); r++) {
        for (let c = c0; c < Math.min(columns, c0 + BLOCK); c++) out[c * rows + r] = data[r * columns + c]!;
      }
    }
  }
  return out;
}

/** `n` numbers uniform in [−√3, √3) (variance 1) by a fast generator: operands of hundreds of MiB in a second. */
export function fastUniform(n: number, seed: number): Float32Array<ArrayBuffer> {
  const out = new Float32Array(n);
  let x = Math.imul(seed, 0x9e3779b1) | 1;
  const scale = Math.sqrt(3) / 2 ** 31;
  for (let i = 0; i < n; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    out[i] = x * scale;
  }
  return out;
}
