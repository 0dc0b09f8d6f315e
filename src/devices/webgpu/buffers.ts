/**
 * Every call that makes, fills or copies GPU buffers.
 *
 * Some runtimes end the process on a write without bytes or outside of a buffer, so ranges are checked here and the
 * calls are made nowhere else.
 *
 * @module
 */
import { InvalidArgument, OutOfMemory } from "../../errors.ts";
import type { Slot } from "./memory.ts";
import { firstError, messageOf, openScopes } from "./scopes.ts";

// Numbers, because a runtime may offer WebGPU without its global constants.
const MAP_READ = 0x1, COPY_SRC = 0x4, COPY_DST = 0x8, UNIFORM = 0x40, STORAGE = 0x80, RESOLVE = 0x200;

/** What buffers are for. */
export const USAGE = {
  slot: STORAGE | COPY_SRC | COPY_DST,
  parameters: UNIFORM | COPY_DST,
  staging: COPY_SRC | COPY_DST,
  readback: MAP_READ | COPY_DST,
  timestamps: RESOLVE | COPY_SRC,
} as const;

/**
 * A new buffer of `size` bytes.
 *
 * @throws {InvalidArgument}
 */
export function makeBuffer(gpu: GPUDevice, label: string, size: number, use: keyof typeof USAGE): GPUBuffer {
  if (!Number.isSafeInteger(size) || size < 4 || size % 4 !== 0) {
    throw new InvalidArgument(
      `Cannot make a GPU buffer of ${size} bytes: expected a multiple of 4, at least 4`,
    );
  }
  return gpu.createBuffer({ label, size, usage: USAGE[use] });
}

/**
 * Puts bytes into a buffer before everything that is submitted later.
 *
 * @throws {InvalidArgument}
 */
export function writeBuffer(
  gpu: GPUDevice,
  buffer: GPUBuffer,
  offset: number,
  data: Uint8Array<ArrayBuffer> | Uint32Array<ArrayBuffer>,
): void {
  checkRange("write", buffer, offset, data.byteLength);
  gpu.queue.writeBuffer(buffer, offset, data);
}

/**
 * Records a copy from one buffer to another.
 *
 * @throws {InvalidArgument}
 */
export function copyBuffer(
  encoder: GPUCommandEncoder,
  from: GPUBuffer,
  fromOffset: number,
  to: GPUBuffer,
  toOffset: number,
  bytes: number,
): void {
  checkRange("copy", from, fromOffset, bytes);
  checkRange("copy", to, toOffset, bytes);
  if (from === to) throw new InvalidArgument("Cannot copy within a GPU buffer: expected two");
  encoder.copyBufferToBuffer(from, fromOffset, to, toOffset, bytes);
}

function checkRange(what: string, buffer: GPUBuffer, offset: number, bytes: number): void {
  const whole = offset % 4 === 0 && bytes % 4 === 0 && bytes > 0;
  if (whole && offset >= 0 && offset + bytes <= buffer.size) return;
  throw new InvalidArgument(
    `Cannot ${what} bytes ${offset}…${offset + bytes} of a GPU buffer of ${buffer.size} bytes: ` +
      "expected at least one word, whole words, and none outside",
  );
}

/**
 * Makes the buffers of slots that have none yet. Where one fails it is given back, and the others stay.
 *
 * @throws {OutOfMemory} naming the slot that failed
 */
export async function fillSlots(gpu: GPUDevice, slots: readonly Slot[]): Promise<void> {
  const failures = await Promise.all(slots.map(async (slot) => {
    const close = openScopes(gpu);
    let thrown: unknown;
    try {
      slot.buffer = makeBuffer(gpu, `slot ${slot.id}`, slot.size, "slot");
    } catch (error) {
      thrown = error;
    }
    // Closed in the same turn: the scopes of the other slots are not mixed with these.
    const error = firstError(await Promise.all(close())) ?? thrown;
    if (error === undefined) return null;
    slot.buffer?.destroy();
    slot.buffer = null;
    return { slot, error };
  }));
  const failed = failures.find((f) => f !== null);
  if (failed === undefined || failed === null) return;
  throw new OutOfMemory(
    `Cannot make a buffer of ${failed.slot.size} bytes on webgpu: ${messageOf(failed.error)}`,
    { cause: failed.error },
  );
}
