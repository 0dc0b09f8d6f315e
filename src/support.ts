/**
 * What is available here, and why something is not.
 *
 * @module
 */
import { ALL_ATTENTION_FUNCTIONS } from "./attention/interface.ts";
import { builtinOf } from "./attention/builtin.ts";
import type { DeviceName } from "./devices/device.ts";
import { device } from "./devices/mod.ts";
import { DeviceUnavailable } from "./errors.ts";

/** One row of {@linkcode support}. */
export interface SupportRow {
  /** Name of the implementation. */
  readonly implementation: string;
  /** Device it would run on. */
  readonly device: DeviceName;
  /** Whether it can be used here. */
  readonly available: boolean;
  /** The kernel build or adapter, or the reason it is not available. */
  readonly why: string;
}

/** For every implementation and device: whether it can be used here, and on what or why not. Probes the GPU. */
export async function support(): Promise<SupportRow[]> {
  const names = [...new Set(["eager", ...ALL_ATTENTION_FUNCTIONS.valid_keys()])];
  const rows: SupportRow[] = [];
  for (const place of ["wasm", "webgpu"] as const) {
    const { available, why } = await probe(place);
    for (const implementation of names) {
      const whose = builtinOf(implementation) === undefined ? "registered by you, on " : "";
      rows.push({ implementation, device: place, available, why: available ? `${whose}${why}` : why });
    }
  }
  return rows;
}

async function probe(place: DeviceName): Promise<{ available: boolean; why: string }> {
  try {
    return { available: true, why: (await device(place)).description };
  } catch (error) {
    if (error instanceof DeviceUnavailable) return { available: false, why: error.message };
    throw error;
  }
}
