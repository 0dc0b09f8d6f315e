/**
 * Tokenizers: text ↔ token ids, by `@huggingface/tokenizers`.
 *
 * @module
 */
import { Tokenizer as Engine } from "npm:@huggingface/tokenizers@0.2.0";
import { InvalidArgument, ModelFileError } from "../errors.ts";
import { MAX_TOKENIZER_BYTES, openFolder } from "../hub/files.ts";
import { hostData, Tensor } from "../tensor.ts";

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

/** A tokenizer is called with text; see {@linkcode AutoTokenizer}. */
export interface Tokenizer {
  /**
   * One text gives one row, a list of texts a batch.
   *
   * @throws {InvalidArgument}
   */
  (text: string | readonly string[], options?: EncodeOptions): Encoding;
  /** Token ids of one text. */
  encode(text: string, options?: { add_special_tokens?: boolean }): number[];
  /** Text of token ids. */
  decode(
    ids: Tensor | readonly number[] | readonly bigint[],
    options?: { skip_special_tokens?: boolean },
  ): string;
  /** Texts of rows of token ids. */
  batch_decode(
    ids: Tensor | readonly (readonly number[])[],
    options?: { skip_special_tokens?: boolean },
  ): string[];
  /** Id of the token a text begins with, where there is one. */
  readonly bos_token_id: number | null;
  /** Id of the token a text ends with, where there is one. */
  readonly eos_token_id: number | null;
  /** Id of the padding token, where there is one. */
  readonly pad_token_id: number | null;
  /** Longest input the model was made for. */
  readonly model_max_length: number;
}

/** Loads tokenizers. */
export const AutoTokenizer: {
  from_pretrained(folder: string | URL, options?: { signal?: AbortSignal }): Promise<Tokenizer>;
} = {
  /**
   * Reads `tokenizer.json` and `tokenizer_config.json` of a local model folder.
   *
   * @throws {ModelFileError} for missing or malformed files
   */
  async from_pretrained(folder: string | URL, options: { signal?: AbortSignal } = {}): Promise<Tokenizer> {
    const read = options.signal === undefined ? {} : { signal: options.signal };
    const files = await openFolder(folder, read);
    const json = record(
      await files.json("tokenizer.json", MAX_TOKENIZER_BYTES, read),
      `${files.describe()}/tokenizer.json`,
    );
    const has = await files.has("tokenizer_config.json", read);
    const config = has
      ? record(
        await files.json("tokenizer_config.json", MAX_TOKENIZER_BYTES, read),
        `${files.describe()}/tokenizer_config.json`,
      )
      : {};
    return tokenizerOf(json, config, files.describe());
  },
};

function record(value: unknown, name: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new ModelFileError(`Cannot read ${name}: expected a JSON object`);
  }
  return value as Record<string, unknown>;
}

/**
 * Builds a tokenizer from its two files.
 *
 * @throws {ModelFileError}
 */
export function tokenizerOf(
  json: Record<string, unknown>,
  config: Record<string, unknown>,
  name: string,
): Tokenizer {
  let engine: Engine;
  try {
    engine = new Engine(json, config);
    engine.encode("a");
  } catch (error) {
    throw new ModelFileError(
      `Cannot build the tokenizer of ${name}: ${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    );
  }
  const idOf = (field: string): number | null => {
    const token = config[field];
    const content = typeof token === "string"
      ? token
      : typeof token === "object" && token !== null && "content" in token
      ? String(token.content)
      : null;
    return content === null ? null : engine.token_to_id(content) ?? null;
  };
  const pad_token_id = idOf("pad_token");
  const limit = config["model_max_length"];
  const model_max_length = typeof limit === "number" && limit > 0 && limit < 1e15 ? limit : Infinity;
  const side = config["padding_side"] === "left" ? "left" : "right";
  const encode = (text: string, options: { add_special_tokens?: boolean } = {}): number[] => {
    if (typeof text !== "string") {
      throw new InvalidArgument(`Cannot tokenize ${typeof text}: expected a string`);
    }
    return [...engine.encode(text, { add_special_tokens: options.add_special_tokens ?? true }).ids];
  };
  const call = (text: string | readonly string[], options: EncodeOptions = {}): Encoding => {
    const rows = (typeof text === "string" ? [text] : text).map((t) => encode(t, options));
    if (options.truncation === true) {
      const most = options.max_length ?? model_max_length;
      for (const row of rows) row.length = Math.min(row.length, most);
    }
    return pack(rows, options, pad_token_id, options.padding_side ?? side);
  };
  const decode: Tokenizer["decode"] = (ids, options = {}) => {
    const list = Array.from(
      ids instanceof Tensor ? hostData(ids) as ArrayLike<number | bigint> : ids,
      Number,
    );
    const bad = list.find((id) => !Number.isInteger(id) || engine.id_to_token(id) === undefined);
    if (bad !== undefined) {
      throw new InvalidArgument(`Cannot decode token id ${bad}: the tokenizer has no such token`);
    }
    return list.length === 0
      ? ""
      : engine.decode(list, { skip_special_tokens: options.skip_special_tokens ?? false });
  };
  const batch_decode: Tokenizer["batch_decode"] = (ids, options = {}) => {
    if (!(ids instanceof Tensor)) return ids.map((row) => decode(row, options));
    const [batch, length] = ids.shape as [number, number];
    const host = Array.from(hostData(ids) as ArrayLike<number | bigint>, Number);
    return Array.from({ length: batch }, (_, b) => decode(host.slice(b * length, (b + 1) * length), options));
  };
  return Object.assign(call, {
    encode,
    decode,
    batch_decode,
    bos_token_id: idOf("bos_token"),
    eos_token_id: idOf("eos_token"),
    pad_token_id,
    model_max_length,
  });
}

/** Rows of ids as tensors of one length. */
function pack(
  rows: readonly number[][],
  options: EncodeOptions,
  pad: number | null,
  side: "left" | "right",
): Encoding {
  const longest = Math.max(0, ...rows.map((r) => r.length));
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
