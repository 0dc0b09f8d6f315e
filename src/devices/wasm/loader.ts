/**
 * Chooses and instantiates a kernel build.
 *
 * @module
 */
import { EngineFailure } from "../../errors.ts";
import type { PooledMemory } from "./memory.ts";
import { kernelBytes } from "./kernel_bytes.ts";

/** A kernel, or the getter of a table index. */
export type KernelExports = Readonly<Record<string, (...args: number[]) => number>>;

/** An instance of the kernels on a memory. */
export interface Loaded {
  /** What was instantiated, for other threads. */
  readonly module: WebAssembly.Module;
  readonly exports: KernelExports;
  /** Which build runs: `simd` or `relaxed`, with `_shared` on shared memory. */
  readonly build: string;
  /** First address the kernels do not use. */
  readonly heapBase: number;
}

/** `(v128, v128, v128) → v128: f32x4.relaxed_madd`, the smallest module that needs relaxed SIMD. */
// deno-fmt-ignore
const RELAXED_PROBE = Uint8Array.of(
  0, 97, 115, 109, 1, 0, 0, 0, 1, 8, 1, 96, 3, 123, 123, 123, 1, 123, 3, 2, 1, 0,
  10, 13, 1, 11, 0, 32, 0, 32, 1, 32, 2, 253, 133, 2, 11,
);

const modules = new Map<string, WebAssembly.Module>();

/**
 * Compiles the build for this engine once, and instantiates it on `memory`.
 *
 * @throws {EngineFailure}
 */
export function instantiate({ memory, shared }: PooledMemory, deterministic: boolean): Loaded {
  const arithmetic = !deterministic && WebAssembly.validate(RELAXED_PROBE) ? "relaxed" : "simd";
  const build = shared ? `${arithmetic}_shared` : arithmetic;
  try {
    let module = modules.get(build);
    if (module === undefined) {
      modules.set(build, module = new WebAssembly.Module(kernelBytes(arithmetic, shared)));
    }
    // A reused memory still holds the last instance's data and flags: the new one starts from zeros.
    new Uint8Array(memory.buffer, 0, DATA_BYTES).fill(0);
    const { exports } = new WebAssembly.Instance(module, { env: { memory } });
    const heapBase = exports["__heap_base"];
    if (!(heapBase instanceof WebAssembly.Global)) throw new TypeError("no __heap_base");
    return { module, exports: exports as KernelExports, build, heapBase: Number(heapBase.value) };
  } catch (error) {
    throw new EngineFailure(
      `Cannot start the ${build} kernels: ${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    );
  }
}

/** Bytes at the bottom of a memory that hold the kernels' stack and data. */
const DATA_BYTES = 1 << 20;
