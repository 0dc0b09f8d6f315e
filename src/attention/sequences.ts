/**
 * Where tokens sit in their sequences, when a row of keys is not simply one sequence that ends at its last column.
 *
 * Flash attention measures causality and windows in positions of the unpadded sequences. For rows padded on the
 * left these are the columns themselves; for packed rows and other padding they are counted here and put into a
 * dense mask.
 *
 * @module
 */
import { flashSequences } from "../masks/packed.ts";
import { hostData, Tensor } from "../tensor.ts";

/** Sizes and limits of one flash call. */
export interface Extent {
  readonly batch: number;
  readonly queries: number;
  readonly keys: number;
  readonly causal: boolean;
  /** Keys visible to the left and right; −1 means unbounded. */
  readonly window: readonly [left: number, right: number];
}

/** The sequence a token belongs to, and its place in it. */
interface Place {
  readonly sequence: number;
  readonly rank: number;
}

/** Per row of the batch: the place of each key and query, or null for padding. */
interface Row {
  readonly keys: readonly (Place | null)[];
  readonly queries: readonly (Place | null)[];
}

/**
 * The mask (B, 1, Q, K) that counts positions inside sequences, or null where column numbers say the same.
 * `padding` (B, K) and `position_ids` (B or 1, Q) are read only if they have a host copy.
 */
export function sequenceMask(
  padding: Tensor | null,
  position_ids: unknown,
  extent: Extent,
  device: Tensor["device"],
): Tensor | null {
  const rows = padding !== null ? paddedRows(padding, extent) : packedRows(position_ids, extent);
  if (rows === null) return null;
  const { batch, queries, keys, causal, window: [left, right] } = extent;
  const sees = (q: Place | null, k: Place | null): boolean =>
    q !== null && k !== null && q.sequence === k.sequence && (!causal || k.rank <= q.rank) &&
    (left < 0 || k.rank >= q.rank - left) && (right < 0 || k.rank <= q.rank + right);
  const keep = new Uint8Array(batch * queries * keys);
  let at = 0;
  for (const row of rows) {
    for (const q of row.queries) for (const k of row.keys) keep[at++] = sees(q, k) ? 1 : 0;
  }
  return Tensor.ofHost(keep, "bool", [batch, 1, queries, keys], device);
}

/** Rows whose real keys are not the last columns in one piece, where a limit depends on counting them. */
function paddedRows(padding: Tensor, extent: Extent): Row[] | null {
  const { batch, queries, keys, causal, window } = extent;
  const windowed = window[0] >= 0 || window[1] >= 0;
  // Equal lengths keep causal order under any padding; a single query sees all real keys.
  const shifted = windowed || (causal && queries > 1 && queries !== keys);
  if (!shifted || padding.storage.host === null) return null;
  const real = hostData(padding);
  const rows: Row[] = [];
  let counts = false;
  for (let b = 0; b < batch; b++) {
    const marks = Array.from(real.subarray(b * keys, (b + 1) * keys), Number);
    let rank = 0;
    const places = marks.map((m) => m === 0 ? null : { sequence: 0, rank: rank++ });
    counts ||= marks.lastIndexOf(0) > marks.indexOf(1) && rank > 0;
    // One new token per sequence follows the last real key, wherever that is.
    const single = queries === 1 ? [rank === 0 ? null : { sequence: 0, rank: rank - 1 }] : null;
    rows.push({ keys: places, queries: single ?? places.slice(keys - queries) });
  }
  return counts ? rows : null;
}

/** Rows that hold several sequences, told by positions that start anew. */
function packedRows(position_ids: unknown, extent: Extent): Row[] | null {
  const { batch, queries, keys } = extent;
  if (
    !(position_ids instanceof Tensor) || position_ids.shape.length !== 2 || queries !== keys || queries < 2
  ) return null;
  if (position_ids.storage.host === null || position_ids.shape[1] !== queries) return null;
  const { isPacked, cuSeqLens } = flashSequences(position_ids);
  if (!isPacked) return null;
  const places: Place[] = [];
  cuSeqLens.forEach((end, sequence) => {
    for (let rank = 0; places.length < end; rank++) places.push({ sequence, rank });
  });
  const given = position_ids.shape[0]!;
  return Array.from({ length: batch }, (_, b): Row => {
    const row = places.slice((b % given) * queries, (b % given + 1) * queries);
    return { keys: row, queries: row };
  });
}
