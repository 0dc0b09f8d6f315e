/**
 * How tensors lie in GPU memory: int8 in 1 byte, halves in 2, everything else in 4. WGSL addresses 32-bit words: what is
 * smaller costs operations, and is worth them where there is much of it.
 *
 * @module
 */
import { type DType, type HostArray, hostView } from "../../dtype.ts";
import { InvalidArgument } from "../../errors.ts";

/** Bytes of one element. */
export function elementBytes(dtype: DType): number {
  return dtype === "int8" ? 1 : dtype === "float16" || dtype === "bfloat16" ? 2 : 4;
}

/**
 * Device bytes of a host array; a view of it where the layouts agree.
 *
 * @throws {InvalidArgument} for int64 beyond int32
 */
export function encode(dtype: DType, host: HostArray): Uint8Array<ArrayBuffer> {
  if (dtype === "int64") {
    const words = new Int32Array(host.length);
    for (let i = 0; i < words.length; i++) {
      const value = Number(host[i]);
      words[i] = value;
      if (words[i] !== value) {
        throw new InvalidArgument(
          `Cannot put int64 element ${i} on webgpu: ${host[i]} is outside -2147483648…2147483647`,
        );
      }
    }
    return new Uint8Array(words.buffer);
  }
  if (elementBytes(dtype) === host.BYTES_PER_ELEMENT) {
    return new Uint8Array(host.buffer, host.byteOffset, host.byteLength);
  }
  return new Uint8Array(Int32Array.from(host as Uint8Array).buffer);
}

/** Host array of device bytes. */
export function decode(dtype: DType, bytes: Uint8Array<ArrayBuffer>): HostArray {
  const whole = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  if (elementBytes(dtype) < 4 || dtype === "float32" || dtype === "int32") {
    return hostView(dtype, whole.buffer, whole.byteOffset, whole.byteLength / elementBytes(dtype));
  }
  const words = new Int32Array(whole.buffer, whole.byteOffset, whole.byteLength / 4);
  if (dtype === "int64") return BigInt64Array.from(words, BigInt);
  return Uint8Array.from(words);
}
