/**
 * The bytes of the kernel builds.
 *
 * Two builds are embedded, not four: the kernels hold no atomic instructions, no mutable statics and no start
 * function, so all that shared memory changes is the type of the imported memory, one flag byte, which is set at
 * load. Each thread's instance writes the same constants to the same place again, which changes nothing.
 *
 * @module
 */
import relaxed from "../../../wasm/built/attune_relaxed_bytes.ts";
import simd from "../../../wasm/built/attune_simd_bytes.ts";
import { EngineFailure } from "../../errors.ts";

/** The module of a build, for unshared or shared memory. */
export function kernelBytes(build: "simd" | "relaxed", shared: boolean): Uint8Array<ArrayBuffer> {
  const binary = atob(build === "relaxed" ? relaxed : simd);
  // A loop: `Uint8Array.from` with a mapping takes ten times as long.
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return shared ? asShared(bytes) : bytes;
}

/** Limits of a memory with a maximum, unshared and shared (WebAssembly core and threads specifications). */
const WITH_MAXIMUM = 1, SHARED = 3;

/** Section, count, `"env"`, `"memory"`, kind memory: how the import section of a kernel module begins, without sizes. */
const IMPORT = [1, 3, 0x65, 0x6e, 0x76, 6, 0x6d, 0x65, 0x6d, 0x6f, 0x72, 0x79, 2];

/** A copy of `module` that imports a shared memory. @throws {EngineFailure} when it does not import a memory with a maximum */
export function asShared(module: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const out = module.slice();
  let at = 8;
  const size = () => {
    let value = 0;
    for (let shift = 0;; shift += 7) {
      const byte = out[at++]!;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < out.length) {
    const id = out[at++], length = size();
    if (id === 2) {
      const flag = at + IMPORT.length;
      if (IMPORT.every((byte, i) => out[at + i] === byte) && out[flag] === WITH_MAXIMUM) {
        out[flag] = SHARED;
        return out;
      }
      break;
    }
    at += length;
  }
  throw new EngineFailure("The kernel module does not import env.memory with a maximum as its only import");
}
