/**
 * The vocabulary in a GGUF file → `tokenizer.json` and `tokenizer_config.json`.
 *
 * Byte-level BPE (`gpt2`) brings its merges, and the name of the expression that cuts a text into words; that of
 * SentencePiece (`llama`) has scores, of which merges are made as Transformers makes them.
 *
 * @module
 */
import { ModelFileError } from "../errors.ts";
import type { ByteSource, ReadOptions } from "../hub/source.ts";
import { type Gguf, label, readList } from "./header.ts";
import { Metadata } from "./llama.ts";

type Json = Record<string, unknown>;

/** The files of a tokenizer. */
export interface TokenizerFiles {
  readonly "tokenizer.json": Json;
  readonly "tokenizer_config.json": Json;
}

/** Kinds of tokens. */
const [UNKNOWN, CONTROL, USER_DEFINED, BYTE] = [2, 3, 4, 6];

/** Most work for making merges of scores: characters of tokens, squared. */
const MAX_MERGE_WORK = 2 ** 28;

const byteLevel = (use_regex: boolean): Json => ({
  type: "ByteLevel",
  add_prefix_space: false,
  trim_offsets: true,
  use_regex,
});

/** Cuts a text by an expression that takes `digits` at a time. */
const split = (digits: string): Json => ({
  type: "Sequence",
  pretokenizers: [
    {
      type: "Split",
      pattern: {
        Regex:
          `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|` +
          `\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`,
      },
      behavior: "Isolated",
      invert: false,
    },
    byteLevel(false),
  ],
});

/** What `tokenizer.ggml.pre` names. */
interface Cut {
  readonly pre_tokenizer: Json;
  readonly normalizer?: Json;
  /** Whether a text begins with the token for it, unless the file says. */
  readonly bos?: true;
  /** Whether words of the vocabulary are taken without merging. */
  readonly ignore_merges?: true;
}

const CUTS: Readonly<Record<string, Cut>> = {
  "gpt-2": { pre_tokenizer: byteLevel(true) },
  "llama-bpe": { pre_tokenizer: split("\\p{N}{1,3}"), bos: true, ignore_merges: true },
  "qwen2": { pre_tokenizer: split("\\p{N}"), normalizer: { type: "NFC" } },
  "smollm": {
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [{ type: "Digits", individual_digits: true }, byteLevel(true)],
    },
  },
};

/** What both kinds are made of. */
interface Vocabulary {
  readonly tokens: readonly string[];
  readonly types: readonly number[];
  readonly metadata: Metadata;
  readonly ids: Json;
}

/**
 * Makes the two files.
 *
 * @throws {ModelFileError} for a vocabulary that is missing or malformed, or of a kind that cannot be taken over
 */
export async function tokenizerFiles(
  header: Gguf,
  source: ByteSource,
  options: ReadOptions,
): Promise<TokenizerFiles> {
  const metadata = new Metadata(header.metadata, source.name);
  const refuse = (why: string) =>
    new ModelFileError(
      `Cannot make a tokenizer of ${source.name}: ${why}; load one from the model it was made of, with ` +
        `AutoTokenizer.from_pretrained`,
    );
  const model = metadata.text("tokenizer.ggml.model");
  if (model !== "gpt2" && model !== "llama") {
    throw refuse(`expected tokenizer.ggml.model to be gpt2 or llama, found ${model ?? "nothing"}`);
  }
  const list = async <T>(name: string, kind: "texts" | "numbers", length: number | null) => {
    const found = await readList(header, source, `tokenizer.ggml.${name}`, kind, options);
    if (found !== null && length !== null && found.length !== length) {
      throw refuse(`expected ${length} tokenizer.ggml.${name}, one for each token, found ${found.length}`);
    }
    return found as T[] | null;
  };
  const tokens = await list<string>("tokens", "texts", null);
  if (tokens === null || tokens.length === 0) throw refuse("it has no tokenizer.ggml.tokens");
  const seen = new Set(tokens);
  if (seen.size !== tokens.length) {
    const again = tokens.find((token) => !seen.delete(token))!;
    throw refuse(`expected each of its tokens once, found ${label(again)} again`);
  }
  const types = await list<number>("token_type", "numbers", tokens.length) ?? [];
  // Others of these have been written out of bounds by readers that took what they name for a number.
  const odd = tokens.find((token, id) => types[id] === BYTE && !/^<0x[0-9A-Fa-f]{2}>$/.test(token));
  if (odd !== undefined) throw refuse(`expected tokens of bytes to be <0x00> to <0xFF>, found ${label(odd)}`);
  const ids = Object.fromEntries(tokens.map((token, id) => [token, id]));
  const vocabulary = { tokens, types, metadata, ids };
  const tokenOf = (name: string): string | null => {
    const id = metadata.id(name);
    if (id === null) return null;
    const token = tokens[id];
    if (token !== undefined) return token;
    throw metadata.refuse(`tokenizer.ggml.${name}_token_id`, `an id below ${tokens.length}`);
  };
  const special = {
    bos_token: tokenOf("bos"),
    eos_token: tokenOf("eos"),
    unk_token: tokenOf("unknown"),
    pad_token: tokenOf("padding"),
  };
  let parts: Json, bos: boolean;
  if (model === "gpt2") {
    const pre = metadata.text("tokenizer.ggml.pre") ?? "nothing";
    const cut = Object.hasOwn(CUTS, pre) ? CUTS[pre]! : null;
    if (cut === null) {
      throw refuse(`expected tokenizer.ggml.pre to be ${Object.keys(CUTS).join(", ")}, found ${pre}`);
    }
    const merges = await list<string>("merges", "texts", null);
    if (merges === null) throw refuse("it has no tokenizer.ggml.merges");
    parts = bytePairs(cut, merges, vocabulary);
    bos = cut.bos ?? false;
  } else {
    const scores = await list<number>("scores", "numbers", tokens.length);
    if (scores === null) throw refuse("it has no tokenizer.ggml.scores");
    const merges = mergesOf(tokens, scores);
    if (merges === null) throw refuse("its tokens are too long to make merges of");
    parts = sentencePiece(merges, special.unk_token, vocabulary);
    bos = true;
  }
  const begin = metadata.truth("tokenizer.ggml.add_bos_token", bos) ? special.bos_token : null;
  const end = metadata.truth("tokenizer.ggml.add_eos_token", false) ? special.eos_token : null;
  const present = Object.entries(special).filter(([, token]) => token !== null);
  const chat_template = metadata.text("tokenizer.chat_template");
  return {
    "tokenizer.json": {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: addedTokens(vocabulary),
      ...parts,
      post_processor: framed(begin, end, ids),
    },
    "tokenizer_config.json": {
      tokenizer_class: "PreTrainedTokenizerFast",
      ...Object.fromEntries(present),
      model_max_length: metadata.number("llama.context_length", 1e30),
      clean_up_tokenization_spaces: false,
      ...(chat_template === null ? {} : { chat_template }),
    },
  };
}

/** Tokens that a text is searched for before it is cut. */
function addedTokens({ tokens, types }: Vocabulary): Json[] {
  return tokens.flatMap((content, id) => {
    const type = types[id]!;
    if (content === "" || (type !== UNKNOWN && type !== CONTROL && type !== USER_DEFINED)) return [];
    const special = type !== USER_DEFINED;
    return [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special }];
  });
}

function bytePairs(cut: Cut, merges: readonly string[], { ids: vocab }: Vocabulary): Json {
  return {
    normalizer: cut.normalizer ?? null,
    pre_tokenizer: cut.pre_tokenizer,
    decoder: { ...byteLevel(true), add_prefix_space: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: cut.ignore_merges ?? false,
      vocab,
      merges,
    },
  };
}

function sentencePiece(
  merges: readonly (readonly [string, string])[],
  unk_token: string | null,
  { ids: vocab, metadata }: Vocabulary,
): Json {
  const prefix = metadata.truth("tokenizer.ggml.add_space_prefix", true);
  return {
    normalizer: {
      type: "Sequence",
      normalizers: [
        ...(prefix ? [{ type: "Prepend", prepend: "▁" }] : []),
        { type: "Replace", pattern: { String: " " }, content: "▁" },
      ],
    },
    pre_tokenizer: null,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        ...(prefix ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []),
      ],
    },
    model: {
      type: "BPE",
      dropout: null,
      unk_token,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: true,
      vocab,
      merges,
    },
  };
}

/** Every way to put a token together of two others, the best token first; null where that is too much work. */
function mergesOf(tokens: readonly string[], scores: readonly number[]): [string, string][] | null {
  if (tokens.reduce((work, { length }) => work + length ** 2, 0) > MAX_MERGE_WORK) return null;
  const score = new Map(tokens.map((token, id) => [token, scores[id]!]));
  const found = tokens.flatMap((token, id) => {
    const pairs: { pair: [string, string]; left: number; right: number; score: number }[] = [];
    for (let i = 1; i < token.length; i++) {
      const [a, b] = [token.slice(0, i), token.slice(i)];
      const left = score.get(a), right = score.get(b);
      if (left !== undefined && right !== undefined) {
        pairs.push({ pair: [a, b], left, right, score: scores[id]! });
      }
    }
    return pairs.sort((a, b) => b.left - a.left || b.right - a.right);
  });
  return found.sort((a, b) => b.score - a.score).map(({ pair }) => pair);
}

/** What is put before and behind a text. */
function framed(begin: string | null, end: string | null, ids: Json): Json {
  const token = (id: string | null, type_id: number) =>
    id === null ? [] : [{ SpecialToken: { id, type_id } }];
  const sequence = (id: string, type_id: number) => [
    ...token(begin, type_id),
    { Sequence: { id, type_id } },
    ...token(end, type_id),
  ];
  const used = [...new Set([begin, end])].filter((id) => id !== null);
  return {
    type: "TemplateProcessing",
    single: sequence("A", 0),
    pair: [...sequence("A", 0), ...sequence("B", 1)],
    special_tokens: Object.fromEntries(used.map((id) => [id, { id, ids: [ids[id]], tokens: [id] }])),
  };
}
