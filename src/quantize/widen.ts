/**
 * Quantised weights → floats, for the layers that read rows and not products.
 *
 * @module
 */
import type { QuantizedMatrix } from "../devices/quantized.ts";

/**
 * Weights of a file's values as floats: integers times their scales, in float32. `bytes` are values of {@linkcode
 * QuantizedMatrix} in the form of files (`stored.ts`), from weight `first` on; `scales` are those of the whole matrix.
 */
export function widened(
  { format, shape: [, columns] }: QuantizedMatrix,
  bytes: Uint8Array,
  first: number,
  scales: ArrayLike<number>,
): Float32Array<ArrayBuffer> {
  const halves = format === "int4" ? 2 : 1;
  const floats = new Float32Array(bytes.length * halves);
  const groups = format === "int8" ? 1 : Math.ceil(columns / 32);
  let row = Math.floor(first / columns), column = first % columns;
  for (let i = 0; i < floats.length; i++) {
    const scale = scales[row * groups + (groups === 1 ? 0 : column >> 5)]!;
    floats[i] = scale * (halves === 2 ? (bytes[i >> 1]! >> (i % 2 * 4) & 15) - 8 : bytes[i]! << 24 >> 24);
    if (++column === columns) {
      row++;
      column = 0;
    }
  }
  return floats;
}
