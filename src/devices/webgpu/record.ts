/**
 * From views to commands: operands, parameters and grids.
 *
 * @module
 */
import { InvalidArgument } from "../../errors.ts";
import type { DType } from "../../dtype.ts";
import type { View } from "../device.ts";
import { type Binding, type Dispatch, PARAM_BYTES } from "./command.ts";
import { elementBytes } from "./layout.ts";
import { WebGpuAllocation } from "./memory.ts";
import type { Stem } from "./shaders.ts";
import type { Constants } from "./template.ts";

/** Allocations above this are bound as the range a view needs: every adapter binds 128 MiB. */
const WHOLE_BINDING = 128 * 2 ** 20;
/** Most workgroups in one dimension of a grid. */
export const GRID = 65535;

/** A view as a kernel sees it: what to bind, and the offset in elements from the start of the binding. */
export interface Operand {
  readonly binding: Binding;
  readonly offset: number;
}

/** Elements of a shape. */
export function count(shape: readonly number[]): number {
  return shape.reduce((n, size) => n * size, 1);
}

/** Whether a view is row-major without gaps. */
export function isContiguous({ shape, strides }: View): boolean {
  let step = 1;
  for (let d = shape.length - 1; d >= 0; d--) {
    if (shape[d] !== 1 && strides[d] !== step) return false;
    step *= shape[d]!;
  }
  return true;
}

/** Binds a view for reading or writing. */
export function operand(view: View, write = false): Operand {
  const { allocation, dtype, offset, shape, strides } = view;
  if (!(allocation instanceof WebGpuAllocation)) {
    throw new InvalidArgument(
      `Cannot compute on webgpu with a tensor on ${allocation.device.name}: move it with .to("webgpu")`,
    );
  }
  const slot = allocation.slot;
  if (allocation.bytes <= WHOLE_BINDING) {
    return { binding: { allocation, slot, write, start: 0, size: 0 }, offset };
  }
  const bytes = elementBytes(dtype);
  const last = shape.reduce((at, size, d) => at + Math.max(0, size - 1) * strides[d]!, offset);
  const start = Math.floor(offset * bytes / 256) * 256;
  const size = Math.min(slot.size - start, Math.ceil(((last + 1) * bytes - start) / 256) * 256);
  return { binding: { allocation, slot, write, start, size }, offset: offset - start / bytes };
}

/** Element type of a buffer, as shader variants name it. */
export function elementType(dtype: DType): "f32" | "f16" | "bf16" | "i32" | "i8" {
  if (dtype === "int8") return "i8";
  return dtype === "float32" ? "f32" : dtype === "float16" ? "f16" : dtype === "bfloat16" ? "bf16" : "i32";
}

/** Whether elements of a type are computed with as integers. */
export function isInteger(type: ReturnType<typeof elementType>): type is "i32" | "i8" {
  return type === "i32" || type === "i8";
}

/**
 * Element type of a float operand.
 *
 * @throws {InvalidArgument} for integers
 */
export function floatType(name: string, dtype: DType): "f32" | "f16" | "bf16" {
  const type = elementType(dtype);
  if (isInteger(type)) {
    throw new InvalidArgument(`Cannot use ${dtype} as ${name} on webgpu: expected a float dtype`);
  }
  return type;
}

/** Refuses a view of another dtype. */
export function expectDType(name: string, view: View, ...allowed: DType[]): void {
  if (!allowed.includes(view.dtype)) {
    throw new InvalidArgument(
      `Cannot use ${view.dtype} as ${name} on webgpu: expected ${allowed.join(" or ")}`,
    );
  }
}

/** The words of a kernel's `Params`, in the order of its struct. */
export class Params {
  readonly #words = new Uint32Array(PARAM_BYTES / 4);
  readonly #floats = new Float32Array(this.#words.buffer);
  #length = 0;

  /** Appends unsigned or signed integers. */
  int(...values: number[]): this {
    for (const value of values) this.#words[this.#length++] = value;
    return this;
  }

  /** Appends floats. */
  float(...values: number[]): this {
    for (const value of values) this.#floats[this.#length++] = value;
    return this;
  }

  /** Appends `array<vec4<u32>, size / 4>`, padded with `fill`. */
  list(values: readonly number[], size: number, fill: number): this {
    for (let i = 0; i < size; i++) this.#words[this.#length++] = values[i] ?? fill;
    return this;
  }

  /** The words so far. */
  get words(): Uint32Array<ArrayBuffer> {
    return this.#words.subarray(0, this.#length);
  }
}

/** A command that launches `stem`. `outputs` are the views among the operands that it writes. */
export function launch(
  stem: Stem,
  constants: Constants,
  operands: readonly (Operand | null)[],
  outputs: readonly View[],
  params: Params,
  grid: readonly [number, number, number],
): Dispatch {
  let key: string = stem;
  for (const name in constants) key += ` ${name}=${constants[name]}`;
  const fills: WebGpuAllocation[] = [];
  for (const view of outputs) {
    const allocation = view.allocation as WebGpuAllocation;
    const whole = view.offset === 0 && count(view.shape) * elementBytes(view.dtype) >= allocation.bytes;
    if (whole && isContiguous(view)) fills.push(allocation);
  }
  const bindings = operands.map((o) => o?.binding ?? null);
  return { kind: "dispatch", stem, constants, key, bindings, params: params.words, grid, fills };
}

/** Grid of `items` in groups of `size`, folded into rows; `pitch` is the number of items a grid row covers. */
export function fold(
  items: number,
  size: number,
): { grid: readonly [number, number, number]; pitch: number } {
  const groups = Math.ceil(items / size);
  const x = Math.min(groups, 32768);
  return { grid: [x, Math.ceil(groups / x), 1], pitch: x * size };
}

/** Dimensions of an elementwise kernel, innermost first, with those merged that lie together in every operand. */
export function merge(
  shape: readonly number[],
  strides: readonly (readonly number[])[],
): { shape: number[]; strides: number[][] } {
  const outShape: number[] = [];
  const out: number[][] = strides.map(() => []);
  for (let d = shape.length - 1; d >= 0; d--) {
    const size = shape[d]!;
    if (size === 1) continue;
    const top = outShape.length - 1;
    if (top >= 0 && strides.every((s, k) => s[d] === out[k]![top]! * outShape[top]!)) outShape[top]! *= size;
    else {
      outShape.push(size);
      strides.forEach((s, k) => out[k]!.push(s[d]!));
    }
  }
  if (outShape.length === 0) {
    outShape.push(1);
    for (const list of out) list.push(0);
  }
  return { shape: outShape, strides: out };
}

/** A command that puts up to three bytes inside one word. */
export function patchWord(allocation: WebGpuAllocation, byteOffset: number, data: Uint8Array): Dispatch {
  let bits = 0, mask = 0;
  data.forEach((byte, i) => {
    bits |= byte << ((byteOffset % 4 + i) * 8);
    mask |= 0xff << ((byteOffset % 4 + i) * 8);
  });
  const binding = { allocation, slot: allocation.slot, write: true, start: 0, size: 0 };
  const params = new Params().int(Math.floor(byteOffset / 4), bits, mask);
  return launch("patch", {}, [{ binding, offset: 0 }], [], params, [1, 1, 1]);
}
