/**
 * What products on matrix units (subgroup matrices, "tensor cores") need of an adapter.
 *
 * @module
 */
import { DeviceUnavailable } from "../../errors.ts";

/** Features the kernel enables; the last one is not in the standard yet. */
export const FEATURES: readonly string[] = [
  "shader-f16",
  "subgroups",
  "chromium-experimental-subgroup-matrix",
];
/** Most invocations of a subgroup: the kernel has 128 invocations and four subgroups that multiply. */
const SUBGROUP = 32;
/** Bytes of workgroup memory the kernel takes. */
const WORKGROUP_BYTES = 2 * 64 * 40 * 2 + 4096;

/** One shape of matrices an adapter multiplies. */
interface MatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/**
 * The features to ask a device for.
 *
 * @throws {DeviceUnavailable} with every reason, where the adapter cannot do it
 */
export function matrixFeatures(adapter: GPUAdapter): GPUFeatureName[] {
  const reasons = FEATURES.filter((name) => !adapter.features.has(name as GPUFeatureName)).map((name) =>
    `it has no ${name}`
  );
  const { info } = adapter;
  const largest: unknown = info && Reflect.get(info, "subgroupMaxSize");
  if (!(typeof largest === "number" && largest <= SUBGROUP)) {
    reasons.push(`its subgroups have up to ${largest} invocations, expected at most ${SUBGROUP}`);
  }
  const configs = Array.from(
    (info && Reflect.get(info, "subgroupMatrixConfigs") as Iterable<MatrixConfig>) ?? [],
  );
  const fits = (c: MatrixConfig) =>
    c.componentType === "f16" && c.resultComponentType === "f32" && [c.M, c.N, c.K].every((n) => n === 16);
  if (!configs.some(fits)) {
    const list = configs.map((c) => `${c.componentType} to ${c.resultComponentType} ${c.M}×${c.N}×${c.K}`);
    reasons.push(`it multiplies ${list.join(", ") || "no matrices"}, expected f16 to f32 16×16×16`);
  }
  const bytes = adapter.limits.maxComputeWorkgroupStorageSize;
  if (bytes < WORKGROUP_BYTES) {
    reasons.push(`it has ${bytes} bytes of workgroup memory, expected ${WORKGROUP_BYTES}`);
  }
  if (reasons.length > 0) {
    throw new DeviceUnavailable(
      `Cannot use tensor_cores on this adapter (${info?.description || "without a name"}): ${
        reasons.join("; ")
      }. Use configure({ tensor_cores: false }), or webgpu: "dawn" on a GPU that has them`,
    );
  }
  return [...FEATURES] as GPUFeatureName[];
}
