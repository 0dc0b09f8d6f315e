/**
 * Kernels with one workgroup per row: reductions, softmax and norms. Each row is summed in an order that depends
 * on its length alone.
 *
 * @module
 */
import { InvalidArgument } from "../../errors.ts";
import type { View } from "../device.ts";
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

/** Reduces the last dimension. */
export function reduce(op: "sum" | "max" | "mean", x: View, out: View): Dispatch | null {
  const rows = count(out.shape);
  if (rows === 0) return null;
  const n = x.shape.at(-1)!;
  const OUT = elementType(out.dtype), IN = elementType(x.dtype);
  expectDType(`the result of ${op}`, out, "float32", "int32", "int64");
  if (isInteger(IN) !== (OUT === "i32") || (OUT === "i32" && op === "mean")) {
    throw new InvalidArgument(`Cannot ${op} ${x.dtype} into ${out.dtype} on webgpu: expected float32`);
  }
  if (n === 0 && op === "max") throw new InvalidArgument("Cannot take the maximum of rows of length 0");
  const { shape, strides: [xs, os] } = merge(out.shape, [x.strides.slice(0, -1), out.strides]);
  const from = operand(x), to = operand(out, true);
  const { grid, pitch } = fold(rows, 1);
  const params = new Params().list(shape, 8, 1).list(xs!, 8, 0).list(os!, 8, 0)
    .int(rows, pitch, from.offset, to.offset, n, x.strides.at(-1)!);
  return launch(
    "reduce",
    { OP: op, IN, OUT, INTEGER: isInteger(IN), RANK: shape.length },
    [from, to],
    [out],
    params,
    grid,
  );
}

/** Softmax over the last dimension, and optionally its log-sum-exp. */
export function softmax(x: View, out: View, lse: View | null): Dispatch | null {
  const n = x.shape.at(-1)!;
  const outer = x.shape.slice(0, -1);
  const rows = count(outer);
  if (rows === 0 || (n === 0 && lse === null)) return null;
  expectDType("the operand of softmax", x, "float32");
  expectDType("the result of softmax", out, "float32");
  const { shape, strides: [xs] } = merge(outer, [x.strides.slice(0, -1)]);
  const from = operand(x), to = operand(out, true), sums = lse ? operand(lse, true) : null;
  const { grid, pitch } = fold(rows, 1);
  const params = new Params().list(shape, 8, 1).list(xs!, 8, 0)
    .int(rows, pitch, from.offset, to.offset, sums?.offset ?? 0, n, x.strides.at(-1)!);
  const outputs = lse ? [out, lse] : [out];
  return launch(
    "softmax",
    { LSE: lse !== null, RANK: shape.length },
    [from, to, sums],
    outputs,
    params,
    grid,
  );
}

/** RMS normalisation. */
export function rmsNorm(
  x: View,
  weight: View | null,
  eps: number,
  unitOffset: number,
  out: View,
): Dispatch | null {
  if (count(out.shape) === 0) return null;
  expectDType("the result of rms_norm", out, "float32");
  const IN = floatType("the operand of rms_norm", x.dtype);
  const from = operand(x), scale = weight ? operand(weight) : null, to = operand(out, true);
  const { grid, pitch } = fold(x.shape[0]!, 1);
  const params = new Params().int(x.shape[0]!, pitch, x.shape[1]!, from.offset, ...x.strides)
    .int(scale?.offset ?? 0, weight?.strides[0] ?? 0).int(to.offset, ...out.strides).float(eps, unitOffset);
  const WEIGHT = weight ? floatType("a weight", weight.dtype) : "f32";
  return launch(
    "rms_norm",
    { IN, WEIGHT, HAS_WEIGHT: weight !== null },
    [from, scale, to],
    [out],
    params,
    grid,
  );
}

/** Layer normalisation. */
export function layerNorm(x: View, weight: View, bias: View | null, eps: number, out: View): Dispatch | null {
  if (count(out.shape) === 0) return null;
  expectDType("the result of layer_norm", out, "float32");
  const IN = floatType("the operand of layer_norm", x.dtype);
  const from = operand(x),
    scale = operand(weight),
    shift = bias ? operand(bias) : null,
    to = operand(out, true);
  const { grid, pitch } = fold(x.shape[0]!, 1);
  const params = new Params().int(x.shape[0]!, pitch, x.shape[1]!, from.offset, ...x.strides)
    .int(scale.offset, weight.strides[0]!, shift?.offset ?? 0, bias?.strides[0] ?? 0)
    .int(to.offset, ...out.strides).float(eps);
  const constants = {
    IN,
    WEIGHT: floatType("a weight", weight.dtype),
    BIAS: bias ? floatType("a bias", bias.dtype) : "f32",
    HAS_BIAS: bias !== null,
  };
  return launch("layer_norm", constants, [from, scale, shift, to], [out], params, grid);
}

/** Index of the largest element of each row. */
export function argmax(x: View, out: View): Dispatch | null {
  const [rows = 0, n = 0] = x.shape;
  if (rows === 0) return null;
  if (n === 0) throw new InvalidArgument("Cannot take the argmax of rows of length 0");
  expectDType("the result of argmax", out, "int32", "int64");
  const from = operand(x), to = operand(out, true);
  const { grid, pitch } = fold(rows, 1);
  const params = new Params().int(rows, pitch, n, from.offset, ...x.strides).int(to.offset, out.strides[0]!);
  const IN = elementType(x.dtype);
  return launch("argmax", { IN, INTEGER: isInteger(IN) }, [from, to], [out], params, grid);
}
