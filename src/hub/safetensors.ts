/**
 * Reading safetensors files: a checked header, then bytes in bounded chunks.
 *
 * The file is never held in memory: each chunk is read into one reused buffer, from which the caller copies
 * it to where the weights live. Format: https://huggingface.co/docs/safetensors
 *
 * @module
 */
import type { DType } from "../dtype.ts";
import { InvalidArgument, ModelFileError } from "../errors.ts";
import { checkSafetensorsHeader } from "./host.ts";
import type { ByteSource, ReadOptions } from "./source.ts";

/** Largest header, the same bound as in the reference implementation. */
export const MAX_HEADER_BYTES = 100_000_000;

/** Bytes of the reused buffer, unless asked otherwise: large enough that calls do not count, small beside a model. */
const CHUNK_BYTES = 4 * 2 ** 20;

/** dtypes of the format: bytes of one element, and ours where there is one. */
export const STORED_DTYPES: Readonly<
  Record<string, { readonly bytes: number; readonly dtype: DType | null }>
> = {
  F64: { bytes: 8, dtype: null },
  F32: { bytes: 4, dtype: "float32" },
  F16: { bytes: 2, dtype: "float16" },
  BF16: { bytes: 2, dtype: "bfloat16" },
  I64: { bytes: 8, dtype: "int64" },
  I32: { bytes: 4, dtype: "int32" },
  I16: { bytes: 2, dtype: null },
  I8: { bytes: 1, dtype: "int8" },
  U64: { bytes: 8, dtype: null },
  U32: { bytes: 4, dtype: null },
  U16: { bytes: 2, dtype: null },
  U8: { bytes: 1, dtype: "uint8" },
  BOOL: { bytes: 1, dtype: "bool" },
};

/** One tensor of a file, before any of its bytes are read. */
export interface StoredTensor {
  /** Name in the file. */
  readonly name: string;
  /** The dtype as the file spells it, e.g. `BF16`. */
  readonly stored: string;
  /** Our dtype, or null where tensors of this type cannot be loaded. */
  readonly dtype: DType | null;
  /** Dimensions, outermost first; empty for a scalar. */
  readonly shape: readonly number[];
  /** Offset of the first byte in its file. */
  readonly offset: number;
  /** Length in bytes. */
  readonly bytes: number;
}

/** A {@linkcode StoredTensor} of a dtype that can be loaded. */
export type LoadableTensor = StoredTensor & { readonly dtype: DType };

/**
 * Takes whole elements of one tensor: `chunk` belongs at `byteOffset` of it. The chunk is valid until the
 * function returns, or until its promise settles, and need not be aligned.
 */
export type ChunkSink = (
  chunk: Uint8Array,
  byteOffset: number,
  tensor: LoadableTensor,
) => void | Promise<void>;

/** Options of {@linkcode Weights.stream}. */
export interface StreamOptions extends ReadOptions {
  /** Size of the reused buffer in bytes, at least 64; 4 MiB by default. */
  readonly chunk_bytes?: number;
}

/** The tensors of one model, in one file or several. */
export interface Weights extends Disposable {
  /** All tensors by name, in the order of their bytes. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Text the file carries beside its tensors, e.g. `format`. */
  readonly metadata: ReadonlyMap<string, string>;
  /**
   * The tensor called `name`.
   *
   * @throws {ModelFileError} when there is none, or its dtype cannot be loaded.
   */
  tensor(name: string): LoadableTensor;
  /**
   * Reads tensors in the order of their bytes and hands them over in chunks; `null` means all. A tensor
   * without elements gives no chunk. Rejects with the signal's reason when aborted, between two chunks.
   *
   * @throws {ModelFileError} when a tensor is missing, cannot be loaded, or the file ends early.
   */
  stream(names: string | readonly string[] | null, sink: ChunkSink, options?: StreamOptions): Promise<void>;
  /** Gives the file handles back. */
  close(): void;
}

/** One open safetensors file. */
export class SafetensorsFile implements Weights {
  /** All tensors by name, in the order of their bytes. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Text the file carries beside its tensors. */
  readonly metadata: ReadonlyMap<string, string>;
  readonly #source: ByteSource;

  /** Use {@linkcode openSafetensors}. */
  constructor(
    source: ByteSource,
    tensors: ReadonlyMap<string, StoredTensor>,
    metadata: ReadonlyMap<string, string>,
  ) {
    this.#source = source;
    this.tensors = tensors;
    this.metadata = metadata;
  }

  /** See {@linkcode Weights.tensor}. */
  tensor(name: string): LoadableTensor {
    return loadable(this.tensors, name, this.#source.name);
  }

  /** See {@linkcode Weights.stream}. */
  async stream(
    names: string | readonly string[] | null,
    sink: ChunkSink,
    options: StreamOptions = {},
  ): Promise<void> {
    const { chunk_bytes = CHUNK_BYTES } = options;
    if (!Number.isSafeInteger(chunk_bytes) || chunk_bytes < 64 || chunk_bytes > 2 ** 30) {
      throw new InvalidArgument(
        `Cannot stream with chunk_bytes ${chunk_bytes}: expected an integer from 64 to 2^30`,
      );
    }
    const wanted = typeof names === "string" ? [names] : names ?? [...this.tensors.keys()];
    // A set: a name given twice is read once.
    const list = [...new Set(wanted)].map((name) => this.tensor(name)).filter((t) => t.bytes > 0);
    list.sort((a, b) => a.offset - b.offset);
    const last = list.at(-1);
    if (last === undefined) {
      options.signal?.throwIfAborted();
      return;
    }
    const total = list.reduce((sum, t) => sum + t.bytes, 0);
    const buffer = new Uint8Array(Math.min(chunk_bytes, total));
    const window = new Window(this.#source, buffer, runs(list), options);
    for (const tensor of list) {
      const element = STORED_DTYPES[tensor.stored]!.bytes;
      for (let at = 0; at < tensor.bytes;) {
        const piece = await window.at(tensor.offset + at, Math.min(element, tensor.bytes - at));
        const whole = Math.min(piece.byteLength, tensor.bytes - at);
        const chunk = piece.subarray(0, whole - whole % element);
        options.signal?.throwIfAborted();
        const done = sink(chunk, at, tensor);
        if (done !== undefined) await done;
        at += chunk.byteLength;
      }
    }
  }

  /** Closes the source. */
  close(): void {
    this.#source.close();
  }

  /** Closes the source. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/** Ends of the contiguous runs of bytes that `list` covers, so that many small tensors share one read. */
function runs(list: readonly StoredTensor[]): number[] {
  const ends: number[] = [];
  let end = -1;
  for (const tensor of list) {
    if (tensor.offset === end) ends.pop();
    end = tensor.offset + tensor.bytes;
    ends.push(end);
  }
  return ends;
}

/** The part of a source that is in the buffer, moving forward only. */
class Window {
  #start = 0;
  #end = 0;
  #run = 0;

  constructor(
    readonly source: ByteSource,
    readonly buffer: Uint8Array,
    readonly ends: readonly number[],
    readonly options: ReadOptions,
  ) {}

  /** The buffered bytes from `offset` on, at least `least` of them, reading when fewer are there. */
  async at(offset: number, least: number): Promise<Uint8Array> {
    if (offset < this.#start || offset + least > this.#end) {
      while (this.ends[this.#run]! <= offset) this.#run++;
      const length = Math.min(this.buffer.byteLength, this.ends[this.#run]! - offset);
      this.#end = this.#start = offset;
      await this.source.read(offset, this.buffer.subarray(0, length), this.options);
      this.#end = offset + length;
    }
    return this.buffer.subarray(offset - this.#start, this.#end - this.#start);
  }
}

/** Looks a tensor up and refuses what cannot be loaded. */
export function loadable(
  tensors: ReadonlyMap<string, StoredTensor>,
  name: string,
  file: string,
): LoadableTensor {
  const tensor = tensors.get(name);
  if (tensor === undefined) {
    const near = [...tensors.keys()].filter((known) => known.endsWith(name) || name.endsWith(known)).slice(
      0,
      3,
    );
    const hint = near.length > 0 ? `, it has ${near.join(", ")}` : "";
    throw new ModelFileError(
      `Cannot find tensor ${JSON.stringify(name)} among the ${tensors.size} tensors of ${file}${hint}`,
    );
  }
  const { dtype } = tensor;
  if (dtype === null) {
    const known = Object.keys(STORED_DTYPES).filter((key) => STORED_DTYPES[key]!.dtype !== null);
    throw new ModelFileError(
      `Cannot load tensor ${JSON.stringify(name)} of ${file}: expected dtype ${
        known.join(", ")
      }, it is ${tensor.stored}`,
    );
  }
  return { ...tensor, dtype };
}

/**
 * Opens a safetensors file: reads its header, has it checked, and takes over the source.
 *
 * @throws {ModelFileError} when anything about the file is malformed; the source is closed then.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { bytesSource } from "./source.ts";
 * import { writeSafetensors } from "./safetensors_write.ts";
 *
 * const bytes = writeSafetensors({ x: { dtype: "float32", shape: [2], data: new Float32Array([1, 2]) } });
 * using file = await openSafetensors(bytesSource(bytes));
 * assertEquals(file.tensor("x").shape, [2]);
 * await file.stream("x", (chunk, byteOffset) => assertEquals([chunk.length, byteOffset], [8, 0]));
 * ```
 */
export async function openSafetensors(
  source: ByteSource,
  options: ReadOptions = {},
): Promise<SafetensorsFile> {
  try {
    return await open(source, options);
  } catch (error) {
    source.close();
    throw error;
  }
}

async function open(source: ByteSource, options: ReadOptions): Promise<SafetensorsFile> {
  const refuse = (why: string) => new ModelFileError(`Cannot read ${source.name} as safetensors: ${why}`);
  if (source.size < 8) throw refuse(`expected at least 8 bytes, it has ${source.size}`);
  const length = new Uint8Array(8);
  await source.read(0, length, options);
  // Compared as 64 bits: a Number would round 2^63 - 1 and hide what came.
  const headerBytes = new DataView(length.buffer).getBigUint64(0, true);
  if (headerBytes > BigInt(MAX_HEADER_BYTES) || headerBytes > BigInt(source.size - 8)) {
    throw refuse(
      `expected a header of at most ${
        Math.min(MAX_HEADER_BYTES, source.size - 8)
      } bytes, its length says ${headerBytes}`,
    );
  }
  if (headerBytes < 2n) throw refuse(`expected a header of at least 2 bytes, its length says ${headerBytes}`);
  const header = new Uint8Array(Number(headerBytes));
  await source.read(8, header, options);
  const dataStart = 8 + header.byteLength;
  const checked = checkSafetensorsHeader(header, source.size - dataStart, source.name);
  const tensors = new Map<string, StoredTensor>();
  for (const [name, stored, shape, begin, end] of checked.tensors) {
    const known = STORED_DTYPES[stored];
    if (known === undefined) throw refuse(`tensor ${JSON.stringify(name)} has the unknown dtype ${stored}`);
    tensors.set(name, {
      name,
      stored,
      dtype: known.dtype,
      shape,
      offset: dataStart + begin,
      bytes: end - begin,
    });
  }
  return new SafetensorsFile(source, tensors, new Map(Object.entries(checked.metadata)));
}
