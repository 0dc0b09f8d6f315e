/**
 * Where an operation runs and with which types: the rules all operations share.
 *
 * @module
 */
import { type DType, isFloat } from "../dtype.ts";
import type { Device, View } from "../devices/device.ts";
import { defaultDevice } from "../devices/mod.ts";
import { InvalidArgument } from "../errors.ts";
import { tidy } from "../scope.ts";
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
  for (const t of tensors) {
    const home = t.storage.home;
    if (home !== undefined && t.storage.host === null) return home;
  }
  for (const t of tensors) {
    const home = t.storage.home;
    if (home !== undefined) return home;
  }
  return defaultDevice(first.device);
}

/**
 * NumPy's broadcast shape of several shapes.
 *
 * @throws {InvalidArgument} naming them all
 */
export function broadcastShapes(shapes: readonly (readonly number[])[], name: string): number[] {
  const rank = Math.max(...shapes.map((s) => s.length));
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
  const strides = shape.map((_, i) => i < lead || view.shape[i - lead] === 1 ? 0 : view.strides[i - lead]!);
  return { ...view, shape, strides };
}

/** The type arithmetic happens in: int32 among integers, else float32. */
export function computeDType(tensors: readonly Tensor[]): "float32" | "int32" {
  return tensors.some((t) => isFloat(t.dtype)) ? "float32" : "int32";
}

/** A view of `t` on `device` in `dtype`, converted into a temporary when stored otherwise. Temporaries go to `temporaries`. */
export function viewAs(t: Tensor, dtype: DType, device: Device, temporaries: Tensor[]): View {
  const view = t.on(device);
  if (t.dtype === dtype) return view;
  // Devices keep int64 as 32-bit integers, so this is a change of name only.
  if (t.dtype === "int64" && dtype === "int32") return { ...view, dtype };
  const converted = Tensor.empty(device, dtype, t.shape);
  temporaries.push(converted);
  const out = converted.on(device);
  device.kernels.unary("copy", t.dtype === "int64" ? { ...view, dtype: "int32" } : view, out);
  return out;
}

/**
 * Runs `record` with a list for temporaries and disposes them when it returns; when it throws, for want of memory or
 * because a value does not fit the device, results made so far are disposed, too.
 */
export function withTemporaries<T>(record: (temporaries: Tensor[]) => T): T {
  const temporaries: Tensor[] = [];
  try {
    return tidy(() => record(temporaries));
  } finally {
    for (const t of temporaries) t[Symbol.dispose]();
  }
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
