/**
 * Reading tensors that have a host copy, without waiting.
 *
 * @module
 */
import { type HostArray, hostArray } from "./dtype.ts";
import { InvalidArgument } from "./errors.ts";
import type { Tensor } from "./tensor.ts";

/**
 * Row-major host values of a tensor that has a host copy, for code that must stay synchronous. @internal
 *
 * @throws {InvalidArgument} for a tensor that exists only on a device.
 */
export function hostData(t: Tensor): HostArray {
  const { host } = t.storage;
  if (host === null) {
    throw new InvalidArgument(
      `Cannot read a tensor of shape [${t.shape}] synchronously: it has no host copy; read it with await tensor.data(), or make one with Tensor.from(await tensor.data(), …)`,
    );
  }
  return gather(t, host);
}

/** Elements of a view of host storage in row-major order; the host array itself when it is exactly that. */
export function gather(t: Tensor, host: HostArray): HostArray {
  if (t.isContiguous) {
    return host.length === t.size ? host : host.slice(t.offset, t.offset + t.size) as HostArray;
  }
  const out = hostArray(t.dtype, t.size);
  let at = 0;
  const walk = (dim: number, from: number): void => {
    if (dim === t.shape.length) out[at++] = host[from]!;
    else for (let i = 0; i < t.shape[dim]!; i++) walk(dim + 1, from + i * t.strides[dim]!);
  };
  walk(0, t.offset);
  return out;
}
