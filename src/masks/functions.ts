/**
 * Mask predicates: `(batch, head, q, kv) → boolean` over absolute positions.
 *
 * In the grids ■ is visible and ⬚ hidden, one row per query; a test draws them again.
 * Method: Transformers' `masking_utils`, PyTorch's flex attention `mask_mod`.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import type { Tensor } from "../tensor.ts";
import { and_masks, checkSize } from "./algebra.ts";
import { type Matrix, readIds, readMask, readVector, rowStart } from "./input.ts";
import { describe } from "./structure.ts";
import type { MaskFunction, MatrixInput } from "./types.ts";

/**
 * A token sees itself and everything before it.
 *
 * ```text
 *      kv 0…5
 * q 0  ■ ⬚ ⬚ ⬚ ⬚ ⬚
 * q 1  ■ ■ ⬚ ⬚ ⬚ ⬚
 * q 2  ■ ■ ■ ⬚ ⬚ ⬚
 * q 3  ■ ■ ■ ■ ⬚ ⬚
 * q 4  ■ ■ ■ ■ ■ ⬚
 * q 5  ■ ■ ■ ■ ■ ■
 * ```
 */
export const causal_mask_function: MaskFunction = describe((_b, _h, q, kv) => kv <= q, {
  kind: "interval",
  lo: () => -Infinity,
  hi: (_b, q) => q + 1,
  perBatch: false,
});

/**
 * Every token sees every token.
 *
 * ```text
 *      kv 0…3
 * q 0  ■ ■ ■ ■
 * q 1  ■ ■ ■ ■
 * q 2  ■ ■ ■ ■
 * q 3  ■ ■ ■ ■
 * ```
 */
export const bidirectional_mask_function: MaskFunction = describe(() => true, {
  kind: "interval",
  lo: () => -Infinity,
  hi: () => Infinity,
  perBatch: false,
});

/**
 * A token sees nothing older than the `window - 1` tokens before it; alone, this leaves the future open.
 *
 * `sliding_window_overlay(3)`:
 *
 * ```text
 *      kv 0…5
 * q 0  ■ ■ ■ ■ ■ ■
 * q 1  ■ ■ ■ ■ ■ ■
 * q 2  ■ ■ ■ ■ ■ ■
 * q 3  ⬚ ■ ■ ■ ■ ■
 * q 4  ⬚ ⬚ ■ ■ ■ ■
 * q 5  ⬚ ⬚ ⬚ ■ ■ ■
 * ```
 *
 * @throws {InvalidArgument} unless `window` is an integer ≥ 1.
 */
export function sliding_window_overlay(window: number): MaskFunction {
  checkSize(window, "a sliding window");
  return describe((_b, _h, q, kv) => kv > q - window, {
    kind: "interval",
    lo: (_b, q) => q - window + 1,
    hi: () => Infinity,
    perBatch: false,
  });
}

/**
 * Both tokens lie in the same chunk of `chunk_size` tokens, counted from the end of the row's left padding.
 * `left_padding` is one number per batch row, or one for all.
 *
 * `chunked_overlay(3, 1)`:
 *
 * ```text
 *      kv 0…6
 * q 0  ■ ⬚ ⬚ ⬚ ⬚ ⬚ ⬚
 * q 1  ⬚ ■ ■ ■ ⬚ ⬚ ⬚
 * q 2  ⬚ ■ ■ ■ ⬚ ⬚ ⬚
 * q 3  ⬚ ■ ■ ■ ⬚ ⬚ ⬚
 * q 4  ⬚ ⬚ ⬚ ⬚ ■ ■ ■
 * q 5  ⬚ ⬚ ⬚ ⬚ ■ ■ ■
 * q 6  ⬚ ⬚ ⬚ ⬚ ■ ■ ■
 * ```
 *
 * @throws {InvalidArgument} unless `chunk_size` is an integer ≥ 1 and the paddings are integers.
 */
export function chunked_overlay(
  chunk_size: number,
  left_padding: number | readonly number[] | Tensor = 0,
): MaskFunction {
  checkSize(chunk_size, "a chunk size");
  const padding = readVector(left_padding, "left_padding");
  const of = (b: number): number => {
    const p = padding.length === 1 ? padding[0] : padding[b];
    if (p === undefined) {
      throw new InvalidArgument(
        `Cannot read left_padding of batch row ${b}: there are only ${padding.length} rows`,
      );
    }
    return p;
  };
  const chunk = (b: number, i: number): number => Math.floor((i - of(b)) / chunk_size);
  return describe((b, _h, q, kv) => chunk(b, kv) === chunk(b, q), {
    kind: "interval",
    lo: (b, q) => chunk(b, q) * chunk_size + of(b),
    hi: (b, q) => (chunk(b, q) + 1) * chunk_size + of(b),
    perBatch: padding.length > 1,
  });
}

/**
 * Tokens at most `window` apart see each other: a band 2·window + 1 wide.
 *
 * `bidirectional_window_overlay(1)`:
 *
 * ```text
 *      kv 0…5
 * q 0  ■ ■ ⬚ ⬚ ⬚ ⬚
 * q 1  ■ ■ ■ ⬚ ⬚ ⬚
 * q 2  ⬚ ■ ■ ■ ⬚ ⬚
 * q 3  ⬚ ⬚ ■ ■ ■ ⬚
 * q 4  ⬚ ⬚ ⬚ ■ ■ ■
 * q 5  ⬚ ⬚ ⬚ ⬚ ■ ■
 * ```
 *
 * @throws {InvalidArgument} unless `window` is an integer ≥ 1.
 */
export function bidirectional_window_overlay(window: number): MaskFunction {
  checkSize(window, "a bidirectional window");
  return describe((_b, _h, q, kv) => Math.abs(q - kv) <= window, {
    kind: "interval",
    lo: (_b, q) => q - window,
    hi: (_b, q) => q + window + 1,
    perBatch: false,
  });
}

/**
 * A token sees itself and the `window - 1` tokens before it.
 *
 * `sliding_window_causal_mask_function(3)`:
 *
 * ```text
 *      kv 0…5
 * q 0  ■ ⬚ ⬚ ⬚ ⬚ ⬚
 * q 1  ■ ■ ⬚ ⬚ ⬚ ⬚
 * q 2  ■ ■ ■ ⬚ ⬚ ⬚
 * q 3  ⬚ ■ ■ ■ ⬚ ⬚
 * q 4  ⬚ ⬚ ■ ■ ■ ⬚
 * q 5  ⬚ ⬚ ⬚ ■ ■ ■
 * ```
 *
 * @throws {InvalidArgument} unless `window` is an integer ≥ 1.
 */
export function sliding_window_causal_mask_function(window: number): MaskFunction {
  return and_masks(sliding_window_overlay(window), causal_mask_function);
}

/**
 * The full-mask form of {@linkcode bidirectional_window_overlay}.
 *
 * `sliding_window_bidirectional_mask_function(2)`:
 *
 * ```text
 *      kv 0…5
 * q 0  ■ ■ ■ ⬚ ⬚ ⬚
 * q 1  ■ ■ ■ ■ ⬚ ⬚
 * q 2  ■ ■ ■ ■ ■ ⬚
 * q 3  ⬚ ■ ■ ■ ■ ■
 * q 4  ⬚ ⬚ ■ ■ ■ ■
 * q 5  ⬚ ⬚ ⬚ ■ ■ ■
 * ```
 *
 * @throws {InvalidArgument} unless `window` is an integer ≥ 1.
 */
export function sliding_window_bidirectional_mask_function(window: number): MaskFunction {
  return and_masks(bidirectional_window_overlay(window), bidirectional_mask_function);
}

/**
 * A token sees itself and what came before it in its chunk.
 *
 * `chunked_causal_mask_function(3, 1)`:
 *
 * ```text
 *      kv 0…6
 * q 0  ■ ⬚ ⬚ ⬚ ⬚ ⬚ ⬚
 * q 1  ⬚ ■ ⬚ ⬚ ⬚ ⬚ ⬚
 * q 2  ⬚ ■ ■ ⬚ ⬚ ⬚ ⬚
 * q 3  ⬚ ■ ■ ■ ⬚ ⬚ ⬚
 * q 4  ⬚ ⬚ ⬚ ⬚ ■ ⬚ ⬚
 * q 5  ⬚ ⬚ ⬚ ⬚ ■ ■ ⬚
 * q 6  ⬚ ⬚ ⬚ ⬚ ■ ■ ■
 * ```
 *
 * @throws {InvalidArgument} unless `chunk_size` is an integer ≥ 1 and the paddings are integers.
 */
export function chunked_causal_mask_function(
  chunk_size: number,
  left_padding: number | readonly number[] | Tensor = 0,
): MaskFunction {
  return and_masks(chunked_overlay(chunk_size, left_padding), causal_mask_function);
}

/**
 * Tokens of the same packed sequence see each other; `ids` (B, length), or (1, length) for every batch row.
 *
 * `packed_sequence_mask_function([[0, 0, 1, 1, 1, 2]])`:
 *
 * ```text
 *      kv 0…5
 * q 0  ■ ■ ⬚ ⬚ ⬚ ⬚
 * q 1  ■ ■ ⬚ ⬚ ⬚ ⬚
 * q 2  ⬚ ⬚ ■ ■ ■ ⬚
 * q 3  ⬚ ⬚ ■ ■ ■ ⬚
 * q 4  ⬚ ⬚ ■ ■ ■ ⬚
 * q 5  ⬚ ⬚ ⬚ ⬚ ⬚ ■
 * ```
 *
 * @throws {InvalidArgument} for another rank or values that are not integers.
 */
export function packed_sequence_mask_function(ids: MatrixInput): MaskFunction {
  return same_id_mask_function(readIds(ids, "packed sequence ids"), -Infinity);
}

/**
 * Tokens of the same block see each other in both directions; id −1 belongs to no block. Beyond the end of
 * `ids` (B, length) nothing is visible.
 *
 * `blockwise_overlay([[-1, 0, 0, -1, 1, 1]])`:
 *
 * ```text
 *      kv 0…5
 * q 0  ⬚ ⬚ ⬚ ⬚ ⬚ ⬚
 * q 1  ⬚ ■ ■ ⬚ ⬚ ⬚
 * q 2  ⬚ ■ ■ ⬚ ⬚ ⬚
 * q 3  ⬚ ⬚ ⬚ ⬚ ⬚ ⬚
 * q 4  ⬚ ⬚ ⬚ ⬚ ■ ■
 * q 5  ⬚ ⬚ ⬚ ⬚ ■ ■
 * ```
 *
 * @throws {InvalidArgument} for another rank or values that are not integers.
 */
export function blockwise_overlay(ids: MatrixInput): MaskFunction {
  return same_id_mask_function(readIds(ids, "block sequence ids"), 0);
}

/**
 * Real tokens (1 in `mask`, (B, length)) are visible, padding is not, nor is anything beyond the end.
 *
 * `padding_mask_function([[0, 1, 1, 1]])`:
 *
 * ```text
 *      kv 0…3
 * q 0  ⬚ ■ ■ ■
 * q 1  ⬚ ■ ■ ■
 * q 2  ⬚ ■ ■ ■
 * q 3  ⬚ ■ ■ ■
 * ```
 *
 * @throws {InvalidArgument} for another rank or values other than 0 and 1.
 */
export function padding_mask_function(mask: MatrixInput): MaskFunction {
  const m = readMask(mask, "the padding mask");
  return describe(
    (b, _h, _q, kv) => kv >= 0 && kv < m.cols && m.data[rowStart(m, b, "the padding mask") + kv] === 1,
    {
      kind: "keys",
      mask: m,
    },
  );
}

/** Query and key carry the same id, which is at least `min`; beyond the ends of `ids` (B, length) nothing is visible. */
export function same_id_mask_function(ids: Matrix<Int32Array>, min: number): MaskFunction {
  const { cols, data } = ids;
  const same: MaskFunction = (b, _h, q, kv) => {
    if (q < 0 || q >= cols || kv < 0 || kv >= cols) return false;
    const row = rowStart(ids, b, "sequence ids");
    const id = data[row + q]!;
    return id >= min && id === data[row + kv];
  };
  return describe(same, { kind: "same", ids, min });
}
