/**
 * Storage: the bytes behind tensors, on the host and on the devices that have used them.
 *
 * @module
 */
import type { Allocation, Device } from "./devices/device.ts";
import { copyBetween } from "./devices/mod.ts";
import type { DType, HostArray } from "./dtype.ts";
import { InvalidArgument } from "./errors.ts";

/** Frees blocks whose tensors were all dropped, but not all of them disposed: a net, not the plan. */
const forgotten = new FinalizationRegistry<Allocation[]>(giveBack);

function giveBack(homes: Allocation[]): void {
  for (const home of homes.splice(0)) home.device.release(home);
}

/**
 * Reference-counted bytes behind one or more tensors.
 *
 * @internal
 */
export class Storage {
  #refs = 0;
  readonly #homes: Allocation[] = [];
  #watched = false;
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
    if (this.#watched) forgotten.unregister(this);
    this.#watched = false;
    giveBack(this.#homes);
    this.host = null;
  }

  /** Has the blocks given back when all tensors were dropped; not needed while a scope will dispose them. */
  watch(): void {
    if (this.#watched) return;
    this.#watched = true;
    forgotten.register(this, this.#homes, this);
  }

  /** The device that holds the values; undefined for storage that has only a host copy. */
  get home(): Device | undefined {
    // A device that closed took its copies of host data with it.
    if (this.host !== null) {
      for (let i = this.#homes.length - 1; i >= 0; i--) {
        if (this.#homes[i]!.device.isClosed) giveBack(this.#homes.splice(i, 1));
      }
    }
    return this.#homes[0]?.device;
  }

  /** The block on `device`, uploaded or copied there if it is not there yet. */
  on(device: Device): Allocation {
    for (const home of this.#homes) if (home.device === device) return home;
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
