/**
 * What a WebGPU device records. A command is data: it names its kernel variant, its operands and its parameters,
 * and nothing of it exists on the GPU before the flush that encodes it.
 *
 * @module
 */
import type { Slot, WebGpuAllocation } from "./memory.ts";
import type { Stem } from "./shaders.ts";
import type { Constants } from "./template.ts";

/** Parameters take at most this many bytes: one uniform slot with a dynamic offset each. */
export const PARAM_BYTES = 256;

/** A range of a buffer as a storage binding. */
export interface Binding {
  readonly allocation: WebGpuAllocation;
  /** The allocation's slot when this was recorded: it may be released, and its slot given out again, before the flush. */
  readonly slot: Slot;
  readonly write: boolean;
  /** First byte, a multiple of 256; the whole buffer when `size` is 0. */
  readonly start: number;
  readonly size: number;
}

/** One kernel launch. */
export interface Dispatch {
  readonly kind: "dispatch";
  readonly stem: Stem;
  readonly constants: Constants;
  /** Stem and constants as text: the pipeline's name. */
  readonly key: string;
  /** Entry i is binding i + 1; absent ones are null. */
  readonly bindings: readonly (Binding | null)[];
  readonly params: Uint32Array<ArrayBuffer>;
  readonly grid: readonly [number, number, number];
  /** Allocations whose every byte this writes. */
  readonly fills: readonly WebGpuAllocation[];
}

/** Host bytes to put at a multiple of four. */
export interface Write {
  readonly kind: "write";
  readonly allocation: WebGpuAllocation;
  readonly slot: Slot;
  readonly byteOffset: number;
  readonly data: Uint8Array<ArrayBuffer>;
  readonly fills: readonly WebGpuAllocation[];
}

/** Bytes wanted on the host. */
export interface Read {
  readonly kind: "read";
  readonly allocation: WebGpuAllocation;
  readonly slot: Slot;
  readonly byteOffset: number;
  readonly bytes: number;
  readonly resolve: (bytes: Uint8Array<ArrayBuffer>) => void;
  readonly reject: (reason: unknown) => void;
}

/** Anything a device records. */
export type Command = Dispatch | Write | Read;
