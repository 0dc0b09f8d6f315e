/**
 * Quantised weights → floats, for the layers that read rows and not products.
 *
 * @module
 */
import type { Device } from "../devices/device.ts";
import type { QuantizedMatrix } from "../devices/quantized.ts";
import { convertTo, present } from "../dtype.ts";
import { slice } from "../ops/shape.ts";
import type { Tensor } from "../tensor.ts";

/** Weights that are widened at once. */
const CHUNK = 2 ** 20;

/** Fills `target` (O, I) on `device` from the tensors of a file: see `stored.ts`. */
export async function widened(
  target: Tensor,
  { format, shape: [rows, columns] }: QuantizedMatrix,
  values: Tensor,
  scales: Tensor,
  device: Device,
): Promise<void> {
  const step = Math.max(1, Math.floor(CHUNK / Math.max(1, columns)));
  for (let first = 0; first < rows; first += step) {
    const last = Math.min(rows, first + step);
    using some = slice(values, 0, first, last);
    using by = slice(scales, 0, first, last);
    const q = await some.raw() as Int8Array | Uint8Array;
    const s = present(by.dtype, await by.raw()) as Float32Array;
    const groups = s.length / (last - first);
    const floats = new Float32Array((last - first) * columns);
    for (let i = 0; i < floats.length; i++) {
      const row = Math.floor(i / columns), column = i % columns;
      const scale = s[row * groups + (format === "int8" ? 0 : column >> 5)]!;
      floats[i] = scale * (format === "int4" ? (q[i >> 1]! >> (i % 2 * 4) & 15) - 8 : q[i]!);
    }
    const at = first * columns * device.elementBytes(target.dtype);
    device.write(target.storage.on(device), at, device.encode(target.dtype, convertTo(target.dtype, floats)));
    await device.flush();
  }
}
