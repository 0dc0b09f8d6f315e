/**
 * Quantised weights made, packed and unpacked. Kernels of the CPU do it wherever weights live: it is done once, and a
 * GPU's division is not exact, so only thus a weight has the same bits everywhere.
 *
 * @module
 */
import type { Device } from "../devices/device.ts";
import { defaultDevice } from "../devices/mod.ts";
import { packedWords, type QuantizedMatrix } from "../devices/quantized.ts";
import { quantizedView } from "../ops/quantized.ts";
import { Tensor } from "../tensor.ts";
import { fileTensors } from "./stored.ts";

/** Where weights of `device` are made: there, or on the default engine. */
export function workbenchOf(device: Device): Device {
  return device.kernels.weight_step === undefined ? defaultDevice("wasm") : device;
}

/** An unfilled packed matrix on `device`. */
export function emptyPacked(device: Device, matrix: QuantizedMatrix): Tensor {
  return Tensor.empty(device, "int32", [packedWords(matrix)]);
}

/**
 * Fills `packed` on `device` from `values`, which are floats, or integers with their `scales`, all on its
 * {@linkcode workbenchOf}.
 */
export async function fillPacked(
  device: Device,
  packed: Tensor,
  matrix: QuantizedMatrix,
  values: Tensor,
  scales: Tensor | null,
): Promise<void> {
  const bench = workbenchOf(device);
  const step = scales === null ? "quantize" : "pack";
  const make = (to: Tensor) =>
    bench.kernels.weight_step!(
      step,
      quantizedView(to, matrix, bench),
      values.on(bench),
      scales?.on(bench) ?? null,
    );
  if (bench === device) make(packed);
  else {
    using made = emptyPacked(bench, matrix);
    make(made);
    await copyPacked(made, packed, device);
  }
  await device.flush();
}

/** Copies a packed matrix to one on `device`: its bytes are the same everywhere. */
async function copyPacked(from: Tensor, to: Tensor, device: Device): Promise<void> {
  device.write(to.storage.on(device), 0, device.encode("int32", await from.raw()));
}

/** The tensors a packed matrix is in a file: see `stored.ts`. They belong to the caller. */
export async function unpack(
  packed: Tensor,
  matrix: QuantizedMatrix,
): Promise<{ values: Tensor; scales: Tensor }> {
  const bench = workbenchOf(packed.storage.home!);
  using here = bench === packed.storage.home ? null : emptyPacked(bench, matrix);
  if (here !== null) await copyPacked(packed, here, bench);
  const form = fileTensors(matrix);
  const values = Tensor.empty(bench, form.values.dtype, form.values.shape);
  const scales = Tensor.empty(bench, form.scales.dtype, form.scales.shape);
  bench.kernels.weight_step!(
    "unpack",
    quantizedView(here ?? packed, matrix, bench),
    values.on(bench),
    scales.on(bench),
  );
  return { values, scales };
}
