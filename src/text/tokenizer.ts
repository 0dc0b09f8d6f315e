/**
 * Tokenizers: text ↔ token ids, by `@huggingface/tokenizers`.
 *
 * @module
 */
import { Tokenizer as Engine } from "npm:@huggingface/tokenizers@0.2.0";
import { InvalidArgument, ModelFileError } from "../errors.ts";
import { MAX_TOKENIZER_BYTES } from "../hub/files.ts";
import { KeptFiles } from "../hub/kept_files.ts";
import { HUB_OPTIONS, type HubOptions, openFiles } from "../hub/open.ts";
import { DownloadMeter } from "../hub/progress.ts";
import { writeFolder } from "../hub/write.ts";
import type { Tensor } from "../tensor.ts";
import {
  type ChatMessage,
  type ChatTemplate,
  type ChatTemplateOptions,
  ChatWriter,
  readChatTemplate,
} from "./chat_template.ts";
import {
  checkTokenizerOptions,
  cuts,
  ENCODE_OPTIONS,
  type EncodeOptions,
  type Encoding,
  pack,
  truncated,
} from "./encoding.ts";
import { jsonObject, specialTokens } from "./special_tokens.ts";
import { describeIds, tokenRows } from "./token_rows.ts";
import { checkTokenizerFile } from "./tokenizer_file.ts";

/** Options of `tokenizer.apply_chat_template`. */
export type ApplyChatTemplateOptions =
  & ChatTemplateOptions
  & Pick<EncodeOptions, "padding" | "padding_side" | "truncation" | "truncation_side" | "max_length">
  & {
    /** Return token ids, as the tokenizer does when called; default true. False gives the text. */
    tokenize?: boolean;
  };

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
  /**
   * Text of token ids, or of one.
   *
   * @throws {InvalidArgument} for what are no ids, and for rows of them: see `batch_decode`
   */
  decode(
    ids: Tensor | number | bigint | readonly number[] | readonly bigint[],
    options?: { skip_special_tokens?: boolean },
  ): string;
  /**
   * Texts of rows of token ids. Ids that are no rows are one row, as in Transformers.
   *
   * @throws {InvalidArgument} for what are no ids
   */
  batch_decode(
    ids: Tensor | number | bigint | readonly number[] | readonly bigint[] | readonly (readonly number[])[],
    options?: { skip_special_tokens?: boolean },
  ): string[];
  /**
   * Writes a conversation as the model was trained on it, and tokenizes it; the special tokens are the
   * template's. Several conversations give a batch.
   *
   * @throws {InvalidArgument} for messages or options that do not fit, also where the template refuses them
   * @throws {ModelFileError} for a template that fails, or costs more than its inputs warrant
   *
   * @example
   * ```ts ignore
   * const { input_ids } = tokenizer.apply_chat_template(
   *   [{ role: "user", content: "What is attention?" }],
   *   { add_generation_prompt: true },
   * );
   * ```
   */
  apply_chat_template(
    messages: readonly ChatMessage[],
    options: ApplyChatTemplateOptions & { tokenize: false },
  ): string;
  /** Several conversations as texts. */
  apply_chat_template(
    messages: readonly (readonly ChatMessage[])[],
    options: ApplyChatTemplateOptions & { tokenize: false },
  ): string[];
  /** One or several conversations as token ids. */
  apply_chat_template(
    messages: readonly ChatMessage[] | readonly (readonly ChatMessage[])[],
    options?: ApplyChatTemplateOptions & { tokenize?: true },
  ): Encoding;
  /**
   * Writes the tokenizer's files into a folder as they were read, its chat template included; the folder is made where it
   * is missing.
   *
   * @throws {ModelFileError} when they cannot be written, saying which permission is missing
   */
  save_pretrained(folder: string | URL): Promise<void>;
  /** The model's chat template, or its templates by name; null where it has none. */
  readonly chat_template: ChatTemplate | null;
  /** Id of the token a text begins with, where there is one. */
  readonly bos_token_id: number | null;
  /** Id of the token a text ends with, where there is one. */
  readonly eos_token_id: number | null;
  /** Id of the padding token, where there is one. */
  readonly pad_token_id: number | null;
  /** Longest input the model was made for. */
  readonly model_max_length: number;
}

/** Files a tokenizer is read from. */
const FILES = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "chat_template.json"];

/** Loads tokenizers. */
export const AutoTokenizer: {
  from_pretrained(idOrPathOrUrl: string | URL, options?: HubOptions): Promise<Tokenizer>;
} = {
  /**
   * Reads `tokenizer.json` and `tokenizer_config.json` of a local folder, of a folder behind a URL, or of a hub's
   * repository.
   *
   * @throws {ModelFileError} for missing or malformed files
   * @throws {InvalidArgument} for an unknown option
   */
  async from_pretrained(idOrPathOrUrl: string | URL, options: HubOptions = {}): Promise<Tokenizer> {
    const known: readonly string[] = HUB_OPTIONS;
    for (const key of Object.keys(options)) {
      if (known.includes(key)) continue;
      throw new InvalidArgument(`Cannot load a tokenizer with option ${key}: known are ${known.join(", ")}`);
    }
    const read = options.signal === undefined ? {} : { signal: options.signal };
    const meter = new DownloadMeter(options.progress_callback);
    const files = new KeptFiles(await openFiles(idOrPathOrUrl, { ...options, meter }));
    const json = jsonObject(
      await files.json("tokenizer.json", MAX_TOKENIZER_BYTES, read),
      `${files.describe()}/tokenizer.json`,
    );
    const has = await files.has("tokenizer_config.json", read);
    const config = has
      ? jsonObject(
        await files.json("tokenizer_config.json", MAX_TOKENIZER_BYTES, read),
        `${files.describe()}/tokenizer_config.json`,
      )
      : {};
    meter.done("tokenizer.json");
    const chat_template = await readChatTemplate(files, config, read);
    return tokenizerOf(json, config, files.describe(), chat_template, files.contents);
  },
};

/** Runs the engine on a model's files: what it throws, it throws because of them. */
function guarded<T>(what: string, fn: () => T): T {
  try {
    return fn();
  } catch (error) {
    const why = error instanceof Error ? error.message.slice(0, 300) : "unknown error";
    throw new ModelFileError(`Cannot ${what}: ${why}`, { cause: error });
  }
}

/**
 * Builds a tokenizer from its two files and its chat template; `contents` are the files as they were read.
 *
 * @throws {ModelFileError}
 */
export function tokenizerOf(
  json: Record<string, unknown>,
  config: Record<string, unknown>,
  name: string,
  chat_template: ChatTemplate | null = null,
  contents: ReadonlyMap<string, Uint8Array> = new Map(),
): Tokenizer {
  checkTokenizerFile(json, config, name);
  const engine = guarded(`build the tokenizer of ${name}`, () => {
    const built = new Engine(json, config);
    built.encode("a");
    return built;
  });
  const special = specialTokens(config);
  const idOf = (field: string): number | null => {
    const content = Object.hasOwn(special, field) ? special[field] : undefined;
    return content === undefined ? null : engine.token_to_id(content) ?? null;
  };
  const pad_token_id = idOf("pad_token");
  // As in the reference: off unless asked for, and never for BPE, whose spaces are part of the text.
  const model = json["model"];
  const bpe = typeof model === "object" && model !== null && "type" in model && model.type === "BPE";
  const clean_up_tokenization_spaces = config["clean_up_tokenization_spaces"] === true && !bpe;
  const limit = config["model_max_length"];
  const model_max_length = typeof limit === "number" && limit > 0 && limit < 1e15 ? limit : Infinity;
  const side = config["padding_side"] === "left" ? "left" : "right";
  const cut_side = config["truncation_side"] === "left" ? "left" : "right";
  const encode: Tokenizer["encode"] = (text, options = {}) => {
    checkTokenizerOptions(options, ["add_special_tokens"]);
    return encodeText(text, options.add_special_tokens ?? true);
  };
  const encodeText = (text: string, add_special_tokens: boolean): number[] => {
    if (typeof text !== "string") {
      throw new InvalidArgument(`Cannot tokenize ${typeof text}: expected a string`);
    }
    const ids: readonly (number | undefined)[] = guarded(
      `tokenize with ${name}`,
      () => engine.encode(text, { add_special_tokens }).ids,
    );
    return ids.map((id) => {
      if (id !== undefined) return id;
      throw new InvalidArgument(
        "Cannot tokenize this text: a part of it has no token, not even an unknown one",
      );
    });
  };
  const call = (text: string | readonly string[], options: EncodeOptions = {}): Encoding => {
    if (typeof text !== "string" && !Array.isArray(text)) {
      throw new InvalidArgument(`Cannot tokenize ${typeof text}: expected a string or a list of them`);
    }
    checkTokenizerOptions(options, ENCODE_OPTIONS);
    const { add_special_tokens = true, max_length: most = model_max_length } = options;
    const cut = cuts(options), left = (options.truncation_side ?? cut_side) === "left";
    const rows = (typeof text === "string" ? [text] : text as readonly string[]).map((one) => {
      const row = encodeText(one, add_special_tokens);
      if (!cut || row.length <= most) return row;
      return truncated(row, add_special_tokens ? encodeText(one, false) : row, most, left);
    });
    return pack(rows, options, pad_token_id, options.padding_side ?? side, most);
  };
  const decode: Tokenizer["decode"] = (ids, options = {}) => {
    checkTokenizerOptions(options, ["skip_special_tokens"]);
    const rows = tokenRows(ids);
    // A batch of one is no other text than its row: what `generate` gives for one prompt.
    if (rows === null || rows.rows.length > 1) {
      throw new InvalidArgument(
        `Cannot decode ${
          describeIds(ids)
        }: expected ids or one id; for several rows of them see batch_decode`,
      );
    }
    return decodeRow(rows.rows[0]!, options.skip_special_tokens ?? false);
  };
  const decodeRow = (list: readonly number[], skip_special_tokens: boolean): string => {
    const bad = list.find((id) => !Number.isInteger(id) || engine.id_to_token(id) === undefined);
    if (bad !== undefined) {
      throw new InvalidArgument(`Cannot decode token id ${bad}: the tokenizer has no such token`);
    }
    return list.length === 0 ? "" : guarded(
      `decode with ${name}`,
      () => engine.decode([...list], { skip_special_tokens, clean_up_tokenization_spaces }),
    );
  };
  const batch_decode: Tokenizer["batch_decode"] = (ids, options = {}) => {
    checkTokenizerOptions(options, ["skip_special_tokens"]);
    const found = tokenRows(ids);
    if (found === null) {
      throw new InvalidArgument(`Cannot decode ${describeIds(ids)}: expected rows of ids, (B, N) or lists`);
    }
    return found.rows.map((row) => decodeRow(row, options.skip_special_tokens ?? false));
  };
  const chat = new ChatWriter(chat_template, special);
  const apply_chat_template = (
    messages: readonly ChatMessage[] | readonly (readonly ChatMessage[])[],
    options: ApplyChatTemplateOptions = {},
  ) => {
    const { tokenize = true, padding, padding_side, truncation, truncation_side, max_length, ...rest } =
      options;
    const several = Array.isArray(messages) && Array.isArray(messages[0]);
    const texts = (several ? messages as readonly (readonly ChatMessage[])[] : [messages as ChatMessage[]])
      .map((one) => chat.write(one, rest));
    if (!tokenize) return several ? texts : texts[0]!;
    const given = Object.entries({ padding, padding_side, truncation, truncation_side, max_length });
    const chosen: EncodeOptions = Object.fromEntries(given.filter(([, value]) => value !== undefined));
    return call(texts, { ...chosen, add_special_tokens: false });
  };
  const save_pretrained = async (folder: string | URL): Promise<void> => {
    await writeFolder(
      folder,
      Object.fromEntries([...contents].map(([file, bytes]) => [file, [bytes]])),
      FILES,
    );
  };
  return Object.assign(call, {
    encode,
    decode,
    batch_decode,
    save_pretrained,
    // Which of the declared results it is follows from its arguments.
    apply_chat_template: apply_chat_template as Tokenizer["apply_chat_template"],
    chat_template,
    bos_token_id: idOf("bos_token"),
    eos_token_id: idOf("eos_token"),
    pad_token_id,
    model_max_length,
  });
}
