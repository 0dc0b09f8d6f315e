/** Reductions and softmax. @module */
import { InvalidArgument } from "../errors.ts";
import { tidy } from "../scope.ts";
import { Tensor } from "../tensor.ts";
import { placeOf, reshapedView, resolveDim, viewAs } from "./place.ts";
import { reshape, transpose } from "./shape.ts";

/** Options of a reduction. */
export interface ReduceOptions {
  /** Dimension to reduce; default: all of them. */
  dim?: number;
  /** Keep the reduced dimension with size 1. */
  keepdim?: boolean;
}

function reduce(op: "sum" | "max" | "mean", x: Tensor, options: ReduceOptions): Tensor {
  const { dim, keepdim = false } = options;
  return tidy(() => {
    let source = x;
    if (dim === undefined) source = reshape(x, [x.size]);
    const rank = source.shape.length;
    const d = resolveDim(dim ?? 0, rank, op);
    if (op === "max" && source.shape[d] === 0) {
      throw new InvalidArgument(
        `Cannot take the max of a tensor of shape [${x.shape}]: there is nothing to compare`,
      );
    }
    if (d !== rank - 1) source = transpose(source, d, rank - 1);
    const device = placeOf([source], op);
    const view = viewAs(source, "float32", device);
    const shape = source.shape.slice(0, -1);
    const out = Tensor.empty(device, "float32", shape);
    device.kernels.reduce(op, view, out.on(device));
    if (d === rank - 1 && !keepdim) return out;
    if (dim === undefined) return reshape(out, keepdim ? x.shape.map(() => 1) : []);
    // `source` had dimensions d and last swapped: put the old last dimension back in its place.
    const wide = reshape(out, [...shape, 1]);
    const placed = d === rank - 1 ? wide : transpose(wide, d, rank - 1);
    return reshape(placed, keepdim ? placed.shape : placed.shape.filter((_, i) => i !== d));
  });
}

/** Sum along a dimension, or of everything. */
export function sum(x: Tensor, options: ReduceOptions = {}): Tensor {
  return reduce("sum", x, options);
}
/** Largest value along a dimension, or of everything. */
export function max(x: Tensor, options: ReduceOptions = {}): Tensor {
  return reduce("max", x, options);
}
/** Mean along a dimension, or of everything. */
export function mean(x: Tensor, options: ReduceOptions = {}): Tensor {
  return reduce("mean", x, options);
}

/** Softmax along `dim` (default: the last). A row of −∞ gives zeros. With `return_lse`, also log Σ exp. */
export function softmax(x: Tensor, options?: { dim?: number; return_lse?: false }): Tensor;
/** As above, with the log-sum-exp. */
export function softmax(x: Tensor, options: { dim?: number; return_lse: true }): [Tensor, Tensor];
export function softmax(
  x: Tensor,
  options: { dim?: number; return_lse?: boolean } = {},
): Tensor | [Tensor, Tensor] {
  const rank = x.shape.length;
  const d = resolveDim(options.dim ?? -1, rank, "softmax");
  return tidy(() => {
    let source = x;
    if (d !== rank - 1) source = transpose(x, d, rank - 1);
    const device = placeOf([source], "softmax");
    const view = viewAs(source, "float32", device);
    const out = Tensor.empty(device, "float32", source.shape);
    const lse = options.return_lse === true
      ? Tensor.empty(device, "float32", source.shape.slice(0, -1))
      : null;
    device.kernels.softmax(view, out.on(device), lse?.on(device) ?? null);
    if (d === rank - 1) return lse === null ? out : [out, lse];
    const back = transpose(out, d, rank - 1);
    if (lse === null) return back;
    const wide = reshape(lse, [...lse.shape, 1]);
    const placed = transpose(wide, d, rank - 1);
    return [back, reshape(placed, placed.shape.filter((_, i) => i !== d))];
  });
}

/** Index of the largest element along the last dimension, the first on ties, as int32. */
export function argmax(x: Tensor): Tensor {
  return tidy(() => {
    const columns = x.shape[x.shape.length - 1] ?? 1;
    if (columns === 0) {
      throw new InvalidArgument(
        `Cannot take the argmax of a tensor of shape [${x.shape}]: there is nothing to compare`,
      );
    }
    const device = placeOf([x], "argmax");
    const rows = reshapedView(x, [x.size / columns, columns], "float32", device);
    const out = Tensor.empty(device, "int32", x.shape.slice(0, -1));
    device.kernels.argmax(rows, { ...out.on(device), shape: [rows.shape[0]!], strides: [1] });
    return out;
  });
}
