/**
 * Packing of views into the params structs of the WASM kernels, field by field in the order of the Rust structs.
 *
 * @module
 */
import { type DType, isFloat } from "../../dtype.ts";
import { InvalidArgument } from "../../errors.ts";
import { type Allocation, MAX_RANK, type View } from "../device.ts";
import { PARAM_WORDS, type Recorder } from "./command.ts";

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
  return shape.reduce((n, d) => n * d, 1);
}

/** A params struct being filled. */
export class Words {
  readonly #recorder: Recorder;
  readonly #words = new Int32Array(PARAM_WORDS);
  readonly #floats = new Float32Array(this.#words.buffer);
  #used = 0;

  constructor(recorder: Recorder) {
    this.#recorder = recorder;
  }

  /** Appends integers, flags included. */
  int(...values: readonly (number | boolean)[]): this {
    for (const value of values) this.#words[this.#used++] = Number(value);
    return this;
  }

  /** Appends floats. */
  float(...values: readonly number[]): this {
    for (const value of values) this.#floats[this.#used++] = value;
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

  /** The finished struct. */
  get words(): Int32Array {
    return this.#words.slice(0, this.#used);
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
  return outputs.filter((v) => v !== null)
    .filter((v) => isContiguous(v) && sizeOf(v.shape) * BYTES[CODES[v.dtype]]! >= v.allocation.bytes)
    .map((v) => v.allocation);
}

/** Dimensions shared by several operands after merging those that lie behind each other. */
export interface Merged {
  /** The five leading dimensions, padded with 1 at the front. */
  readonly outer: readonly number[];
  /** The last dimension. */
  readonly inner: number;
  /** Six strides per operand. */
  readonly strides: readonly (readonly number[])[];
}

/** Merges the dimensions of operands with a common `shape` as far as all their strides allow; at most six remain. */
export function merge(shape: readonly number[], strides: readonly (readonly number[])[]): Merged {
  const dims: number[] = [];
  const merged: number[][] = strides.map(() => []);
  for (let d = 0; d < shape.length; d++) {
    const size = shape[d]!;
    if (size === 1) continue;
    const last = dims.length - 1;
    const joins = last >= 0 && strides.every((s, o) => merged[o]![last] === s[d]! * size);
    if (joins) dims[last] = dims[last]! * size;
    else dims.push(size);
    strides.forEach((s, o) => merged[o]![dims.length - 1] = s[d]!);
  }
  if (dims.length > MAX_RANK) {
    throw new InvalidArgument(
      `Cannot run a kernel on shape (${shape}): its strides need more than ${MAX_RANK} dimensions`,
    );
  }
  const pad = MAX_RANK - dims.length;
  const six = [...Array<number>(pad).fill(1), ...dims];
  return {
    outer: six.slice(0, 5),
    inner: six[5]!,
    strides: merged.map((s) => [...Array<number>(pad).fill(pad === MAX_RANK ? 1 : 0), ...s]),
  };
}

/** Merges the dimensions before the last, which stays as it is. */
export function mergeRows(view: View): Merged {
  const last = view.shape.length - 1;
  const rows = merge(view.shape.slice(0, last), [view.strides.slice(0, last)]);
  const outer = [...rows.outer, rows.inner];
  const strides = rows.strides[0]!;
  if (outer[0] !== 1) {
    throw new InvalidArgument(
      `Cannot reduce shape (${view.shape}): its strides need more than ${MAX_RANK} dimensions`,
    );
  }
  return {
    outer: outer.slice(1),
    inner: view.shape[last]!,
    strides: [[...strides.slice(1), view.strides[last]!]],
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
