/**
 * Packed sequences: several documents in one row, told apart by positions that restart.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import { Tensor } from "../tensor.ts";
import { and_masks } from "./algebra.ts";
import { same_id_mask_function } from "./functions.ts";
import { type Matrix, readIds, rowStart } from "./input.ts";
import { describe } from "./structure.ts";
import type { MaskFunction, MatrixInput } from "./types.ts";

/**
 * Numbers the sequences packed into each row: (B, Q) positions → (B, Q) int64 ids that grow wherever a position
 * is not its predecessor's plus one, or null when every row is one sequence.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(await find_packed_sequence_indices([[0, 1, 0, 1, 2]])?.tolist(), [[0, 0, 1, 1, 1]]);
 * assertEquals(find_packed_sequence_indices([[5, 6, 7]]), null);
 * ```
 *
 * @throws {InvalidArgument} for another rank or positions that are not integers.
 */
export function find_packed_sequence_indices(position_ids: MatrixInput): Tensor | null {
  const ids = packedIds(readIds(position_ids, "position_ids"));
  if (ids === null) return null;
  return Tensor.ofHost(BigInt64Array.from(ids.data, BigInt), "int64", [ids.rows, ids.cols], "wasm");
}

/** {@linkcode find_packed_sequence_indices} over matrices. */
export function packedIds(positions: Matrix<Int32Array>): Matrix<Int32Array> | null {
  const { rows, cols, data } = positions;
  const ids = new Int32Array(data.length);
  let packed = false;
  for (let r = 0; r < rows; r++) {
    let id = 0;
    for (let i = r * cols + 1; i < (r + 1) * cols; i++) {
      if (data[i]! !== data[i - 1]! + 1) id++;
      ids[i] = id;
    }
    packed ||= id > 0;
  }
  return packed ? { rows, cols, data: ids } : null;
}

/**
 * The base pattern seen from inside each packed sequence: tokens of one sequence only, and `fn` gets the
 * positions of `position_ids`, which restart. Keys beyond the end of the ids are hidden.
 *
 * @throws {InvalidArgument} when the two matrices differ in shape.
 */
export function packed_compatible_mask_function(
  fn: MaskFunction,
  positions: Matrix<Int32Array>,
  ids: Matrix<Int32Array>,
): MaskFunction {
  if (positions.rows !== ids.rows || positions.cols !== ids.cols) {
    throw new InvalidArgument(
      `Cannot pack with positions [${positions.rows}, ${positions.cols}] and ids [${ids.rows}, ${ids.cols}]: expected equal shapes`,
    );
  }
  const packed = same_id_mask_function(ids, -Infinity);
  const local: MaskFunction = (b, h, q, kv) => {
    if (q < 0 || kv < 0 || q >= ids.cols || kv >= ids.cols) return false;
    const row = rowStart(positions, b, "position_ids");
    return fn(b, h, positions.data[row + q]!, positions.data[row + kv]!);
  };
  // Rows can be computed by ranges only where a position is an offset of the index within each sequence.
  if (!isConsecutive(positions, ids)) return and_masks(packed, local);
  return describe((b, h, q, kv) => packed(b, h, q, kv) && local(b, h, q, kv), {
    kind: "packed",
    of: fn,
    positions,
    ids,
  });
}

function isConsecutive(positions: Matrix<Int32Array>, ids: Matrix<Int32Array>): boolean {
  const { cols, data } = positions;
  for (let i = 0; i < data.length; i++) {
    if (i % cols === 0) continue;
    if (ids.data[i] === ids.data[i - 1] ? data[i] !== data[i - 1]! + 1 : ids.data[i]! < ids.data[i - 1]!) {
      return false;
    }
  }
  return true;
}

/** Sequences of flattened (B·Q) tokens, as variable-length kernels take them. */
export interface FlashSequences {
  /** Whether any row holds more than one sequence, or does not count up from its first position. */
  readonly isPacked: boolean;
  /** Starts of the sequences in the flattened tokens, then the total. */
  readonly cuSeqLens: Int32Array<ArrayBuffer>;
  /** Length of the longest sequence. */
  readonly maxLength: number;
}

/**
 * Finds sequences the way flash kernels do: one starts wherever a position equals the smallest of its row.
 * Rows are looked at one by one, so packing holds for any batch size.
 *
 * @throws {InvalidArgument} for another rank or positions that are not integers.
 */
export function flashSequences(position_ids: MatrixInput): FlashSequences {
  const { rows, cols, data } = readIds(position_ids, "position_ids");
  const starts: number[] = [];
  let isPacked = false;
  for (let r = 0; r < rows; r++) {
    const row = data.subarray(r * cols, (r + 1) * cols);
    const first = row.reduce((a, b) => Math.min(a, b), Infinity);
    row.forEach((p, i) => {
      // A row's first token always opens a sequence, or its tokens would belong to the row before it.
      if (i === 0 || p === first) starts.push(r * cols + i);
      if (p !== first + i) isPacked = true;
    });
  }
  const cuSeqLens = Int32Array.of(...starts, rows * cols);
  let maxLength = 0;
  for (let i = 1; i < cuSeqLens.length; i++) {
    maxLength = Math.max(maxLength, cuSeqLens[i]! - cuSeqLens[i - 1]!);
  }
  return { isPacked, cuSeqLens, maxLength };
}
