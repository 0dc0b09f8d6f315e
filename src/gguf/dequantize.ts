/**
 * Blocks of few bits that have no like here → float32, as `ggml-quants.c` reads them (ggml-org/ggml).
 *
 * Files called Q4_0 keep the embedding, which is also the head, in Q6_K, and some matrices in Q4_1.
 *
 * @module
 */

/** How one type is read. */
export interface Dequantized {
  /** Values of a block. */
  readonly block: number;
  /** Bytes of a block. */
  readonly bytes: number;
  /** Reads the block at `at` into `out` from `to` on. */
  read(view: DataView, at: number, out: Float32Array, to: number): void;
}

const { fround } = Math;

/** Four bits, a scale and the least value. */
const Q4_1: Dequantized = {
  block: 32,
  bytes: 20,
  read(view, at, out, to) {
    const d = view.getFloat16(at, true), m = view.getFloat16(at + 2, true);
    for (let i = 0; i < 16; i++) {
      const q = view.getUint8(at + 4 + i);
      out[to + i] = fround(d * (q & 15)) + m;
      out[to + i + 16] = fround(d * (q >> 4)) + m;
    }
  },
};

/** Six bits, 8-bit scales of 16 neighbours, and one scale of those for 256. */
const Q6_K: Dequantized = {
  block: 256,
  bytes: 210,
  read(view, at, out, to) {
    const d = view.getFloat16(at + 208, true);
    for (let half = 0; half < 2; half++) {
      const low = at + half * 64, high = at + 128 + half * 32, scales = at + 192 + half * 8;
      for (let i = 0; i < 32; i++) {
        const upper = view.getUint8(high + i);
        for (let part = 0; part < 4; part++) {
          const four = view.getUint8(low + i + (part & 1) * 32) >> (part >> 1) * 4 & 15;
          const q = (four | (upper >> part * 2 & 3) << 4) - 32;
          const scale = fround(d * view.getInt8(scales + part * 2 + (i >> 4)));
          out[to + half * 128 + part * 32 + i] = scale * q;
        }
      }
    }
  },
};

/** Types that become floats, by name. */
export const DEQUANTIZED: Readonly<Record<string, Dequantized>> = { Q4_1, Q6_K };

/** Reads whole blocks. */
export function dequantize(
  { block, bytes, read }: Dequantized,
  blocks: Uint8Array,
): Float32Array<ArrayBuffer> {
  const view = new DataView(blocks.buffer, blocks.byteOffset, blocks.byteLength);
  const n = blocks.length / bytes;
  const out = new Float32Array(n * block);
  for (let b = 0; b < n; b++) read(view, b * bytes, out, b * block);
  return out;
}
