/**
 * Records calls of the WASM kernels: chooses blocks, packs views into params. Which kernel runs and in which order
 * it sums never depends on the number of rows or batches; block sizes only decide how work is cut into parts.
 *
 * @module
 */
import { isFloat } from "../../dtype.ts";
import { InvalidArgument } from "../../errors.ts";
import type { BinaryOp, Kernels, UnaryOp, View } from "../device.ts";
import { recordAttention } from "./attention.ts";
import { linear, matmul } from "./products.ts";
import { linearQuantized, weightStep } from "./quantized.ts";
import { type Recorder, SCRATCH_BYTES } from "./command.ts";
import {
  checkFloat,
  checkOutput,
  merge,
  mergeRows,
  rowStride,
  sameShape,
  sizeOf,
  wholly,
  Words,
} from "./params.ts";

const UNARY: readonly UnaryOp[] = [
  "copy",
  "neg",
  "exp",
  "log",
  "tanh",
  "sigmoid",
  "sqrt",
  "silu",
  "gelu",
  "gelu_tanh",
  "quick_gelu",
  "relu",
];
const BINARY: readonly BinaryOp[] = ["add", "sub", "mul", "div", "maximum", "silu_mul"];
const REDUCE: readonly string[] = ["sum", "max", "mean"];
const INT_BINARY: readonly BinaryOp[] = ["add", "sub", "mul", "maximum"];
const CHEAP: readonly string[] = ["copy", "neg", "relu", "add", "sub", "mul", "maximum", "where"];

/** Elements of one part of an elementwise kernel. */
const CHUNK = 16384;

/** Frequencies that fit the params of one `rotary_table` command. */
const FREQUENCIES = 96;

/** Rows of about `elements` elements, for kernels that work row by row. */
function rowsPerPart(n: number, elements = CHUNK): number {
  return Math.max(1, Math.floor(elements / Math.max(1, n)));
}

/** An elementwise call: its place in the kernel's list of operations, and whether it computes in integers. */
interface Elementwise {
  readonly kernel: string;
  readonly op: string;
  readonly ops: readonly string[];
  readonly ints: boolean;
}

function map(recorder: Recorder, call: Elementwise, out: View, operands: readonly View[]): void {
  for (const view of operands) {
    if (!sameShape(view.shape, out.shape)) {
      throw new InvalidArgument(
        `Cannot run ${call.op}: an operand has shape (${view.shape}), the result (${out.shape})`,
      );
    }
  }
  const total = sizeOf(out.shape);
  if (total === 0) return;
  const views = [out, ...operands];
  const { shape, strides } = merge(out.shape, views.map((v) => v.strides));
  const inner = shape[5]!;
  const chunk = Math.min(inner, CHUNK);
  const perPart = rowsPerPart(inner);
  const words = new Words(recorder).int(call.ops.indexOf(call.op), call.ints, ...shape, perPart, chunk);
  for (let i = 0; i < 4; i++) words.typed(views[i] ?? null).int(...(strides[i] ?? [0, 0, 0, 0, 0, 0]));
  recorder.record({
    kernel: call.kernel,
    params: words.words,
    parts: Math.ceil(total / inner / perPart) * Math.ceil(inner / chunk),
    cost: total * (CHEAP.includes(call.op) ? 20 : 50),
    writes: wholly(out),
  });
}

/** Whether all operands hold integers, which are then computed as such. */
function allInts(views: readonly View[]): boolean {
  return views.every((v) => !isFloat(v.dtype));
}

/** Records a kernel that works row by row. */
function rows(
  recorder: Recorder,
  kernel: string,
  words: Words,
  work: { rows: number; perPart: number; cost: number; outputs: readonly (View | null)[] },
): void {
  const parts = Math.ceil(work.rows / work.perPart);
  if (parts === 0) return;
  recorder.record({ kernel, params: words.words, parts, cost: work.cost, writes: wholly(...work.outputs) });
}

function norm(
  recorder: Recorder,
  kernel: "rms_norm" | "layer_norm",
  x: View,
  weight: View | null,
  bias: View | null,
  [eps, offset]: readonly [number, number],
  out: View,
): void {
  checkOutput("a normalised tensor", out);
  const operands = [["an input", x], ["a weight", weight], ["a bias", bias]] as const;
  for (const [what, view] of operands) {
    checkFloat(what, view);
    if (view !== null) rowStride(what, view);
  }
  const [M, N] = x.shape as [number, number];
  if (3 * 4 * N > SCRATCH_BYTES) {
    throw new InvalidArgument(
      `Cannot normalise rows of ${N} elements: at most ${SCRATCH_BYTES / 12} are possible`,
    );
  }
  const perPart = rowsPerPart(N);
  const words = new Words(recorder)
    .typed(x).int(rowStride("an input", x)).typed(weight).typed(bias)
    .float(eps, offset).pointer(out).int(M, N, perPart);
  rows(recorder, kernel, words, { rows: N === 0 ? 0 : M, perPart, cost: 20 * M * N, outputs: [out] });
}

function rotaryTable(
  recorder: Recorder,
  frequencies: Float32Array,
  first: number,
  scaling: number,
  out: View,
): void {
  checkOutput("a rotary table", out);
  const [count, D] = out.shape as [number, number];
  const perPart = rowsPerPart(D, 1024);
  for (let column = 0; column < frequencies.length; column += FREQUENCIES) {
    const some = frequencies.subarray(column, column + FREQUENCIES);
    const words = new Words(recorder)
      .pointer(out).int(D, first).float(scaling).int(count, column, some.length, perPart).float(...some);
    // Only a table that one command fills is lost as a whole with it; later commands would be dropped as well.
    rows(recorder, "rotary_table", words, {
      rows: count,
      perPart,
      cost: 200 * count * some.length,
      outputs: [out],
    });
  }
}

function rotary(recorder: Recorder, x: View, table: View, positions: View, out: View): void {
  checkFloat("a rotated tensor", x, true);
  checkFloat("a rotary table", table, true);
  checkOutput("a rotated tensor", out);
  rowStride("a rotated tensor", x);
  const [B, H, N, D] = x.shape as [number, number, number, number];
  const perPart = rowsPerPart(D);
  const words = new Words(recorder)
    .pointer(x).int(...x.strides.slice(0, 3))
    .pointer(table).int(rowStride("a rotary table", table))
    .pointer(positions).int(...positions.strides)
    .pointer(out).int(B, H, N, D, perPart);
  rows(recorder, "rotary", words, { rows: B * H * N, perPart, cost: 25 * B * H * N * D, outputs: [out] });
}

/** A reduction of the last dimension to one value a row; op −1 is argmax. */
function reduction(recorder: Recorder, kernel: "reduce" | "argmax", op: number, x: View, out: View): void {
  checkOutput("a reduction", out, kernel === "argmax" ? "int32" : "float32");
  const { shape, strides } = mergeRows(x);
  const inner = shape[5]!;
  const perPart = rowsPerPart(inner);
  const words = new Words(recorder)
    .int(op).typed(x).int(...shape, ...strides[0]!).pointer(out).int(perPart);
  const count = sizeOf(shape.slice(0, 5));
  rows(recorder, kernel, words, { rows: count, perPart, cost: 15 * count * inner, outputs: [out] });
}

function softmax(recorder: Recorder, x: View, out: View, lse: View | null): void {
  checkFloat("an input", x);
  checkOutput("a softmax", out);
  checkOutput("a log-sum-exp", lse);
  const { shape, strides } = mergeRows(x);
  const inner = shape[5]!;
  const perPart = rowsPerPart(inner);
  const words = new Words(recorder)
    .typed(x).int(...shape, ...strides[0]!).pointer(out).pointer(lse).int(perPart);
  const count = sizeOf(shape.slice(0, 5));
  rows(recorder, "softmax", words, { rows: count, perPart, cost: 30 * count * inner, outputs: [out, lse] });
}

function embedding(recorder: Recorder, ids: View, weight: View, out: View): void {
  checkFloat("an embedding", weight);
  checkOutput("an embedding", out);
  const [N, E] = out.shape as [number, number];
  const perPart = rowsPerPart(E);
  const words = new Words(recorder)
    .pointer(ids).int(ids.strides[0] ?? 0)
    .typed(weight).int(rowStride("an embedding", weight))
    .pointer(out).int(N, E, perPart);
  rows(recorder, "embedding", words, { rows: N, perPart, cost: 25 * N * E, outputs: [out] });
}

/** Rows of keys or values as int8 with scales; the fields follow `KvQuantize` of `kv_quantize.rs`. */
function quantize(recorder: Recorder, x: View, out: View, scales: View): void {
  checkFloat("keys or values", x);
  const [B, H, N, D] = x.shape as [number, number, number, number];
  const fits = sameShape(out.shape, x.shape) && sameShape(scales.shape, [B, H, N, 1]) &&
    out.dtype === "int8" && scales.dtype === "float32";
  if (!fits) {
    throw new InvalidArgument(
      `Cannot quantise (${x.shape}) into ${out.dtype} (${out.shape}) with scales ${scales.dtype} (${scales.shape}): ` +
        `expected int8 (${x.shape}) and float32 (${[B, H, N, 1]})`,
    );
  }
  if (4 * (D + 4) > SCRATCH_BYTES) {
    throw new InvalidArgument(
      `Cannot quantise rows of ${D} elements: at most ${SCRATCH_BYTES / 4 - 4} are possible`,
    );
  }
  for (const view of [x, out]) rowStride("keys or values", view);
  const outer = (view: View) => view.strides.slice(0, 3);
  const count = D === 0 ? 0 : B * H * N, perPart = rowsPerPart(D);
  const words = new Words(recorder)
    .typed(x).int(...outer(x)).pointer(out).int(...outer(out)).pointer(scales).int(...outer(scales))
    .int(H, N, D, perPart, count);
  rows(recorder, "kv_quantize", words, { rows: count, perPart, cost: 8 * count * D, outputs: [out, scales] });
}

/** The kernels of a WASM engine: each call packs its views and records one command. */
export function wasmKernels(recorder: Recorder): Kernels {
  return {
    unary(op, x, out) {
      map(
        recorder,
        { kernel: "unary", op, ops: UNARY, ints: allInts([x, out]) && (op === "copy" || op === "neg") },
        out,
        [x],
      );
    },
    binary(op, a, b, out) {
      const ints = allInts([a, b, out]);
      if (ints && !INT_BINARY.includes(op)) {
        throw new InvalidArgument(`Cannot run ${op} on ${a.dtype}: it is defined for floats`);
      }
      map(recorder, { kernel: "binary", op, ops: BINARY, ints }, out, [a, b]);
    },
    where(condition, a, b, out) {
      const call = { kernel: "where", op: "where", ops: ["where"], ints: allInts([a, b, out]) };
      map(recorder, call, out, [a, b, condition]);
    },
    reduce: (op, x, out) => reduction(recorder, "reduce", REDUCE.indexOf(op), x, out),
    softmax: (x, out, lse) => softmax(recorder, x, out, lse),
    matmul: (a, b, out, transpose_b) => matmul(recorder, a, b, out, transpose_b),
    linear: (x, weight, bias, out) => linear(recorder, x, weight, bias, out),
    linear_quantized: (x, weight, bias, out, room) => linearQuantized(recorder, x, weight, bias, out, room),
    weight_step: (step, weight, values, scales) => weightStep(recorder, step, weight, values, scales),
    embedding: (ids, weight, out) => embedding(recorder, ids, weight, out),
    rms_norm: (x, weight, eps, unit, out) => norm(recorder, "rms_norm", x, weight, null, [eps, unit], out),
    layer_norm: (x, weight, bias, eps, out) => norm(recorder, "layer_norm", x, weight, bias, [eps, 0], out),
    rotary_table: (frequencies, first, scaling, out) =>
      rotaryTable(recorder, frequencies, first, scaling, out),
    rotary: (x, table, positions, out) => rotary(recorder, x, table, positions, out),
    argmax: (x, out) => reduction(recorder, "argmax", -1, x, out),
    quantize: (x, out, scales) => quantize(recorder, x, out, scales),
    attention: (call) => recordAttention(recorder, call),
  };
}
