/**
 * A WASM engine: one memory, one kernel instance, an allocator and a queue.
 *
 * Length: everything that a device must do with its memory, and nothing that computes.
 *
 * @module
 */
import { type DType, HOST_BYTES, type HostArray, hostView } from "../../dtype.ts";
import { ComputationDropped, EngineFailure, InvalidArgument, OutOfMemory } from "../../errors.ts";
import type { Allocation, Device, Kernels } from "../device.ts";
import { settings } from "../settings.ts";
import { ALIGN, Allocator, roundUp } from "./allocator.ts";
import { type Command, PARAM_WORDS, type Recorder, SCRATCH_BYTES } from "./command.ts";
import { wasmKernels } from "./kernels.ts";
import { leaveCrew, SHARED_COST, theCrew, type Workplace } from "./crew.ts";
import { instantiate, type KernelExports } from "./loader.ts";
import { giveMemory, PAGE, type PooledMemory, takeMemory } from "./memory.ts";
import { Queue } from "./queue.ts";
import type { Running } from "./running.ts";
import { workersFor, WORKSPACE_BYTES } from "./threads.ts";
import { type Tile, type TileProbe, tileProbe } from "./tiles.ts";
import { turn } from "../turn.ts";

/** A block of an engine's memory. */
class Block implements Allocation {
  dropped = false;
  released = false;
  constructor(
    readonly device: WasmEngine,
    readonly bytes: number,
    readonly address: number,
    readonly evictable: boolean,
  ) {}
}

/** Options of a {@linkcode WasmEngine}. */
export interface EngineOptions {
  /** Most bytes the engine may use; default: the `max_memory` setting. */
  maximum?: number;
  /** SIMD128 only, the same bits everywhere; default: the `deterministic` setting. */
  deterministic?: boolean;
  /** Most threads; default, and limit: the `threads` setting. */
  threads?: number;
  /** Tiles of matrix products; default: what a probe finds faster. */
  tiles?: Tile;
}

/** Cost of a call into WASM after which the tile probe may take a look. */
const LOOK_FROM = 5e6;

/** The `"wasm"` device: see {@linkcode Device}. Each model has its own, so that a trap kills one model only. */
export class WasmEngine implements Device, Recorder {
  readonly name = "wasm";
  readonly kernels: Kernels;
  /** Name of the kernel build that runs, e.g. `relaxed_shared`. */
  readonly build: string;
  /** Threads that may help. They are started for work that is worth it. */
  readonly workers: number;
  #pooled: PooledMemory | null;
  #bytes: Uint8Array<ArrayBufferLike>;
  #words: Int32Array<ArrayBufferLike>;
  readonly #exports: KernelExports;
  readonly #allocator: Allocator;
  readonly #queue: Queue;
  readonly #params: number;
  readonly #workplace: Workplace;
  /** The command whose params lie in memory. */
  #loaded: Command | null = null;
  readonly #scratch: number;
  #live = 0;
  #used = 0;
  #peak = 0;
  #pinned = 0;
  #onIdle: (() => void) | null = null;
  readonly #tiles: Tile | undefined;
  readonly #probe: TileProbe;

  constructor(options: EngineOptions = {}) {
    const maximum = Math.floor((options.maximum ?? settings.max_memory) / PAGE) * PAGE;
    const pooled = takeMemory(maximum);
    this.#pooled = pooled;
    this.#bytes = new Uint8Array(pooled.memory.buffer);
    this.#words = new Int32Array(pooled.memory.buffer);
    const deterministic = options.deterministic ?? settings.deterministic;
    const { module, exports, build, heapBase } = instantiate(pooled, deterministic);
    this.#exports = exports;
    this.build = build;
    this.#tiles = options.tiles;
    this.#probe = tileProbe(build);
    this.#params = Math.ceil(heapBase / ALIGN) * ALIGN;
    this.#scratch = this.#params + PARAM_WORDS * 4;
    const first = this.#scratch + SCRATCH_BYTES;
    this.workers = pooled.shared ? Math.min(workersFor(maximum), (options.threads ?? Infinity) - 1) : 0;
    const workspaces = Array.from({ length: this.workers }, (_, i) => {
      const scratch = first + i * WORKSPACE_BYTES;
      return { scratch, stack: scratch + WORKSPACE_BYTES };
    });
    this.#workplace = { module, memory: pooled.memory, params: this.#params, workspaces };
    const base = first + this.workers * WORKSPACE_BYTES;
    this.#allocator = new Allocator(base, Math.max(base, this.#bytes.length));
    this.#queue = new Queue(
      (command, begin, end) => this.#call(command, begin, end),
      (command) => this.#share(command),
    );
    this.kernels = wasmKernels(this);
  }

  get live(): number {
    return this.#live;
  }

  get hasWideTiles(): boolean {
    return (this.#tiles ?? this.#probe.verdict) === "wide";
  }

  /** Lets the tile probe come to its end. */
  async probeTiles(): Promise<void> {
    while (this.#probe.verdict === null) {
      this.assertAlive();
      this.#probe.look(this.#exports, this.#scratch);
      await turn();
    }
  }

  get bytes(): number {
    return this.#used;
  }

  get peak(): number {
    return this.#peak;
  }

  /** Most bytes the engine may use. */
  get maximum(): number {
    return this.#pooled?.maximum ?? 0;
  }

  elementBytes(dtype: DType): number {
    return dtype === "int64" ? 4 : HOST_BYTES[dtype];
  }

  encode(dtype: DType, host: HostArray): Uint8Array<ArrayBuffer> {
    if (dtype !== "int64") return new Uint8Array(host.buffer, host.byteOffset, host.byteLength);
    const narrow = new Int32Array(host.length);
    for (let i = 0; i < host.length; i++) {
      const value = Number(host[i]);
      if (value !== (value | 0)) {
        throw new InvalidArgument(
          `Cannot use element ${i} of an int64 tensor on a device: ${value} does not fit 32 bits`,
        );
      }
      narrow[i] = value;
    }
    return new Uint8Array(narrow.buffer);
  }

  decode(dtype: DType, bytes: Uint8Array<ArrayBuffer>): HostArray {
    if (dtype !== "int64") return hostView(dtype, bytes.buffer);
    return BigInt64Array.from(new Int32Array(bytes.buffer), BigInt);
  }

  allocate(bytes: number, evictable = false): Block {
    this.assertAlive();
    const address = this.#allocator.take(bytes) ?? this.#grow(bytes);
    const block = new Block(this, bytes, address, evictable);
    this.#live++;
    if (!evictable) this.#pinned++;
    this.#used += roundUp(bytes);
    this.#peak = Math.max(this.#peak, this.#used);
    const pooled = this.#pooled!;
    pooled.touched = Math.max(pooled.touched, address + bytes);
    return block;
  }

  #grow(bytes: number): number {
    const { memory, maximum } = this.#pooled!;
    const now = memory.buffer.byteLength;
    const wanted = Math.min(maximum, Math.max(now + roundUp(bytes), now * 1.5));
    const pages = Math.min(Math.ceil((wanted - now) / PAGE), Math.floor((maximum - now) / PAGE));
    try {
      if (pages > 0) memory.grow(pages);
    } catch {
      // The host refused: reported below with the sizes.
    }
    this.#bytes = new Uint8Array(memory.buffer);
    this.#words = new Int32Array(memory.buffer);
    if (this.#bytes.length > this.#allocator.limit) this.#allocator.extend(this.#bytes.length);
    const address = this.#allocator.take(bytes);
    if (address !== undefined) return address;
    throw new OutOfMemory(
      `Cannot allocate ${bytes} bytes: ${this.#used} of ${maximum} bytes are in use and the largest free block has ${this.#allocator.largest}`,
    );
  }

  release(allocation: Allocation): void {
    const block = allocation as Block;
    if (block.released || this.#pooled === null) return;
    block.released = true;
    this.#live--;
    this.#used -= roundUp(block.bytes);
    this.#allocator.give(block.address, block.bytes);
    if (!block.evictable && --this.#pinned === 0) this.#onIdle?.();
  }

  /** Calls `then` once no result lives in this engine any more: at once, or when the last one is released. */
  whenIdle(then: () => void): void {
    if (this.#pinned === 0) then();
    else this.#onIdle = then;
  }

  /** Whether {@linkcode close} was called, or a kernel trapped. */
  get isClosed(): boolean {
    return this.#pooled === null || this.#queue.failure !== null;
  }

  address(allocation: Allocation): number {
    return (allocation as Block).address;
  }

  record(command: Command): void {
    this.assertAlive();
    this.#queue.push(command);
  }

  write(allocation: Allocation, byteOffset: number, data: Uint8Array<ArrayBuffer>): void {
    this.assertAlive();
    if (byteOffset < 0 || byteOffset + data.length > allocation.bytes) {
      throw new InvalidArgument(
        `Cannot write ${data.length} bytes at ${byteOffset}: the block has ${allocation.bytes}`,
      );
    }
    const at = this.address(allocation) + byteOffset;
    if (this.#queue.isEmpty) this.#bytes.set(data, at);
    else this.#queue.push(() => this.#bytes.set(data, at));
  }

  tableIndex(name: string): number {
    const index = this.#exports[`${name}_index`];
    if (index === undefined) throw new EngineFailure(`The kernel module exports no function "${name}_index"`);
    return index();
  }

  async read(allocation: Allocation, byteOffset: number, bytes: number): Promise<Uint8Array<ArrayBuffer>> {
    await this.flush();
    return this.#copyOut(allocation, byteOffset, bytes);
  }

  /** As `read`, without waiting: runs everything recorded first. */
  readNow(allocation: Allocation, byteOffset: number, bytes: number): Uint8Array<ArrayBuffer> {
    this.assertAlive();
    this.#queue.runNow();
    return this.#copyOut(allocation, byteOffset, bytes);
  }

  #copyOut(allocation: Allocation, byteOffset: number, bytes: number): Uint8Array<ArrayBuffer> {
    this.assertAlive();
    if (allocation.dropped) {
      throw new ComputationDropped(
        "Cannot read a tensor whose computation was dropped when its request was aborted",
      );
    }
    const at = this.address(allocation) + byteOffset;
    const out = new Uint8Array(bytes);
    out.set(this.#bytes.subarray(at, at + bytes));
    return out;
  }

  get mark(): number {
    return this.#queue.mark;
  }

  async flush(signal?: AbortSignal, since?: number): Promise<void> {
    this.assertAlive();
    await this.#queue.run(signal, since);
  }

  assertAlive(): void {
    if (this.#pooled === null) {
      throw new EngineFailure("Cannot compute: this engine was closed when its model was disposed");
    }
    if (this.#queue.failure !== null) throw this.#queue.failure;
  }

  #call(command: Command, begin: number, end: number): void {
    this.#load(command);
    this.#exports[command.kernel]!(this.#params, this.#scratch, begin, end);
    if (command.cost * (end - begin) > LOOK_FROM * command.parts) {
      this.#probe.look(this.#exports, this.#scratch);
    }
  }

  #share(command: Command): Running | null {
    if (this.workers === 0 || command.cost < SHARED_COST) return null;
    this.#load(command);
    return theCrew().share(this.#workplace, command, (c, begin, end) => this.#call(c, begin, end));
  }

  /** Puts a command's params where kernels read them. */
  #load(command: Command): void {
    if (this.#loaded === command) return;
    this.#loaded = command;
    const { params } = command;
    const words = this.#words, at = this.#params >> 2;
    for (let i = 0; i < params.length; i++) words[at + i] = params[i]!;
  }

  /** Ends the engine: its tensors become unusable and its memory serves the next engine. */
  close(): void {
    if (this.#pooled === null) return;
    const pooled = this.#pooled;
    // Afterwards no other thread is at work in this memory.
    this.#queue.drop();
    leaveCrew(this.#workplace);
    this.#pooled = null;
    this.#live = 0;
    this.#used = 0;
    this.#bytes = new Uint8Array(0);
    this.#words = new Int32Array(0);
    // After a trap nobody knows what the kernel wrote before it.
    if (this.#queue.failure === null) giveMemory(pooled);
  }
}
