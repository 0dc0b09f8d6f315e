/**
 * Process-wide settings. They apply to engines made afterwards.
 *
 * @module
 */
import { DeviceUnavailable, InvalidArgument } from "./errors.ts";
import { liveEngines, renewGpu, renewThreads } from "./devices/mod.ts";
import { settings } from "./devices/settings.ts";
import { checkThreads } from "./devices/wasm/threads.ts";

/** What {@linkcode configure} takes. */
export interface Settings {
  /**
   * Threads WASM engines compute with: `"auto"`, the default, takes as many as there are processors, at most 8, and one
   * where there can be no others. They are started for work that is worth it, and all engines have the same ones.
   */
  threads?: number | "auto";
  /** Use only operations whose results are the same bits on every WASM engine (SIMD128, no relaxed SIMD). */
  deterministic?: boolean;
  /** Most bytes one WASM engine (one model) may use; at most 4 GiB. */
  max_memory?: number;
  /**
   * Whose WebGPU computes: `"runtime"`, the default, is the most powerful adapter of `navigator.gpu`, a software adapter
   * only where it is alone; `"software"` is a software adapter beside a GPU, for tests; `"dawn"` is `npm:webgpu`, loaded
   * at first use, in Deno, with `--allow-ffi`.
   */
  webgpu?: "runtime" | "software" | "dawn";
  /**
   * Linear layers with float16 weights run on the GPU's matrix units: activations are rounded to float16 too (beyond
   * 65504 they overflow), sums are float32. Off by default. An adapter without them is refused when it is opened.
   * Experimental: checked by a compiler in tests, not yet run on hardware.
   */
  tensor_cores?: boolean;
}

/**
 * Changes settings before first use, or while nothing is alive.
 *
 * @throws {InvalidArgument} for an unknown or impossible setting, or while tensors or models are alive.
 * @throws {DeviceUnavailable} when more than one thread is asked for and none can be started; nothing has changed then.
 */
export async function configure(changes: Settings): Promise<void> {
  for (const key of Object.keys(changes)) {
    if (!(key in settings)) {
      throw new InvalidArgument(
        `Cannot configure "${key}": known settings are ${Object.keys(settings).join(", ")}`,
      );
    }
  }
  const { threads, deterministic, max_memory, webgpu, tensor_cores } = changes;
  if (deterministic !== undefined && typeof deterministic !== "boolean") {
    throw new InvalidArgument(`Cannot configure deterministic: ${deterministic}: expected true or false`);
  }
  if (webgpu !== undefined && !["runtime", "software", "dawn"].includes(webgpu)) {
    throw new InvalidArgument(`Cannot configure webgpu: ${webgpu}: expected "runtime", "software" or "dawn"`);
  }
  if (tensor_cores !== undefined && typeof tensor_cores !== "boolean") {
    throw new InvalidArgument(`Cannot configure tensor_cores: ${tensor_cores}: expected true or false`);
  }
  if (
    max_memory !== undefined &&
    !(Number.isSafeInteger(max_memory) && max_memory >= 1 << 24 && max_memory <= 2 ** 32)
  ) {
    throw new InvalidArgument(
      `Cannot configure max_memory: ${max_memory}: expected bytes between 16 MiB and 4 GiB`,
    );
  }
  if (threads !== undefined || max_memory !== undefined) {
    checkThreads(threads ?? settings.threads, max_memory ?? settings.max_memory);
  }
  const alive = liveEngines();
  if (alive.length > 0) {
    throw new InvalidArgument(
      `Cannot configure while ${alive.join(" and ")} are alive: dispose tensors and models first`,
    );
  }
  const before = { ...settings };
  Object.assign(settings, Object.fromEntries(Object.entries(changes).filter(([, v]) => v !== undefined)));
  if (webgpu !== undefined || tensor_cores !== undefined) await renewGpu();
  if (threads === undefined) return;
  const why = await renewThreads();
  if (why === null) return;
  Object.assign(settings, before);
  throw new DeviceUnavailable(`Cannot configure threads: ${threads}: ${why}; 1 is possible`);
}
