/**
 * A device without memory and without kernels: it counts what a WASM engine would hold. A model built on it runs its
 * own code, so that what a run takes is known without running anything.
 *
 * @module
 */
import { type DType, HOST_BYTES, type HostArray, hostView } from "../dtype.ts";
import type { Allocation, Device, Kernels, View } from "./device.ts";
import { roundUp } from "./wasm/allocator.ts";
import { packedBytes } from "./wasm/products.ts";

/** Counts. Values read from it are 0. */
export class DryDevice implements Device {
  /** Stands for an engine: what it counts are an engine's sizes. */
  readonly name = "wasm";
  readonly isClosed = false;
  /** Every kernel, doing nothing but take the memory it takes. */
  readonly kernels: Kernels = new Proxy({} as Kernels, {
    get: (_, name) =>
      name === "linear" ? (x: View) => this.#passing(packedBytes(x.shape[0]!, x.shape[1]!)) : () => {},
  });
  #live = new Set<Allocation>();
  #bytes = 0;
  #peak = 0;

  get live(): number {
    return this.#live.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get peak(): number {
    return this.#peak;
  }

  /** Counts memory that is given back at once. */
  #passing(bytes: number): void {
    if (bytes > 0) this.release(this.allocate(bytes));
  }

  /** Counts the peak from here on. */
  resetPeak(): void {
    this.#peak = this.#bytes;
  }

  elementBytes(dtype: DType): number {
    return dtype === "int64" ? 4 : HOST_BYTES[dtype];
  }

  encode(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(0);
  }

  decode(dtype: DType, bytes: Uint8Array<ArrayBuffer>): HostArray {
    return dtype === "int64" ? new BigInt64Array(bytes.length / 4) : hostView(dtype, bytes.buffer);
  }

  allocate(bytes: number): Allocation {
    const allocation = { device: this, bytes, dropped: false };
    this.#live.add(allocation);
    this.#bytes += roundUp(bytes);
    this.#peak = Math.max(this.#peak, this.#bytes);
    return allocation;
  }

  release(allocation: Allocation): void {
    if (this.#live.delete(allocation)) this.#bytes -= roundUp(allocation.bytes);
  }

  write(): void {}

  read(_allocation: Allocation, _byteOffset: number, bytes: number): Promise<Uint8Array<ArrayBuffer>> {
    return Promise.resolve(new Uint8Array(bytes));
  }

  flush(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    return Promise.resolve();
  }

  assertAlive(): void {}
}
