/**
 * Tensors on a raw device, for kernel tests: placed with the strides a test asks for, read back in row-major
 * order. Values are plain numbers; what comes back from `place` is what the device really stores (rounded to
 * the dtype), which is what an expected value is computed from.
 *
 * @module
 */
import type { Allocation, Device, View } from "../../src/devices/device.ts";
import { convertTo, type DType, type HostArray, present } from "../../src/dtype.ts";

/** How a tensor lies in memory. */
export interface Layout {
  /** Order of the axes in memory, slowest first; default 0, 1, 2, … */
  readonly order?: readonly number[];
  /** Elements left free before the first one. */
  readonly offset?: number;
  /** Free places per axis, as a cache with capacity beyond its length has. */
  readonly spare?: readonly number[];
  /** Axes (of size > 0 in the view) that are stored once and repeated by a stride of 0. */
  readonly broadcast?: readonly number[];
}

/** A view with the values it holds, row-major, broadcast axes repeated. */
export interface Placed {
  readonly view: View;
  readonly shape: readonly number[];
  readonly values: Float64Array<ArrayBuffer>;
}

/** Number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((n, size) => n * size, 1);
}

/** Strides and storage length of `shape` under a layout. */
export function stridesOf(
  shape: readonly number[],
  layout: Layout = {},
): { strides: number[]; offset: number; length: number } {
  const order = layout.order ?? shape.map((_, axis) => axis);
  const strides = shape.map(() => 0);
  let step = 1;
  for (const axis of [...order].reverse()) {
    if (layout.broadcast?.includes(axis)) continue;
    strides[axis] = step;
    step *= shape[axis]! + (layout.spare?.[axis] ?? 0);
  }
  const offset = layout.offset ?? 0;
  return { strides, offset, length: offset + step };
}

/** Calls `fn` with the storage index of every element, in row-major order. */
function forEachElement(
  view: Pick<View, "shape" | "strides" | "offset">,
  fn: (at: number, i: number) => void,
): void {
  const { shape, strides } = view;
  const index = shape.map(() => 0);
  const n = sizeOf(shape);
  for (let i = 0; i < n; i++) {
    fn(index.reduce((at, x, axis) => at + x * strides[axis]!, view.offset), i);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      if (++index[axis]! < shape[axis]!) break;
      index[axis] = 0;
    }
  }
}

/** Allocations of one test on one device, all released at its end. */
export class Bench implements Disposable {
  readonly #owned: Allocation[] = [];
  constructor(readonly device: Device) {}

  /** A view on fresh memory filled with `fill` (so that a kernel that writes nothing is found out). */
  empty(shape: readonly number[], dtype: DType = "float32", layout: Layout = {}, fill = 77): View {
    const { strides, offset, length } = stridesOf(shape, layout);
    return this.#upload(
      convertTo(dtype, new Array<number>(length).fill(fill)),
      dtype,
      shape,
      strides,
      offset,
    );
  }

  /** Stores `values` (row-major; one per stored element, so 1 for a broadcast axis) under a layout. */
  place(
    shape: readonly number[],
    values: ArrayLike<number>,
    dtype: DType = "float32",
    layout: Layout = {},
  ): Placed {
    const { strides, offset, length } = stridesOf(shape, layout);
    const stored = shape.map((size, axis) => layout.broadcast?.includes(axis) ? Math.min(1, size) : size);
    if (values.length !== sizeOf(stored)) {
      throw new Error(`place: ${values.length} values for shape (${stored})`);
    }
    const host = new Array<number>(length).fill(dtype === "bool" ? 1 : 99);
    forEachElement({ shape: stored, strides, offset }, (at, i) => host[at] = values[i]!);
    const raw = convertTo(dtype, host);
    const view = this.#upload(raw, dtype, shape, strides, offset);
    const rounded = present(dtype, raw);
    const out = new Float64Array(sizeOf(shape));
    forEachElement(view, (at, i) => out[i] = Number(rounded[at]));
    return { view, shape, values: out };
  }

  #upload(
    raw: HostArray,
    dtype: DType,
    shape: readonly number[],
    strides: readonly number[],
    offset: number,
  ): View {
    const { device } = this;
    const allocation = device.allocate(Math.max(1, raw.length) * device.elementBytes(dtype));
    this.#owned.push(allocation);
    if (raw.length > 0) device.write(allocation, 0, device.encode(dtype, raw));
    return { allocation, dtype, offset, shape, strides };
  }

  /** The values of a view, row-major. */
  async read(view: View): Promise<Float64Array<ArrayBuffer>> {
    const stored = await this.readStorage(view);
    const out = new Float64Array(sizeOf(view.shape));
    forEachElement(view, (at, i) => out[i] = stored[at]!);
    return out;
  }

  /** Everything in the storage of a view, also what the view does not show. */
  async readStorage(view: View): Promise<Float64Array<ArrayBuffer>> {
    const { device } = this;
    const bytes = await device.read(view.allocation, 0, view.allocation.bytes);
    return Float64Array.from(present(view.dtype, device.decode(view.dtype, bytes)), Number);
  }

  [Symbol.dispose](): void {
    for (const allocation of this.#owned) this.device.release(allocation);
    this.#owned.length = 0;
  }
}
