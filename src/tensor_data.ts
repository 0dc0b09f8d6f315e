/**
 * What tensors can be made from: numbers, nested arrays, typed arrays.
 *
 * @module
 */
import { type DeviceName, MAX_RANK } from "./devices/device.ts";
import { type DType, DTYPES, type HostArray, isDType } from "./dtype.ts";
import { InvalidArgument } from "./errors.ts";

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

/** Checks the names and values of options. @throws {InvalidArgument} */
export function checkOptions(options: TensorOptions): void {
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

/** The dtype a typed array has by itself. */
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
export function isHostArray(dtype: DType, view: ArrayBufferView): view is Exclude<HostArray, Uint16Array> {
  const name = typedArrayName(view);
  return view.buffer instanceof ArrayBuffer && KIND.get(name) === dtype &&
    ["Float32Array", "Float16Array", "Int8Array", "Uint8Array", "Int32Array", "BigInt64Array"].includes(name);
}

/** Data as one list, with the shape and dtype it has by itself. */
export interface Flat {
  readonly values: ArrayLike<number> | ArrayLike<bigint> | ArrayLike<boolean>;
  readonly shape: readonly number[];
  readonly dtype: DType;
}

/**
 * Data as one list.
 *
 * @throws {InvalidArgument} for ragged or mixed arrays, and anything that is not numbers, booleans or bigints
 */
export function flatten(data: TensorData): Flat {
  if (ArrayBuffer.isView(data)) {
    const dtype = KIND.get(typedArrayName(data));
    if (dtype === undefined) {
      throw new InvalidArgument(
        `Cannot make a tensor from ${typedArrayName(data)}: expected one of ${[...KIND.keys()].join(", ")}`,
      );
    }
    if (data.buffer instanceof ArrayBuffer && data.buffer.detached) {
      throw new InvalidArgument("Cannot make a tensor from a detached buffer: it was transferred elsewhere");
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
    // Also ends the walk through a list that holds itself.
    if (depth === MAX_RANK) {
      throw new InvalidArgument(
        `Cannot make a tensor of more than ${MAX_RANK} dimensions from nested arrays`,
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
