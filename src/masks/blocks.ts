/**
 * Which blocks of a mask are visible, partly visible or hidden, from its rows, and the elements of those that are
 * partly visible.
 *
 * A row without a user's predicate costs as many steps as it has blocks, not keys: visible keys are counted as a
 * range, less the padding in it, which running sums give. Only partly visible blocks keep their elements.
 *
 * @module
 */
import { eachRow, type Frame, isShared, paddingRow } from "./frame.ts";
import type { RowProgram } from "./rows.ts";

/** Kinds of blocks. */
export const HIDDEN = 0, PARTIAL = 1, FULL = 2;

/** Number of blocks of `size` that cover `length`. */
export function blocksOf(length: number, size: number): number {
  return Math.ceil(length / size);
}

/** A mask by blocks. */
export interface SortedBlocks {
  /** The kind of every block, (B, heads, ⌈Q / bq⌉, ⌈N / bk⌉). */
  readonly kinds: Uint8Array<ArrayBuffer>;
  /** (B, heads, ⌈Q / bq⌉, 2): the entries of a block of queries, from the first number up to the second. */
  readonly lists: Int32Array<ArrayBuffer>;
  /** (n, 2): a block of keys that is not hidden, ascending within a list, and which `bits` are its own; −1 where it is full. */
  readonly entries: Int32Array<ArrayBuffer>;
  /** (m, `rows`, `bytes`): bit j % 8 of byte j / 8 of a row is 1 where key j of the block is visible. */
  readonly bits: Uint8Array<ArrayBuffer>;
  /** Queries of a block, at most Q. */
  readonly rows: number;
  /** Bytes of a row of a block. */
  readonly bytes: number;
}

/**
 * Sorts the blocks of a mask. What lies beyond the last query or key is hidden, so a ragged block at an edge is never
 * full.
 */
export function sortBlocks(
  frame: Frame,
  program: RowProgram,
  heads: number,
  [bq, bk]: readonly [number, number],
): SortedBlocks {
  const { batch, queries, keys, keyOffset, padding } = frame;
  const columns = blocksOf(keys, bk);
  const bands = heads * blocksOf(queries, bq);
  const kinds = new Uint8Array(batch * bands * columns);
  const lists = new Int32Array(batch * bands * 2);
  const entries: number[] = [];
  const [rows, bytes] = [Math.min(bq, queries), Math.ceil(Math.min(bk, keys) / 8)];
  const kept: Uint8Array[] = [];
  const sums = paddingSums(frame);
  // Of a block of keys in the current band: rows that show anything, rows that show all, how many of the latter come
  // first. Those are not written until something else makes the block a partial one.
  const some = new Int32Array(columns), all = new Int32Array(columns), lead = new Int32Array(columns);
  const elements = new Uint8Array(columns * rows * bytes);
  const shared = isShared(frame, program);
  let row = 0, band = 0;
  eachRow(shared ? { ...frame, batch: 1 } : frame, program, heads, (_at, b, start, end, bits) => {
    const within = row % bq;
    for (let c = Math.floor(start / bk); c * bk < end; c++) {
      const from = Math.max(start, c * bk), to = Math.min(end, (c + 1) * bk);
      const visible = bits !== null
        ? ones(bits, from - start, to - start)
        : sums === null
        ? to - from
        : sums[b * (keys + 1) + to]! - sums[b * (keys + 1) + from]!;
      if (visible === 0) continue;
      some[c]!++;
      if (visible === bk) {
        all[c]!++;
        if (lead[c] === within) {
          lead[c]!++;
          continue;
        }
      }
      const at = (c * rows + within) * bytes;
      if (visible === to - from) setRange(elements, at, from - c * bk, to - c * bk);
      else {
        const shown = bits?.subarray(from - start) ?? paddingRow(padding!, b, keyOffset + from, to - from);
        for (let i = 0; i < to - from; i++) {
          const j = from - c * bk + i;
          if (shown[i] !== 0) elements[at + (j >> 3)]! |= 1 << (j & 7);
        }
      }
    }
    row = (row + 1) % queries;
    if (row % bq !== 0 && row !== 0) return;
    lists[2 * band] = entries.length / 2;
    for (let c = 0; c < columns; c++) {
      if (some[c] === 0) continue;
      const full = all[c] === bq;
      kinds[band * columns + c] = full ? FULL : PARTIAL;
      entries.push(c, full ? -1 : kept.length);
      const own = elements.subarray(c * rows * bytes, (c + 1) * rows * bytes);
      if (!full) {
        for (let r = 0; r < lead[c]!; r++) setRange(own, r * bytes, 0, bk);
        kept.push(own.slice());
      }
      own.fill(0);
    }
    lists[2 * band++ + 1] = entries.length / 2;
    for (const counts of [some, all, lead]) counts.fill(0);
  });
  if (shared) {
    for (let b = 1; b < batch; b++) {
      kinds.copyWithin(b * bands * columns, 0, bands * columns);
      lists.copyWithin(b * bands * 2, 0, bands * 2);
    }
  }
  const stored = new Uint8Array(kept.length * rows * bytes);
  kept.forEach((own, i) => stored.set(own, i * rows * bytes));
  return { kinds, lists, entries: Int32Array.from(entries), bits: stored, rows, bytes };
}

/** Sets bits `from..to` of the bytes that begin at `at`. */
function setRange(data: Uint8Array, at: number, from: number, to: number): void {
  let j = from;
  for (; j < to && (j & 7) !== 0; j++) data[at + (j >> 3)]! |= 1 << (j & 7);
  const whole = Math.max(j, to & ~7);
  data.fill(255, at + (j >> 3), at + (whole >> 3));
  for (j = whole; j < to; j++) data[at + (j >> 3)]! |= 1 << (j & 7);
}

/** Every element of a mask (B, H, Q, N) by blocks of `size`, a byte each. */
export function expandBlocks(
  { lists, entries, bits, rows, bytes }: SortedBlocks,
  [B, H, Q, N]: readonly [number, number, number, number],
  [bq, bk]: readonly [number, number],
): Uint8Array<ArrayBuffer> {
  const data = new Uint8Array(B * H * Q * N);
  const bands = blocksOf(Q, bq);
  for (let band = 0; band < B * H * bands; band++) {
    const first = band % bands * bq, plane = Math.floor(band / bands) * Q;
    for (let e = lists[2 * band]!; e < lists[2 * band + 1]!; e++) {
      const [c, own] = [entries[2 * e]!, entries[2 * e + 1]!];
      const width = Math.min(bk, N - c * bk);
      for (let r = 0; r < Math.min(bq, Q - first); r++) {
        const to = (plane + first + r) * N + c * bk, from = (own * rows + r) * bytes;
        if (own < 0) data.fill(1, to, to + width);
        else for (let j = 0; j < width; j++) data[to + j] = (bits[from + (j >> 3)]! >> (j & 7)) & 1;
      }
    }
  }
  return data;
}

/** Per batch row the number of real tokens before each key, (B, N + 1); null without padding. */
function paddingSums({ batch, keys, keyOffset, padding }: Frame): Int32Array | null {
  if (padding === null) return null;
  const sums = new Int32Array(batch * (keys + 1));
  for (let b = 0; b < batch; b++) {
    const at = b * (keys + 1);
    paddingRow(padding, b, keyOffset, keys).forEach((bit, i) => sums[at + i + 1] = sums[at + i]! + bit);
  }
  return sums;
}

function ones(bits: Uint8Array, from: number, to: number): number {
  let n = 0;
  for (let i = from; i < to; i++) n += bits[i]!;
  return n;
}

/** Lists of blocks of one kind: how many each row of blocks has, and all columns, those of this kind first. */
export interface BlockLists {
  /** (B, heads, ⌈Q / bq⌉). */
  readonly counts: Int32Array<ArrayBuffer>;
  /** (B, heads, ⌈Q / bq⌉, ⌈N / bk⌉): columns of the kind, ascending, then the others, ascending. */
  readonly indices: Int32Array<ArrayBuffer>;
}

/** The lists of blocks of `kind`, for rows of `columns` blocks. */
export function listBlocks(kinds: Uint8Array, columns: number, kind: number): BlockLists {
  const counts = new Int32Array(columns === 0 ? 0 : kinds.length / columns);
  const indices = new Int32Array(kinds.length);
  let at = 0;
  for (let r = 0; r < counts.length; r++) {
    const row = kinds.subarray(r * columns, (r + 1) * columns);
    row.forEach((k, c) => {
      if (k === kind) indices[at++] = c;
    });
    counts[r] = at - r * columns;
    row.forEach((k, c) => {
      if (k !== kind) indices[at++] = c;
    });
  }
  return { counts, indices };
}
