/**
 * Tensors: shape, dtype and strides over shared storage.
 *
 * The last dimension is contiguous, outer strides are free, and views share storage. Storage is host-first:
 * `Tensor.from` keeps the host data and a device gets a copy at first use. Tensors made by kernels have no host
 * copy until `data()` reads one.
 *
 * @module
 */
import {
  convertTo,
  type DType,
  DTYPES,
  type HostArray,
  hostArray,
  isDType,
  present,
  type TypedArray,
} from "./dtype.ts";
import { InvalidArgument } from "./errors.ts";
import { type Allocation, type Device, type DeviceName, MAX_RANK, type View } from "./devices/device.ts";
import { acquire, copyBetween, defaultDevice } from "./devices/mod.ts";
import { enlist } from "./scope.ts";

/** Nested arrays of numbers, booleans or bigints, all rows of equal length. */
export type NestedArray = readonly (number | boolean | bigint | NestedArray)[];

/** What {@linkcode Tensor.from} accepts. */
export type TensorData = number | ArrayLike<number> | ArrayLike<bigint> | ArrayBufferView | NestedArray;

/** Options of {@linkcode Tensor.from}. */
export interface TensorOptions {
  /** Row-major shape; default: the nesting of the data. */
  shape?: readonly number[];
  /** Element type; default: float32 for fractions, int32 for integers, bool for booleans, int64 for bigints. */
  dtype?: DType;
  /** Where the tensor is used; default `"wasm"`. Nothing is uploaded before the first use. */
  device?: DeviceName;
}

/**
 * Reference-counted bytes behind one or more tensors.
 *
 * @internal
 */
export class Storage {
  #refs = 0;
  #homes: Allocation[] = [];
  host: HostArray | null;
  readonly dtype: DType;
  readonly length: number;

  constructor(dtype: DType, length: number, host: HostArray | null, home: Allocation | null = null) {
    this.dtype = dtype;
    this.length = length;
    this.host = host;
    if (home !== null) this.#homes.push(home);
  }

  retain(): this {
    this.#refs++;
    return this;
  }

  release(): void {
    if (--this.#refs > 0) return;
    for (const home of this.#homes) home.device.release(home);
    this.#homes = [];
    this.host = null;
  }

  /** The device that holds the values; undefined for storage that has only a host copy. */
  get home(): Device | undefined {
    // A device that closed took its copies of host data with it.
    if (this.host !== null) this.#homes = this.#homes.filter((a) => !a.device.isClosed);
    return this.#homes[0]?.device;
  }

  /** The block on `device`, uploaded or copied there if it is not there yet. */
  on(device: Device): Allocation {
    const there = this.#homes.find((a) => a.device === device);
    if (there !== undefined) return there;
    // Encoding may refuse the values: nothing is allocated then.
    const bytes = this.host === null ? null : device.encode(this.dtype, this.host);
    const block = device.allocate(this.length * device.elementBytes(this.dtype), bytes !== null);
    if (bytes !== null) device.write(block, 0, bytes);
    else {
      const from = this.#homes[0];
      if (from === undefined) throw new InvalidArgument("Cannot use a tensor after it was disposed");
      copyBetween(from, block);
    }
    this.#homes.push(block);
    return block;
  }
}

/** Frees storage whose last tensor was dropped without being disposed: a net, not the plan. */
const forgotten = new FinalizationRegistry<Storage>((storage) => storage.release());

/** Row-major strides of `shape`. */
export function contiguousStrides(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = step;
    step *= shape[i]!;
  }
  return strides;
}

/** Number of elements of `shape`. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

/**
 * Checks that `shape` is a list of at most {@linkcode MAX_RANK} non-negative safe integers.
 *
 * @throws {InvalidArgument}
 */
export function checkShape(shape: readonly number[]): readonly number[] {
  if (!Array.isArray(shape)) {
    throw new InvalidArgument(`Cannot use ${String(shape)} as a shape: expected an array of integers`);
  }
  if (shape.length > MAX_RANK) {
    throw new InvalidArgument(
      `Cannot make a tensor of rank ${shape.length}: at most ${MAX_RANK} dimensions are supported`,
    );
  }
  for (const d of shape) {
    if (!Number.isSafeInteger(d) || d < 0) {
      throw new InvalidArgument(
        `Cannot use [${shape}] as a shape: expected non-negative integers, got ${String(d)}`,
      );
    }
  }
  if (!Number.isSafeInteger(sizeOf(shape))) {
    throw new InvalidArgument(`Cannot use [${shape}] as a shape: too many elements`);
  }
  return Object.freeze([...shape]);
}

/**
 * A multi-dimensional array on the host or a device. Made by {@linkcode Tensor.from}, operations and models.
 *
 * @example
 * ```ts
 * import { Tensor } from "./mod.ts";
 * using t = Tensor.from([[1, 2], [3, 4.5]]);
 * console.assert(t.dtype === "float32" && t.shape[0] === 2);
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
  #storage: Storage | null;

  /** Internal: use {@linkcode Tensor.from}. */
  constructor(
    storage: Storage,
    device: DeviceName,
    dtype: DType,
    shape: readonly number[],
    strides?: readonly number[],
    offset = 0,
  ) {
    this.#storage = storage.retain();
    this.device = device;
    this.dtype = dtype;
    this.shape = shape;
    this.strides = strides ?? contiguousStrides(shape);
    this.offset = offset;
    forgotten.register(this, storage, this);
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
    let step = 1;
    for (let i = this.shape.length - 1; i >= 0; i--) {
      if (this.shape[i] !== 1 && this.strides[i] !== step) return false;
      step *= this.shape[i]!;
    }
    return true;
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
    return new Tensor(this.storage, this.device, dtype, shape, strides, offset);
  }

  /**
   * What kernels of `device` read: uploads at first use.
   *
   * @internal
   */
  on(device: Device): View {
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

  /** Row-major host copy: bool as `Uint8Array`, bfloat16 widened to `Float32Array`, int64 as `BigInt64Array`. */
  async data(): Promise<TypedArray> {
    const raw = await this.raw();
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
    using packed = this.contiguous();
    return await packed.raw();
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
      await acquire(target);
      if (target === this.device) return this.view(this.shape, this.strides);
      return Tensor.ofHost(await this.raw(), this.dtype, this.shape, target);
    }
    if (!isDType(target)) {
      throw new InvalidArgument(
        `Cannot move a tensor to "${String(target)}": expected wasm, webgpu or one of ${DTYPES.join(", ")}`,
      );
    }
    if (target === this.dtype) return this.view(this.shape, this.strides);
    return Tensor.ofHost(convertTo(target, await this.data()), target, this.shape, this.device);
  }

  /** Gives the tensor's share of its storage back. Using it afterwards is an error; disposing twice is not. */
  [Symbol.dispose](): void {
    if (this.#storage === null) return;
    forgotten.unregister(this);
    this.#storage.release();
    this.#storage = null;
  }

  /** Short description for logs. */
  [Symbol.for("Deno.customInspect")](): string {
    return `Tensor([${this.shape}], ${this.dtype}, "${this.device}"${this.isDisposed ? ", disposed" : ""})`;
  }
}

/**
 * Row-major host values of a tensor that has a host copy, for code that must stay synchronous. @internal
 *
 * @throws {InvalidArgument} for a tensor that exists only on a device.
 */
export function hostData(t: Tensor): HostArray {
  const { host } = t.storage;
  if (host === null) {
    throw new InvalidArgument(
      `Cannot read a tensor of shape [${t.shape}] synchronously: it has no host copy; read it with await tensor.data(), or make one with Tensor.from(await tensor.data(), …)`,
    );
  }
  return gather(t, host);
}

/** Elements of a view of host storage in row-major order; the host array itself when it is exactly that. */
function gather(t: Tensor, host: HostArray): HostArray {
  if (t.isContiguous) {
    return host.length === t.size ? host : host.slice(t.offset, t.offset + t.size) as HostArray;
  }
  const out = hostArray(t.dtype, t.size);
  let at = 0;
  const walk = (dim: number, from: number): void => {
    if (dim === t.shape.length) out[at++] = host[from]!;
    else for (let i = 0; i < t.shape[dim]!; i++) walk(dim + 1, from + i * t.strides[dim]!);
  };
  walk(0, t.offset);
  return out;
}

function checkOptions(options: TensorOptions): void {
  for (const key of Object.keys(options)) {
    if (key !== "shape" && key !== "dtype" && key !== "device") {
      throw new InvalidArgument(
        `Cannot make a tensor with option "${key}": known options are shape, dtype, device`,
      );
    }
  }
  if (options.dtype !== undefined && !isDType(options.dtype)) {
    throw new InvalidArgument(
      `Cannot make a tensor of dtype "${String(options.dtype)}": expected one of ${DTYPES.join(", ")}`,
    );
  }
  if (options.device !== undefined && options.device !== "wasm" && options.device !== "webgpu") {
    throw new InvalidArgument(
      `Cannot make a tensor on device "${String(options.device)}": expected wasm or webgpu`,
    );
  }
}

const KIND = new Map<string, DType>([
  ["Float32Array", "float32"],
  ["Float64Array", "float32"],
  ["Float16Array", "float16"],
  ["Int8Array", "int8"],
  ["Uint8Array", "uint8"],
  ["Uint8ClampedArray", "uint8"],
  ["Int16Array", "int32"],
  ["Uint16Array", "int32"],
  ["Int32Array", "int32"],
  ["Uint32Array", "int32"],
  ["BigInt64Array", "int64"],
  ["BigUint64Array", "int64"],
]);

function typedArrayName(view: ArrayBufferView): string {
  return Object.prototype.toString.call(view).slice(8, -1);
}

/** Whether a typed array's own representation is already the host representation of `dtype`. */
function isHostArray(dtype: DType, view: ArrayBufferView): view is Exclude<HostArray, Uint16Array> {
  const name = typedArrayName(view);
  return view.buffer instanceof ArrayBuffer && KIND.get(name) === dtype &&
    ["Float32Array", "Float16Array", "Int8Array", "Uint8Array", "Int32Array", "BigInt64Array"].includes(name);
}

/** Data as one list, with the shape and dtype it has by itself. */
interface Flat {
  readonly values: ArrayLike<number> | ArrayLike<bigint> | ArrayLike<boolean>;
  readonly shape: readonly number[];
  readonly dtype: DType;
}

function flatten(data: TensorData): Flat {
  if (ArrayBuffer.isView(data)) {
    const dtype = KIND.get(typedArrayName(data));
    if (dtype === undefined) {
      throw new InvalidArgument(
        `Cannot make a tensor from ${typedArrayName(data)}: expected one of ${[...KIND.keys()].join(", ")}`,
      );
    }
    // DataView is the only view that is not array-like, and KIND has no entry for it.
    const values = data as ArrayBufferView & ArrayLike<number>;
    return { values, shape: [values.length], dtype };
  }
  const values: (number | bigint | boolean)[] = [];
  const shape: number[] = [];
  const visit = (x: unknown, depth: number): void => {
    if (typeof x === "number" || typeof x === "bigint" || typeof x === "boolean") {
      if (depth !== shape.length) {
        throw new InvalidArgument("Cannot make a tensor from nested arrays of uneven depth");
      }
      values.push(x);
      return;
    }
    if (typeof x !== "object" || x === null || !("length" in x) || typeof x.length !== "number") {
      throw new InvalidArgument(
        `Cannot make a tensor from ${
          x === null ? "null" : typeof x
        }: expected numbers, booleans, bigints, arrays of them or a typed array`,
      );
    }
    const list = x as ArrayLike<unknown>;
    if (depth === shape.length) {
      if (values.length > 0) {
        throw new InvalidArgument("Cannot make a tensor from nested arrays of uneven depth");
      }
      shape.push(list.length);
    } else if (shape[depth] !== list.length) {
      throw new InvalidArgument(
        `Cannot make a tensor from ragged arrays: a row of ${list.length} elements beside one of ${
          shape[depth]
        }`,
      );
    }
    for (let i = 0; i < list.length; i++) visit(list[i], depth + 1);
  };
  visit(data, 0);
  const first = values[0];
  if (values.some((v) => typeof v !== typeof first)) {
    throw new InvalidArgument("Cannot make a tensor from a mixture of numbers, booleans and bigints");
  }
  const dtype: DType = typeof first === "boolean"
    ? "bool"
    : typeof first === "bigint"
    ? "int64"
    : values.length > 0 && values.every((v) => Number.isInteger(v))
    ? "int32"
    : "float32";
  return { values: values as number[], shape, dtype };
}
