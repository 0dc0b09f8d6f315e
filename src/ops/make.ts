/** Tensors from nothing. They are host-first: no device is touched before their first use. @module */
import { type DType, hostArray } from "../dtype.ts";
import type { DeviceName } from "../devices/device.ts";
import { InvalidArgument } from "../errors.ts";
import { checkShape, sizeOf } from "../shape.ts";
import { Tensor } from "../tensor.ts";

/** Options of the constructors here. */
export interface MakeOptions {
  /** Element type. */
  dtype?: DType;
  /** Device of first use; default `"wasm"`. */
  device?: DeviceName;
}

/** A tensor of zeros, float32 by default. */
export function zeros(shape: readonly number[], options: MakeOptions = {}): Tensor {
  const { dtype = "float32", device = "wasm" } = options;
  const checked = checkShape(shape);
  return Tensor.ofHost(hostArray(dtype, sizeOf(checked)), dtype, checked, device);
}

/** A tensor filled with one value, float32 by default. */
export function full(shape: readonly number[], value: number, options: MakeOptions = {}): Tensor {
  const { dtype = "float32", device = "wasm" } = options;
  using one = Tensor.from([value], { dtype });
  const host = hostArray(dtype, sizeOf(checkShape(shape)));
  host.fill(one.storage.host![0] as never);
  return Tensor.ofHost(host, dtype, checkShape(shape), device);
}

/** `start, start + step, …` below `end`, as PyTorch: `arange(end)` counts from 0; int32 when all are integers. */
export function arange(start: number, end?: number, step = 1, options: MakeOptions = {}): Tensor {
  const [from, to] = end === undefined ? [0, start] : [start, end];
  const count = Math.max(0, Math.ceil((to - from) / step));
  if (!Number.isFinite(count) || step === 0) {
    throw new InvalidArgument(
      `Cannot make arange(${from}, ${to}, ${step}): expected finite numbers and a step other than 0`,
    );
  }
  const integers = [from, to, step].every(Number.isInteger);
  const values = Float64Array.from({ length: count }, (_, i) => from + i * step);
  return Tensor.from(values, {
    dtype: options.dtype ?? (integers ? "int32" : "float32"),
    device: options.device ?? "wasm",
  });
}
