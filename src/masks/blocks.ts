/**
 * Which blocks of a mask are visible, partly visible or hidden, from its rows.
 *
 * A row without a user's predicate costs as many steps as it has blocks, not keys: visible keys are counted as a
 * range, less the padding in it, which running sums give.
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

/**
 * The kind of every block, (B, heads, ⌈Q / bq⌉, ⌈N / bk⌉) row-major. What lies beyond the last query or key is
 * hidden, so a ragged block at an edge is never full.
 */
export function blockKinds(
  frame: Frame,
  program: RowProgram,
  heads: number,
  [bq, bk]: readonly [number, number],
): Uint8Array<ArrayBuffer> {
  const { batch, queries, keys } = frame;
  const columns = blocksOf(keys, bk);
  const size = heads * blocksOf(queries, bq) * columns;
  const kinds = new Uint8Array(batch * size);
  const sums = paddingSums(frame);
  // Rows of the current block that show anything, and all, of a block of keys.
  const some = new Int32Array(columns), all = new Int32Array(columns);
  const shared = isShared(frame, program);
  let row = 0, at = 0;
  eachRow(shared ? { ...frame, batch: 1 } : frame, program, heads, (_at, b, start, end, bits) => {
    for (let c = Math.floor(start / bk); c * bk < end; c++) {
      const from = Math.max(start, c * bk), to = Math.min(end, (c + 1) * bk);
      const visible = bits !== null
        ? ones(bits, from - start, to - start)
        : sums === null
        ? to - from
        : sums[b * (keys + 1) + to]! - sums[b * (keys + 1) + from]!;
      if (visible > 0) some[c]!++;
      if (visible === bk) all[c]!++;
    }
    row = (row + 1) % queries;
    if (row % bq !== 0 && row !== 0) return;
    for (let c = 0; c < columns; c++) kinds[at++] = all[c] === bq ? FULL : some[c]! > 0 ? PARTIAL : HIDDEN;
    some.fill(0);
    all.fill(0);
  });
  if (shared) { for (let b = 1; b < batch; b++) kinds.copyWithin(b * size, 0, size); }
  return kinds;
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
