/**
 * One recorded kernel call on a WASM engine.
 *
 * Every exported kernel has the C signature
 * `fn(params: *const Params, scratch: *mut u8, begin: u32, end: u32)`: `params` points to a `#[repr(C)]` struct
 * of 4-byte fields, `scratch` to {@linkcode SCRATCH_BYTES} bytes that belong to the running thread, and
 * `begin..end` is the range of parts to do. Parts are independent of each other, so the engine may run them in
 * slices between which the event loop turns, and on several threads; results never depend on the slicing.
 *
 * @module
 */
import type { Allocation } from "../device.ts";

/** Bytes of scratch memory each thread hands to a kernel, 64-byte aligned. */
export const SCRATCH_BYTES = 1 << 20;

/** Largest params struct in 32-bit words. */
export const PARAM_WORDS = 128;

/** A kernel call with everything it needs to run later. */
export interface Command {
  /** Export name of the kernel. */
  readonly kernel: string;
  /** The params struct as 32-bit words. */
  readonly params: ArrayLike<number>;
  /** Number of independent parts. */
  readonly parts: number;
  /**
   * About the time of all parts together, in floating point operations of a large product: a nanosecond is some 40 of
   * them. What waits for memory or computes functions counts by its time. It sets how many parts run between two looks
   * at the clock, and whether other threads help.
   */
  readonly cost: number;
  /** Whether the last parts are the longest, so that several threads had better begin with them. */
  readonly lastFirst?: boolean;
  /** Allocations this command writes whole: their values are lost if it is dropped. */
  readonly writes: readonly Allocation[];
}

/** What the kernel encoders need of an engine. */
export interface Recorder {
  /** Address of an allocation in the engine's memory. */
  address(allocation: Allocation): number;
  /**
   * Reserves memory for what one command hands to the next.
   *
   * @throws {OutOfMemory}
   */
  allocate(bytes: number): Allocation;
  /** Gives it back once everything recorded so far has run. */
  release(allocation: Allocation): void;
  /** Appends a command to the queue. */
  record(command: Command): void;
  /** Whether matrix products are made of wide tiles (tiles.ts). */
  readonly hasWideTiles: boolean;
  /** Table index of a function the kernel module exports by name, for hooks such as the softcap tile function. */
  tableIndex(name: string): number;
}
