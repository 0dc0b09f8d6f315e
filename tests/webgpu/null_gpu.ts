/**
 * Dawn on its null backend, which compiles and executes nothing, and operands for kernels that never run.
 *
 * @module
 */
import type { View } from "../../src/devices/device.ts";
import type { WebGpuDevice } from "../../src/devices/webgpu/device.ts";
import { FEATURES } from "../../src/devices/webgpu/matrix_units.ts";
import type { DType } from "../../src/dtype.ts";
import { openDawn } from "../dawn/dawn.ts";

/** Types of floats that kernels read. */
export const FLOATS = ["float32", "float16", "bfloat16"] as const;

/** What the kernels on matrix units enable. */
export const MATRIX_FEATURES = [...FEATURES] as GPUFeatureName[];

/** The null GPU with experimental features, or why there is none. */
export async function nullGpu(): Promise<GPU | string> {
  const { state } = await Deno.permissions.query({ name: "ffi" });
  if (state !== "granted") return "Dawn needs --allow-ffi";
  try {
    return await openDawn(["backend=null", "enable-dawn-features=allow_unsafe_apis"]);
  } catch (error) {
    return `Dawn could not be loaded: ${error instanceof Error ? error.message.split("\n")[0] : error}`;
  }
}

/** Makes views on `device` and frees them all. */
export class Views implements Disposable {
  readonly #made: View[] = [];
  constructor(readonly device: WebGpuDevice) {}

  make(shape: readonly number[], dtype: DType = "float32", offset = 0): View {
    const strides = shape.map((_, d) => shape.slice(d + 1).reduce((a, b) => a * b, 1));
    const n = shape.reduce((a, b) => a * b, 1);
    const allocation = this.device.allocate((n + offset) * this.device.elementBytes(dtype));
    const view = { allocation, dtype, offset, shape, strides };
    this.#made.push(view);
    return view;
  }

  [Symbol.dispose](): void {
    for (const view of this.#made) this.device.release(view.allocation);
  }
}
