/**
 * The devices of this process: one small default WASM engine, one engine a model, one GPU.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import type { Allocation, Device, DeviceName } from "./device.ts";
import { type EngineOptions, WasmEngine } from "./wasm/engine.ts";
import { settings } from "./settings.ts";
import { endCrew, theCrew } from "./wasm/crew.ts";
import { describeThreads } from "./wasm/threads.ts";
import { describeTiles } from "./wasm/tiles.ts";
import { openDawn } from "./webgpu/dawn.ts";
import { WebGpuDevice } from "./webgpu/device.ts";

const engines = new Set<WasmEngine>();
let small: WasmEngine | undefined;
let gpu: WebGpuDevice | undefined;

/** A new engine of its own, for a model. */
export function openEngine(options?: EngineOptions): WasmEngine {
  const engine = new WasmEngine(options);
  engines.add(engine);
  return engine;
}

/** Closes an engine made by {@linkcode openEngine} as soon as no result of its computations is alive. */
export function closeEngine(engine: WasmEngine): void {
  engine.whenIdle(() => {
    engine.close();
    engines.delete(engine);
  });
}

/** The device that tensors without a model live on. Made at first use; a GPU is acquired when work is flushed. */
export function defaultDevice(name: DeviceName): Device {
  if (name === "webgpu") return theGpu();
  if (small?.isClosed) {
    closeEngine(small);
    small = undefined;
  }
  return small ??= openEngine();
}

/** The one GPU; a new one after the last was lost. */
function theGpu(): WebGpuDevice {
  if (gpu?.isClosed) gpu = undefined;
  return gpu ??= new WebGpuDevice({
    ...(settings.webgpu === "dawn" ? { gpu: openDawn } : {}),
    software: settings.webgpu === "software",
    matrices: settings.tensor_cores,
  });
}

/**
 * Makes sure a device exists.
 *
 * @throws {DeviceUnavailable}
 */
export async function acquire(name: DeviceName): Promise<void> {
  if (name === "webgpu") await theGpu().acquire();
}

/** What {@linkcode device} tells. */
export interface DeviceInfo {
  /** The device. */
  readonly name: DeviceName;
  /** The kernel build, or the GPU adapter. */
  readonly description: string;
}

/**
 * Probes a device and describes it.
 *
 * @throws {DeviceUnavailable} when it does not exist here, saying what was looked for
 */
export async function device(name: DeviceName): Promise<DeviceInfo> {
  await acquire(name);
  if (name === "webgpu") {
    const { description, vendor, isFallbackAdapter } = await theGpu().info();
    const more = [
      ...(isFallbackAdapter ? ["a software adapter"] : []),
      ...(settings.webgpu === "dawn" ? ["by Dawn"] : []),
      ...(settings.tensor_cores ? ["matrix units, untested on real hardware"] : []),
    ];
    return { name, description: [description || vendor || "an adapter without a name", ...more].join(", ") };
  }
  const engine = defaultDevice("wasm") as WasmEngine;
  await engine.probeTiles();
  const { build, workers } = engine;
  return {
    name,
    description: `WebAssembly, ${build} kernels, ${describeThreads(workers)}, ${describeTiles(build)}`,
  };
}

/** Copies a block to a block of the same size on another device of the same family. */
export function copyBetween(from: Allocation, to: Allocation): void {
  // A device that has failed says so itself.
  if (from.device.isClosed) from.device.assertAlive();
  if (!(from.device instanceof WasmEngine)) {
    throw new InvalidArgument(
      `Cannot use a tensor of device "${from.device.name}" on another: move it with await tensor.to(…)`,
    );
  }
  to.device.write(to, 0, from.device.readNow(from, 0, from.bytes));
}

/** Tensors alive in all engines and devices; 0 after everything is disposed. */
export function liveBuffers(): number {
  let n = gpu?.live ?? 0;
  for (const engine of engines) n += engine.live;
  return n;
}

/** Describes what holds memory now, for error messages. Closes the idle default engine so that settings apply to the next. */
export function liveEngines(): string[] {
  if (small !== undefined && small.live === 0) {
    closeEngine(small);
    small = undefined;
  }
  const alive: string[] = [];
  const tensors = liveBuffers();
  if (tensors > 0) alive.push(`${tensors} tensors`);
  const models = [...engines].filter((e) => e !== small).length;
  if (models > 0) alive.push(`${models} model engines`);
  return alive;
}

/** Lets the GPU go, while nothing is alive: the next one is opened as {@linkcode settings} say. */
export async function renewGpu(): Promise<void> {
  const last = gpu;
  gpu = undefined;
  await last?.destroy();
}

/**
 * Begins anew with the threads that {@linkcode settings} say, while no engine is alive. Where they were asked for by
 * number one is started, which tells whether it can be: resolves with why not, null when all is well.
 */
export async function renewThreads(): Promise<string | null> {
  endCrew();
  return typeof settings.threads === "number" && settings.threads > 1 ? await theCrew().start() : null;
}
