/**
 * What each kernel other than attention computes, written as its formula in float64 over row-major values.
 *
 * @module
 */
import type { BinaryOp, UnaryOp } from "../../src/devices/device.ts";

/** The error function by a series of positive terms, good to float64 rounding. */
function erf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x, sum = x;
  for (let n = 1; n < 200; n++) sum += term *= 2 * x * x / (2 * n + 1);
  return 2 / Math.sqrt(Math.PI) * Math.exp(-x * x) * sum;
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

/** Elementwise functions of one operand. */
export const UNARY: Readonly<Record<UnaryOp, (x: number) => number>> = {
  copy: (x) => x,
  neg: (x) => -x,
  exp: Math.exp,
  log: Math.log,
  tanh: Math.tanh,
  sigmoid,
  sqrt: Math.sqrt,
  silu: (x) => x * sigmoid(x),
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  quick_gelu: (x) => x * sigmoid(1.702 * x),
  relu: (x) => Math.max(0, x),
};

/** Elementwise functions of two operands. */
export const BINARY: Readonly<Record<BinaryOp, (a: number, b: number) => number>> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
  maximum: Math.max,
  silu_mul: (a, b) => a * sigmoid(a) * b,
};

/** Calls `fn` with each row of `columns` values. */
export function rowsOf(values: Float64Array, columns: number): Float64Array[] {
  const count = columns === 0 ? 0 : values.length / columns;
  return Array.from({ length: count }, (_, i) => values.subarray(i * columns, (i + 1) * columns));
}

const sum = (row: Float64Array) => row.reduce((a, x) => a + x, 0);

/** Reductions of a row. */
export const REDUCE: Readonly<Record<"sum" | "max" | "mean", (row: Float64Array) => number>> = {
  sum,
  max: (row) => row.reduce((a, x) => Math.max(a, x), -Infinity),
  mean: (row) => sum(row) / row.length,
};

/** Softmax of a row and its log-sum-exp; a row of −∞ gives zeros and −∞. */
export function softmaxRow(row: Float64Array): { probabilities: Float64Array; lse: number } {
  const max = REDUCE.max(row);
  if (max === -Infinity) return { probabilities: row.map(() => 0), lse: -Infinity };
  const exps = row.map((x) => Math.exp(x - max)), total = sum(exps);
  return { probabilities: exps.map((x) => x / total), lse: max + Math.log(total) };
}

/** a (M, N) · b (N, P), or · bᵀ with b (P, N). */
export function product(
  a: Float64Array,
  b: Float64Array,
  [M, N, P]: readonly [number, number, number],
  transpose_b: boolean,
): Float64Array {
  const out = new Float64Array(M * P);
  for (let m = 0; m < M; m++) {
    for (let p = 0; p < P; p++) {
      let s = 0;
      for (let n = 0; n < N; n++) s += a[m * N + n]! * (transpose_b ? b[p * N + n]! : b[n * P + p]!);
      out[m * P + p] = s;
    }
  }
  return out;
}

/** Root-mean-square normalisation of a row. */
export function rmsNormRow(row: Float64Array, weight: Float64Array | null, eps: number, unit_offset: number) {
  const scale = 1 / Math.sqrt(sum(row.map((x) => x * x)) / row.length + eps);
  return row.map((x, i) => x * scale * (weight === null ? 1 : weight[i]! + unit_offset));
}

/** Layer normalisation of a row. */
export function layerNormRow(
  row: Float64Array,
  weight: Float64Array,
  bias: Float64Array | null,
  eps: number,
) {
  const mean = sum(row) / row.length;
  const scale = 1 / Math.sqrt(sum(row.map((x) => (x - mean) ** 2)) / row.length + eps);
  return row.map((x, i) => (x - mean) * scale * weight[i]! + (bias?.[i] ?? 0));
}

/** Half-split rotation of one vector by a table row [cos…, sin…]. */
export function rotateRow(x: Float64Array, row: Float64Array): Float64Array {
  const half = x.length / 2;
  return x.map((v, d) => {
    const cos = row[d % half]!, sin = row[half + d % half]!;
    return d < half ? v * cos - x[d + half]! * sin : v * cos + x[d - half]! * sin;
  });
}

/**
 * Rows of activations as a product with quantised weights sees them: integers up to `limit` times scales, 32 columns at a
 * time.
 */
export function roundedRows(x: Float32Array, columns: number, limit: number): Float64Array {
  const out = new Float64Array(x.length);
  for (let row = 0; row < x.length; row += columns) {
    for (let from = row; from < row + columns; from += 32) {
      const group = x.subarray(from, Math.min(from + 32, row + columns));
      const most = group.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
      const inverse = Math.fround(limit / most);
      group.forEach((v, i) => {
        const scaled = Math.fround(v * inverse), low = Math.floor(scaled);
        const up = scaled - low > 0.5 || (scaled - low === 0.5 && low % 2 !== 0);
        out[from + i] = (up ? low + 1 : low) * Math.fround(most / limit);
      });
    }
  }
  return out;
}
