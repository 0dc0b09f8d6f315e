/**
 * Tokenizer files nobody should load: refused before the engine sees them, or harmless.
 *
 * @module
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { AttuneError, AutoTokenizer, InvalidArgument, ModelFileError } from "../../mod.ts";
import { slowness } from "../../src/text/tokenizer_file.ts";
import { tokenizerOf } from "../../src/text/tokenizer.ts";
import { DEMO } from "../models/support.ts";
import { assertRefused, measured, SMALL_BYTES, SOON_MS } from "./refusal.ts";

const GOOD = {
  added_tokens: [{ id: 0, content: "<s>", special: true }],
  normalizer: null as unknown,
  pre_tokenizer: null as unknown,
  post_processor: null as unknown,
  decoder: null as unknown,
  model: { type: "BPE", vocab: { "<s>": 0, a: 1, b: 2, ab: 3 }, merges: ["a b"] } as Record<string, unknown>,
};

const model = (fields: Record<string, unknown>) => ({ model: { ...GOOD.model, ...fields } });
const split = (Regex: unknown) => ({
  pre_tokenizer: { type: "Split", pattern: { Regex }, behavior: "Isolated" },
});
const growing = (n: number, content = "aa") => ({
  normalizer: {
    type: "Sequence",
    normalizers: Array(n).fill({ type: "Replace", pattern: { String: "a" }, content }),
  },
});

let deep: Record<string, unknown> = { type: "Sequence", normalizers: [] };
for (let i = 0; i < 1000; i++) deep = { type: "Sequence", normalizers: [deep] };

/** Fields to change, and words of the error. */
const REFUSED: readonly (readonly [name: string, fields: Record<string, unknown>, ...words: string[]])[] = [
  ["no model", { model: undefined }, "model"],
  ["a model that is a list", { model: [] }, "model", "a list"],
  ["a model of an unknown type", model({ type: "Magic", vocab: {} })],
  ["no vocabulary", model({ vocab: undefined }), "model.vocab"],
  ["a vocabulary of numbers", model({ vocab: 7 }), "model.vocab"],
  ["an id that is a string", model({ vocab: { a: "1" } }), `id of "a"`],
  ["a negative id", model({ vocab: { a: -1 } }), "-1"],
  ["a huge id", model({ vocab: { a: 1e9 } }), "1000000000"],
  ["a fractional id", model({ vocab: { a: 0.5 } }), "0.5"],
  ["an id twice", model({ vocab: { a: 1, b: 1 } }), "1 again"],
  ["a token of a megabyte", model({ vocab: { ["a".repeat(2 ** 20)]: 1 } }), "4096"],
  ["an empty Unigram", model({ type: "Unigram", vocab: [] }), "model.vocab"],
  ["a Unigram of strings", model({ type: "Unigram", vocab: ["a"] }), "model.vocab[0]"],
  ["a Unigram without scores", model({ type: "Unigram", vocab: [["a"]] }), "model.vocab[0]"],
  ["an unknown token that is none", model({ type: "Unigram", vocab: [["a", 0]], unk_id: 9 }), "unk_id"],
  ["merges that are text", model({ merges: "a b" }), "model.merges"],
  ["merges of numbers", model({ merges: [1] }), "model.merges[0]"],
  ["merges of three", model({ merges: [["a", "b", "c"]] }), "model.merges[0]"],
  ["added tokens that are none", { added_tokens: {} }, "added_tokens"],
  ["an added token of null", { added_tokens: [null] }, "added_tokens[0]"],
  ["an added token without text", { added_tokens: [{ id: 1, content: "" }] }, "added_tokens[0]"],
  ["an added token with a huge id", { added_tokens: [{ id: 4e9, content: "x" }] }, "added_tokens[0]"],
  ["a pipeline that is text", { decoder: "ByteLevel" }, "decoder"],
  ["a missing pipeline", { normalizer: undefined }, "normalizer"],
  ["an unknown normalizer", { normalizer: { type: "Nonsense" } }],
  ["an unknown decoder", { decoder: { type: "Nonsense" } }],
  ["nested too deeply", { normalizer: deep }, "nested"],
  ["a thousand steps", growing(1000, "a"), "64 steps"],
  ["steps that double the text", growing(40), "256 times longer"],
  ["a long replacement", {
    normalizer: { type: "Replace", pattern: { String: "a" }, content: "a".repeat(5000) },
  }, "4096"],
  ["a large strip", { decoder: { type: "Strip", content: " ", start: 1e12, stop: 0 } }, "start"],
  ["a pattern that is a number", split(7), "pattern"],
  [
    "a pattern of neither kind",
    { pre_tokenizer: { type: "Split", pattern: {}, behavior: "Isolated" } },
    "pattern",
  ],
  ["no pattern to split by", { pre_tokenizer: { type: "Split", behavior: "Isolated" } }, "pattern"],
  ["a pattern that is none", split("(")],
  ["a long pattern", split("a".repeat(20_000)), "16384"],
  ...["(a+)+$", "(a*)*b", "(a|aa)+$", "([a-z]+)*!", "(?:a?){50}b", "(a?a?)*b", "(?:x+x+)+y", "(a{1,3})+b"]
    .map((
      regex,
    ) => [`the slow pattern ${regex}`, split(regex), "bounded time"] as const),
  ["many repetitions in a row", split("a*".repeat(12) + "b"), "in a row"],
];

for (const [name, fields, ...words] of REFUSED) {
  Deno.test(`a tokenizer with ${name} is refused`, async () => {
    const json = { ...GOOD, ...fields };
    const error = await assertRefused(() => tokenizerOf(json, {}, "m"), words);
    assert(error instanceof ModelFileError, error.name);
    assertEquals(tokenizerOf(GOOD, {}, "m").encode("ab"), [3]);
  });
}

/** Oddities of real files that must not be errors. */
const HARMLESS:
  readonly (readonly [name: string, json: Record<string, unknown>, config: Record<string, unknown>])[] = [
    ["no limit of length", {}, { model_max_length: 1e30 }],
    ["a limit that is text", {}, { model_max_length: "many" }],
    ["tokens of the configuration that are none", {}, {
      bos_token: 7,
      eos_token: { content: null },
      pad_token: [],
    }],
    ["an added token twice", { added_tokens: [GOOD.added_tokens[0], GOOD.added_tokens[0]] }, {}],
    [
      "a byte token that is none",
      model({ vocab: { "<s>": 0, a: 1, b: 2, ab: 3, "<0x-1>": 4, "<0xZZ>": 5 } }),
      {},
    ],
    ["extra special tokens that are a list", {}, { extra_special_tokens: ["<x>"] }],
    [
      "keys of JavaScript's own",
      { ...JSON.parse(`{"__proto__": {"model": 1}}`) },
      JSON.parse(`{"__proto__": {"x": 1}}`),
    ],
  ];

for (const [name, json, config] of HARMLESS) {
  Deno.test(`a tokenizer with ${name} is none the worse`, () => {
    const tokenizer = tokenizerOf({ ...GOOD, ...json }, config, "m");
    assertEquals(tokenizer.encode("ab"), [3]);
    assertEquals(tokenizer.model_max_length, Infinity);
    assertEquals(tokenizer.decode([0, 3]).replaceAll(" ", ""), "<s>ab");
  });
}

Deno.test("a byte token out of range decodes to what it says, in bounds", () => {
  const tokenizer = tokenizerOf(
    {
      ...GOOD,
      ...model({ vocab: { "<s>": 0, "<0x-1>": 1, "<0xZZ>": 2, "<0x41>": 3, "<0x1000>": 4 } }),
      decoder: { type: "Sequence", decoders: [{ type: "ByteFallback" }, { type: "Fuse" }] },
    },
    {},
    "m",
  );
  assertEquals(tokenizer.decode([3]), "A");
  for (const id of [1, 2, 4]) assert(tokenizer.decode([id]).length <= 8);
});

Deno.test("the patterns of published tokenizers are not called slow", () => {
  const patterns = [
    String
      .raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
    String
      .raw`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
    String.raw`'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
    String.raw`(?=(\d{3})+(?!\d))`,
    String.raw` ?[^(\s|[.,!?…。，、।۔،])]+`,
    String
      .raw`[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_${"`"}{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
    String.raw`[\p{Han}]+|\p{N}{1,3}|[一-龥぀-ゟ゠-ヿ]+`,
  ];
  for (const pattern of patterns) assertEquals(slowness(pattern), null, pattern);
});

Deno.test("a long text takes time that grows with it, not faster", async () => {
  const tokenizer = await AutoTokenizer.from_pretrained(DEMO);
  const texts = { letters: "a".repeat(50_000), spaces: " ".repeat(50_000), words: "in the ".repeat(7_000) };
  for (const [name, text] of Object.entries(texts)) {
    const { result, ms, bytes } = await measured(() => tokenizer.encode(text));
    assert(result.length > 0 && ms < SOON_MS, `${name}: ${Math.round(ms)} ms`);
    assert(bytes < SMALL_BYTES, `${name}: ${Math.round(bytes / 2 ** 20)} MiB`);
  }
});

Deno.test("what a tokenizer is called with is checked", async () => {
  const tokenizer = await AutoTokenizer.from_pretrained(DEMO);
  const rows: readonly (readonly [unknown, unknown, string])[] = [
    [7, {}, "expected a string"],
    [null, {}, "expected a string"],
    [[7], {}, "expected a string"],
    [[], {}, "empty list"],
    ["a b", { truncation: true, max_length: -1 }, "max_length -1"],
    ["a b", { truncation: true, max_length: NaN }, "max_length NaN"],
    [["a", "a b c"], {}, "padding: true"],
  ];
  for (const [text, options, word] of rows) {
    assertThrows(() => Reflect.apply(tokenizer, null, [text, options]), InvalidArgument, word);
  }
  for (const id of [-1, 1e9, 0.5, NaN, 3072]) {
    assertThrows(() => tokenizer.decode([id]), AttuneError, "no such token");
  }
  assertEquals(tokenizer.decode([]), "");
});

Deno.test("truncation cuts on the side the configuration says", () => {
  const json = { ...GOOD, added_tokens: [] };
  const cut = (config: Record<string, unknown>) =>
    tokenizerOf(json, config, "m")("aabb", { truncation: true, max_length: 2 }).input_ids.tolist();
  return Promise.all([cut({}), cut({ truncation_side: "left" })]).then(([right, left]) => {
    assertEquals(right, [[1, 3]]);
    assertEquals(left, [[3, 2]]);
  });
});
