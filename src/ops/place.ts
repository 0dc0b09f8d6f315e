/**
 * Where an operation runs and with which types: the rules all operations share.
 *
 * @module
 */
import { type DType, isFloat } from "../dtype.ts";
import type { Device, View } from "../devices/device.ts";
import { defaultDevice } from "../devices/mod.ts";
import { InvalidArgument } from "../errors.ts";
import { contiguousStrides, reshapedStrides } from "../shape.ts";
import { Tensor } from "../tensor.ts";

/** A tensor, or a number standing for a rank-0 tensor. */
export type Operand = Tensor | number;

/**
 * Turns a number into a rank-0 tensor; anything else must be a tensor.
 *
 * @throws {InvalidArgument}
 */
export function asTensor(x: Operand, like: Tensor | undefined, name: string): Tensor {
  if (x instanceof Tensor) return x;
  if (typeof x !== "number") {
    throw new InvalidArgument(
      `Cannot ${name} a ${x === null ? "null" : typeof x}: expected a Tensor or a number`,
    );
  }
  const device = like?.device ?? "wasm";
  return Tensor.from(
    [x],
    Number.isInteger(x) && like !== undefined && !isFloat(like.dtype) ? { shape: [], device } : {
      shape: [],
      dtype: "float32",
      device,
    },
  );
}

/** The device an operation on `tensors` runs on: the engine that holds one of them, else the default one. */
export function placeOf(tensors: readonly Tensor[], name: string): Device {
  const first = tensors[0]!;
  for (const t of tensors) {
    if (!(t instanceof Tensor)) {
      throw new InvalidArgument(`Cannot ${name}: expected tensors, got ${typeof t}`);
    }
    if (t.device !== first.device) {
      throw new InvalidArgument(
        `Cannot ${name} tensors of devices "${first.device}" and "${t.device}": move one with await tensor.to(…)`,
      );
    }
  }
  let copied: Device | undefined;
  for (const { storage } of tensors) {
    const { home } = storage;
    if (home !== undefined && storage.host === null) return home;
    copied ??= home;
  }
  return copied ?? defaultDevice(first.device);
}

/**
 * NumPy's broadcast shape of several shapes.
 *
 * @throws {InvalidArgument} naming them all
 */
export function broadcastShapes(shapes: readonly (readonly number[])[], name: string): number[] {
  let rank = 0;
  for (const shape of shapes) rank = Math.max(rank, shape.length);
  const out = new Array<number>(rank).fill(1);
  for (const shape of shapes) {
    for (let i = 0; i < shape.length; i++) {
      const at = rank - shape.length + i;
      const d = shape[i]!;
      if (d === 1) continue;
      if (out[at] !== 1 && out[at] !== d) {
        throw new InvalidArgument(
          `Cannot ${name} tensors of shapes ${shapes.map((s) => `[${s}]`).join(" and ")}: dimension ${
            at - rank
          } does not broadcast`,
        );
      }
      out[at] = d;
    }
  }
  return out;
}

/** `view` broadcast to `shape` by strides of 0. */
export function expandView(view: View, shape: readonly number[]): View {
  const lead = shape.length - view.shape.length;
  const strides = new Array<number>(shape.length).fill(0);
  for (let i = lead; i < shape.length; i++) {
    if (view.shape[i - lead] !== 1) strides[i] = view.strides[i - lead]!;
  }
  return reshaped(view, shape, strides);
}

/** The elements of `view` under another shape. */
function reshaped(
  { allocation, dtype, offset }: View,
  shape: readonly number[],
  strides: readonly number[],
): View {
  return { allocation, dtype, offset, shape, strides };
}

/** The type arithmetic happens in: int32 among integers, else float32. */
export function computeDType(tensors: readonly Tensor[]): "float32" | "int32" {
  return tensors.some((t) => isFloat(t.dtype) || t.scales !== null) ? "float32" : "int32";
}

/** Quantised keys or values as float32, in the active scope. */
export function dequantized(t: Tensor, device: Device): Tensor {
  const out = Tensor.empty(device, "float32", t.shape);
  const integers = Tensor.empty(device, "float32", t.shape).on(device);
  device.kernels.unary("copy", t.unscaled().on(device), integers);
  device.kernels.binary("mul", integers, expandView(t.scales!.on(device), t.shape), out.on(device));
  return out;
}

/** A view of `t` on `device` in `dtype`: where stored otherwise, of a converted copy in the active scope. */
export function viewAs(t: Tensor, dtype: DType, device: Device): View {
  if (t.scales !== null) return viewAs(dequantized(t, device), dtype, device);
  const view = t.on(device);
  if (t.dtype === dtype) return view;
  // Devices keep int64 as 32-bit integers, so this is a change of name only.
  if (t.dtype === "int64" && dtype === "int32") return { ...view, dtype };
  const out = Tensor.empty(device, dtype, t.shape).on(device);
  device.kernels.unary("copy", t.dtype === "int64" ? { ...view, dtype: "int32" } : view, out);
  return out;
}

/** As {@linkcode viewAs} under another shape of as many elements: where strides do not allow it, of a packed copy. */
export function reshapedView(t: Tensor, shape: readonly number[], dtype: DType, device: Device): View {
  const view = viewAs(t, dtype, device);
  const strides = reshapedStrides(view, shape);
  if (strides !== null) return reshaped(view, shape, strides);
  const packed = Tensor.empty(device, dtype, t.shape).on(device);
  device.kernels.unary("copy", view, packed);
  return reshaped(packed, shape, contiguousStrides(shape));
}

/**
 * Resolves a possibly negative dimension.
 *
 * @throws {InvalidArgument}
 */
export function resolveDim(dim: number, rank: number, name: string): number {
  const d = dim < 0 ? dim + rank : dim;
  if (!Number.isInteger(d) || d < 0 || d >= rank) {
    throw new InvalidArgument(`Cannot ${name} along dimension ${dim}: the tensor has ${rank} dimensions`);
  }
  return d;
}
