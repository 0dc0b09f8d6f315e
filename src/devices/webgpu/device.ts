/**
 * The WebGPU device: records symbolically, runs at flush, waits only for reads.
 *
 * Length: the whole contract of a device, in the order of the contract.
 *
 * Constructing one acquires nothing; the adapter is requested by the first flush that has work, or by `acquire`.
 *
 * @module
 */
import type { DType, HostArray } from "../../dtype.ts";
import { EngineFailure, InvalidArgument, OutOfMemory } from "../../errors.ts";
import type { Allocation, Device, Kernels } from "../device.ts";
import { turn } from "../turn.ts";
import { openAdapter, type WebGpuInfo } from "./adapter.ts";
import type { Command, Dispatch } from "./command.ts";
import { droppedError, Executor, slotsOf, type WebGpuStats } from "./executor.ts";
import { type KernelLimits, LEAST_LIMITS } from "./flash_tile.ts";
import { WebGpuKernels } from "./kernels.ts";
import { decode, elementBytes, encode } from "./layout.ts";
import { Memory, WebGpuAllocation } from "./memory.ts";
import { hasPackedDot } from "./packed_dot.ts";
import { patchWord } from "./record.ts";
import { watch } from "./scopes.ts";
import { Stopwatch } from "./stopwatch.ts";
import { probeSubgroups, type Subgroups } from "./subgroups.ts";

/** Options of {@linkcode WebGpuDevice}. */
export interface WebGpuOptions {
  /** The implementation to use, or what opens it; `navigator.gpu` by default. */
  readonly gpu?: GPU | (() => Promise<GPU>);
  /** Multiplies by float16 weights on matrix units; the adapter must have them. */
  readonly matrices?: boolean;
  /** Asks for a software adapter; by default one is taken only where there is no other. */
  readonly software?: boolean;
  /** Times compute passes by the GPU's clock, for benches; the adapter needs `timestamp-query`. */
  readonly timed?: boolean;
  /** Whether long inner loops are written out; by default on anything but a software adapter. */
  readonly unrolled?: boolean;
  /** Whether kernels multiply four bytes in one instruction; by default where a probe finds that it is right. */
  readonly packed_dot?: boolean;
  /** Whether reductions go through subgroups; by default where they are found to work. Given, they are not probed. */
  readonly subgroups?: boolean | Subgroups;
}

/** A command, and its number among all that were ever recorded. */
interface Recorded {
  readonly command: Command;
  readonly number: number;
}

/** A GPU as a {@linkcode Device}. */
export class WebGpuDevice implements Device {
  readonly name = "webgpu" as const;
  readonly kernels: Kernels;
  /** Counters for tests and benches. */
  readonly stats: WebGpuStats = { dispatches: 0, submits: 0, readbacks: 0, pipelines: 0 };
  readonly #gpu: WebGpuOptions["gpu"];
  readonly #options: WebGpuOptions;
  readonly #memory = new Memory();
  #commands: Recorded[] = [];
  #recorded = 0;
  #opening: Promise<{ executor: Executor; info: WebGpuInfo }> | null = null;
  #failure: EngineFailure | null = null;
  #limits: KernelLimits = LEAST_LIMITS;
  #isClosed = false;
  /** The flush in progress, or the last one: flushes follow one another. */
  #last: Promise<void> = Promise.resolve();

  /** Makes a device on `options.gpu`. Acquires nothing. */
  constructor(options: WebGpuOptions = {}) {
    this.#options = options;
    this.#gpu = options.gpu ?? globalThis.navigator?.gpu;
    this.kernels = new WebGpuKernels(this, options.matrices);
  }

  /**
   * Opens the GPU unless that has happened.
   *
   * @throws {DeviceUnavailable | EngineFailure}
   */
  async acquire(): Promise<GPUDevice> {
    return (await this.#open()).executor.gpu;
  }

  /**
   * What the adapter says about itself.
   *
   * @throws {DeviceUnavailable | EngineFailure}
   */
  async info(): Promise<WebGpuInfo> {
    return (await this.#open()).info;
  }

  /** Milliseconds the GPU has computed since this was last asked; 0 unless the device is `timed`. */
  async lap(): Promise<number> {
    return await (await this.#open()).executor.stopwatch?.lap() ?? 0;
  }

  #open(): Promise<{ executor: Executor; info: WebGpuInfo }> {
    this.assertAlive();
    return this.#opening ??= this.#request();
  }

  async #request(): Promise<{ executor: Executor; info: WebGpuInfo }> {
    try {
      const gpu = typeof this.#gpu === "function" ? await this.#gpu() : this.#gpu;
      const { device, info } = await openAdapter(
        gpu,
        this.#options.software,
        this.#options.timed ? ["timestamp-query"] : [],
        this.#options.matrices,
      );
      watch(device, () => this.#isClosed, (failure) => this.#failure ??= failure);
      this.#memory.limit = info.limits.maxBufferSize;
      const deep = this.#options.unrolled ?? !info.isFallbackAdapter;
      this.#limits = {
        workgroupBytes: info.limits.maxComputeWorkgroupStorageSize,
        invocations: Math.min(
          info.limits.maxComputeInvocationsPerWorkgroup,
          info.limits.maxComputeWorkgroupSizeX,
        ),
        unrolled: deep,
      };
      const stopwatch = this.#options.timed ? new Stopwatch(device) : null;
      const packed = async () => this.#options.packed_dot ?? await hasPackedDot(device, gpu);
      const wish = this.#options.subgroups ?? true;
      const subgroups = wish === true ? await probeSubgroups(device) : wish === false ? null : wish;
      const executor = new Executor(device, this.stats, this.#memory, deep, packed, subgroups, stopwatch);
      return { executor, info: { ...info, subgroup_size: subgroups?.size ?? 0 } };
    } catch (error) {
      this.#opening = null; // an adapter may appear later
      throw error;
    }
  }

  elementBytes(dtype: DType): number {
    return elementBytes(dtype);
  }

  encode(dtype: DType, host: HostArray): Uint8Array<ArrayBuffer> {
    return encode(dtype, host);
  }

  decode(dtype: DType, bytes: Uint8Array<ArrayBuffer>): HostArray {
    return decode(dtype, bytes);
  }

  get live(): number {
    return this.#memory.live;
  }

  get bytes(): number {
    return this.#memory.bytes;
  }

  get peak(): number {
    return this.#memory.peak;
  }

  /** GPU buffers that exist, in use or kept for reuse. */
  get buffers(): number {
    return this.#memory.buffers;
  }

  /** What tile sizes are chosen from: the least that adapters have until this one is open. */
  get limits(): KernelLimits {
    return this.#limits;
  }

  /** Commands that no flush has taken yet, for tests. */
  get pending(): number {
    return this.#commands.length;
  }

  get isClosed(): boolean {
    return this.#isClosed || this.#failure !== null;
  }

  assertAlive(): void {
    if (this.#isClosed) throw new EngineFailure("Cannot compute on this webgpu device: it was destroyed");
    if (this.#failure) throw this.#failure;
  }

  allocate(bytes: number, evictable = false): WebGpuAllocation {
    this.assertAlive();
    return this.#memory.allocate(this, bytes, evictable);
  }

  release(allocation: Allocation): void {
    this.#memory.release(this.own(allocation, 0, 0));
  }

  /** Appends a kernel launch; kernels call this. */
  record(command: Dispatch): void {
    this.assertAlive();
    this.#push(command);
  }

  #push(command: Command): void {
    this.#commands.push({ command, number: this.#recorded++ });
  }

  /** Number of the command that is recorded next, to tell one caller's work from another's. */
  get mark(): number {
    return this.#recorded;
  }

  write(allocation: Allocation, byteOffset: number, data: Uint8Array<ArrayBuffer>): void {
    this.assertAlive();
    const target = this.own(allocation, byteOffset, data.length);
    if (data.length === 0) return;
    const fills = byteOffset === 0 && data.length === target.bytes ? [target] : [];
    const end = byteOffset + data.length;
    // Only whole words can be written. Bytes after the end of the allocation are nobody's; others are patched.
    const from = Math.ceil(byteOffset / 4) * 4;
    const to = end === target.bytes ? end : Math.floor(end / 4) * 4;
    if (byteOffset < from) this.record(patchWord(target, byteOffset, data.subarray(0, from - byteOffset)));
    if (to < end && to >= from) this.record(patchWord(target, to, data.subarray(to - byteOffset)));
    if (to <= from) return;
    let whole = data.subarray(from - byteOffset, to - byteOffset);
    if (whole.length % 4 !== 0) {
      const padded = new Uint8Array(Math.ceil(whole.length / 4) * 4);
      padded.set(whole);
      whole = padded;
    }
    this.#push({
      kind: "write",
      allocation: target,
      slot: target.slot,
      byteOffset: from,
      data: whole,
      fills,
    });
  }

  async read(allocation: Allocation, byteOffset: number, bytes: number): Promise<Uint8Array<ArrayBuffer>> {
    this.assertAlive();
    const source = this.own(allocation, byteOffset, bytes);
    if (bytes === 0) {
      await this.flush();
      return new Uint8Array(0);
    }
    const from = Math.floor(byteOffset / 4) * 4;
    const length = Math.ceil((byteOffset + bytes) / 4) * 4 - from;
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array<ArrayBuffer>>();
    this.#push({
      kind: "read",
      allocation: source,
      slot: source.slot,
      byteOffset: from,
      bytes: length,
      resolve,
      reject,
    });
    // The read itself is settled or rejected by the flush that meets it.
    const [words] = await Promise.all([promise, this.flush()]);
    return length === bytes ? words : words.slice(byteOffset - from, byteOffset - from + bytes);
  }

  flush(signal?: AbortSignal, since = 0): Promise<void> {
    const end = this.mark;
    const run = this.#last.then(() => this.#run(signal, (number) => number >= since && number < end));
    this.#last = run.catch(() => {});
    return run;
  }

  /** Submits what is recorded. On an abort only commands that are `mine` are given up. */
  async #run(signal: AbortSignal | undefined, mine: (number: number) => boolean): Promise<void> {
    let entries = this.#commands;
    this.#commands = [];
    try {
      this.assertAlive();
      signal?.throwIfAborted();
      if (entries.length === 0) return;
      const { executor } = await this.#open();
      while (entries.length > 0) {
        const commands = entries.map(({ command }) => command);
        const batch = commands.slice(0, executor.batchLength(commands));
        await executor.prepare(batch);
        this.assertAlive();
        signal?.throwIfAborted();
        await executor.submit(batch);
        entries = entries.slice(batch.length);
        if (entries.length > 0) await turn();
      }
      if (this.#memory.trim()) executor.forgetBindGroups();
    } catch (error) {
      const aborted = signal?.aborted === true && this.#failure === null;
      const isFull = error instanceof OutOfMemory;
      const isLost = ({ command, number }: Recorded) => {
        if (aborted) return mine(number) && command.kind !== "write";
        // What found no room cannot be written, now or later.
        return !isFull || command.kind !== "write" || slotsOf(command)[0]!.buffer === null;
      };
      // The work of others goes back to the front, where their own flush finds it, and so do writes: tensors with
      // host data live on and count on their copies.
      this.#commands.unshift(...entries.filter((entry) => !isLost(entry)));
      this.#drop(entries.filter(isLost).map(({ command }) => command), aborted ? undefined : error);
      if (error instanceof EngineFailure) this.#failure ??= error;
      throw error;
    }
  }

  /** Gives up commands that will not run, because of an abort or of `cause`. */
  #drop(commands: readonly Command[], cause: unknown): void {
    for (const command of commands) {
      if (command.kind === "read") command.reject(cause ?? droppedError());
      else for (const allocation of command.fills) allocation.dropped = true;
    }
  }

  /**
   * Lets go of the GPU for good, once nothing lives on it but copies of host data.
   *
   * @throws {InvalidArgument} while other allocations live
   */
  async destroy(): Promise<void> {
    if (this.#memory.pinned > 0) {
      throw new InvalidArgument(
        `Cannot destroy the webgpu device: ${this.#memory.pinned} allocations are alive on it`,
      );
    }
    this.#isClosed = true;
    await this.#last;
    this.#drop(this.#commands.splice(0).map(({ command }) => command), undefined);
    this.#memory.trim(true);
    (await this.#opening?.catch(() => null))?.executor.gpu.destroy();
  }

  /** The allocation as one of this device, with the range checked: out of range kills the process in some runtimes. */
  own(allocation: Allocation, byteOffset: number, bytes: number): WebGpuAllocation {
    if (!(allocation instanceof WebGpuAllocation) || allocation.device !== this) {
      throw new InvalidArgument("Cannot use an allocation of another device on webgpu");
    }
    if (!(byteOffset >= 0 && bytes >= 0 && byteOffset + bytes <= allocation.bytes)) {
      throw new InvalidArgument(
        `Cannot reach bytes ${byteOffset}…${
          byteOffset + bytes
        } of an allocation of ${allocation.bytes} bytes`,
      );
    }
    return allocation;
  }
}
