/**
 * Matrix products.
 *
 * @module
 */
import { InvalidArgument } from "../../errors.ts";
import type { View } from "../device.ts";
import type { Dispatch } from "./command.ts";
import {
  count,
  expectDType,
  floatType,
  GRID,
  isContiguous,
  launch,
  merge,
  operand,
  Params,
} from "./record.ts";

/** Rows below which weights are streamed once instead of tiled. Both ways add in the same order. */
const FEW_ROWS = 8;
/** Columns that are summed in one chain, … */
const SEGMENT = 256;
/** … by one of so many invocations of `linear.wgsl`. */
const LINEAR_LANES = 64;
/** From this many rows and columns on an invocation has 8 × 8 results: the tile is 128 × 128. Same bits again. */
const MANY = 256;
/** … where there are so many of these tiles, most of a large GPU's cores: else four times as many smaller ones serve it better. */
const ENOUGH_TILES = 96;

/**
 * `out = a · b`: a (…, M, N), b (…, N, P), out (…, M, P), all by strides. `bias` (P) is added to every row.
 * One command, or several where there are more batches than a grid has rows.
 */
export function product(a: View, b: View, out: View, bias: View | null = null): Dispatch[] {
  const [m, p] = out.shape.slice(-2) as [number, number];
  const n = a.shape.at(-1)!;
  if (count(out.shape) === 0) return [];
  expectDType("the result of matmul", out, "float32");
  const { shape, strides } = merge(out.shape.slice(0, -2), [a, b, out].map((v) => v.strides.slice(0, -2)));
  if (shape.length > 4) {
    throw new InvalidArgument(`Cannot multiply with ${shape.length} batch dimensions: at most 4`);
  }
  const left = operand(a), right = operand(b), shift = bias ? operand(bias) : null, to = operand(out, true);
  const [am, an] = a.strides.slice(-2) as [number, number];
  const [bn, bp] = b.strides.slice(-2) as [number, number];
  const [om, op] = out.strides.slice(-2) as [number, number];
  const ALONG_P = bp <= bn;
  const even = (...numbers: readonly number[]) => numbers.every((x) => x % 4 === 0);
  const VECTOR_A = an === 1 && even(n, am, left.offset, ...strides[0]!);
  const VECTOR_B = ALONG_P
    ? bp === 1 && even(p, bn, right.offset, ...strides[1]!)
    : bn === 1 && even(n, bp, right.offset, ...strides[1]!);
  const types = [floatType("a factor", a.dtype), floatType("a factor", b.dtype)];
  const batches = count(shape);
  const tiles = Math.ceil(m / 128) * Math.ceil(p / 128) * batches;
  const R = m >= MANY && p >= MANY && tiles >= ENOUGH_TILES ? 2 : 1;
  const constants = {
    A: `${types[0]}${VECTOR_A ? "x4" : ""}`,
    B: `${types[1]}${VECTOR_B ? "x4" : ""}`,
    VECTOR_A,
    VECTOR_B,
    RM: R,
    RN: R,
    PREFETCH: R === 2 && VECTOR_A && VECTOR_B,
    BIAS: bias ? floatType("a bias", bias.dtype) : "f32",
    HAS_BIAS: bias !== null,
    ALONG_P,
    TY: m <= 16 ? 4 : 16,
  };
  const commands: Dispatch[] = [];
  for (let first = 0; first < batches; first += GRID) {
    const params = new Params().list(shape, 4, 1);
    for (const list of strides) params.list(list, 4, 0);
    params.int(first, m, n, p, left.offset, am, an, right.offset, bn, bp, to.offset, om, op)
      .int(shift?.offset ?? 0, bias?.strides[0] ?? 0);
    const grid = [
      Math.ceil(p / (64 * R)),
      Math.ceil(m / (constants.TY * 4 * R)),
      Math.min(GRID, batches - first),
    ] as const;
    commands.push(launch("matmul", constants, [left, right, shift, to], [out], params, grid));
  }
  return commands;
}

/** A view with its last two dimensions exchanged. */
export function transposed(view: View): View {
  const swap = (list: readonly number[]) => [...list.slice(0, -2), list.at(-1)!, list.at(-2)!];
  return { ...view, shape: swap(view.shape), strides: swap(view.strides) };
}

/** `out = x · weightᵀ + bias`: x (M, I), weight (O, I), bias (O), out (M, O). */
export function linear(x: View, weight: View, bias: View | null, out: View): Dispatch[] {
  const [m, o] = out.shape as [number, number];
  if (m === 0 || o === 0) return [];
  if (m > FEW_ROWS || weight.strides[1] !== 1 || x.dtype !== "float32") {
    return product(x, transposed(weight), out, bias);
  }
  expectDType("the result of linear", out, "float32");
  const from = operand(x),
    matrix = operand(weight),
    shift = bias ? operand(bias) : null,
    to = operand(out, true);
  const type = floatType("a weight", weight.dtype);
  const VECTOR = matrix.offset % 4 === 0 && weight.strides[0]! % 4 === 0 && weight.shape[1]! % 4 === 0;
  const ROWS = m === 1 ? 1 : m <= 4 ? 4 : FEW_ROWS;
  const SEGMENTS = segmentsOf(ROWS, x.shape[1]!);
  const constants = {
    WEIGHT: VECTOR ? `${type}x4` : type,
    VECTOR,
    BIAS: bias ? floatType("a bias", bias.dtype) : "f32",
    HAS_BIAS: bias !== null,
    ROWS,
    SEGMENTS,
  };
  const params = new Params().int(m, x.shape[1]!, o, from.offset, ...x.strides).int(
    matrix.offset,
    ...weight.strides,
  )
    .int(shift?.offset ?? 0, bias?.strides[0] ?? 0, to.offset, out.strides[0]!);
  const grid = [Math.ceil(o / (LINEAR_LANES / SEGMENTS)), Math.ceil(m / ROWS), 1] as const;
  return [launch("linear", constants, [from, matrix, shift, to], [out], params, grid)];
}

/** Segments a workgroup sums at once: no more than a row of the weight has, and staged rows of x leave room for. */
function segmentsOf(rows: number, columns: number): number {
  const segments = Math.ceil(columns / SEGMENT);
  for (let n = 16; n > 4; n /= 2) if (n * rows <= 32 && segments > n / 2) return n;
  return 4;
}

/**
 * `out = x · weightᵀ + bias` on matrix units: x (M, I) float32, rounded to float16, weight (O, I) float16, bias (O),
 * out (M, O). One arithmetic for any number of rows.
 */
export function linearMatrix(x: View, weight: View, bias: View | null, out: View): Dispatch[] {
  const [m, o] = out.shape as [number, number];
  if (m === 0 || o === 0) return [];
  expectDType("x of linear", x, "float32");
  expectDType("a weight", weight, "float16");
  expectDType("the result of linear", out, "float32");
  const from = operand(x),
    matrix = operand(weight),
    shift = bias ? operand(bias) : null,
    to = operand(out, true);
  const few = m <= 16;
  const constants = {
    WEIGHT: "f16",
    BIAS: bias ? floatType("a bias", bias.dtype) : "f32",
    HAS_BIAS: bias !== null,
    RM: few ? 1 : 2,
    RN: few ? 1 : 2,
    ACROSS: few ? 4 : 2,
  };
  const params = new Params().int(m, x.shape[1]!, o, from.offset, ...x.strides)
    .int(matrix.offset, ...weight.strides)
    .int(shift?.offset ?? 0, bias?.strides[0] ?? 0, to.offset, out.strides[0]!);
  const grid = [Math.ceil(o / 64), Math.ceil(m / (few ? 16 : 64)), 1] as const;
  return [launch("linear_matrix", constants, [from, matrix, shift, to], [out], params, grid)];
}

/** Whether kernels that write rows of `out` without strides may. */
export function requireContiguous(name: string, view: View): void {
  if (!isContiguous(view)) {
    throw new InvalidArgument(`Cannot write ${name} on webgpu: expected a contiguous view`);
  }
}
