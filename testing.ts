/**
 * For authors of attention functions and kernels: the conformance suite and the float64 oracle behind it.
 *
 * ```ts ignore
 * import { conformance } from "jsr:@attune/attune/testing";
 *
 * conformance("my_attention");
 * conformance("my_attention", { device: "webgpu" });
 * ```
 *
 * @module
 */
export {
  conformance,
  conformance_tests,
  type ConformanceOptions,
  type ConformanceTest,
} from "./src/testing/conformance.ts";
export { CONFORMANCE_CASES, type ConformanceCase } from "./src/testing/cases.ts";
export type { Tolerance } from "./src/testing/tolerance.ts";
export {
  type NestedValues,
  reference_attention,
  type ReferenceArray,
  type ReferenceCall,
  type ReferenceResult,
} from "./src/attention/reference.ts";
