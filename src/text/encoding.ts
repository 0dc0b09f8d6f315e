/**
 * Token ids of several texts as one tensor.
 *
 * @module
 */
import { isRecord, show } from "../config_fields.ts";
import { InvalidArgument } from "../errors.ts";
import { extraKwargs } from "../models/inputs.ts";
import { warnOnce } from "../notice.ts";
import { Tensor } from "../tensor.ts";

/** Options of encoding. */
export interface EncodeOptions {
  /**
   * Fill shorter rows with the padding token, which texts of different lengths need: true or `"longest"` as far as the
   * longest row, `"max_length"` as far as `max_length`. Default false, or `"do_not_pad"`.
   */
  padding?: boolean | "longest" | "max_length" | "do_not_pad";
  /** Where padding goes; default: the tokenizer's, else right. Generation needs left. */
  padding_side?: "left" | "right";
  /** Cut rows to `max_length`; default: only where that is given without padding, as in Transformers. */
  truncation?: boolean;
  /** Which end is cut off; default: the tokenizer's, else right. */
  truncation_side?: "left" | "right";
  /** Longest row with `truncation`, and the length of all with `padding: "max_length"`; default: the tokenizer's. */
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

const isBoolean = (v: unknown) => typeof v === "boolean";
const isSide = (v: unknown) => v === "left" || v === "right";
const PADDINGS: readonly unknown[] = ["longest", "max_length", "do_not_pad"];

/** What options of a tokenizer may be. */
const OPTIONS: Readonly<Record<string, readonly [fits: (v: unknown) => boolean, expected: string]>> = {
  padding: [
    (v) => isBoolean(v) || PADDINGS.includes(v),
    'true, false, "longest", "max_length" or "do_not_pad"',
  ],
  padding_side: [isSide, '"left" or "right"'],
  truncation: [isBoolean, "true or false"],
  truncation_side: [isSide, '"left" or "right"'],
  max_length: [(v) => Number.isSafeInteger(v) && (v as number) >= 1, "an integer ≥ 1"],
  add_special_tokens: [isBoolean, "true or false"],
  return_tensor: [(v) => v === true, "true: rows come as tensors"],
  skip_special_tokens: [isBoolean, "true or false"],
};

/** Options of encoding, by name. */
export const ENCODE_OPTIONS: readonly string[] = Object.keys(OPTIONS).filter((n) =>
  n !== "skip_special_tokens"
);

/**
 * Checks options of a tokenizer; `names` are those it takes.
 *
 * @throws {InvalidArgument} for an unknown one, or a value that does not fit
 */
export function checkTokenizerOptions(options: unknown, names: readonly string[]): void {
  if (!isRecord(options)) {
    throw new InvalidArgument(
      `Cannot take ${
        show(options)
      } as options of a tokenizer: expected an object; pairs of texts are not supported`,
    );
  }
  if (Object.hasOwn(options, "return_tensors")) {
    throw new InvalidArgument(
      "Cannot take the option return_tensors: rows always come as tensors of this library, return_tensor: true says so",
    );
  }
  const unknown = Object.keys(extraKwargs(options, names, ""))[0];
  if (unknown !== undefined) {
    throw new InvalidArgument(
      `Cannot take the option ${unknown} of a tokenizer: known are ${names.join(", ")}`,
    );
  }
  for (const [name, value] of Object.entries(options)) {
    const [fits, expected] = OPTIONS[name]!;
    if (value === undefined || fits(value)) continue;
    throw new InvalidArgument(`Cannot tokenize with ${name} ${show(value)}: expected ${expected}`);
  }
}

/** Whether rows are cut. */
export function cuts({ truncation, max_length, padding }: EncodeOptions): boolean {
  if (truncation !== undefined) return truncation;
  const pads = padding !== undefined && padding !== false && padding !== "do_not_pad";
  if (max_length === undefined || pads) return false;
  warnOnce(
    "tokenizer:max_length",
    `max_length ${max_length} cuts texts without truncation: true, which says so`,
  );
  return true;
}

/**
 * At most `most` ids of `row`, which is `text` with special tokens around it: these stay.
 *
 * @throws {InvalidArgument} where they alone are longer
 */
export function truncated(
  row: readonly number[],
  text: readonly number[],
  most: number,
  left: boolean,
): number[] {
  const special = row.length - text.length;
  if (special > most) {
    throw new InvalidArgument(
      `Cannot cut a text to max_length ${most}: the special tokens around it are ${special}`,
    );
  }
  const kept = left ? text.slice(text.length - (most - special)) : text.slice(0, most - special);
  let before = 0;
  while (before < special && !text.every((id, i) => row[before + i] === id)) before++;
  return [...row.slice(0, before), ...kept, ...row.slice(before + text.length)];
}

/**
 * Rows of ids as tensors of one length, `most` with `padding: "max_length"`.
 *
 * @throws {InvalidArgument} for rows of different lengths without padding, or longer ones than they are to be
 */
export function pack(
  rows: readonly number[][],
  options: EncodeOptions,
  pad: number | null,
  side: "left" | "right",
  most: number,
): Encoding {
  const { padding = false } = options;
  const longest = padding === "max_length" ? most : rows.reduce((n, row) => Math.max(n, row.length), 0);
  if (rows.length === 0) throw new InvalidArgument("Cannot tokenize an empty list of texts");
  const over = rows.find((row) => row.length > longest);
  if (over !== undefined || longest === Infinity) {
    throw new InvalidArgument(
      `Cannot pad to max_length ${longest}: ${
        over === undefined
          ? "the tokenizer names none, expected the option max_length"
          : `a text has ${over.length} tokens; pass { truncation: true }`
      }`,
    );
  }
  const ragged = rows.some((r) => r.length !== longest);
  if (ragged && (padding === false || padding === "do_not_pad")) {
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
