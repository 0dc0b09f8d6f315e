/**
 * GGUF files written by hand, for tests and benches: version 3 of the format (ggml-org/ggml, docs/gguf.md).
 *
 * @module
 */
import { convertTo } from "../../src/dtype.ts";

/** Values of a block that share a scale. */
const BLOCK = 32;

/** Element types: their number in the file, how many values make a block, and its bytes. */
export const GGML_TYPES = {
  F32: { id: 0, block: 1, bytes: 4 },
  F16: { id: 1, block: 1, bytes: 2 },
  Q4_0: { id: 2, block: BLOCK, bytes: 2 + BLOCK / 2 },
  Q8_0: { id: 8, block: BLOCK, bytes: 2 + BLOCK },
  BF16: { id: 30, block: 1, bytes: 2 },
} as const;

/** Name of an element type. */
export type GgmlType = keyof typeof GGML_TYPES;

/** A value of the file's metadata; what a number means in the file has to be said. */
export type MetaValue =
  | { readonly u32: number }
  | { readonly u64: bigint }
  | { readonly f32: number }
  | { readonly bool: boolean }
  | { readonly text: string }
  | { readonly texts: readonly string[] }
  | { readonly i32s: Int32Array<ArrayBuffer> }
  | { readonly f32s: Float32Array<ArrayBuffer> };

/** A tensor to write. */
export interface GgufTensor {
  readonly name: string;
  /** Row-major as elsewhere here: the last dimension is contiguous. */
  readonly shape: readonly number[];
  readonly type: GgmlType;
  /** Called when its turn comes, so that only one tensor is held at a time. */
  values(): Float32Array;
}

/** Bytes tensors begin at multiples of. */
const ALIGNMENT = 32;
const padding = (bytes: number) => (ALIGNMENT - bytes % ALIGNMENT) % ALIGNMENT;

const bytesOf = (view: ArrayBufferView<ArrayBuffer>) =>
  new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
const u32 = (value: number) => bytesOf(Uint32Array.of(value));
const u64 = (value: number | bigint) => bytesOf(BigUint64Array.of(BigInt(value)));
const text = (value: string): Uint8Array<ArrayBuffer>[] => {
  const bytes = new TextEncoder().encode(value);
  return [u64(bytes.length), bytes];
};

/** Numbers of metadata types. */
const META = { uint32: 4, int32: 5, float32: 6, bool: 7, string: 8, array: 9, uint64: 10 } as const;

/** A metadata value behind the number of its type; arrays say the type of their elements and how many there are. */
function metaValue(value: MetaValue): Uint8Array<ArrayBuffer>[] {
  if ("u32" in value) return [u32(META.uint32), u32(value.u32)];
  if ("u64" in value) return [u32(META.uint64), u64(value.u64)];
  if ("f32" in value) return [u32(META.float32), bytesOf(Float32Array.of(value.f32))];
  if ("bool" in value) return [u32(META.bool), Uint8Array.of(Number(value.bool))];
  if ("text" in value) return [u32(META.string), ...text(value.text)];
  const array = (type: number, n: number) => [u32(META.array), u32(type), u64(n)];
  if ("texts" in value) return [...array(META.string, value.texts.length), ...value.texts.flatMap(text)];
  if ("i32s" in value) return [...array(META.int32, value.i32s.length), bytesOf(value.i32s)];
  return [...array(META.float32, value.f32s.length), bytesOf(value.f32s)];
}

/** Signed bytes and a float16 scale for every 32 values: 127 steps to the largest. */
function toQ8(values: Float32Array): Uint8Array<ArrayBuffer> {
  const blocks = values.length / BLOCK;
  const out = new DataView(new ArrayBuffer(blocks * GGML_TYPES.Q8_0.bytes));
  for (let b = 0, at = 0; b < blocks; b++, at += GGML_TYPES.Q8_0.bytes) {
    let most = 0;
    for (let i = 0; i < BLOCK; i++) most = Math.max(most, Math.abs(values[b * BLOCK + i]!));
    const scale = most / 127, inverse = scale === 0 ? 0 : 1 / scale;
    out.setFloat16(at, scale, true);
    for (let i = 0; i < BLOCK; i++) out.setInt8(at + 2 + i, Math.round(values[b * BLOCK + i]! * inverse));
  }
  return new Uint8Array(out.buffer);
}

/** Four bits and a float16 scale for every 32 values: the one of largest magnitude is −8 steps. */
function toQ4(values: Float32Array): Uint8Array<ArrayBuffer> {
  const blocks = values.length / BLOCK;
  const out = new DataView(new ArrayBuffer(blocks * GGML_TYPES.Q4_0.bytes));
  for (let b = 0, at = 0; b < blocks; b++, at += GGML_TYPES.Q4_0.bytes) {
    let most = 0;
    for (let i = 0; i < BLOCK; i++) {
      const x = values[b * BLOCK + i]!;
      if (Math.abs(x) > Math.abs(most)) most = x;
    }
    const scale = most / -8, inverse = scale === 0 ? 0 : 1 / scale;
    const level = (i: number) => Math.min(15, Math.trunc(values[b * BLOCK + i]! * inverse + 8.5));
    out.setFloat16(at, scale, true);
    // The first half of a block lies in the low four bits.
    for (let i = 0; i < BLOCK / 2; i++) out.setUint8(at + 2 + i, level(i) | level(i + BLOCK / 2) << 4);
  }
  return new Uint8Array(out.buffer);
}

/** The bytes of a tensor. */
export function encodeBlocks(type: GgmlType, values: Float32Array): Uint8Array<ArrayBuffer> {
  switch (type) {
    case "F32":
      return new Uint8Array(values.buffer as ArrayBuffer, values.byteOffset, values.byteLength);
    case "F16":
      return bytesOf(convertTo("float16", values));
    case "BF16":
      return bytesOf(convertTo("bfloat16", values));
    case "Q8_0":
      return toQ8(values);
    case "Q4_0":
      return toQ4(values);
  }
}

/** A file in pieces, a tensor at a time. @throws {Error} when a row cannot be cut into the blocks of its type */
export function* ggufPieces(
  metadata: Readonly<Record<string, MetaValue>>,
  tensors: readonly GgufTensor[],
): Generator<Uint8Array<ArrayBuffer>> {
  let offset = 0;
  const infos = tensors.flatMap(({ name, shape, type }) => {
    const { id, block, bytes } = GGML_TYPES[type];
    const length = shape.reduce((n, d) => n * d, 1) / block * bytes;
    if (shape.at(-1)! % block !== 0) {
      throw new Error(`${name}: rows of ${shape.at(-1)} have no whole blocks of ${type}`);
    }
    const info = [
      ...text(name),
      u32(shape.length),
      ...shape.toReversed().map(u64), // the contiguous dimension first
      u32(id),
      u64(offset),
    ];
    offset += length + padding(length);
    return info;
  });
  const head = joined([
    new TextEncoder().encode("GGUF"),
    u32(3),
    u64(tensors.length),
    u64(Object.keys(metadata).length),
    ...Object.entries(metadata).flatMap(([key, value]) => [...text(key), ...metaValue(value)]),
    ...infos,
  ]);
  yield head;
  yield new Uint8Array(padding(head.length));
  for (const { type, values } of tensors) {
    const bytes = encodeBlocks(type, values());
    yield bytes;
    yield new Uint8Array(padding(bytes.length));
  }
}

/** A small file in memory. @throws as {@linkcode ggufPieces} */
export function ggufBytes(
  metadata: Readonly<Record<string, MetaValue>>,
  tensors: readonly GgufTensor[],
): Uint8Array<ArrayBuffer> {
  return joined([...ggufPieces(metadata, tensors)]);
}

/** Writes a file, a tensor at a time. @throws as {@linkcode ggufPieces} */
export function writeGguf(
  path: string,
  metadata: Readonly<Record<string, MetaValue>>,
  tensors: readonly GgufTensor[],
): void {
  using file = Deno.openSync(path, { write: true, create: true, truncate: true });
  for (const bytes of ggufPieces(metadata, tensors)) {
    for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
  }
}

function joined(pieces: readonly Uint8Array<ArrayBuffer>[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(pieces.reduce((n, piece) => n + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}
