/**
 * Finding a GPU and opening it with all the limits it has.
 *
 * @module
 */
import { DeviceUnavailable } from "../../errors.ts";
import { matrixFeatures } from "./matrix_units.ts";

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
  /** Lanes of a subgroup, where reductions go through subgroups; else 0. */
  readonly subgroup_size: number;
}

const ADVICE =
  `Use device "wasm", or: in Deno, install the Vulkan loader (libvulkan.so.1) and a driver (for CPUs: ` +
  `Mesa's lavapipe); in a container, let the GPU driver's graphics libraries in; in a browser, enable WebGPU.`;

/** What is asked for, in this order. */
const PREFERENCES: readonly GPURequestAdapterOptions[] = [
  { powerPreference: "high-performance" },
  { powerPreference: "low-power" },
];

/** The most powerful GPU; a software adapter only where it is alone, or asked for. */
async function findAdapter(gpu: GPU, software: boolean): Promise<GPUAdapter | null> {
  if (software) return await gpu.requestAdapter({ forceFallbackAdapter: true });
  let found: GPUAdapter | null = null;
  for (const preference of PREFERENCES) {
    const adapter = await gpu.requestAdapter(preference);
    if (adapter && !adapter.info?.isFallbackAdapter) return adapter;
    found ??= adapter;
  }
  return found;
}

/**
 * Opens the most powerful GPU, or with `software` a software adapter, with all its limits, `features`, and
 * with `matrices` what products on matrix units need.
 *
 * @throws {DeviceUnavailable}
 */
export async function openAdapter(
  gpu: GPU | undefined,
  software = false,
  features: readonly GPUFeatureName[] = [],
  matrices = false,
): Promise<{ device: GPUDevice; info: Omit<WebGpuInfo, "subgroup_size"> }> {
  if (!gpu) {
    throw new DeviceUnavailable(`Cannot use device "webgpu": this runtime has no navigator.gpu. ${ADVICE}`);
  }
  const adapter = await findAdapter(gpu, software);
  if (!adapter) {
    const what = software ? "no software adapter" : "no adapter";
    throw new DeviceUnavailable(`Cannot use device "webgpu": navigator.gpu has ${what} here. ${ADVICE}`);
  }
  const limits = Object.fromEntries(
    LIMITS.map((name) => [name, adapter.limits[name]]),
  ) as WebGpuInfo["limits"];
  const needed = [...features, ...(matrices ? matrixFeatures(adapter) : [])];
  const request = (extra: readonly string[]) =>
    adapter.requestDevice({
      label: "attune",
      requiredLimits: { ...limits },
      requiredFeatures: [...new Set([...needed, ...extra])] as GPUFeatureName[],
    });
  let device: GPUDevice;
  try {
    // Some runtimes have subgroups and do not list them: asking is how to know.
    device = await request(["subgroups"]).catch(() => request([]));
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
