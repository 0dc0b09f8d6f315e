/**
 * Token ids of several texts as one tensor.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import { Tensor } from "../tensor.ts";

/** Options of encoding. */
export interface EncodeOptions {
  /** Fill shorter rows with the padding token; needed for texts of different lengths. */
  padding?: boolean;
  /** Where padding goes; default: the tokenizer's, else right. Generation needs left. */
  padding_side?: "left" | "right";
  /** Cut rows to `max_length`. */
  truncation?: boolean;
  /** Longest row with `truncation`; default: the tokenizer's. */
  max_length?: number;
  /** Add the special tokens the tokenizer's template puts around a text; default true. */
  add_special_tokens?: boolean;
  /** Must be true: rows come as tensors. */
  return_tensor?: true;
}

/** Token ids (B, N) int64 and their mask, 1 for real tokens. */
export interface Encoding {
  /** (B, N) token ids. */
  input_ids: Tensor;
  /** (B, N), 1 for real tokens. */
  attention_mask: Tensor;
}

/**
 * Rows of ids as tensors of one length.
 *
 * @throws {InvalidArgument} for rows of different lengths without padding
 */
export function pack(
  rows: readonly number[][],
  options: EncodeOptions,
  pad: number | null,
  side: "left" | "right",
): Encoding {
  const longest = rows.reduce((most, row) => Math.max(most, row.length), 0);
  if (rows.length === 0) throw new InvalidArgument("Cannot tokenize an empty list of texts");
  const ragged = rows.some((r) => r.length !== longest);
  if (ragged && options.padding !== true) {
    throw new InvalidArgument(
      `Cannot put texts of ${
        [...new Set(rows.map((r) => r.length))].join(", ")
      } tokens into one tensor: pass { padding: true }`,
    );
  }
  if (ragged && pad === null) throw new InvalidArgument("Cannot pad: the tokenizer has no padding token");
  const fill = (row: readonly number[], body: readonly number[], value: number) => {
    const gap = new Array<number>(longest - row.length).fill(value);
    return side === "left" ? [...gap, ...body] : [...body, ...gap];
  };
  const shape = [rows.length, longest];
  return {
    input_ids: Tensor.from(rows.flatMap((row) => fill(row, row, pad ?? 0)), { dtype: "int64", shape }),
    attention_mask: Tensor.from(rows.flatMap((row) => fill(row, row.map(() => 1), 0)), {
      dtype: "int64",
      shape,
    }),
  };
}
