/**
 * The header of a GGUF file, versions 2 and 3: metadata and where tensors lie (ggml-org/ggml, `docs/gguf.md`).
 *
 * Lengths are compared with what the file has left before anything is made of them. Arrays are walked, and read when
 * they are asked for: a vocabulary is most of a header, and only a tokenizer wants it.
 *
 * @module
 */
import { ModelFileError } from "../errors.ts";
import { MAX_HEADER_BYTES } from "../hub/safetensors.ts";
import type { ByteSource, ReadOptions } from "../hub/source.ts";
import { Cursor } from "./cursor.ts";
import { GGML_TYPES, type GgmlType } from "./ggml_types.ts";

/** "GGUF". */
const MAGIC = 0x46554747;
/** Most entries of metadata; published files have some dozens. */
const MAX_ENTRIES = 2 ** 16;
/** The largest published models have some hundred thousand tensors. */
const MAX_TENSORS = 2 ** 18;
/** Longest name of a tensor or an entry, in bytes; ggml allows 64 and 65535. */
const MAX_NAME = 2 ** 10;
/** Longest text among the metadata, in bytes: chat templates have some ten thousand. */
const MAX_TEXT = 2 ** 20;
/** Most bytes of texts that are kept. */
const MAX_TEXTS = 2 ** 24;
/** Most elements of an array that is read; the largest vocabularies have 262,144 tokens and twice as many merges. */
const MAX_ELEMENTS = 2 ** 21;
const MAX_DIMENSIONS = 4;
const MAX_ALIGNMENT = 2 ** 16;
/** Bytes tensors begin at multiples of, where the file does not say. */
const ALIGNMENT = 32;

/** Scalars of metadata: bytes, and how they are read. */
const SCALARS: Readonly<Record<number, readonly [bytes: number, read: Reader]>> = {
  0: [1, (view, at) => view.getUint8(at)],
  1: [1, (view, at) => view.getInt8(at)],
  2: [2, (view, at) => view.getUint16(at, true)],
  3: [2, (view, at) => view.getInt16(at, true)],
  4: [4, (view, at) => view.getUint32(at, true)],
  5: [4, (view, at) => view.getInt32(at, true)],
  6: [4, (view, at) => view.getFloat32(at, true)],
  7: [1, (view, at) => view.getUint8(at)],
  10: [8, (view, at) => whole(view.getBigUint64(at, true))],
  11: [8, (view, at) => whole(view.getBigInt64(at, true))],
  12: [8, (view, at) => view.getFloat64(at, true)],
};
type Reader = (view: DataView, at: number) => number | bigint;
const [BOOL, STRING, ARRAY] = [7, 8, 9];

/** As a Number where that is exact. */
function whole(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** A list in the file, which {@linkcode Gguf.list} reads. */
export interface GgufArray {
  /** Number of the type of its elements. */
  readonly type: number;
  readonly length: number;
  /** Offset of its first element in the file. */
  readonly offset: number;
  /** Offset of what comes after its last. */
  readonly end: number;
}

/** A value of the metadata. */
export type GgufValue = number | bigint | boolean | string | GgufArray;

/** A tensor in the file. */
export interface GgufTensor {
  readonly name: string;
  readonly type: GgmlType;
  /** Dimensions, outermost first (the file has them the other way round). */
  readonly shape: readonly number[];
  /** Offset of the first byte in the file. */
  readonly offset: number;
  /** Length in bytes. */
  readonly bytes: number;
}

/** What a header says. */
export interface Gguf {
  readonly metadata: ReadonlyMap<string, GgufValue>;
  /** Tensors by name, in the order of their bytes. */
  readonly tensors: ReadonlyMap<string, GgufTensor>;
}

/**
 * Reads and checks a header: every byte of a tensor is in the file, and tensors follow each other without holes.
 *
 * @throws {ModelFileError} naming what was expected and what was found
 */
export async function readGguf(source: ByteSource, options: ReadOptions = {}): Promise<Gguf> {
  const c = new Cursor(source, MAX_HEADER_BYTES, options);
  const magic = await c.uint32("a header");
  if (magic !== MAGIC) {
    throw c.refuse(`expected it to begin with "GGUF", it begins with 0x${magic.toString(16)}`);
  }
  const version = await c.uint32("a header");
  if (version !== 2 && version !== 3) {
    const order = (version & 0xffff) === 0 && version !== 0 ? ", which a big-endian file says" : "";
    throw c.refuse(`expected version 2 or 3, found ${version}${order}`);
  }
  const tensors = await count(c, "tensors", MAX_TENSORS, 33);
  const entries = await count(c, "entries of metadata", MAX_ENTRIES, 13);
  const metadata = new Map<string, GgufValue>();
  let texts = 0;
  for (let i = 0; i < entries; i++) {
    const key = await c.text(`the name of metadata ${i}`, MAX_NAME);
    if (key === "" || metadata.has(key)) {
      throw c.refuse(`expected each name of metadata once, found ${JSON.stringify(key)} again or empty`);
    }
    const value = await readValue(c, key);
    if (typeof value === "string" && (texts += value.length) > MAX_TEXTS) {
      throw c.refuse(`expected texts of at most ${MAX_TEXTS} bytes in its metadata`);
    }
    metadata.set(key, value);
  }
  const alignment = metadata.get("general.alignment") ?? ALIGNMENT;
  if (
    typeof alignment !== "number" || !(alignment > 0 && alignment <= MAX_ALIGNMENT) ||
    alignment & alignment - 1
  ) {
    throw c.refuse(
      `expected general.alignment to be a power of two up to ${MAX_ALIGNMENT}, found ${shown(alignment)}`,
    );
  }
  const infos: GgufTensor[] = [];
  const names = new Set<string>();
  for (let i = 0; i < tensors; i++) {
    const tensor = await readTensor(c, i);
    if (names.has(tensor.name)) {
      throw c.refuse(`expected each tensor once, found ${label(tensor.name)} again`);
    }
    names.add(tensor.name);
    infos.push(tensor);
  }
  const padded = (n: number) => Math.ceil(n / alignment) * alignment;
  const start = padded(c.at);
  infos.sort((a, b) => a.offset - b.offset);
  let at = 0;
  const placed = infos.map((tensor): [string, GgufTensor] => {
    const { name, offset, bytes } = tensor;
    if (offset !== at) {
      throw c.refuse(
        `expected tensor ${label(name)} at offset ${at}, where the one before it ends, found ${offset}`,
      );
    }
    at = padded(offset + bytes);
    if (start + offset + bytes > source.size) {
      throw c.refuse(
        `expected tensor ${label(name)} to end within its ${source.size} bytes, it ends at ${
          start + offset + bytes
        }`,
      );
    }
    return [name, { ...tensor, offset: start + offset }];
  });
  return { metadata, tensors: new Map(placed) };
}

/** A number of things of at least `least` bytes each. */
async function count(c: Cursor, what: string, most: number, least: number): Promise<number> {
  const n = await c.length(`the number of ${what}`);
  const room = Math.min(most, Math.floor(c.left / least));
  if (n > room) throw c.refuse(`expected at most ${room} ${what}, found ${n}`);
  return n;
}

async function readValue(c: Cursor, key: string): Promise<GgufValue> {
  const type = await c.uint32("a type");
  if (type === STRING) return await c.text(`metadata ${label(key)}`, MAX_TEXT);
  if (type === ARRAY) return await walkArray(c, key);
  const scalar = SCALARS[type];
  if (scalar === undefined) throw c.refuse(`metadata ${label(key)} has the unknown type ${type}`);
  await c.fill(scalar[0], `metadata ${label(key)}`);
  const value = c.next(...scalar);
  if (type !== BOOL) return value;
  if (value !== 0 && value !== 1) {
    throw c.refuse(`expected metadata ${label(key)} to be 0 or 1, found ${value}`);
  }
  return value === 1;
}

async function walkArray(c: Cursor, key: string): Promise<GgufArray> {
  const type = await c.uint32("a type");
  const bytes = type === STRING ? 8 : SCALARS[type]?.[0];
  if (bytes === undefined) {
    throw c.refuse(
      `expected metadata ${label(key)} to be a list of numbers, truth values or texts, found type ${type}`,
    );
  }
  const length = await c.length(`the length of ${label(key)}`);
  if (length > c.left / bytes) {
    throw c.refuse(
      `expected metadata ${label(key)} to have at most ${
        Math.floor(c.left / bytes)
      } elements, found ${length}`,
    );
  }
  const offset = c.at;
  if (type !== STRING) c.skip(length * bytes, label(key));
  for (let i = 0; type === STRING && i < length; i++) {
    if (!c.has(8)) await c.fill(8, label(key));
    c.skip(c.nextLength(), label(key));
  }
  return { type, length, offset, end: c.at };
}

async function readTensor(c: Cursor, i: number): Promise<GgufTensor> {
  const name = await c.text(`the name of tensor ${i}`, MAX_NAME);
  const dimensions = await c.uint32(`tensor ${label(name)}`);
  if (dimensions < 1 || dimensions > MAX_DIMENSIONS) {
    throw c.refuse(
      `expected tensor ${label(name)} to have 1 to ${MAX_DIMENSIONS} dimensions, found ${dimensions}`,
    );
  }
  const shape: number[] = [];
  for (let d = 0; d < dimensions; d++) shape.unshift(await c.length(`the shape of tensor ${label(name)}`));
  const id = await c.uint32(`the type of tensor ${label(name)}`);
  const type = GGML_TYPES.get(id);
  if (type === undefined) {
    const known = [...GGML_TYPES.keys()].join(", ");
    throw c.refuse(`tensor ${label(name)} has the unknown type ${id}, known are ${known}`);
  }
  const offset = await c.length(`the offset of tensor ${label(name)}`);
  // A product that a Number cannot count is larger than any file.
  const elements = shape.reduce((n, d) => n * d, 1);
  if (!(elements >= 1 && elements <= Number.MAX_SAFE_INTEGER) || shape.at(-1)! % type.block !== 0) {
    throw c.refuse(
      `expected tensor ${
        label(name)
      }, ${type.name}, to have rows of whole blocks of ${type.block} and a size that can be counted, found [${shape}]`,
    );
  }
  return { name, type, shape, offset, bytes: elements / type.block * type.bytes };
}

/**
 * The elements of a list of the metadata; null where there is none of that name.
 *
 * @throws {ModelFileError} where it is no list of that kind or too long
 */
export async function readList(
  { metadata }: Gguf,
  source: ByteSource,
  key: string,
  kind: "texts" | "numbers",
  options: ReadOptions = {},
): Promise<(string | number)[] | null> {
  const array = metadata.get(key);
  if (array === undefined) return null;
  const refuse = (found: string) =>
    new ModelFileError(
      `Cannot read ${source.name} as GGUF: expected ${
        label(key)
      } to be a list of at most ${MAX_ELEMENTS} ${kind}, found ${found}`,
    );
  if (typeof array !== "object") throw refuse(shown(array));
  const { type, length, offset, end } = array;
  if (length > MAX_ELEMENTS || (type === STRING) !== (kind === "texts")) {
    throw refuse(`${length} of type ${type}`);
  }
  const c = new Cursor(source, end, options);
  c.at = offset;
  const list: (string | number)[] = [];
  for (let i = 0; i < length; i++) {
    if (type === STRING) list.push(await c.text(`element ${i} of ${label(key)}`, MAX_NAME * 4));
    else {
      const [bytes, read] = SCALARS[type]!;
      if (!c.has(bytes)) await c.fill(bytes, label(key));
      list.push(Number(c.next(bytes, read)));
    }
  }
  return list;
}

/** A name as messages show it. */
export function label(name: string): string {
  return JSON.stringify(name.slice(0, 80));
}

function shown(value: GgufValue): string {
  if (typeof value === "object") return `a list of ${value.length}`;
  return typeof value === "string" ? label(value) : String(value);
}
