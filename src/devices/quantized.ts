/**
 * Weights in 8 or 4 bits as kernels read them: one layout on every device, drawn in `quantized_layout.rs`.
 *
 * @module
 */
import type { View } from "./device.ts";

/**
 * How a matrix (O, I) is kept in few bits: `int8` has one scale a row, `int8_g32` and `int4` one for 32 neighbouring
 * weights of a row. A weight is its integer (−127…127, or −8…7) times its scale.
 */
export type QuantizedFormat = "int8" | "int8_g32" | "int4";

/** Formats in the order of their codes in kernels. */
export const QUANTIZED_FORMATS: readonly QuantizedFormat[] = ["int8", "int8_g32", "int4"];

/** Neighbouring weights of a row that are multiplied as integers before anything is scaled. */
export const QUANTIZED_GROUP = 32;

/** 32-bit words of a record: 4 rows by 32 columns. */
export const RECORD_WORDS: Readonly<Record<QuantizedFormat, number>> = { int8: 34, int8_g32: 36, int4: 18 };

/** Words that 32 columns of a row of activations take at most in a kernel's room. */
const ROOM_WORDS = 18;

/** What a quantised matrix is. */
export interface QuantizedMatrix {
  readonly format: QuantizedFormat;
  /** (O, I), of the matrix it stands for. */
  readonly shape: readonly [number, number];
}

/** A quantised matrix in a device's memory. */
export interface QuantizedView extends QuantizedMatrix {
  /** int32, contiguous, {@linkcode packedWords} long: records, then a float32 for each row. */
  readonly packed: View;
}

/** Groups of 32 columns. */
export function groupsOf(columns: number): number {
  return Math.ceil(columns / QUANTIZED_GROUP);
}

/** Words of a packed matrix. */
export function packedWords({ format, shape: [rows, columns] }: QuantizedMatrix): number {
  const blocks = Math.ceil(rows / 4);
  return blocks * (groupsOf(columns) * RECORD_WORDS[format] + 4);
}

/** Words of room a product of `rows` rows of `columns` needs for its quantised activations: three last ones take four. */
export function roomWords(rows: number, columns: number): number {
  return (rows + Number(rows % 4 === 3)) * groupsOf(columns) * ROOM_WORDS;
}
