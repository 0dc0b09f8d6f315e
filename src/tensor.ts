/**
 * Tensors: shape, dtype and strides over shared storage.
 *
 * The last dimension is contiguous, outer strides are free, and views share storage. Storage is host-first:
 * `Tensor.from` keeps the host data and a device gets a copy at first use. Tensors made by kernels have no host
 * copy until `data()` reads one.
 *
 * Length: the public methods of a tensor, each with its contract.
 *
 * @module
 */
import { convertTo, type DType, DTYPES, type HostArray, isDType, present, type TypedArray } from "./dtype.ts";
import { InvalidArgument } from "./errors.ts";
import { gather } from "./host_data.ts";
import type { Device, DeviceName, View } from "./devices/device.ts";
import { acquire, defaultDevice } from "./devices/mod.ts";
import { releasing, releasingAfter } from "./release.ts";
import { enlist, keep } from "./scope.ts";
import { checkShape, contiguousStrides, isContiguous, sizeOf } from "./shape.ts";
import { Storage } from "./storage.ts";
import { checkOptions, flatten, isHostArray, type TensorData, type TensorOptions } from "./tensor_data.ts";

export { hostData } from "./host_data.ts";

/**
 * A multi-dimensional array on the host or a device. Made by {@linkcode Tensor.from}, operations and models.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { Tensor } from "../mod.ts";
 * using t = Tensor.from([[1, 2], [3, 4.5]]);
 * assertEquals([t.dtype, t.shape], ["float32", [2, 2]]);
 * ```
 */
export class Tensor implements Disposable {
  /**
   * Marks tensors for scopes, across copies of this module.
   *
   * @internal
   */
  readonly isTensor = true;
  /** Sizes of the dimensions. */
  readonly shape: readonly number[];
  /** Element type. */
  readonly dtype: DType;
  /** Where operations on this tensor run. */
  readonly device: DeviceName;
  /**
   * Elements between neighbours, per dimension.
   *
   * @internal
   */
  readonly strides: readonly number[];
  /**
   * First element in the storage.
   *
   * @internal
   */
  readonly offset: number;
  /**
   * (…, 1) float32 for quantised keys and values, whose values are integer · scale; else null. It belongs to this tensor.
   *
   * @internal
   */
  readonly scales: Tensor | null;
  #storage: Storage | null;

  /** Internal: use {@linkcode Tensor.from}. */
  constructor(
    storage: Storage,
    device: DeviceName,
    dtype: DType,
    shape: readonly number[],
    strides?: readonly number[],
    offset = 0,
    scales: Tensor | null = null,
  ) {
    this.#storage = storage.retain();
    // Not a scope's to dispose: this tensor does.
    this.scales = scales === null ? null : keep(scales);
    this.device = device;
    this.dtype = dtype;
    this.shape = shape;
    this.strides = strides ?? contiguousStrides(shape);
    this.offset = offset;
    enlist(this);
  }

  /**
   * Makes a tensor from numbers, booleans, bigints, nested arrays of them, or a typed array. The data is copied.
   *
   * @throws {InvalidArgument} for ragged arrays, a shape that does not fit, or values the dtype cannot hold.
   */
  static from(data: TensorData, options: TensorOptions = {}): Tensor {
    const { dtype, device = "wasm" } = options;
    checkOptions(options);
    const flat = flatten(data);
    const type = dtype ?? flat.dtype;
    const shape = checkShape(options.shape ?? flat.shape);
    if (sizeOf(shape) !== flat.values.length) {
      throw new InvalidArgument(
        `Cannot give ${flat.values.length} elements the shape [${shape}]: it has ${sizeOf(shape)}`,
      );
    }
    const host = ArrayBuffer.isView(data) && isHostArray(type, data)
      ? data.slice() as HostArray
      : convertTo(type, flat.values);
    return Tensor.ofHost(host, type, shape, device);
  }

  /**
   * Wraps a host array without copying it.
   *
   * @internal
   */
  static ofHost(host: HostArray, dtype: DType, shape: readonly number[], device: DeviceName): Tensor {
    return new Tensor(new Storage(dtype, host.length, host), device, dtype, shape);
  }

  /**
   * A new uninitialised tensor in a device's memory.
   *
   * @internal
   */
  static empty(device: Device, dtype: DType, shape: readonly number[]): Tensor {
    const n = sizeOf(shape);
    const block = device.allocate(n * device.elementBytes(dtype));
    return new Tensor(new Storage(dtype, n, null, block), device.name, dtype, shape);
  }

  /**
   * int8 `values` (…, D) with `scales` (…, 1), laid out alike, as one tensor; both stay the caller's.
   *
   * @internal
   */
  static quantized(values: Tensor, scales: Tensor): Tensor {
    const { storage, device, dtype, shape, strides, offset } = values;
    return new Tensor(
      storage,
      device,
      dtype,
      shape,
      strides,
      offset,
      scales.view(scales.shape, scales.strides),
    );
  }

  /**
   * The integers of a quantised tensor without their scales; any other tensor as it is.
   *
   * @internal
   */
  unscaled(): Tensor {
    return new Tensor(this.storage, this.device, this.dtype, this.shape, this.strides, this.offset);
  }

  /**
   * Storage, for views and devices.
   *
   * @throws {InvalidArgument} after disposal.
   * @internal
   */
  get storage(): Storage {
    if (this.#storage === null) {
      throw new InvalidArgument(`Cannot use a tensor of shape [${this.shape}] after it was disposed`);
    }
    return this.#storage;
  }

  /** Whether the tensor was disposed. */
  get isDisposed(): boolean {
    return this.#storage === null;
  }

  /** Number of elements. */
  get size(): number {
    return sizeOf(this.shape);
  }

  /**
   * Whether the elements lie in row-major order without gaps.
   *
   * @internal
   */
  get isContiguous(): boolean {
    return isContiguous(this);
  }

  /**
   * A tensor over the same storage.
   *
   * @internal
   */
  view(
    shape: readonly number[],
    strides: readonly number[],
    offset: number = this.offset,
    dtype: DType = this.dtype,
  ): Tensor {
    const scales = this.scales === null ? null : scalesOf(this, this.scales, shape, strides, offset);
    return new Tensor(this.storage, this.device, dtype, shape, strides, offset, scales);
  }

  /**
   * What kernels of `device` read: uploads at first use.
   *
   * @internal
   */
  on(device: Device): View {
    if (this.scales !== null) {
      throw new InvalidArgument(
        `Cannot use quantised keys or values [${this.shape}] here: expected floats, as ops.cast(t, "float32") makes them`,
      );
    }
    return this.#on(device);
  }

  /**
   * As {@linkcode Tensor.on}, with the scales of a quantised tensor, for kernels that read them.
   *
   * @internal
   */
  withScales(device: Device): View {
    return this.scales === null ? this.#on(device) : { ...this.#on(device), scales: this.scales.#on(device) };
  }

  #on(device: Device): View {
    if (device.name !== this.device) {
      throw new InvalidArgument(
        `Cannot use a tensor of device "${this.device}" on "${device.name}": move it with await tensor.to("${device.name}")`,
      );
    }
    return {
      allocation: this.storage.on(device),
      dtype: this.dtype,
      offset: this.offset,
      shape: this.shape,
      strides: this.strides,
    };
  }

  /** Row-major host copy; quantised keys and values as `Float32Array`, bool as `Uint8Array`, bfloat16 widened to `Float32Array`, int64 as `BigInt64Array`. */
  async data(): Promise<TypedArray> {
    const raw = await this.raw();
    if (this.scales !== null) {
      const scales = await this.scales.raw() as Float32Array;
      const width = this.shape.at(-1)!;
      return Float32Array.from(raw as Int8Array, (q, i) => q * scales[Math.floor(i / width)]!);
    }
    const values = present(this.dtype, raw);
    return values === this.#storage?.host ? values.slice() as TypedArray : values;
  }

  /**
   * Row-major host copy in the stored representation.
   *
   * @internal
   */
  async raw(): Promise<HostArray> {
    const { storage } = this;
    if (storage.host !== null) return gather(this, storage.host);
    const home = storage.home!;
    if (this.isContiguous) {
      const size = home.elementBytes(this.dtype);
      const bytes = await home.read(storage.on(home), this.offset * size, this.size * size);
      return home.decode(this.dtype, bytes);
    }
    const packed = releasing(this.unscaled(), (integers) => integers.contiguous());
    return await releasingAfter(packed, () => packed.raw());
  }

  /**
   * This tensor's values in row-major order, as a new view or, where needed, a copy on the device.
   *
   * @internal
   */
  contiguous(): Tensor {
    if (this.isContiguous) return this.view(this.shape, this.strides);
    const device = this.storage.home ?? defaultDevice(this.device);
    const out = Tensor.empty(device, this.dtype, this.shape);
    device.kernels.unary("copy", this.on(device), out.on(device));
    return out;
  }

  /**
   * A host copy in the stored representation, to be used on `device`.
   *
   * @internal
   */
  async copied(device: DeviceName): Promise<Tensor> {
    const values = Tensor.ofHost(await this.raw(), this.dtype, this.shape, device);
    if (this.scales === null) return values;
    const { scales } = this;
    return await releasingAfter(values, async () => {
      return releasing(await scales.copied(device), (there) => Tensor.quantized(values, there));
    });
  }

  /** Nested arrays of plain numbers or booleans; a rank-0 tensor gives one value. */
  async tolist(): Promise<unknown> {
    const values = await this.data();
    const item = (i: number): number | boolean => this.dtype === "bool" ? values[i] !== 0 : Number(values[i]);
    let at = 0;
    const nest = (dim: number): unknown => {
      if (dim === this.shape.length) return item(at++);
      return Array.from({ length: this.shape[dim]! }, () => nest(dim + 1));
    };
    return nest(0);
  }

  /**
   * A new tensor on another device, or with values converted to another dtype.
   *
   * @throws {DeviceUnavailable} when the device does not exist here.
   */
  async to(target: DeviceName | DType): Promise<Tensor> {
    if (target === "wasm" || target === "webgpu") {
      // Held, so that it may be disposed while this waits; a disposed tensor is refused before anything else.
      using held = this.view(this.shape, this.strides);
      await acquire(target);
      if (target === this.device) return held.view(this.shape, this.strides);
      return await held.copied(target);
    }
    if (!isDType(target)) {
      throw new InvalidArgument(
        `Cannot move a tensor to "${String(target)}": expected wasm, webgpu or one of ${DTYPES.join(", ")}`,
      );
    }
    if (target === this.dtype && this.scales === null) return this.view(this.shape, this.strides);
    return Tensor.ofHost(convertTo(target, await this.data()), target, this.shape, this.device);
  }

  /**
   * Called once no scope will dispose the tensor: from here on that is up to its owner.
   *
   * @internal
   */
  escape(): void {
    this.#storage?.watch();
    this.scales?.escape();
  }

  /** Gives the tensor's share of its storage back. Using it afterwards is an error; disposing twice is not. */
  [Symbol.dispose](): void {
    if (this.#storage === null) return;
    this.#storage.release();
    this.#storage = null;
    this.scales?.[Symbol.dispose]();
  }

  /** Short description for logs. */
  [Symbol.for("Deno.customInspect")](): string {
    return `Tensor([${this.shape}], ${this.dtype}, "${this.device}"${this.isDisposed ? ", disposed" : ""})`;
  }
}

/**
 * The scales of a view of quantised rows: they lie like these, one where those have a row.
 *
 * @throws {InvalidArgument} for a view that does not have whole rows
 */
function scalesOf(
  of: Tensor,
  scales: Tensor,
  shape: readonly number[],
  strides: readonly number[],
  offset: number,
): Tensor {
  const width = of.shape.at(-1)!;
  const moved = offset - of.offset;
  const whole = shape.at(-1) === width && (strides.at(-1) === 1 || width === 1) &&
    [moved, ...strides.slice(0, -1)].every((n) => n % width === 0);
  if (!whole) {
    throw new InvalidArgument(
      `Cannot take a view [${shape}] of quantised keys or values [${of.shape}]: expected whole rows of ${width}; ` +
        'ops.cast(t, "float32") makes floats of them',
    );
  }
  return scales.view(
    [...shape.slice(0, -1), 1],
    [...strides.slice(0, -1).map((n) => n / width), 1],
    scales.offset + moved / width,
  );
}
