/**
 * Encodes recorded commands and submits them: one command encoder, as few compute passes as uploads allow, and
 * one submit for each batch. Length: pipelines, bind groups and encoding share their caches.
 *
 * @module
 */
import { ComputationDropped, EngineFailure } from "../../errors.ts";
import { copyBuffer, makeBuffer, writeBuffer } from "./buffers.ts";
import { type Command, type Dispatch, PARAM_BYTES, type Read, type Write } from "./command.ts";
import type { Memory, Slot } from "./memory.ts";
import { messageOf, scoped } from "./scopes.ts";
import type { Stopwatch } from "./stopwatch.ts";
import { SHADERS, type Stem } from "./shaders.ts";
import { subgroupFlags, type Subgroups } from "./subgroups.ts";
import { type Constants, specialise } from "./template.ts";

const VISIBLE_TO_COMPUTE = 0x4; // a runtime may lack the global constants

/** Most commands in one submit; between submits the event loop turns. */
export const BATCH_COMMANDS = 1024;
/** Most uploaded bytes in one submit: the driver holds a copy of each until then. */
const BATCH_BYTES = 256 * 2 ** 20;
/** Uploads that need ordering share staging buffers of at least this size. */
const STAGING_BYTES = 64 * 1024;
/** Most kernels an error message names. */
const MOST_NAMED = 4;
/** Bind groups kept for reuse; a decoding step uses the same ones as the step before. */
const BIND_GROUPS = 4096;

/** What tests may count. */
export interface WebGpuStats {
  dispatches: number;
  submits: number;
  readbacks: number;
  pipelines: number;
}

interface Pipeline {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

/** The part of a device that exists once there is a GPUDevice. */
export class Executor {
  #pipelines = new Map<string, Pipeline>();
  #layouts = new Map<string, { group: GPUBindGroupLayout; pipeline: GPUPipelineLayout }>();
  #groups = new Map<string, GPUBindGroup>();
  #uniforms: GPUBuffer;
  #submission = 0;
  #packedDot: boolean | undefined;

  /**
   * Works on `gpu` and counts in `stats`. `deep` writes out long inner loops too: GPUs gain from it, while
   * software adapters take seconds to compile what it makes. `packedDot` is asked once, by the first kernel that could
   * use products of bytes. With `subgroups` reductions go through them.
   */
  constructor(
    readonly gpu: GPUDevice,
    readonly stats: WebGpuStats,
    readonly memory: Memory,
    readonly deep: boolean,
    readonly packedDot: () => Promise<boolean>,
    readonly subgroups: Subgroups | null,
    readonly stopwatch: Stopwatch | null = null,
  ) {
    this.#uniforms = makeBuffer(gpu, "parameters", BATCH_COMMANDS * PARAM_BYTES, "parameters");
  }

  /** How many of the first commands go into one submit. */
  batchLength(commands: readonly Command[]): number {
    let bytes = 0;
    for (let i = 0; i < Math.min(commands.length, BATCH_COMMANDS); i++) {
      const command = commands[i]!;
      if (command.kind === "write") bytes += command.data.length;
      if (bytes > BATCH_BYTES) return i + 1;
    }
    return Math.min(commands.length, BATCH_COMMANDS);
  }

  /**
   * Makes the buffers and pipelines a batch needs. Browsers compile pipelines in parallel and off the main thread.
   *
   * @throws {OutOfMemory | EngineFailure}
   */
  async prepare(batch: readonly Command[]): Promise<void> {
    await this.memory.fill(this.gpu, batch.flatMap(slotsOf));
    const missing = new Map<string, Dispatch>();
    for (const command of batch) {
      if (command.kind === "dispatch" && !this.#pipelines.has(command.key)) missing.set(command.key, command);
    }
    if (missing.size === 0) return;
    if (this.#packedDot === undefined && [...missing.values()].some(({ stem }) => usesPackedDot(stem))) {
      this.#packedDot = await this.packedDot();
    }
    const flags = { DEEP: this.deep, PACKED_DOT: this.#packedDot ?? false };
    const named = [...missing.keys()].slice(0, MOST_NAMED);
    const more = missing.size > named.length ? `; and ${missing.size - named.length} more` : "";
    const what = missing.size === 1 ? named[0]! : `one of ${named.join("; ")}${more}`;
    const made = await scoped(
      this.gpu,
      `compile kernel ${what}`,
      () =>
        Promise.all([...missing].map(async ([key, { stem, constants, bindings }]) => {
          const kinds = bindings.map((b) => b === null ? "-" : b.write ? "w" : "r").join("");
          const layout = this.#layout(kinds);
          const module = this.gpu.createShaderModule({
            label: key,
            code: this.#code(stem, { ...constants, ...flags }),
          });
          const pipeline = await this.gpu.createComputePipelineAsync({
            label: key,
            layout: layout.pipeline,
            compute: { module, entryPoint: "main" },
          });
          return [key, { pipeline, layout: layout.group }] as const;
        })),
    );
    // Only now: a scope may have caught an error of any of them, and an invalid pipeline must not be kept.
    for (const [key, pipeline] of made) this.#pipelines.set(key, pipeline);
    this.stats.pipelines += made.length;
  }

  #code(stem: Stem, constants: Constants): string {
    const { subgroups } = this;
    const flags = subgroupFlags(subgroups?.size ?? 0);
    const code = specialise(SHADERS[stem], { ...constants, ...flags });
    return /\bsubgroup[A-Z]/.test(code) ? `${subgroups?.prefix ?? ""}${code}` : code;
  }

  /** Encodes and submits a batch whose pipelines exist. Reads settle on their own, later. */
  async submit(batch: readonly Command[]): Promise<void> {
    const submission = this.#submission++;
    const reads: { read: Read; buffer: GPUBuffer }[] = [];
    await scoped(this.gpu, "run kernels", () => {
      const encoding = new Encoding(this, submission, batch);
      for (const command of batch) {
        if (command.kind === "dispatch") encoding.dispatch(command);
        else if (command.kind === "write") encoding.write(command);
        else if (command.allocation.dropped) command.reject(droppedError());
        else reads.push({ read: command, buffer: encoding.read(command) });
      }
      encoding.finish();
    });
    for (const { read, buffer } of reads) this.#settle(read, buffer);
  }

  async #settle(read: Read, buffer: GPUBuffer): Promise<void> {
    try {
      await buffer.mapAsync(1);
      // Not slice(0): some runtimes copy on getMappedRange, all detach the range on unmap.
      const bytes = new Uint8Array(buffer.getMappedRange().slice(0));
      buffer.unmap();
      this.stats.readbacks++;
      read.resolve(bytes);
    } catch (cause) {
      read.reject(new EngineFailure(`Cannot read from webgpu: ${messageOf(cause)}`, { cause }));
    } finally {
      buffer.destroy();
    }
  }

  /** The buffer of a slot of a prepared command. */
  buffer(slot: Slot): GPUBuffer {
    return slot.buffer!;
  }

  /** The pipeline of a prepared command. */
  pipeline(key: string): Pipeline {
    return this.#pipelines.get(key)!;
  }

  /** Bind group of a command. */
  bindGroup(command: Dispatch, layout: GPUBindGroupLayout): GPUBindGroup {
    let key = "";
    for (const b of command.bindings) {
      key += b === null ? "-," : `${b.write ? "w" : "r"}${b.slot.id}:${b.start}+${b.size},`;
    }
    let group = this.#groups.get(key);
    if (!group) {
      const entries: GPUBindGroupEntry[] = [{
        binding: 0,
        resource: { buffer: this.#uniforms, size: PARAM_BYTES },
      }];
      command.bindings.forEach((b, i) => {
        if (b === null) return;
        const range = b.size > 0 ? { offset: b.start, size: b.size } : {};
        entries.push({ binding: i + 1, resource: { buffer: this.buffer(b.slot), ...range } });
      });
      group = this.gpu.createBindGroup({ label: command.key, layout, entries });
      if (this.#groups.size >= BIND_GROUPS) this.#groups.clear();
      this.#groups.set(key, group);
    }
    return group;
  }

  /** Writes the parameters of a batch. */
  writeParameters(data: Uint32Array<ArrayBuffer>): void {
    if (data.length > 0) writeBuffer(this.gpu, this.#uniforms, 0, data);
  }

  /** Forgets bind groups, which keep destroyed buffers. */
  forgetBindGroups(): void {
    this.#groups.clear();
  }

  #layout(kinds: string): { group: GPUBindGroupLayout; pipeline: GPUPipelineLayout } {
    let layout = this.#layouts.get(kinds);
    if (!layout) {
      const entries: GPUBindGroupLayoutEntry[] = [
        { binding: 0, visibility: VISIBLE_TO_COMPUTE, buffer: { type: "uniform", hasDynamicOffset: true } },
      ];
      [...kinds].forEach((kind, i) => {
        if (kind === "-") return;
        const type = kind === "w" ? "storage" : "read-only-storage";
        entries.push({ binding: i + 1, visibility: VISIBLE_TO_COMPUTE, buffer: { type } });
      });
      const group = this.gpu.createBindGroupLayout({ label: kinds, entries });
      layout = {
        group,
        pipeline: this.gpu.createPipelineLayout({ label: kinds, bindGroupLayouts: [group] }),
      };
      this.#layouts.set(kinds, layout);
    }
    return layout;
  }
}

/** Whether a kernel multiplies bytes. */
function usesPackedDot(stem: Stem): boolean {
  return SHADERS[stem].includes("PACKED_DOT");
}

/** The slots a command touches. */
export function slotsOf(command: Command): Slot[] {
  if (command.kind !== "dispatch") return [command.slot];
  return command.bindings.flatMap((b) => b === null ? [] : [b.slot]);
}

/** Why a read of dropped work fails. */
export function droppedError(): ComputationDropped {
  return new ComputationDropped(
    "Cannot read a tensor whose computation was dropped: the request that owned it was aborted",
  );
}

/** One submit in the making. */
class Encoding {
  readonly #encoder: GPUCommandEncoder;
  readonly #params: Uint32Array<ArrayBuffer>;
  #pass: GPUComputePassEncoder | null = null;
  #pipeline: GPUComputePipeline | null = null;
  #count = 0;
  #staging: { buffer: GPUBuffer; used: number } | null = null;
  readonly #temporary: GPUBuffer[] = [];

  constructor(readonly executor: Executor, readonly submission: number, batch: readonly Command[]) {
    this.#encoder = executor.gpu.createCommandEncoder({ label: `submission ${submission}` });
    const dispatches = batch.reduce((n, command) => n + (command.kind === "dispatch" ? 1 : 0), 0);
    this.#params = new Uint32Array(dispatches * PARAM_BYTES / 4);
  }

  dispatch(command: Dispatch): void {
    // What a dropped operand would feed is dropped too.
    if (command.bindings.some((b) => b !== null && !b.write && b.allocation.dropped)) {
      for (const allocation of command.fills) allocation.dropped = true;
      return;
    }
    for (const allocation of command.fills) allocation.dropped = false;
    const { pipeline, layout } = this.executor.pipeline(command.key);
    const group = this.executor.bindGroup(command, layout);
    if (this.#pass === null) {
      this.#pass = this.#encoder.beginComputePass({
        label: command.stem,
        ...this.executor.stopwatch?.next(),
      });
      this.#pipeline = null;
    }
    if (this.#pipeline !== pipeline) this.#pass.setPipeline(this.#pipeline = pipeline);
    this.#params.set(command.params, this.#count * PARAM_BYTES / 4);
    this.#pass.setBindGroup(0, group, [this.#count * PARAM_BYTES]);
    this.#pass.dispatchWorkgroups(...command.grid);
    this.#count++;
    for (const b of command.bindings) if (b !== null) b.slot.submission = this.submission;
    this.executor.stats.dispatches++;
  }

  write({ slot, byteOffset, data, fills }: Write): void {
    for (const allocation of fills) allocation.dropped = false;
    if (data.length === 0) return;
    const { gpu } = this.executor;
    const target = this.executor.buffer(slot);
    // A write takes effect before the whole submit, so only a buffer this submit has not used yet may have one.
    if (slot.submission !== this.submission) {
      writeBuffer(gpu, target, byteOffset, data);
      return;
    }
    this.#endPass();
    if (this.#staging === null || this.#staging.used + data.length > this.#staging.buffer.size) {
      const size = Math.max(STAGING_BYTES, data.length);
      const buffer = makeBuffer(gpu, "staging", size, "staging");
      this.#temporary.push(buffer);
      this.#staging = { buffer, used: 0 };
    }
    const { buffer, used } = this.#staging;
    writeBuffer(gpu, buffer, used, data);
    copyBuffer(this.#encoder, buffer, used, target, byteOffset, data.length);
    this.#staging.used += data.length;
  }

  read({ slot, byteOffset, bytes }: Read): GPUBuffer {
    this.#endPass();
    const buffer = makeBuffer(this.executor.gpu, "readback", bytes, "readback");
    copyBuffer(this.#encoder, this.executor.buffer(slot), byteOffset, buffer, 0, bytes);
    slot.submission = this.submission;
    return buffer;
  }

  finish(): void {
    this.#endPass();
    this.executor.writeParameters(this.#params.subarray(0, this.#count * PARAM_BYTES / 4));
    const timed = this.executor.stopwatch?.finish(this.#encoder);
    this.executor.gpu.queue.submit([this.#encoder.finish()]);
    timed?.();
    this.executor.stats.submits++;
    for (const buffer of this.#temporary) buffer.destroy();
  }

  #endPass(): void {
    this.#pass?.end();
    this.#pass = null;
  }
}
