/**
 * Process-wide settings. They apply to engines made afterwards.
 *
 * @module
 */
import { InvalidArgument } from "./errors.ts";
import { liveEngines } from "./devices/mod.ts";
import { settings } from "./devices/settings.ts";

/** What {@linkcode configure} takes. */
export interface Settings {
  /** Threads a WASM engine computes with. Only 1 is available in this version. */
  threads?: number;
  /** Use only operations whose results are the same bits on every WASM engine (SIMD128, no relaxed SIMD). */
  deterministic?: boolean;
  /** Most bytes one WASM engine (one model) may use; at most 4 GiB. */
  max_memory?: number;
}

/**
 * Changes settings before first use, or while nothing is alive.
 *
 * @throws {InvalidArgument} for an unknown or impossible setting, or while tensors or models are alive.
 */
// deno-lint-ignore require-await -- asynchronous by contract: applying a setting may start workers
export async function configure(changes: Settings): Promise<void> {
  for (const key of Object.keys(changes)) {
    if (!(key in settings)) {
      throw new InvalidArgument(
        `Cannot configure "${key}": known settings are ${Object.keys(settings).join(", ")}`,
      );
    }
  }
  const { threads, deterministic, max_memory } = changes;
  if (threads !== undefined && threads !== 1) {
    throw new InvalidArgument(`Cannot configure threads: ${threads}: this version computes on 1 thread`);
  }
  if (deterministic !== undefined && typeof deterministic !== "boolean") {
    throw new InvalidArgument(`Cannot configure deterministic: ${deterministic}: expected true or false`);
  }
  if (
    max_memory !== undefined &&
    !(Number.isSafeInteger(max_memory) && max_memory >= 1 << 24 && max_memory <= 2 ** 32)
  ) {
    throw new InvalidArgument(
      `Cannot configure max_memory: ${max_memory}: expected bytes between 16 MiB and 4 GiB`,
    );
  }
  const alive = liveEngines();
  if (alive.length > 0) {
    throw new InvalidArgument(
      `Cannot configure while ${alive.join(" and ")} are alive: dispose tensors and models first`,
    );
  }
  Object.assign(settings, Object.fromEntries(Object.entries(changes).filter(([, v]) => v !== undefined)));
}
