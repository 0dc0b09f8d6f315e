/**
 * The tensors of a GGUF file as the weights a model is built from: under their names in Transformers, rows in its order,
 * a block type as integers and scales.
 *
 * @module
 */
import { InvalidArgument, ModelFileError } from "../errors.ts";
import {
  type ChunkSink,
  loadable,
  type LoadableTensor,
  type StoredTensor,
  type StreamOptions,
  type Weights,
} from "../hub/safetensors.ts";
import type { ByteSource } from "../hub/source.ts";
import { fileTensors, scaleName } from "../quantize/stored.ts";
import { type BlockForm, formOf, READABLE, SCALE_BYTES, unpackBlocks } from "./blocks.ts";
import { type Gguf, type GgufTensor, label } from "./header.ts";

/** Bytes read at a time, unless asked otherwise. */
const CHUNK_BYTES = 4 * 2 ** 20;

/** Most bytes of a head's rows, which are in memory together; the largest published models have 16 MiB. */
const MAX_HEAD_BYTES = 2 ** 26;

/** What a tensor of the file is in the model. */
export interface Placed {
  readonly name: string;
  /** Rows of a head whose neighbours in the file are halves of it in the model; null where rows are in order. */
  readonly head_dim: number | null;
}

/** A tensor of the file, and what it becomes. */
interface Source {
  readonly stored: GgufTensor;
  readonly form: BlockForm;
  readonly head_dim: number | null;
  /** Blocks of a row. */
  readonly columns: number;
  /** Bytes that are read together: a block, or a head. */
  readonly unit: number;
  readonly values: LoadableTensor;
  readonly scales: LoadableTensor | null;
}

/** Weights in one GGUF file. */
export class GgufWeights implements Weights {
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly metadata: ReadonlyMap<string, string> = new Map();
  readonly #source: ByteSource;
  readonly #from: ReadonlyMap<string, Source>;

  /**
   * Takes over `source`. `place` says what becomes of a tensor, null for none.
   *
   * @throws {ModelFileError} for tensors that cannot be read
   */
  constructor(source: ByteSource, { tensors }: Gguf, place: (name: string) => Placed | null) {
    const all = new Map<string, StoredTensor>();
    const from = new Map<string, Source>();
    for (const stored of tensors.values()) {
      const placed = place(stored.name);
      if (placed === null) continue;
      const one = sourceOf(stored, placed, source.name);
      for (const tensor of [one.values, ...(one.scales === null ? [] : [one.scales])]) {
        if (all.has(tensor.name)) {
          throw new ModelFileError(
            `Cannot read ${source.name} as GGUF: two of its tensors are ${label(tensor.name)} in the model`,
          );
        }
        all.set(tensor.name, tensor);
        from.set(tensor.name, one);
      }
    }
    this.tensors = all;
    this.#source = source;
    this.#from = from;
  }

  tensor(name: string): LoadableTensor {
    return loadable(this.tensors, name, this.#source.name);
  }

  /** See {@linkcode Weights.stream}. Values and scales of a tensor come in turn. */
  async stream(
    names: string | readonly string[] | null,
    sink: ChunkSink,
    options: StreamOptions = {},
  ): Promise<void> {
    const { chunk_bytes = CHUNK_BYTES, ...read } = options;
    if (!Number.isSafeInteger(chunk_bytes) || chunk_bytes < 64 || chunk_bytes > 2 ** 30) {
      throw new InvalidArgument(
        `Cannot stream with chunk_bytes ${chunk_bytes}: expected an integer from 64 to 2^30`,
      );
    }
    const wanted = new Set(typeof names === "string" ? [names] : names ?? this.tensors.keys());
    const sources = new Set([...wanted].map((name) => this.#from.get(this.tensor(name).name)!));
    const list = [...sources].sort((a, b) => a.stored.offset - b.stored.offset);
    const most = Math.max(chunk_bytes, ...list.map(({ unit }) => unit));
    const buffer = new Uint8Array(Math.min(most, Math.max(0, ...list.map(({ stored }) => stored.bytes))));
    for (const one of list) {
      const { type, offset, bytes } = one.stored;
      const step = Math.floor(buffer.length / one.unit) * one.unit;
      for (let at = 0; at < bytes; at += step) {
        const chunk = buffer.subarray(0, Math.min(step, bytes - at));
        await this.#source.read(offset + at, chunk, read);
        const { values, scales } = unpackBlocks(type.name, chunk);
        const parts = [[one.values, values, one.form.bytes], [one.scales, scales, SCALE_BYTES]] as const;
        for (const [tensor, part, blockBytes] of parts) {
          if (tensor === null || !wanted.has(tensor.name)) continue;
          read.signal?.throwIfAborted();
          const done = sink(inOrder(part, one, blockBytes), at / type.bytes * blockBytes, tensor);
          if (done !== undefined) await done;
        }
      }
    }
    read.signal?.throwIfAborted();
  }

  close(): void {
    this.#source.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/**
 * Whole heads of rows in the order of Transformers, other tensors as they are: llama.cpp rotates neighbours where
 * Transformers rotates halves, so row 2i + s of a head is row i + s·D/2 there.
 */
function inOrder(part: Uint8Array, { head_dim, columns }: Source, blockBytes: number): Uint8Array {
  if (head_dim === null) return part;
  const row = columns * blockBytes;
  const out = new Uint8Array(part.length);
  for (let from = 0, r = 0; from < part.length; from += row, r++) {
    const inside = r % head_dim;
    const to = r - inside + (inside >> 1) + inside % 2 * (head_dim / 2);
    out.set(part.subarray(from, from + row), to * row);
  }
  return out;
}

/** @throws {ModelFileError} for a type that cannot be read, or a shape that does not go with it */
function sourceOf(stored: GgufTensor, { name, head_dim }: Placed, file: string): Source {
  const { type, shape, offset, bytes } = stored;
  const form = formOf(type.name);
  const refuse = (why: string) =>
    new ModelFileError(`Cannot load tensor ${label(stored.name)} of ${file}: ${why}`);
  if (form === undefined) throw refuse(`expected type ${READABLE.join(", ")}, it is ${type.name}`);
  const rows = shape[0]!;
  if (head_dim !== null && rows % head_dim !== 0) {
    throw refuse(`expected whole heads of ${head_dim} rows, it has ${rows}`);
  }
  const blocks = bytes / type.bytes;
  const columns = blocks / rows;
  const unit = head_dim === null ? type.bytes : head_dim * columns * type.bytes;
  if (unit > MAX_HEAD_BYTES) {
    throw refuse(`expected heads of at most ${MAX_HEAD_BYTES} bytes, they have ${unit}`);
  }
  const source = { stored, form, head_dim, columns, unit };
  const common = { name, stored: type.name, offset, bytes: blocks * form.bytes };
  if (form.format === null) {
    return { ...source, values: { ...common, dtype: form.dtype, shape }, scales: null };
  }
  if (shape.length !== 2) throw refuse(`expected a matrix of ${type.name}, its shape is [${shape}]`);
  const tensors = fileTensors({ format: form.format, shape: [rows, shape[1]!] });
  return {
    ...source,
    values: { ...common, ...tensors.values },
    scales: { ...common, ...tensors.scales, name: scaleName(name), bytes: blocks * SCALE_BYTES },
  };
}
