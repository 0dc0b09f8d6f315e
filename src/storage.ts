/**
 * Storage: the bytes behind tensors, on the host and on the devices that have used them.
 *
 * @module
 */
import type { Allocation, Device } from "./devices/device.ts";
import { copyBetween } from "./devices/mod.ts";
import type { DType, HostArray } from "./dtype.ts";
import { InvalidArgument } from "./errors.ts";

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

  /** Gives the copy on `device` back. */
  #leave(device: Device): void {
    for (const home of this.#homes) if (home.device === device) device.release(home);
    this.#homes = this.#homes.filter((home) => home.device !== device);
  }

  /** The device that holds the values; undefined for storage that has only a host copy. */
  get home(): Device | undefined {
    // A device that closed took its copies of host data with it.
    if (this.host !== null) {
      for (const { device } of this.#homes) if (device.isClosed) this.#leave(device);
    }
    return this.#homes[0]?.device;
  }

  /** The block on `device`, uploaded or copied there if it is not there yet. */
  on(device: Device): Allocation {
    const there = this.#homes.find((a) => a.device === device);
    if (there !== undefined) return there;
    // Encoding may refuse the values: nothing is allocated then.
    const bytes = this.host === null ? null : device.encode(this.dtype, this.host);
    const from = this.#homes[0];
    if (bytes === null && from === undefined) {
      throw new InvalidArgument("Cannot use a tensor after it was disposed");
    }
    const block = device.allocate(this.length * device.elementBytes(this.dtype), bytes !== null);
    try {
      if (bytes !== null) device.write(block, 0, bytes);
      else copyBetween(from!, block);
    } catch (error) {
      device.release(block);
      throw error;
    }
    this.#homes.push(block);
    return block;
  }
}
