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
  // Few rows: whole weight rows stream past. Many: a block of each operand stays in the second-level cache.
  const few = M < 7;
  const row_block = few ? M : 48;
  const streamed = Math.ceil(2.5e5 / (M * Math.max(1, I)) / 4) * 4;
  const col_block = few ? Math.min(512, Math.max(8, streamed)) : 64;
  const words = new Words(recorder)
    .pointer(x).int(rowStride("an input", x))
    .pointer(weight).int(rowStride("a weight", weight), codeOf(weight.dtype))
    .typed(bias)
    .pointer(out).int(M, I, O, row_block, col_block, few ? Math.max(1, I) : 1024);
  recorder.record({
    kernel: "linear",
    params: words.words,
    parts: Math.ceil(M / row_block) * Math.ceil(O / col_block),
    cost: 2 * M * I * O,
    writes: wholly(out),
  });
}
