/** Operations on shapes. They return views where strides allow it and copies where not. @module */
import { InvalidArgument } from "../errors.ts";
import { releasing } from "../release.ts";
import { checkShape, reshapedStrides, sizeOf } from "../shape.ts";
import { Tensor } from "../tensor.ts";
import { placeOf, resolveDim } from "./place.ts";

/** The same elements in row-major order under another shape; one dimension may be −1. */
export function reshape(x: Tensor, shape: readonly number[]): Tensor {
  const holes = shape.filter((d) => d === -1).length;
  const known = sizeOf(shape.filter((d) => d !== -1));
  const full = shape.map((d) => d === -1 && known > 0 ? x.size / known : d);
  if (holes > 1 || full.some((d) => !Number.isInteger(d) || d < 0) || sizeOf(full) !== x.size) {
    throw new InvalidArgument(
      `Cannot reshape a tensor of shape [${x.shape}] to [${shape}]: ${x.size} elements do not fit`,
    );
  }
  const checked = checkShape(full);
  const strides = reshapedStrides(x, checked);
  if (strides !== null) return x.view(checked, strides);
  return releasing(x.contiguous(), (packed) => packed.view(checked, reshapedStrides(packed, checked)!));
}

/** Reorders dimensions. A copy only when the last dimension moves. */
export function permute(x: Tensor, dims: readonly number[]): Tensor {
  const rank = x.shape.length;
  const order = dims.map((d) => resolveDim(d, rank, "permute"));
  if (order.length !== rank || new Set(order).size !== rank) {
    throw new InvalidArgument(
      `Cannot permute a tensor of shape [${x.shape}] by [${dims}]: expected each dimension once`,
    );
  }
  const shape = order.map((d) => x.shape[d]!);
  const strides = order.map((d) => x.strides[d]!);
  const moved = x.view(shape, strides);
  const last = rank - 1;
  if (rank === 0 || strides[last] === 1 || shape[last] === 1) return moved;
  using view = moved;
  const device = placeOf([x], "permute");
  const source = as32(view.on(device));
  const out = Tensor.empty(device, x.dtype, shape);
  device.kernels.unary("copy", source, as32(out.on(device)));
  return out;
}

/** Swaps two dimensions. */
export function transpose(x: Tensor, dim0: number, dim1: number): Tensor {
  const rank = x.shape.length;
  const a = resolveDim(dim0, rank, "transpose");
  const b = resolveDim(dim1, rank, "transpose");
  const order = x.shape.map((_, i) => i === a ? b : i === b ? a : i);
  return permute(x, order);
}

/** Elements `start…end` (exclusive; negative counts from the end) along `dim`, as a view. */
export function slice(x: Tensor, dim: number, start: number, end: number = Infinity): Tensor {
  const d = resolveDim(dim, x.shape.length, "slice");
  const n = x.shape[d]!;
  const clamp = (i: number) => Math.min(Math.max(i < 0 ? i + n : i, 0), n);
  if (!Number.isInteger(start) || !(Number.isInteger(end) || end === Infinity)) {
    throw new InvalidArgument(`Cannot slice from ${start} to ${end}: expected integers`);
  }
  const from = clamp(start);
  const to = Math.max(from, clamp(end));
  const shape = x.shape.map((s, i) => i === d ? to - from : s);
  return x.view(shape, x.strides, x.offset + from * x.strides[d]!);
}

/** Joins tensors along `dim`; all other dimensions must agree. */
export function cat(tensors: readonly Tensor[], dim = 0): Tensor {
  const first = tensors[0];
  if (first === undefined) throw new InvalidArgument("Cannot cat an empty list of tensors");
  const d = resolveDim(dim, first.shape.length, "cat");
  for (const t of tensors) {
    if (
      t.dtype !== first.dtype || t.shape.length !== first.shape.length ||
      t.shape.some((s, i) => i !== d && s !== first.shape[i])
    ) {
      throw new InvalidArgument(
        `Cannot cat ${t.dtype} [${t.shape}] to ${first.dtype} [${first.shape}] along dimension ${d}: dtypes and other dimensions must agree`,
      );
    }
  }
  const device = placeOf(tensors, "cat");
  const shape = first.shape.map((s, i) => i === d ? tensors.reduce((n, t) => n + t.shape[d]!, 0) : s);
  const views = tensors.map((t) => as32(t.on(device)));
  const out = Tensor.empty(device, first.dtype, shape);
  let at = 0;
  for (const [i, t] of tensors.entries()) {
    using part = slice(out, d, at, at + t.shape[d]!);
    if (t.size > 0) device.kernels.unary("copy", views[i]!, as32(part.on(device)));
    at += t.shape[d]!;
  }
  return out;
}

/** Repeats each key/value head `n_rep` times in a row: (B, Hkv, K, D) → (B, Hkv·n_rep, K, D). */
export function repeat_kv(x: Tensor, n_rep: number): Tensor {
  if (x.shape.length !== 4 || !Number.isInteger(n_rep) || n_rep < 1) {
    throw new InvalidArgument(
      `Cannot repeat heads of a tensor of shape [${x.shape}] ${n_rep} times: expected (B, Hkv, K, D) and an integer ≥ 1`,
    );
  }
  if (n_rep === 1) return x.view(x.shape, x.strides);
  const [b, h, k, d] = x.shape as [number, number, number, number];
  const device = placeOf([x], "repeat_kv");
  const view = as32(x.on(device));
  const out = Tensor.empty(device, x.dtype, [b, h, n_rep, k, d]);
  const [sb, sh, sk, sd] = view.strides as [number, number, number, number];
  device.kernels.unary(
    "copy",
    { ...view, shape: out.shape, strides: [sb, sh, 0, sk, sd] },
    as32(out.on(device)),
  );
  return releasing(out, () => out.view([b, h * n_rep, k, d], [h * n_rep * k * d, k * d, d, 1]));
}

/** Devices keep int64 as 32-bit integers: kernels see int32. */
function as32<V extends { dtype: string }>(view: V): V {
  return view.dtype === "int64" ? { ...view, dtype: "int32" } : view;
}
