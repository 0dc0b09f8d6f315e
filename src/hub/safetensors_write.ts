/**
 * Writing safetensors files.
 *
 * @module
 */
import { convertTo, type DType, present } from "../dtype.ts";
import { InvalidArgument } from "../errors.ts";
import { reshape, slice } from "../ops/shape.ts";
import { tidy } from "../scope.ts";
import type { Tensor } from "../tensor.ts";
import { checkSafetensorsHeader } from "./host.ts";
import { STORED_DTYPES } from "./safetensors.ts";

/** A tensor to write: row-major elements in our dtype, as raw bytes or a typed array. */
export interface WritableTensor {
  /** Element type. */
  readonly dtype: DType;
  /** Dimensions, outermost first; empty for a scalar. */
  readonly shape: readonly number[];
  /** Its bytes are written as they are: bfloat16 as 16-bit words, int64 as 64-bit integers. */
  readonly data: ArrayBufferView;
}

/** Where each tensor's bytes go: what {@linkcode writeSafetensors} does, without holding the data. */
export interface SafetensorsLayout {
  /** The length and the header: the first bytes of the file. */
  readonly head: Uint8Array<ArrayBuffer>;
  /** Names in the order their bytes follow the head. */
  readonly order: readonly string[];
}

/** dtypes in the order the reference writes them, so that wider elements come first and stay aligned. */
const ORDER = ["int64", "float32", "int32", "bfloat16", "float16", "int8", "uint8", "bool"];

const SPELLING = new Map(Object.entries(STORED_DTYPES).map(([stored, { dtype }]) => [dtype, stored]));

/**
 * Plans a file: the same order and header as the reference implementation writes.
 *
 * @throws {InvalidArgument} when a name, shape or metadata entry cannot be written.
 */
export function layoutSafetensors(
  tensors: Readonly<Record<string, { readonly dtype: DType; readonly shape: readonly number[] }>>,
  metadata: Readonly<Record<string, string>> = {},
): SafetensorsLayout {
  const list = Object.entries(tensors).map(([name, { dtype, shape }]) => {
    const stored = SPELLING.get(dtype);
    if (stored === undefined) {
      throw new InvalidArgument(
        `Cannot write tensor ${name}: expected dtype ${ORDER.join(", ")}, found ${dtype}`,
      );
    }
    const bytes = shape.reduce((product, dim) => product * dim, STORED_DTYPES[stored]!.bytes);
    if (!shape.every((dim) => Number.isSafeInteger(dim) && dim >= 0) || !Number.isSafeInteger(bytes)) {
      throw new InvalidArgument(`Cannot write tensor ${name}: its shape is [${shape.join(", ")}]`);
    }
    return { name, stored, shape, bytes, rank: ORDER.indexOf(dtype) };
  });
  list.sort((a, b) => a.rank - b.rank || compareUtf8(a.name, b.name));
  let at = 0;
  const fields: string[] = [];
  // Written field by field: an object would reorder names that look like integers.
  const keys = Object.keys(metadata).sort(compareUtf8);
  if (keys.length > 0) {
    const entries = keys.map((key) => `${JSON.stringify(key)}:${JSON.stringify(metadata[key])}`);
    fields.push(`"__metadata__":{${entries.join(",")}}`);
  }
  for (const { name, stored, shape, bytes } of list) {
    const offsets = `[${at},${at += bytes}]`;
    fields.push(
      `${JSON.stringify(name)}:{"dtype":"${stored}","shape":[${shape.join(",")}],"data_offsets":${offsets}}`,
    );
  }
  const json = new TextEncoder().encode(`{${fields.join(",")}}`);
  const padded = Math.ceil(json.byteLength / 8) * 8;
  const head = new Uint8Array(8 + padded).fill(0x20);
  new DataView(head.buffer).setBigUint64(0, BigInt(padded), true);
  head.set(json, 8);
  try {
    // What this library writes it must be willing to read.
    checkSafetensorsHeader(head.subarray(8), at, "the new file");
  } catch (error) {
    throw new InvalidArgument(
      `Cannot write the tensors: ${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    );
  }
  return { head, order: list.map((t) => t.name) };
}

/** Compares strings by code point, as the reference (UTF-8 bytes) does; `<` would compare UTF-16 units. */
function compareUtf8(a: string, b: string): number {
  const [x, y] = [[...a], [...b]];
  for (let i = 0; i < x.length && i < y.length; i++) {
    const d = x[i]!.codePointAt(0)! - y[i]!.codePointAt(0)!;
    if (d !== 0) return d;
  }
  return x.length - y.length;
}

/**
 * Writes tensors as the bytes of one safetensors file.
 *
 * @throws {InvalidArgument} when a name, shape or metadata entry cannot be written, or data has the wrong length.
 */
export function writeSafetensors(
  tensors: Readonly<Record<string, WritableTensor>>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array<ArrayBuffer> {
  const { head, order } = layoutSafetensors(tensors, metadata);
  const views = order.map((name) => {
    const { data, dtype, shape } = tensors[name]!;
    const expected = shape.reduce(
      (product, dim) => product * dim,
      STORED_DTYPES[SPELLING.get(dtype)!]!.bytes,
    );
    if (data.byteLength !== expected) {
      throw new InvalidArgument(
        `Cannot write tensor ${name}: expected ${expected} bytes for shape [${
          shape.join(", ")
        }] of ${dtype}, found ${data.byteLength}`,
      );
    }
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  });
  const file = new Uint8Array(head.byteLength + views.reduce((sum, v) => sum + v.byteLength, 0));
  file.set(head);
  let at = head.byteLength;
  for (const view of views) {
    file.set(view, at);
    at += view.byteLength;
  }
  return file;
}

/** A tensor to write from wherever it lies. */
export interface StreamedTensor {
  readonly name: string;
  /** Type in the file, to which the elements are converted. */
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** The tensor, which belongs to the caller. */
  readonly open: () => Tensor | Promise<Tensor>;
}

/** Elements that are read from a device at once. */
const CHUNK = 2 ** 20;

/**
 * The bytes of a safetensors file in order, a part of a tensor at a time: no more is ever on the host. `written` is told
 * the bytes of every part once it was taken.
 *
 * @throws {InvalidArgument} when a name, shape or metadata entry cannot be written
 */
export async function* streamSafetensors(
  tensors: readonly StreamedTensor[],
  metadata: Readonly<Record<string, string>> = {},
  written: (bytes: number) => void = () => {},
): AsyncGenerator<Uint8Array> {
  const byName = new Map(tensors.map((t) => [t.name, t]));
  const { head, order } = layoutSafetensors(Object.fromEntries(byName), metadata);
  yield head;
  for (const name of order) {
    const { dtype, open } = byName.get(name)!;
    using whole = await open();
    using flat = tidy(() => reshape(whole, [whole.size]));
    for (let from = 0; from < flat.size; from += CHUNK) {
      using part = slice(flat, 0, from, Math.min(flat.size, from + CHUNK));
      const raw = await part.raw();
      const values = part.dtype === dtype
        ? raw
        : convertTo(dtype, present(part.dtype, raw) as ArrayLike<number>);
      const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
      yield bytes;
      written(bytes.byteLength);
    }
  }
}
