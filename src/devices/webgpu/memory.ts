/**
 * Logical allocations and the physical buffers behind them.
 *
 * Commands run in the order they were recorded, so a block released after its last command was recorded may be
 * given out again at once, long before any GPUBuffer exists: an allocation is a handle on a slot, and a slot
 * gets its buffer when a command that uses it is first encoded.
 *
 * @module
 */
import { InvalidArgument, OutOfMemory } from "../../errors.ts";
import type { Allocation, Device } from "../device.ts";
import { fillSlots } from "./buffers.ts";

/** A place for one GPUBuffer. */
export interface Slot {
  readonly id: number;
  /** Bytes of the buffer, a multiple of 256. */
  readonly size: number;
  buffer: GPUBuffer | null;
  /** Number of the last submission whose commands touch the buffer. */
  submission: number;
  /** Number of the flush after which it became free. */
  freed: number;
}

/** A handle on a slot, valid until released. */
export class WebGpuAllocation implements Allocation {
  /** Whether the work that should have filled the block was dropped. */
  dropped = false;
  #slot: Slot | null;

  /** Wraps `slot` for `bytes` of `device`. An `evictable` one is a copy of host data. */
  constructor(readonly device: Device, readonly bytes: number, slot: Slot, readonly evictable: boolean) {
    this.#slot = slot;
  }

  /**
   * The slot.
   *
   * @throws {InvalidArgument} once released
   */
  get slot(): Slot {
    if (this.#slot === null) throw new InvalidArgument("Cannot use a WebGPU allocation: it was released");
    return this.#slot;
  }

  /** Gives the slot up; null when that has happened before. */
  detach(): Slot | null {
    const slot = this.#slot;
    this.#slot = null;
    return slot;
  }
}

/** Free buffers that no allocation has taken for this many flushes are destroyed. */
const IDLE_FLUSHES = 64;

/** Buffer sizes come in steps of a quarter of a power of two, large ones of a sixteenth, so that they recycle. */
function sizeClass(bytes: number): number {
  const least = Math.max(256, bytes);
  const step = 2 ** Math.floor(Math.log2(least)) / (least > 2 ** 24 ? 16 : 4);
  const grain = Math.max(256, step);
  return Math.ceil(least / grain) * grain;
}

/** The allocator of one device. */
export class Memory {
  /** Number of live allocations. */
  live = 0;
  /** Number of live allocations that hold values which exist nowhere else. */
  pinned = 0;
  /** Bytes in live allocations. */
  bytes = 0;
  /** The most `bytes` ever was. */
  peak = 0;
  /** Buffers that exist on the GPU, in use or free. */
  buffers = 0;
  /** Largest buffer the GPU allows, once known. */
  limit = Infinity;
  #free = new Map<number, Slot[]>();
  #nextId = 0;
  #flushes = 0;

  /**
   * Reserves a slot.
   *
   * @throws {OutOfMemory} when no buffer can be that large
   */
  allocate(device: Device, bytes: number, evictable: boolean): WebGpuAllocation {
    if (!Number.isSafeInteger(bytes) || bytes < 0) {
      throw new InvalidArgument(`Cannot allocate ${bytes} bytes`);
    }
    let size = sizeClass(bytes);
    if (size > this.limit) size = Math.ceil(bytes / 256) * 256;
    if (size > this.limit) {
      throw new OutOfMemory(
        `Cannot allocate ${bytes} bytes on webgpu: the adapter's largest buffer is ${this.limit} bytes`,
      );
    }
    const slot = this.#free.get(size)?.pop() ??
      { id: this.#nextId++, size, buffer: null, submission: -1, freed: 0 };
    this.live++;
    if (!evictable) this.pinned++;
    this.bytes += bytes;
    this.peak = Math.max(this.peak, this.bytes);
    return new WebGpuAllocation(device, bytes, slot, evictable);
  }

  /** Makes the slot available to whatever is recorded from now on. Releasing twice does nothing. */
  release(allocation: WebGpuAllocation): void {
    const slot = allocation.detach();
    if (slot === null) return;
    slot.freed = this.#flushes;
    const list = this.#free.get(slot.size);
    if (list) list.push(slot);
    else this.#free.set(slot.size, [slot]);
    this.live--;
    if (!allocation.evictable) this.pinned--;
    this.bytes -= allocation.bytes;
  }

  /**
   * Makes the buffers of slots that have none.
   *
   * @throws {OutOfMemory} when the GPU refuses one; the others are there then
   */
  async fill(gpu: GPUDevice, slots: readonly Slot[]): Promise<void> {
    const missing = [...new Set(slots)].filter((slot) => slot.buffer === null);
    if (missing.length === 0) return;
    try {
      await fillSlots(gpu, missing);
    } finally {
      for (const slot of missing) if (slot.buffer !== null) this.buffers++;
    }
  }

  /** Destroys buffers that have long been free, or all free ones. Returns whether there were any. */
  trim(all = false): boolean {
    this.#flushes++;
    let any = false;
    for (const [size, list] of this.#free) {
      const kept: Slot[] = [];
      for (const slot of list) {
        if (!all && this.#flushes - slot.freed <= IDLE_FLUSHES) {
          kept.push(slot);
          continue;
        }
        if (slot.buffer === null) continue;
        any = true;
        this.buffers--;
        slot.buffer.destroy();
        slot.buffer = null;
      }
      if (kept.length === 0) this.#free.delete(size);
      else this.#free.set(size, kept);
    }
    return any;
  }
}
