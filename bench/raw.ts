/**
 * Kernels called on a device directly, without tensors: for benches that choose the device themselves.
 *
 * @module
 */
import type { AttentionCall, Device, View } from "../src/devices/device.ts";
import type { AttentionShape } from "./cases.ts";

/** A contiguous float32 view on memory of `device`: of `data`, else uninitialised. The caller releases its allocation. */
export function placeFloats(
  device: Device,
  shape: readonly number[],
  data?: Float32Array<ArrayBuffer>,
): View {
  const n = shape.reduce((a, b) => a * b, 1);
  const allocation = device.allocate(n * 4);
  if (data !== undefined) device.write(allocation, 0, device.encode("float32", data));
  const strides = shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1));
  return { allocation, dtype: "float32", offset: 0, shape, strides };
}

/** A call of the flash kernel: query (B, H, Q, D), key and value (B, Hkv, K, D), out (B, Q, H, D). */
export function flashCall(
  { K, Q, D, causal = false, window }: AttentionShape,
  operands: Pick<AttentionCall, "query" | "key" | "value" | "out">,
): AttentionCall {
  return {
    ...{ algorithm: "flash", ...operands, weights: null, lse: null, scaling: D ** -0.5, softcap: 0 },
    ...{ query_offset: K - Q, causal, window_left: window === undefined ? -1 : window - 1, window_right: -1 },
    ...{ padding: null, zero_padded_queries: false, mask: null, blocks: null, sinks: null },
  };
}
