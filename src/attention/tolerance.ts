/**
 * How far results may be from exact arithmetic: the numbers that the conformance suite, the comparison of backends and
 * this project's own tests use.
 *
 * @module
 */
import type { DeviceName } from "../devices/device.ts";

/** Largest allowed error of an element: `atol + rtol·|expected|`. */
export interface Tolerance {
  /** Absolute part. */
  readonly atol: number;
  /** Part relative to the expected value. */
  readonly rtol: number;
}

/**
 * float32 attention with unit normal operands. Softmax and two products accumulate a few ulp of the largest score;
 * WGSL allows exp 3 + 2·|x| ulp, and software Vulkan drivers use all of it.
 */
export const ATTENTION_TOLERANCE: Readonly<Record<DeviceName, Tolerance>> = {
  wasm: { atol: 1e-5, rtol: 1e-5 },
  webgpu: { atol: 2e-5, rtol: 5e-5 },
};

/** What passes through a whole float32 model: errors of its operations, carried on and added up. */
export const HIDDEN_TOLERANCE: Readonly<Record<DeviceName, Tolerance>> = {
  wasm: { atol: 1e-4, rtol: 1e-4 },
  webgpu: { atol: 1e-3, rtol: 1e-3 },
};
