/**
 * Element types: their sizes, host arrays and conversions.
 *
 * On a device `int64` is stored as 32-bit integers (checked at upload), because neither WASM SIMD nor WGSL
 * gains anything from 64-bit token ids; half types are storage types that kernels widen in registers.
 *
 * @module
 */
import { InvalidArgument } from "./errors.ts";

/** Element type of a tensor, with PyTorch's names. */
export type DType = "float32" | "float16" | "bfloat16" | "int8" | "uint8" | "int32" | "int64" | "bool";

/** What {@linkcode Tensor.data} returns: bool as `Uint8Array`, bfloat16 widened to `Float32Array`, int64 as `BigInt64Array`. */
export type TypedArray =
  | Float32Array<ArrayBuffer>
  | Float16Array<ArrayBuffer>
  | Int8Array<ArrayBuffer>
  | Uint8Array<ArrayBuffer>
  | Int32Array<ArrayBuffer>
  | BigInt64Array<ArrayBuffer>;

/** All dtypes, in the order error messages list them. */
export const DTYPES: readonly DType[] = [
  "float32",
  "float16",
  "bfloat16",
  "int8",
  "uint8",
  "int32",
  "int64",
  "bool",
];

/** Bytes of one element in a host copy. */
export const HOST_BYTES: Readonly<Record<DType, number>> = {
  float32: 4,
  float16: 2,
  bfloat16: 2,
  int8: 1,
  uint8: 1,
  int32: 4,
  int64: 8,
  bool: 1,
};

/** Whether `x` names a dtype. */
export function isDType(x: unknown): x is DType {
  return typeof x === "string" && (DTYPES as readonly string[]).includes(x);
}

/** Whether values of `dtype` are floating point. */
export function isFloat(dtype: DType): boolean {
  return dtype === "float32" || dtype === "float16" || dtype === "bfloat16";
}

/** Most negative finite value of a floating dtype, PyTorch's `torch.finfo(dtype).min`. */
export function minOf(dtype: DType): number {
  switch (dtype) {
    case "float32":
      return -3.4028234663852886e38;
    case "float16":
      return -65504;
    case "bfloat16":
      return -3.3895313892515355e38;
    default:
      throw new InvalidArgument(
        `Cannot take the minimum of dtype ${dtype}: expected float32, float16 or bfloat16`,
      );
  }
}

const bits = new DataView(new ArrayBuffer(4));

/** Rounds a number to the nearest bfloat16 (ties to even) and returns its 16 bits. */
export function toBFloat16Bits(x: number): number {
  bits.setFloat32(0, x);
  const u = bits.getUint32(0);
  if ((u & 0x7fffffff) > 0x7f800000) return (u >>> 16) | 0x40;
  return ((u + 0x7fff + ((u >>> 16) & 1)) >>> 16) & 0xffff;
}

/** Widens 16 bfloat16 bits to a number. */
export function fromBFloat16Bits(b: number): number {
  bits.setUint32(0, (b & 0xffff) << 16);
  return bits.getFloat32(0);
}

/** A host array of `n` zeros whose bytes are the host representation of `dtype`. bfloat16 uses raw 16-bit words. */
export function hostArray(dtype: DType, n: number): HostArray {
  switch (dtype) {
    case "float32":
      return new Float32Array(n);
    case "float16":
      return new Float16Array(n);
    case "bfloat16":
      return new Uint16Array(n);
    case "int8":
      return new Int8Array(n);
    case "uint8":
    case "bool":
      return new Uint8Array(n);
    case "int32":
      return new Int32Array(n);
    case "int64":
      return new BigInt64Array(n);
  }
}

/** Raw host storage of a tensor: the {@linkcode TypedArray}s plus 16-bit words for bfloat16. */
export type HostArray = TypedArray | Uint16Array<ArrayBuffer>;

/** Views the bytes of `buffer` as a host array of `dtype`. */
export function hostView(dtype: DType, buffer: ArrayBuffer, byteOffset = 0, length?: number): HostArray {
  switch (dtype) {
    case "float32":
      return new Float32Array(buffer, byteOffset, length);
    case "float16":
      return new Float16Array(buffer, byteOffset, length);
    case "bfloat16":
      return new Uint16Array(buffer, byteOffset, length);
    case "int8":
      return new Int8Array(buffer, byteOffset, length);
    case "uint8":
    case "bool":
      return new Uint8Array(buffer, byteOffset, length);
    case "int32":
      return new Int32Array(buffer, byteOffset, length);
    case "int64":
      return new BigInt64Array(buffer, byteOffset, length);
  }
}

const INT_RANGE: Partial<Record<DType, readonly [number, number]>> = {
  int8: [-128, 127],
  uint8: [0, 255],
  int32: [-2147483648, 2147483647],
};

/** Converts (never reinterprets) `source` into a fresh host array of `dtype`. Integers out of range are refused. */
export function convertTo(
  dtype: DType,
  source: ArrayLike<number> | ArrayLike<bigint> | ArrayLike<boolean>,
): HostArray {
  const n = source.length;
  const out = hostArray(dtype, n);
  const range = INT_RANGE[dtype];
  for (let i = 0; i < n; i++) {
    const x = source[i]!;
    if (dtype === "int64") {
      const big = typeof x === "bigint" ? x : integer(Number(x), i, dtype);
      if (BigInt.asIntN(64, BigInt(big)) !== BigInt(big)) {
        throw new InvalidArgument(`Cannot convert element ${i} to int64: ${x} is out of range`);
      }
      (out as BigInt64Array)[i] = BigInt(big);
      continue;
    }
    const v = Number(x);
    if (dtype === "bool") (out as Uint8Array)[i] = v !== 0 ? 1 : 0;
    else if (dtype === "bfloat16") (out as Uint16Array)[i] = toBFloat16Bits(v);
    else if (range === undefined) (out as Float32Array | Float16Array)[i] = v;
    else {
      const t = Math.trunc(v);
      if (!(t >= range[0] && t <= range[1])) {
        throw new InvalidArgument(
          `Cannot convert element ${i} to ${dtype}: ${v} is outside ${range[0]}…${range[1]}`,
        );
      }
      (out as Int32Array)[i] = t;
    }
  }
  return out;
}

function integer(v: number, i: number, dtype: DType): number {
  const t = Math.trunc(v);
  if (!Number.isFinite(t)) {
    throw new InvalidArgument(`Cannot convert element ${i} to ${dtype}: ${v} is not an integer`);
  }
  return t;
}

/** Widens a raw host array of `dtype` to what {@linkcode Tensor.data} promises. */
export function present(dtype: DType, raw: HostArray): TypedArray {
  if (dtype !== "bfloat16") return raw as TypedArray;
  const words = raw as Uint16Array;
  const out = new Float32Array(words.length);
  const u = new Uint32Array(out.buffer);
  for (let i = 0; i < words.length; i++) u[i] = words[i]! << 16;
  return out;
}
