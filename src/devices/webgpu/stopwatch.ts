/**
 * How long the GPU computes, by its own clock: a pair of timestamps around every compute pass.
 *
 * @module
 */
import { copyBuffer, makeBuffer } from "./buffers.ts";

/** Most passes of one submit that are timed; further ones are not. */
const PASSES = 64;

/** Adds up the time of compute passes. */
export class Stopwatch {
  readonly #gpu: GPUDevice;
  readonly #queries: GPUQuerySet;
  readonly #resolved: GPUBuffer;
  #passes = 0;
  #nanoseconds = 0n;
  #reading: Promise<void>[] = [];

  /** Needs a device with the feature `timestamp-query`. */
  constructor(gpu: GPUDevice) {
    this.#gpu = gpu;
    this.#queries = gpu.createQuerySet({ label: "stopwatch", type: "timestamp", count: 2 * PASSES });
    this.#resolved = makeBuffer(gpu, "stopwatch", 16 * PASSES, "timestamps");
  }

  /** What the next pass is begun with. */
  next(): { timestampWrites?: GPUComputePassTimestampWrites } {
    if (this.#passes === PASSES) return {};
    const at = 2 * this.#passes++;
    const querySet = this.#queries;
    return { timestampWrites: { querySet, beginningOfPassWriteIndex: at, endOfPassWriteIndex: at + 1 } };
  }

  /** Ends the timing of a submit, after its last pass; what is returned reads the times once it is submitted. */
  finish(encoder: GPUCommandEncoder): () => void {
    const count = this.#passes;
    this.#passes = 0;
    if (count === 0) return () => {};
    const times = makeBuffer(this.#gpu, "times", 16 * count, "readback");
    encoder.resolveQuerySet(this.#queries, 0, 2 * count, this.#resolved, 0);
    copyBuffer(encoder, this.#resolved, 0, times, 0, 16 * count);
    return () => void this.#reading.push(this.#read(times, count));
  }

  async #read(times: GPUBuffer, count: number): Promise<void> {
    await times.mapAsync(1);
    const stamps = new BigUint64Array(times.getMappedRange().slice(0));
    times.destroy();
    for (let i = 0; i < count; i++) this.#nanoseconds += stamps[2 * i + 1]! - stamps[2 * i]!;
  }

  /** Milliseconds since this was last asked. */
  async lap(): Promise<number> {
    await Promise.all(this.#reading.splice(0));
    const elapsed = Number(this.#nanoseconds) / 1e6;
    this.#nanoseconds = 0n;
    return elapsed;
  }
}
