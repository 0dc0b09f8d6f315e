/**
 * Finding a GPU and opening it with all the limits it has.
 *
 * @module
 */
import { DeviceUnavailable } from "../../errors.ts";

/** Limits whose defaults are far below what adapters offer. */
const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxStorageBuffersPerShaderStage",
] as const;

/** What a device says about itself. */
export interface WebGpuInfo {
  /** The adapter's own words, possibly empty. */
  readonly description: string;
  readonly vendor: string;
  readonly architecture: string;
  /** Whether this is a software implementation. */
  readonly isFallbackAdapter: boolean;
  readonly limits: Readonly<Record<typeof LIMITS[number], number>>;
}

const ADVICE =
  `Use device "wasm", or: in Deno, install the Vulkan loader (libvulkan.so.1) and a driver (for CPUs: ` +
  `Mesa's lavapipe); in a container, let the GPU driver's graphics libraries in; in a browser, enable WebGPU.`;

/**
 * Opens the most powerful adapter.
 *
 * @throws {DeviceUnavailable}
 */
export async function openAdapter(gpu: GPU | undefined): Promise<{ device: GPUDevice; info: WebGpuInfo }> {
  if (!gpu) {
    throw new DeviceUnavailable(`Cannot use device "webgpu": this runtime has no navigator.gpu. ${ADVICE}`);
  }
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) {
    throw new DeviceUnavailable(`Cannot use device "webgpu": navigator.gpu has no adapter here. ${ADVICE}`);
  }
  const limits = Object.fromEntries(
    LIMITS.map((name) => [name, adapter.limits[name]]),
  ) as WebGpuInfo["limits"];
  let device: GPUDevice;
  try {
    device = await adapter.requestDevice({ label: "attune", requiredLimits: { ...limits } });
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new DeviceUnavailable(`Cannot use device "webgpu": the adapter refused a device (${message})`, {
      cause,
    });
  }
  const { description = "", vendor = "", architecture = "" } = adapter.info ?? {};
  const isFallbackAdapter = Boolean(adapter.info?.isFallbackAdapter);
  return { device, info: { description, vendor, architecture, isFallbackAdapter, limits } };
}
