/** Elementwise operations with NumPy's broadcasting. @module */
import { type DType, DTYPES, isDType } from "../dtype.ts";
import type { BinaryOp, UnaryOp } from "../devices/device.ts";
import { InvalidArgument } from "../errors.ts";
import { tidy } from "../scope.ts";
import { Tensor } from "../tensor.ts";
import {
  asTensor,
  broadcastShapes,
  computeDType,
  dequantized,
  expandView,
  type Operand,
  placeOf,
  viewAs,
} from "./place.ts";

function unary(op: UnaryOp, x: Tensor): Tensor {
  return tidy(() => {
    const device = placeOf([x], op);
    const dtype = op === "neg" ? computeDType([x]) : "float32";
    const view = viewAs(x, dtype, device);
    const out = Tensor.empty(device, dtype, x.shape);
    device.kernels.unary(op, view, out.on(device));
    return out;
  });
}

function binary(op: BinaryOp, a: Operand, b: Operand): Tensor {
  return tidy(() => {
    const like = a instanceof Tensor ? a : b instanceof Tensor ? b : undefined;
    const x = asTensor(a, like, op), y = asTensor(b, like, op);
    const shape = broadcastShapes([x.shape, y.shape], op);
    const device = placeOf([x, y], op);
    const dtype = op === "div" || op === "silu_mul" ? "float32" : computeDType([x, y]);
    const operand = (t: Tensor) => expandView(viewAs(t, dtype, device), shape);
    const out = Tensor.empty(device, dtype, shape);
    device.kernels.binary(op, operand(x), operand(y), out.on(device));
    return out;
  });
}

/** `a + b` with broadcasting. */
export function add(a: Operand, b: Operand): Tensor {
  return binary("add", a, b);
}
/** `a − b` with broadcasting. */
export function sub(a: Operand, b: Operand): Tensor {
  return binary("sub", a, b);
}
/** `a · b` elementwise with broadcasting. */
export function mul(a: Operand, b: Operand): Tensor {
  return binary("mul", a, b);
}
/** `a / b` with broadcasting, always float32. */
export function div(a: Operand, b: Operand): Tensor {
  return binary("div", a, b);
}
/** The larger of `a` and `b`, elementwise with broadcasting. */
export function maximum(a: Operand, b: Operand): Tensor {
  return binary("maximum", a, b);
}
/** `silu(gate) · up`, the gate of SwiGLU (Shazeer 2020). */
export function silu_mul(gate: Tensor, up: Tensor): Tensor {
  return binary("silu_mul", gate, up);
}
/** `−x`. */
export function neg(x: Tensor): Tensor {
  return unary("neg", x);
}
/** `eˣ`. */
export function exp(x: Tensor): Tensor {
  return unary("exp", x);
}
/** Natural logarithm. */
export function log(x: Tensor): Tensor {
  return unary("log", x);
}
/** Hyperbolic tangent. */
export function tanh(x: Tensor): Tensor {
  return unary("tanh", x);
}
/** `1 / (1 + e⁻ˣ)`. */
export function sigmoid(x: Tensor): Tensor {
  return unary("sigmoid", x);
}
/** Square root. */
export function sqrt(x: Tensor): Tensor {
  return unary("sqrt", x);
}
/** `x · sigmoid(x)`. */
export function silu(x: Tensor): Tensor {
  return unary("silu", x);
}
/** Gaussian error linear unit: exact (erf), or PyTorch's `tanh` approximation. */
export function gelu(x: Tensor, options: { approximate?: "none" | "tanh" } = {}): Tensor {
  return unary(options.approximate === "tanh" ? "gelu_tanh" : "gelu", x);
}
/** `x · sigmoid(1.702 x)`, CLIP's activation. */
export function quick_gelu(x: Tensor): Tensor {
  return unary("quick_gelu", x);
}
/** `max(x, 0)`. */
export function relu(x: Tensor): Tensor {
  return unary("relu", x);
}

/** `condition ? a : b` with broadcasting; `condition` is a bool tensor. */
export function where(condition: Tensor, a: Operand, b: Operand): Tensor {
  return tidy(() => {
    if (!(condition instanceof Tensor) || condition.dtype !== "bool") {
      throw new InvalidArgument(
        `Cannot select by a condition of dtype ${
          condition instanceof Tensor ? condition.dtype : typeof condition
        }: expected bool`,
      );
    }
    const like = a instanceof Tensor ? a : b instanceof Tensor ? b : condition;
    const x = asTensor(a, like, "where"), y = asTensor(b, like, "where");
    const shape = broadcastShapes([condition.shape, x.shape, y.shape], "where");
    const device = placeOf([condition, x, y], "where");
    const dtype = computeDType([x, y]);
    const operand = (t: Tensor) => expandView(viewAs(t, dtype, device), shape);
    const out = Tensor.empty(device, dtype, shape);
    device.kernels.where(expandView(condition.on(device), shape), operand(x), operand(y), out.on(device));
    return out;
  });
}

/** Converts values to another dtype, on the device. */
export function cast(x: Tensor, dtype: DType): Tensor {
  if (!isDType(dtype)) {
    throw new InvalidArgument(`Cannot cast to "${String(dtype)}": expected one of ${DTYPES.join(", ")}`);
  }
  const device = placeOf([x], "cast");
  if (x.scales !== null) {
    return tidy(() => {
      const wide = dequantized(x, device);
      return dtype === "float32" ? wide : cast(wide, dtype);
    });
  }
  if (x.dtype === dtype) return x.view(x.shape, x.strides);
  const as32 = (t: Tensor) =>
    t.dtype === "int64" ? { ...t.on(device), dtype: "int32" as const } : t.on(device);
  const source = as32(x);
  const out = Tensor.empty(device, dtype, x.shape);
  device.kernels.unary("copy", source, as32(out));
  return out;
}
