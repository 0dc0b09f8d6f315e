/**
 * Kernels with one invocation per element.
 *
 * @module
 */
import type { DType } from "../../dtype.ts";
import { InvalidArgument } from "../../errors.ts";
import type { BinaryOp, UnaryOp, View } from "../device.ts";
import type { Dispatch } from "./command.ts";
import {
  count,
  elementType,
  expectDType,
  floatType,
  fold,
  isInteger,
  launch,
  merge,
  operand,
  Params,
} from "./record.ts";

/** How `copy` converts values of `from` to `to`: types of the buffers and the expression. */
function conversion(from: DType, to: DType): { IN: string; OUT: string; TO: string } {
  const IN = elementType(from), OUT = elementType(to);
  const same = from === to || (IN === "i32" && (to === "int32" || to === "int64"));
  // Equal representations are moved as bits, which no arithmetic can touch.
  if (same) return { IN: rawType(IN), OUT: rawType(OUT), TO: "float" };
  if (!isInteger(OUT) || to === "int32" || to === "int64") return { IN, OUT, TO: "float" };
  if (to === "bool") return { IN, OUT, TO: isInteger(IN) ? "bool_of_int" : "bool" };
  return { IN, OUT, TO: isInteger(IN) ? to : `${to}_of_float` };
}

/** Type by which elements of another are moved unseen. */
function rawType(type: ReturnType<typeof elementType>): "u32" | "raw16" | "raw8" {
  return type === "i8" ? "raw8" : type === "f16" || type === "bf16" ? "raw16" : "u32";
}

/** Bytes to bytes, whose innermost dimensions are whole words, as views of words; else null. */
function asWords(x: View, out: View): [View, View] | null {
  if (x.dtype !== "int8" || out.dtype !== "int8" || out.shape.at(-1)! % 4 !== 0) return null;
  const even = [x, out].every(({ offset, strides }) =>
    offset % 4 === 0 && strides.at(-1) === 1 && strides.slice(0, -1).every((s) => s % 4 === 0)
  );
  if (!even) return null;
  const words = (view: View): View => ({
    ...view,
    dtype: "int32",
    offset: view.offset / 4,
    shape: [...view.shape.slice(0, -1), view.shape.at(-1)! / 4],
    strides: [...view.strides.slice(0, -1).map((s) => s / 4), 1],
  });
  return [words(x), words(out)];
}

/** `out = op(x)`. */
export function unary(op: UnaryOp, x: View, out: View): Dispatch | null {
  const n = count(out.shape);
  if (n === 0) return null;
  const words = op === "copy" ? asWords(x, out) : null;
  if (words !== null) return unary(op, ...words);
  const types = op === "copy"
    ? conversion(x.dtype, out.dtype)
    : op === "neg" && isInteger(elementType(x.dtype))
    ? { IN: elementType(x.dtype), OUT: elementType(x.dtype), TO: "float" }
    : {
      IN: floatType(`the operand of ${op}`, x.dtype),
      OUT: floatType(`the result of ${op}`, out.dtype),
      TO: "float",
    };
  if (op === "neg" && types.OUT !== elementType(out.dtype)) {
    throw new InvalidArgument(`Cannot negate ${x.dtype} into ${out.dtype} on webgpu: expected ${x.dtype}`);
  }
  const { shape, strides: [xs, os] } = merge(out.shape, [x.strides, out.strides]);
  const from = operand(x), to = operand(out, true);
  const half = elementType(out.dtype) === "f16" || elementType(out.dtype) === "bf16";
  // Two halves that share a word, if every pair of the innermost dimension does.
  const PAIR = half && os![0] === 1 && shape[0]! % 2 === 0 && to.offset % 2 === 0 &&
    os!.every((s, d) => d === 0 || s % 2 === 0);
  const step = xs![0]!;
  if (PAIR) {
    shape[0]! /= 2;
    xs![0]! *= 2;
    os![0]! *= 2;
  }
  const items = PAIR ? n / 2 : n;
  const { grid, pitch } = fold(items, 256);
  const params = new Params().list(shape, 8, 1).list(xs!, 8, 0).list(os!, 8, 0)
    .int(items, pitch, from.offset, to.offset, step);
  return launch("unary", { OP: op, ...types, PAIR, RANK: shape.length }, [from, to], [out], params, grid);
}

/** `out = op(a, b)`. */
export function binary(op: BinaryOp, a: View, b: View, out: View): Dispatch | null {
  const n = count(out.shape);
  if (n === 0) return null;
  const OUT = elementType(out.dtype);
  expectDType(`the result of ${op}`, out, "float32", "int32", "int64");
  const A = elementType(a.dtype), B = elementType(b.dtype);
  if (isInteger(OUT) !== isInteger(A) || isInteger(OUT) !== isInteger(B)) {
    throw new InvalidArgument(
      `Cannot ${op} ${a.dtype} and ${b.dtype} into ${out.dtype} on webgpu: expected all float or all int32`,
    );
  }
  if (OUT === "i32" && (op === "silu_mul" || op === "div")) {
    throw new InvalidArgument(`Cannot ${op} ${out.dtype} on webgpu: expected float32`);
  }
  const { shape, strides } = merge(out.shape, [a.strides, b.strides, out.strides]);
  const left = operand(a), right = operand(b), to = operand(out, true);
  const { grid, pitch } = fold(n, 256);
  const params = new Params().list(shape, 8, 1);
  for (const list of strides) params.list(list, 8, 0);
  params.int(n, pitch, left.offset, right.offset, to.offset);
  return launch("binary", { OP: op, A, B, OUT, RANK: shape.length }, [left, right, to], [out], params, grid);
}

/** `out = condition ? a : b`. */
export function where(condition: View, a: View, b: View, out: View): Dispatch | null {
  const n = count(out.shape);
  if (n === 0) return null;
  expectDType("a condition", condition, "bool");
  if (a.dtype !== out.dtype || b.dtype !== out.dtype) {
    throw new InvalidArgument(
      `Cannot choose between ${a.dtype} and ${b.dtype} into ${out.dtype} on webgpu: expected one dtype`,
    );
  }
  const OUT = rawType(elementType(out.dtype));
  const { shape, strides } = merge(out.shape, [condition.strides, a.strides, b.strides, out.strides]);
  const operands = [operand(condition), operand(a), operand(b), operand(out, true)];
  const { grid, pitch } = fold(n, 256);
  const params = new Params().list(shape, 8, 1);
  for (const list of strides) params.list(list, 8, 0);
  params.int(n, pitch, ...operands.map((o) => o.offset));
  return launch("where", { OUT, RANK: shape.length }, operands, [out], params, grid);
}

/** Rows of a table by id. */
export function embedding(ids: View, weight: View, out: View): Dispatch | null {
  const n = count(out.shape);
  if (n === 0) return null;
  expectDType("ids", ids, "int32", "int64");
  expectDType("the result of embedding", out, "float32");
  const WEIGHT = floatType("a table", weight.dtype);
  const from = operand(ids), table = operand(weight), to = operand(out, true);
  const { grid, pitch } = fold(n, 256);
  const params = new Params().int(n, pitch, out.shape[1]!, from.offset, ids.strides[0]!, table.offset)
    .int(weight.strides[0]!, weight.strides[1]!, to.offset);
  return launch("embedding", { WEIGHT }, [from, table, to], [out], params, grid);
}

/** Half-split rotation by table rows. */
export function rotary(x: View, table: View, positions: View, out: View): Dispatch | null {
  const n = count(out.shape) / 2;
  if (n === 0) return null;
  expectDType("a rotary table", table, "float32");
  expectDType("positions", positions, "int32", "int64");
  expectDType("the result of rotary", out, "float32");
  const IN = floatType("the operand of rotary", x.dtype);
  const operands = [operand(x), operand(table), operand(positions), operand(out, true)] as const;
  const [from, rows, places, to] = operands;
  const { grid, pitch } = fold(n, 256);
  const params = new Params().int(n, pitch, x.shape[1]!, x.shape[2]!, x.shape[3]! / 2)
    .int(from.offset, ...x.strides).int(rows.offset, ...table.strides)
    .int(places.offset, ...positions.strides).int(to.offset);
  return launch("rotary", { IN }, operands, [out], params, grid);
}
