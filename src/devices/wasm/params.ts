/**
 * Packing of views into the params structs of the WASM kernels, field by field in the order of the Rust structs.
 *
 * @module
 */
import { type DType, isFloat } from "../../dtype.ts";
import { InvalidArgument } from "../../errors.ts";
import { type Allocation, MAX_RANK, type View } from "../device.ts";
import type { Recorder } from "./command.ts";

/** Element type codes of `dtype.rs`; int64 tensors are stored as 32-bit integers. */
const CODES: Readonly<Record<DType, number>> = {
  float32: 0,
  float16: 1,
  bfloat16: 2,
  int32: 3,
  int64: 3,
  int8: 4,
  uint8: 5,
  bool: 6,
};

const BYTES: readonly number[] = [4, 2, 2, 4, 1, 1, 1];

/** Code of a dtype in kernel params. */
export function codeOf(dtype: DType): number {
  return CODES[dtype];
}

/** Number of elements. */
export function sizeOf(shape: readonly number[]): number {
  let n = 1;
  for (let i = 0; i < shape.length; i++) n *= shape[i]!;
  return n;
}

/** Whether two shapes are the same. */
export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  if (a.length !== b.length) return false;
  for (let d = 0; d < a.length; d++) if (a[d] !== b[d]) return false;
  return true;
}

const float = new Float32Array(1);
const bits = new Int32Array(float.buffer);

/** A params struct being filled. */
export class Words {
  readonly #recorder: Recorder;
  /** The struct so far. */
  readonly words: number[] = [];

  constructor(recorder: Recorder) {
    this.#recorder = recorder;
  }

  /** Appends integers, flags included. */
  int(...values: readonly (number | boolean)[]): this {
    for (const value of values) this.words.push(Number(value));
    return this;
  }

  /** Appends floats. */
  float(...values: readonly number[]): this {
    for (const value of values) {
      float[0] = value;
      this.words.push(bits[0]!);
    }
    return this;
  }

  /** Appends the address of a view's first element, 0 for no view. */
  pointer(view: View | null): this {
    if (view === null) return this.int(0);
    return this.int(this.#recorder.address(view.allocation) + view.offset * BYTES[CODES[view.dtype]]!);
  }

  /** Appends address and dtype. */
  typed(view: View | null): this {
    return this.pointer(view).int(view === null ? 0 : CODES[view.dtype]);
  }
}

/** Strides with which dimensions that have one element do not matter. */
export function isContiguous(view: View): boolean {
  let expected = 1;
  for (let d = view.shape.length - 1; d >= 0; d--) {
    if (view.shape[d] !== 1 && view.strides[d] !== expected) return false;
    expected *= view.shape[d]!;
  }
  return true;
}

/** The allocations of `outputs` that a kernel overwrites whole. */
export function wholly(...outputs: readonly (View | null)[]): Allocation[] {
  const whole: Allocation[] = [];
  for (const v of outputs) {
    if (v === null || !isContiguous(v)) continue;
    if (sizeOf(v.shape) * BYTES[CODES[v.dtype]]! >= v.allocation.bytes) whole.push(v.allocation);
  }
  return whole;
}

/** Dimensions shared by several operands after merging those that lie behind each other. */
export interface Merged {
  /** Six sizes, padded with 1 at the front. */
  readonly shape: readonly number[];
  /** Six strides per operand. */
  readonly strides: readonly (readonly number[])[];
}

/** Merges the dimensions of operands with a common `shape` as far as all their strides allow; at most six remain. */
export function merge(shape: readonly number[], strides: readonly (readonly number[])[]): Merged {
  const sizes = [1, 1, 1, 1, 1, 1];
  const merged = strides.map(() => [0, 0, 0, 0, 0, 0]);
  // From the right: a dimension joins those behind it where every operand steps over exactly these.
  let at = MAX_RANK;
  for (let d = shape.length - 1; d >= 0; d--) {
    const size = shape[d]!;
    if (size === 1) continue;
    let joins = at < MAX_RANK;
    for (let o = 0; joins && o < strides.length; o++) joins = strides[o]![d] === merged[o]![at]! * sizes[at]!;
    if (joins) {
      sizes[at]! *= size;
      continue;
    }
    if (--at < 0) {
      throw new InvalidArgument(
        `Cannot run a kernel on shape (${shape}): its strides need more than ${MAX_RANK} dimensions`,
      );
    }
    sizes[at] = size;
    for (let o = 0; o < strides.length; o++) merged[o]![at] = strides[o]![d]!;
  }
  // A single element counts as contiguous.
  if (at === MAX_RANK) { for (const s of merged) s.fill(1); }
  return { shape: sizes, strides: merged };
}

/** Merges the dimensions before the last, which stays as it is. */
export function mergeRows(view: View): Merged {
  const last = view.shape.length - 1;
  const rows = merge(view.shape.slice(0, last), [view.strides.slice(0, last)]);
  if (rows.shape[0] !== 1) {
    throw new InvalidArgument(
      `Cannot reduce shape (${view.shape}): its strides need more than ${MAX_RANK} dimensions`,
    );
  }
  return {
    shape: [...rows.shape.slice(1), view.shape[last]!],
    strides: [[...rows.strides[0]!.slice(1), view.strides[last]!]],
  };
}

/** Checks that elements of the last dimension lie behind each other; returns the stride of the one before it. */
export function rowStride(what: string, view: View): number {
  const last = view.shape.length - 1;
  if (view.strides[last] !== 1 && view.shape[last]! > 1) {
    throw new InvalidArgument(
      `Cannot use ${what} with strides (${view.strides}): its last dimension must be contiguous`,
    );
  }
  return last > 0 ? view.strides[last - 1]! : 0;
}

/** Checks that an output is contiguous float32 (or what `dtype` says). */
export function checkOutput(what: string, view: View | null, dtype: DType = "float32"): void {
  if (view !== null && (view.dtype !== dtype || !isContiguous(view))) {
    throw new InvalidArgument(
      `Cannot write ${what}: expected contiguous ${dtype}, got ${view.dtype} with strides (${view.strides})`,
    );
  }
}

/** Checks that an operand is of one of the float types, or float32 only. */
export function checkFloat(what: string, view: View | null, single = false): void {
  if (view !== null && (single ? view.dtype !== "float32" : !isFloat(view.dtype))) {
    throw new InvalidArgument(
      `Cannot use ${what} of dtype ${view.dtype}: expected ${
        single ? "float32" : "float32, float16 or bfloat16"
      }`,
    );
  }
}
