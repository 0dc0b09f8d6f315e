/**
 * What is fuzzed: how each input is made from valid ones, and what reads it.
 *
 * @module
 */
import {
  AttuneError,
  AutoModel,
  AutoModelForCausalLM,
  AutoModelForImageTextToText,
  AutoTokenizer,
  Tensor,
} from "../../mod.ts";
import { openFolder } from "../../src/hub/files.ts";
import { openSafetensors } from "../../src/hub/safetensors.ts";
import { bytesSource } from "../../src/hub/source.ts";
import { openWeights } from "../../src/hub/weights.ts";
import { parseTemplate } from "../../src/text/template_source.ts";
import { tokenizerOf } from "../../src/text/tokenizer.ts";
import { ggufBytes, type MetaValue } from "../../tests/support/gguf.ts";
import { llamaParts } from "../../tests/support/llama_gguf.ts";
import type { Random } from "../../tests/support/random.ts";
import { mutateBytes, mutateJson, mutateText } from "./mutate.ts";

/** One reader. */
export interface Target {
  /** An input: the text or bytes of a file. The same random numbers make the same input. */
  make(random: Random): Input;
  /** Reads it; throws what the reader throws. `folder` is a place for files. */
  read(input: Input, folder: string): Promise<void>;
}

/** What a file holds, and what it stands beside. */
export interface Input {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The recorded model whose other files are used. */
  readonly model: string;
}

const GOLDEN = new URL("../../tests/golden/", import.meta.url);
const MODELS = {
  llama: AutoModelForCausalLM,
  mistral: AutoModelForCausalLM,
  gemma2: AutoModelForCausalLM,
  llama4: AutoModelForCausalLM,
  bert: AutoModel,
  llava: AutoModelForImageTextToText,
} as const;
type Model = keyof typeof MODELS;
const NAMES = Object.keys(MODELS) as Model[];

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const bytesOf = (value: string) => new TextEncoder().encode(value);
const file = (model: string, name: string) => Deno.readFileSync(new URL(`models/${model}/${name}`, GOLDEN));

/** JSON that is mutated as a value, as a text, or both. */
function jsonBytes(json: unknown, random: Random): Uint8Array<ArrayBuffer> {
  const written = JSON.stringify(random.next() < 0.9 ? mutateJson(json, random) : json) ?? "";
  return bytesOf(random.next() < 0.15 ? mutateText(written, [], random) : written);
}

/** Header and data of a safetensors file, put together anew. */
function safetensorsBytes(random: Random): Input {
  const model = random.pick(NAMES);
  const original = file(model, "model.safetensors");
  const length = Number(new DataView(original.buffer).getBigUint64(0, true));
  const header: Record<string, unknown> = JSON.parse(text(original.subarray(8, 8 + length)));
  const few = Object.fromEntries(Object.entries(header).slice(0, 1 + random.int(0, 6)));
  const json = random.next() < 0.3 ? bytesOf(JSON.stringify(header)) : jsonBytes(few, random);
  const data = original.subarray(8 + length, 8 + length + random.int(0, original.length));
  const bytes = new Uint8Array(8 + json.length + data.length);
  const stated = random.next() < 0.9 ? BigInt(json.length) : BigInt(random.int(0, 2 ** 32)) << 31n;
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, stated), true);
  bytes.set(json, 8);
  bytes.set(data, 8 + json.length);
  return { bytes: random.next() < 0.3 ? mutateBytes(bytes, random) : bytes, model };
}

async function place(folder: string, files: Readonly<Record<string, Uint8Array>>): Promise<void> {
  for await (const { name } of Deno.readDir(folder)) await Deno.remove(`${folder}/${name}`);
  for (const [name, bytes] of Object.entries(files)) await Deno.writeFile(`${folder}/${name}`, bytes);
}

/** What `fn` throws, or null. */
async function settled(fn: () => Promise<void>): Promise<unknown> {
  try {
    await fn();
    return null;
  } catch (error) {
    return error;
  }
}

/** A small vocabulary in the metadata of a GGUF file. */
const VOCABULARY: Readonly<Record<string, MetaValue>> = {
  "tokenizer.ggml.model": { text: "llama" },
  "tokenizer.ggml.tokens": { texts: ["<unk>", "<s>", "▁", "a", "b", "ab", "▁ab", "<0x41>"] },
  "tokenizer.ggml.scores": { f32s: Float32Array.of(0, 0, -9, -7, -8, -1, -2, 0) },
  "tokenizer.ggml.token_type": { i32s: Int32Array.of(2, 3, 1, 1, 1, 1, 1, 6) },
  "tokenizer.ggml.bos_token_id": { u32: 1 },
  "tokenizer.ggml.unknown_token_id": { u32: 0 },
};

const TOKENIZERS: readonly Record<string, unknown>[] = [
  {
    added_tokens: [{ id: 0, content: "<s>", special: true }, {
      id: 1,
      content: "<x>",
      normalized: true,
      lstrip: true,
    }],
    normalizer: {
      type: "Sequence",
      normalizers: [{ type: "Prepend", prepend: "▁" }, {
        type: "Replace",
        pattern: { String: " " },
        content: "▁",
      }],
    },
    pre_tokenizer: null,
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [],
      special_tokens: { "<s>": { id: "<s>", ids: [0], tokens: ["<s>"] } },
    },
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        { type: "Strip", content: " ", start: 1, stop: 0 },
      ],
    },
    model: {
      type: "BPE",
      unk_token: "<s>",
      byte_fallback: true,
      vocab: { "<s>": 0, "<x>": 1, "▁": 2, a: 3, b: 4, ab: 5, "<0x41>": 6, "<0xC3>": 7, "▁ab": 8 },
      merges: ["a b", "▁ ab"],
    },
  },
  {
    added_tokens: [],
    normalizer: { type: "BertNormalizer", lowercase: true },
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        {
          type: "Split",
          pattern: { Regex: "'s|'t| ?\\p{L}+|\\p{N}{1,3}|\\s+(?!\\S)|\\s+" },
          behavior: "Isolated",
        },
        { type: "ByteLevel", add_prefix_space: false, use_regex: false },
      ],
    },
    post_processor: { type: "ByteLevel" },
    decoder: { type: "ByteLevel" },
    model: { type: "BPE", vocab: { a: 0, b: 1, "Ġ": 2, "Ġa": 3, "!": 4 }, merges: ["Ġ a"] },
  },
  {
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: { type: "BertPreTokenizer" },
    post_processor: null,
    decoder: { type: "WordPiece", prefix: "##", cleanup: true },
    model: {
      type: "WordPiece",
      unk_token: "u",
      continuing_subword_prefix: "##",
      vocab: { u: 0, a: 1, "##b": 2 },
    },
  },
  {
    added_tokens: [],
    normalizer: { type: "NFKC" },
    pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "always" },
    post_processor: null,
    decoder: { type: "Metaspace", replacement: "▁" },
    model: { type: "Unigram", unk_id: 0, vocab: [["u", 0], ["▁", -1], ["a", -2], ["▁a", -3]] },
  },
];
const TEXTS = [
  "",
  "a",
  " ab ab<x>!",
  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!",
  "é世👋 \u0000\uFFFD",
];

const chat: { templates: Record<string, string>; rows: { messages: { role: string }[] }[] } = JSON.parse(
  Deno.readTextFileSync(new URL("chat.json", GOLDEN)),
);
const TEMPLATES = [
  ...Object.values(chat.templates),
  "{% for a in range(10) %}{% for b in range(10) %}{{ a * b }}{% endfor %}{% endfor %}",
  "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}{% call(x) f(2) %}{{ x }}{% endcall %}",
  "{% set n = namespace(x='a', l=[]) %}{% for i in range(8) %}{% set n.x = n.x + n.x %}{% set n.l = [n.l, n.x] %}{% endfor %}{{ n.l|tojson(indent=2) }}",
  "{{ 'a,b'.split(',')|join('-')|upper|replace('A', 'bb')|indent(4) }}{{ {'a': 1}|dictsort }}{{ [3, 1]|sort|first }}",
];

const WRITTEN = Deno.readFileSync(new URL("gguf/written.gguf", GOLDEN));
const GGUF_LLAMA = llamaParts(new URL("models/llama", GOLDEN).pathname, "F32");

/** The readers, by name. */
export const TARGETS: Readonly<Record<string, Target>> = {
  gguf: {
    make(random) {
      const { metadata, tensors } = GGUF_LLAMA;
      const bytes = random.next() < 0.5 ? WRITTEN : ggufBytes({ ...metadata, ...VOCABULARY }, tensors);
      return { bytes: mutateBytes(bytes.slice(), random), model: "" };
    },
    async read({ bytes }, folder) {
      await place(folder, { "a.gguf": bytes });
      const path = `${folder}/a.gguf`;
      // Each by itself: a fault of one must not hide those of the other.
      const outcomes = [
        await settled(async () => {
          const tokenizer = await AutoTokenizer.from_pretrained(path);
          for (const one of TEXTS) tokenizer.decode(tokenizer.encode(one));
        }),
        await settled(async () => await (await AutoModelForCausalLM.from_pretrained(path)).dispose()),
      ].filter((error) => error !== null);
      const worst = outcomes.find((error) => !(error instanceof AttuneError)) ?? outcomes[0];
      if (worst !== undefined) throw worst;
    },
  },
  safetensors: {
    make: safetensorsBytes,
    async read({ bytes }) {
      using opened = await openSafetensors(bytesSource(bytes));
      for (const [name, { dtype }] of opened.tensors) if (dtype !== null) await opened.stream(name, () => {});
    },
  },
  index: {
    make(random) {
      const model = random.pick(NAMES);
      const original = file(model, "model.safetensors");
      const length = Number(new DataView(original.buffer).getBigUint64(0, true));
      const names = Object.keys(JSON.parse(text(original.subarray(8, 8 + length))));
      const map = names.filter((name) => name !== "__metadata__").map((name) => [name, "a.safetensors"]);
      return { bytes: jsonBytes({ metadata: {}, weight_map: Object.fromEntries(map) }, random), model };
    },
    async read({ bytes, model }, folder) {
      await place(folder, {
        "model.safetensors.index.json": bytes,
        "a.safetensors": file(model, "model.safetensors"),
      });
      using _ = await openWeights(await openFolder(folder));
    },
  },
  config: {
    make(random) {
      const model = random.pick(NAMES);
      return { bytes: jsonBytes(JSON.parse(text(file(model, "config.json"))), random), model };
    },
    async read({ bytes, model }, folder) {
      await place(folder, { "config.json": bytes, "model.safetensors": file(model, "model.safetensors") });
      const auto = MODELS[model as Model];
      await using loaded = await auto.from_pretrained(folder);
      using input_ids = Tensor.from([[3, 4, 5]], { dtype: "int64" });
      if (auto === AutoModelForCausalLM) {
        (await loaded.generate({ input_ids, max_new_tokens: 2 }))[Symbol.dispose]();
      }
    },
  },
  tokenizer: {
    make: (random) => ({ bytes: jsonBytes(random.pick(TOKENIZERS), random), model: "" }),
    async read({ bytes }) {
      const json: unknown = await new Response(bytes).json().catch(() => null);
      if (typeof json !== "object" || json === null || Array.isArray(json)) return;
      const tokenizer = tokenizerOf(json as Record<string, unknown>, { bos_token: "<s>" }, "fuzz");
      for (const one of TEXTS) {
        tokenizer.decode(tokenizer.encode(one), { skip_special_tokens: one.length % 2 === 0 });
      }
    },
  },
  template: {
    make: (random) => ({
      bytes: bytesOf(mutateText(random.pick(TEMPLATES), TEMPLATES, random)),
      model: String(random.int(0, chat.rows.length)),
    }),
    read({ bytes, model }) {
      const source = text(bytes);
      parseTemplate(source);
      const tokenizer = tokenizerOf(TOKENIZERS[0]!, { bos_token: "<s>", eos_token: "<x>" }, "fuzz", source);
      tokenizer.apply_chat_template(chat.rows[Number(model)]!.messages, { tokenize: false });
      return Promise.resolve();
    },
  },
};
