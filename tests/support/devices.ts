/**
 * The devices a test runs on. WASM always; WebGPU where there is an adapter, else a visible, counted skip, which
 * `REQUIRE_WEBGPU=1` turns into a failure.
 *
 * @module
 */
import { AssertionError } from "@std/assert";
import type { Device, DeviceName } from "../../src/devices/device.ts";

/** A device family a test runs on. */
export interface TestDevice {
  readonly name: DeviceName;
  /** Prefix of its tests' names: the device, and the kernel build where there are several. */
  readonly label: string;
  /** A fresh device, owned by the caller. */
  make(): Promise<Device>;
  /** The one device of this test file, made when its first test runs. */
  shared(): Promise<Device>;
  /** Why this device cannot be made here. Its tests are registered and ignored. */
  readonly skip?: string;
}

/** What a device test is given. */
export type DeviceTestBody = (device: Device, t: Deno.TestContext) => Promise<void> | void;

const skipped = new Map<string, number>();
let gpu: Promise<string | null> | undefined;

/** Null when WebGPU works here, else why it does not. */
function gpuProblem(): Promise<string | null> {
  gpu ??= (async () => {
    if (!("gpu" in navigator)) return "this runtime has no navigator.gpu";
    const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
    return adapter === null ? "no WebGPU adapter was found" : null;
  })();
  return gpu;
}

/**
 * The devices to test on, in order. Asks for a GPU adapter once a process. With `every_build` also the WASM engine's
 * deterministic build, for tests of the kernels themselves.
 */
export async function testDevices(options: { every_build?: boolean } = {}): Promise<TestDevice[]> {
  const problem = await gpuProblem();
  if (problem !== null && Deno.env.get("REQUIRE_WEBGPU") === "1") {
    throw new AssertionError(`REQUIRE_WEBGPU=1, but ${problem}`);
  }
  const engine = (options: { deterministic?: boolean }) => async () => {
    const { WasmEngine } = await import("../../src/devices/wasm/engine.ts");
    return new WasmEngine(options);
  };
  const gpuDevice = async () => {
    const { WebGpuDevice } = await import("../../src/devices/webgpu/device.ts");
    const device = new WebGpuDevice();
    await device.acquire();
    return device;
  };
  const devices = [testDevice("wasm", "wasm", null, engine({}))];
  if (options.every_build) {
    devices.push(testDevice("wasm", "wasm deterministic", null, engine({ deterministic: true })));
  }
  return [...devices, testDevice("webgpu", "webgpu", problem, gpuDevice)];
}

function testDevice(
  name: DeviceName,
  label: string,
  problem: string | null,
  make: () => Promise<Device>,
): TestDevice {
  let one: Promise<Device> | undefined;
  return { name, label, make, shared: () => one ??= make(), ...(problem === null ? {} : { skip: problem }) };
}

/** Registers a test that runs on one device, ignored and counted when the device is missing. */
export function deviceTest(
  on: TestDevice,
  name: string,
  fn: DeviceTestBody,
): void {
  const reason = on.skip;
  if (reason !== undefined) skipped.set(reason, (skipped.get(reason) ?? 0) + 1);
  Deno.test({
    name: `${on.label}: ${name}`,
    ignore: reason !== undefined,
    fn: async (t) => await fn(await on.shared(), t),
  });
}

/** Registers, as the last test of a file, the line that says how many tests were skipped and why. */
export function reportSkips(): void {
  for (const [reason, count] of skipped) {
    const line = `${count} tests skipped because ${reason}`;
    Deno.test(`skips: ${line}`, () => console.log(line));
  }
  skipped.clear();
}
