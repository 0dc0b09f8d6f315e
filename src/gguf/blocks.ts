/**
 * Blocks of GGUF tensors ↔ the tensors they are here.
 *
 * `Q8_0` and `Q4_0` have a float16 scale for 32 neighbours of a row, as `int8_g32` and `int4` have (quantize/stored.ts):
 * their integers and scales are taken over bit for bit. Other types of few bits become floats.
 *
 * @module
 */
import type { QuantizedFormat } from "../devices/quantized.ts";
import type { DType } from "../dtype.ts";
import { dequantize, DEQUANTIZED } from "./dequantize.ts";

/** What a block becomes. */
export interface BlockForm {
  /** Type of the values. */
  readonly dtype: DType;
  /** Bytes of a block's values. */
  readonly bytes: number;
  /** The format of a matrix of such blocks; null where values are floats. */
  readonly format: QuantizedFormat | null;
}

/** Bytes of a block's scale. */
export const SCALE_BYTES = 2;

/** Types that can be read. */
const FORMS: ReadonlyMap<string, BlockForm> = new Map<string, BlockForm>([
  ["F32", { dtype: "float32", bytes: 4, format: null }],
  ["F16", { dtype: "float16", bytes: 2, format: null }],
  ["BF16", { dtype: "bfloat16", bytes: 2, format: null }],
  ["Q8_0", { dtype: "int8", bytes: 32, format: "int8_g32" }],
  ["Q4_0", { dtype: "uint8", bytes: 16, format: "int4" }],
  ...Object.entries(DEQUANTIZED).map(([name, { block }]): [string, BlockForm] => [
    name,
    { dtype: "float32", bytes: 4 * block, format: null },
  ]),
]);

/** Names of the types that can be read. */
export const READABLE: readonly string[] = [...FORMS.keys()];

/** What blocks of a type become; undefined for types that cannot be read. */
export function formOf(type: string): BlockForm | undefined {
  return FORMS.get(type);
}

/** Values and scales of whole blocks; `scales` is empty where there are none. Views of `blocks` where nothing changes. */
export function unpackBlocks(type: string, blocks: Uint8Array): { values: Uint8Array; scales: Uint8Array } {
  if (type === "Q8_0") return unpackQ8(blocks);
  if (type === "Q4_0") return unpackQ4(blocks);
  const kind = DEQUANTIZED[type];
  if (kind === undefined) return { values: blocks, scales: NONE };
  return { values: new Uint8Array(dequantize(kind, blocks).buffer), scales: NONE };
}

const NONE = new Uint8Array(0);

/** A block: the scale, then 32 signed bytes. */
function unpackQ8(blocks: Uint8Array): { values: Uint8Array; scales: Uint8Array } {
  const n = blocks.length / 34;
  const values = new Uint8Array(n * 32), scales = new Uint8Array(n * SCALE_BYTES);
  for (let b = 0; b < n; b++) {
    scales.set(blocks.subarray(b * 34, b * 34 + 2), b * 2);
    values.set(blocks.subarray(b * 34 + 2, b * 34 + 34), b * 32);
  }
  return { values, scales };
}

/**
 * A block: the scale, then 16 bytes, byte i with weight i in its lower half and weight i + 16 in its upper one; here byte j
 * has weights 2j and 2j + 1. Both add 8.
 */
function unpackQ4(blocks: Uint8Array): { values: Uint8Array; scales: Uint8Array } {
  const n = blocks.length / 18;
  const values = new Uint8Array(n * 16), scales = new Uint8Array(n * SCALE_BYTES);
  for (let b = 0; b < n; b++) {
    const at = b * 18 + 2, to = b * 16;
    scales[b * 2] = blocks[b * 18]!;
    scales[b * 2 + 1] = blocks[b * 18 + 1]!;
    for (let j = 0; j < 8; j++) {
      const even = blocks[at + 2 * j]!, odd = blocks[at + 2 * j + 1]!;
      values[to + j] = even & 15 | (odd & 15) << 4;
      values[to + j + 8] = even >> 4 | odd & 0xf0;
    }
  }
  return { values, scales };
}
