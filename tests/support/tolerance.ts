/**
 * The one tolerance table. No test carries a literal tolerance: it names what it computed, where, and in which
 * type, and gets `|actual − expected| ≤ atol + rtol·|expected|` from here.
 *
 * Half types are storage types that kernels widen exactly, and the expected value is computed from the same
 * rounded operands, so a case with half operands and a float32 result uses the `float32` rows. The other rows
 * are for results *stored* in that type, or, for `logits`, for a whole model that runs on weights of that type
 * while its reference ran on float32.
 *
 * @module
 */
import { AssertionError } from "@std/assert";
import { ATTENTION_TOLERANCE, HIDDEN_TOLERANCE, type Tolerance } from "../../src/attention/tolerance.ts";
import type { DeviceName } from "../../src/devices/device.ts";
import type { DType } from "../../src/dtype.ts";

export type { Tolerance };

/** What was computed. */
export type Kind =
  | "exact" // copies, gathers, comparisons, integer arithmetic, max
  | "conversion" // float32 to float16; WGSL leaves the direction of rounding to the driver
  | "elementwise" // one rounded operation: add, mul, sqrt, neg
  | "transcendental" // exp, log, tanh, sigmoid and the activations built on them
  | "reduce"
  | "matmul"
  | "linear"
  | "norm"
  | "rotary_table"
  | "rotary"
  | "softmax"
  | "attention_eager"
  | "attention_flash"
  | "attention_int8" // queries in 8 bits, keys in 7; WASM only
  | "hidden" // hidden states of a whole model
  | "logits";

/** The exact case, for both devices. */
export const EXACT: Tolerance = { atol: 0, rtol: 0 };

/**
 * float32 results. WASM: a few ulp of the accumulated magnitudes (unit normal operands, reductions ≤ 512 long).
 * WebGPU: WGSL allows exp 3 + 2·|x| ulp, log 3 ulp or 2⁻²¹ near 1, tanh through exp, and sin and cos only
 * 2⁻¹¹ absolute, which is why rotary tables are made on the CPU; software Vulkan drivers use up all of it
 * (tanh 1.4e-5 and log 2.4e-5 relative have been measured on lavapipe).
 */
const FLOAT32: Readonly<Record<Kind, Readonly<Record<DeviceName, Tolerance>>>> = {
  exact: { wasm: EXACT, webgpu: EXACT },
  conversion: { wasm: EXACT, webgpu: { atol: 6e-8, rtol: 2 ** -10 } },
  elementwise: { wasm: { atol: 1e-7, rtol: 2e-7 }, webgpu: { atol: 1e-7, rtol: 5e-7 } },
  transcendental: { wasm: { atol: 1e-6, rtol: 2e-6 }, webgpu: { atol: 1e-5, rtol: 5e-5 } },
  reduce: { wasm: { atol: 2e-5, rtol: 2e-6 }, webgpu: { atol: 2e-5, rtol: 2e-6 } },
  matmul: { wasm: { atol: 2e-5, rtol: 2e-6 }, webgpu: { atol: 2e-5, rtol: 2e-6 } },
  linear: { wasm: { atol: 2e-5, rtol: 2e-6 }, webgpu: { atol: 2e-5, rtol: 2e-6 } },
  norm: { wasm: { atol: 2e-6, rtol: 5e-6 }, webgpu: { atol: 5e-6, rtol: 1e-5 } },
  rotary_table: { wasm: { atol: 3e-7, rtol: 0 }, webgpu: { atol: 3e-7, rtol: 0 } },
  rotary: { wasm: { atol: 1e-6, rtol: 1e-6 }, webgpu: { atol: 1e-6, rtol: 1e-6 } },
  softmax: { wasm: { atol: 2e-6, rtol: 5e-6 }, webgpu: { atol: 5e-6, rtol: 1e-5 } },
  // Public, because the conformance suite that kernel authors run uses them, too.
  attention_eager: ATTENTION_TOLERANCE,
  attention_flash: ATTENTION_TOLERANCE,
  // A step of 7 bits is 1/63 of the largest key of a block: 0.044 is the most that was measured over the case table.
  attention_int8: { wasm: { atol: 6e-2, rtol: 0 }, webgpu: EXACT },
  hidden: HIDDEN_TOLERANCE,
  logits: { wasm: { atol: 1e-4, rtol: 1e-4 }, webgpu: { atol: 1e-3, rtol: 1e-3 } },
};

/** Added to the relative part when the result is stored in a half type: half an ulp, 2⁻¹¹ and 2⁻⁸, and the subnormal step. */
const STORED: Partial<Record<DType, Tolerance>> = {
  float16: { atol: 3e-8, rtol: 2 ** -11 },
  bfloat16: { atol: 0, rtol: 2 ** -8 },
};

/** A whole model on half weights against its float32 reference. */
const MODEL: Partial<Record<DType, Tolerance>> = {
  float16: { atol: 2e-2, rtol: 2e-2 },
  bfloat16: { atol: 1.5e-1, rtol: 5e-2 },
};

/** The tolerance for results of `kind` computed on `device` and stored (for models: weighted) in `dtype`. */
export function toleranceOf(kind: Kind, device: DeviceName, dtype: DType = "float32"): Tolerance {
  const base = FLOAT32[kind][device];
  if (dtype === "float32") return base;
  if (dtype !== "float16" && dtype !== "bfloat16") return EXACT;
  if (kind === "hidden" || kind === "logits") return MODEL[dtype]!;
  const stored = STORED[dtype]!;
  return { atol: base.atol + stored.atol, rtol: base.rtol + stored.rtol };
}

/**
 * Asserts that two flat arrays agree: equal length, NaN only where NaN is expected, infinities equal, everything
 * else within the tolerance. Reports the worst element.
 */
export function assertClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: Tolerance,
  label = "values",
): void {
  if (actual.length !== expected.length) {
    throw new AssertionError(`${label}: ${actual.length} elements, expected ${expected.length}`);
  }
  let worst = -1, worstExcess = 0, bad = 0;
  for (let i = 0; i < expected.length; i++) {
    const a = actual[i]!, e = expected[i]!;
    if (a === e || (Number.isNaN(a) && Number.isNaN(e))) continue;
    const error = Math.abs(a - e);
    const allowed = Number.isFinite(e) ? tolerance.atol + tolerance.rtol * Math.abs(e) : 0;
    if (error <= allowed) continue;
    bad++;
    const excess = Number.isFinite(error) ? error - allowed : Infinity;
    if (worst === -1 || excess > worstExcess) [worst, worstExcess] = [i, excess];
  }
  if (bad === 0) return;
  const a = actual[worst]!, e = expected[worst]!;
  throw new AssertionError(
    `${label}: ${bad} of ${expected.length} elements differ; worst at index ${worst}: actual ${a}, expected ${e}, ` +
      `error ${Math.abs(a - e)} > ${tolerance.atol} + ${tolerance.rtol}·|expected|`,
  );
}

/** Asserts that two arrays hold the same bits (−0 and 0 differ, NaN equals NaN). */
export function assertSameBits(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  label = "values",
): void {
  if (actual.length !== expected.length) {
    throw new AssertionError(`${label}: ${actual.length} elements, expected ${expected.length}`);
  }
  for (let i = 0; i < expected.length; i++) {
    if (!Object.is(actual[i], expected[i])) {
      throw new AssertionError(
        `${label}: not the same bits at index ${i}: actual ${actual[i]}, expected ${expected[i]}`,
      );
    }
  }
}
