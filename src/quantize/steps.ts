/**
 * Quantised weights made, packed and unpacked, by the kernels of the engine they live in.
 *
 * @module
 */
import type { Device } from "../devices/device.ts";
import { packedWords, type QuantizedMatrix } from "../devices/quantized.ts";
import { quantizedView } from "../ops/quantized.ts";
import { Tensor } from "../tensor.ts";
import { fileTensors } from "./stored.ts";

/** An unfilled packed matrix on `device`. */
export function emptyPacked(device: Device, matrix: QuantizedMatrix): Tensor {
  return Tensor.empty(device, "int32", [packedWords(matrix)]);
}

/** Fills `packed` from `values`, which are floats, or integers with their `scales`, all on `device`. */
export async function fillPacked(
  device: Device,
  packed: Tensor,
  matrix: QuantizedMatrix,
  values: Tensor,
  scales: Tensor | null,
): Promise<void> {
  device.kernels.weight_step!(
    scales === null ? "quantize" : "pack",
    quantizedView(packed, matrix, device),
    values.on(device),
    scales?.on(device) ?? null,
  );
  await device.flush();
}

/** The tensors a packed matrix is in a file: see `stored.ts`. They belong to the caller. */
export function unpack(packed: Tensor, matrix: QuantizedMatrix): { values: Tensor; scales: Tensor } {
  const device = packed.storage.home!;
  const form = fileTensors(matrix);
  const values = Tensor.empty(device, form.values.dtype, form.values.shape);
  const scales = Tensor.empty(device, form.scales.dtype, form.scales.shape);
  device.kernels.weight_step!(
    "unpack",
    quantizedView(packed, matrix, device),
    values.on(device),
    scales.on(device),
  );
  return { values, scales };
}
