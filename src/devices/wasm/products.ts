/**
 * Records matrix products for the WASM kernels. Block sizes only decide how work is cut into parts: an element's
 * order of summation never depends on the number of rows or batches.
 *
 * @module
 */
import { InvalidArgument } from "../../errors.ts";
import type { View } from "../device.ts";
import type { Recorder } from "./command.ts";
import {
  checkFloat,
  checkOutput,
  codeOf,
  merge,
  rowStride,
  sameShape,
  sizeOf,
  wholly,
  Words,
} from "./params.ts";

/** The batch dimensions of a matmul operand pair as four sizes and strides. */
function batches(a: View, b: View): { shape: readonly number[]; strides: readonly (readonly number[])[] } {
  const last = a.shape.length - 2;
  const batch = a.shape.slice(0, last);
  if (!sameShape(batch, b.shape.slice(0, last))) {
    throw new InvalidArgument(`Cannot multiply (${a.shape}) by (${b.shape}): batch dimensions differ`);
  }
  const { shape, strides } = merge(batch, [a.strides.slice(0, last), b.strides.slice(0, last)]);
  if (shape[0] !== 1 || shape[1] !== 1) {
    throw new InvalidArgument(`Cannot multiply with batch dimensions (${batch})`);
  }
  return { shape: shape.slice(2), strides: strides.map((s) => s.slice(2)) };
}

/** Records `out = a · b` or `a · bᵀ`. */
export function matmul(recorder: Recorder, a: View, b: View, out: View, transpose_b: boolean): void {
  // A transposed view of b is b of the other kind.
  const rank = b.shape.length;
  if (b.strides[rank - 1] !== 1 && b.strides[rank - 2] === 1) {
    const flip = (x: readonly number[]) => [...x.slice(0, rank - 2), x[rank - 1]!, x[rank - 2]!];
    return matmul(recorder, a, { ...b, shape: flip(b.shape), strides: flip(b.strides) }, out, !transpose_b);
  }
  checkFloat("a matrix", a);
  checkFloat("a matrix", b);
  checkOutput("a product", out);
  const [M, N] = a.shape.slice(-2) as [number, number];
  const [P, inner] = (transpose_b ? b.shape.slice(-2) : b.shape.slice(-2).reverse()) as [number, number];
  if (inner !== N) {
    throw new InvalidArgument(`Cannot multiply (${a.shape}) by (${b.shape}): ${N} and ${inner} differ`);
  }
  const { shape, strides } = batches(a, b);
  const count = sizeOf(shape);
  if (count * M * P === 0) return;
  const row_block = Math.min(M, 48);
  const col_block = M < 4 ? 256 : 64;
  const words = new Words(recorder)
    .typed(a).int(rowStride("a matrix", a))
    .typed(b).int(rowStride("a matrix", b))
    .pointer(out).int(transpose_b, M, N, P, row_block, col_block, 512)
    .int(...shape, ...strides[0]!, ...strides[1]!);
  recorder.record({
    kernel: "matmul",
    params: words.words,
    parts: count * Math.ceil(M / row_block) * Math.ceil(P / col_block),
    cost: 2 * count * M * N * P,
    writes: wholly(out),
  });
}

/** From this many rows on a linear layer packs its operands: fewer do not pay for packing the weight. */
const PACKED_ROWS = 48;
/** Rows that are packed at a time, at most: what bounds the memory this takes. */
const PACKED_MOST = 300;
/** What rows and columns are taken in multiples of, whatever tile there is: of 4, 5 or 6 rows and 8 or 16 columns. */
const [ROWS, COLUMNS] = [60, 16] as const;
/** Elements of the contraction that are packed together. */
const DEPTH = 1024;
/** Cost of a part of a packed product: little, so that threads end together. The columns of a tile are work of their own. */
const PART = 1e6;
/** What an operation of a product costs more where rows are few: its weights come from memory, or its tile is small. */
const ROW_COST = 3, ROWS_COST = 2;

/** Rows a linear layer of (M, I) packs at a time; 0 where it packs none. The sums are the same. */
function packedRows(M: number, I: number): number {
  if (M < PACKED_ROWS || I === 0) return 0;
  const each = Math.ceil(M / Math.ceil(M / PACKED_MOST));
  return Math.ceil(each / ROWS) * ROWS;
}

/** Bytes that {@linkcode linear} takes while it runs, for x (M, I). */
export function packedBytes(M: number, I: number): number {
  return packedRows(M, I) * Math.ceil(I / 4) * 4 * 4;
}

/** Records `out = x · weightᵀ + bias`. */
export function linear(recorder: Recorder, x: View, weight: View, bias: View | null, out: View): void {
  checkFloat("an input", x, true);
  checkFloat("a weight", weight);
  checkFloat("a bias", bias);
  checkOutput("a linear layer's result", out);
  const [M, I] = x.shape as [number, number];
  const O = weight.shape[0]!;
  if (M * O === 0) return;
  if (bias !== null) rowStride("a bias", bias);
  const rows = packedRows(M, I);
  if (rows > 0) return packed(recorder, rows, x, weight, bias, out);
  // A block of each operand stays in the second-level cache; where rows are few whole weight rows stream past.
  const few = M < 7;
  const streamed = Math.ceil(2.5e4 / (M * Math.max(1, I)) / 4) * 4;
  const col_block = few ? Math.min(512, Math.max(8, streamed)) : 64;
  const words = new Words(recorder)
    .pointer(x).int(rowStride("an input", x))
    .pointer(weight).int(rowStride("a weight", weight), codeOf(weight.dtype))
    .typed(bias)
    .pointer(out).int(M, I, O, M, col_block, few ? Math.max(1, I) : 1024, 0, 0);
  recorder.record({
    kernel: "linear",
    params: words.words,
    parts: Math.ceil(O / col_block),
    cost: 2 * M * I * O * (few ? ROW_COST : ROWS_COST),
    writes: wholly(out),
  });
}

/** Packs `rows` rows of x at a time, which the product after them reads. */
function packed(
  recorder: Recorder,
  rows: number,
  x: View,
  weight: View,
  bias: View | null,
  out: View,
): void {
  const [M, I] = x.shape as [number, number];
  const O = weight.shape[0]!;
  const ldx = rowStride("an input", x);
  const col_block = Math.max(COLUMNS, Math.floor(PART / (2 * rows * I) / COLUMNS) * COLUMNS);
  const share = Math.ceil(2e4 / (ROWS * I)) * ROWS;
  const wide = recorder.hasWideTiles;
  const room = recorder.allocate(packedBytes(M, I));
  const panelsOf: View = { allocation: room, dtype: "float32", offset: 0, shape: [], strides: [] };
  try {
    for (let first = 0; first < M; first += rows) {
      const m = Math.min(rows, M - first);
      const some = { ...x, offset: x.offset + first * ldx };
      const to = { ...out, offset: out.offset + first * O };
      recorder.record({
        kernel: "pack_rows",
        params:
          new Words(recorder).pointer(some).int(ldx).pointer(panelsOf).int(m, I, DEPTH, share, wide).words,
        parts: Math.ceil(m / share),
        cost: 10 * m * I,
        writes: [],
      });
      const words = new Words(recorder)
        .pointer(some).int(ldx)
        .pointer(weight).int(rowStride("a weight", weight), codeOf(weight.dtype))
        .typed(bias)
        .pointer(to).int(m, I, O, m, col_block, DEPTH).pointer(panelsOf).int(wide);
      recorder.record({
        kernel: "linear",
        params: words.words,
        parts: Math.ceil(O / col_block),
        cost: 2 * m * I * O,
        // What is dropped is dropped to the end, so the last of them stands for all.
        writes: first + m === M ? wholly(out) : [],
      });
    }
  } finally {
    recorder.release(room);
  }
}
