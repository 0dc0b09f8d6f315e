/**
 * Files that Python's `gguf` wrote, blocks it read, and texts that SentencePiece cut: see `tests/golden/make_gguf.py`.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { hostView } from "../../src/dtype.ts";
import { formOf } from "../../src/gguf/blocks.ts";
import { GGML_TYPES } from "../../src/gguf/ggml_types.ts";
import { readGguf, readList } from "../../src/gguf/header.ts";
import { GgufWeights } from "../../src/gguf/weights.ts";
import { bytesSource, fileSource } from "../../src/hub/source.ts";
import { AutoTokenizer, ModelFileError } from "../../mod.ts";
import { inFolder, tensorsIn } from "../support/folders.ts";
import { ggufBytes, type MetaValue } from "../support/gguf.ts";
import { goldenPath } from "../support/golden.ts";
import { permuted } from "../support/llama_gguf.ts";

const WRITTEN = goldenPath("gguf/written.gguf");
const SAID = JSON.parse(Deno.readTextFileSync(goldenPath("gguf/written.json"))) as {
  values: Record<string, number | string | boolean>;
  lists: Record<string, (number | string | boolean)[]>;
  tensors: { name: string; type: string; shape: number[]; offset: number; bytes: number }[];
};

Deno.test("header: values, lists and tensors are those that were written", async () => {
  using source = await fileSource(WRITTEN);
  const gguf = await readGguf(source);
  for (const [name, value] of Object.entries(SAID.values)) {
    const found = gguf.metadata.get(`test.${name}`);
    assertEquals(typeof found === "bigint" ? String(found) : found, value, name);
  }
  for (const [name, list] of Object.entries(SAID.lists)) {
    const kind = name === "texts" ? "texts" : "numbers";
    const expected = list.map((x) => typeof x === "boolean" ? Number(x) : x);
    assertEquals(await readList(gguf, source, `test.${name}`, kind), expected, name);
  }
  const found = [...gguf.tensors.values()].map((t) => ({ ...t, type: t.type.name }));
  assertEquals(found, SAID.tensors.map((t) => ({ ...t, type: t.type })));
});

/** What `@huggingface/gguf` reads in the same file, and how many lengths of a cut header it takes: `make_gguf_header.ts`. */
const THEIRS = JSON.parse(Deno.readTextFileSync(goldenPath("gguf/huggingface.json"))) as {
  metadata: Record<string, unknown>;
  tensors: { name: string; type: number; shape: number[]; offset: number }[];
  header_bytes: number;
  cut_headers_accepted: number;
};

Deno.test("header: what @huggingface/gguf reads, and no part of it", async () => {
  using source = await fileSource(WRITTEN);
  const gguf = await readGguf(source);
  const { version: _v, tensor_count, kv_count, ...entries } = THEIRS.metadata;
  assertEquals([gguf.tensors.size, gguf.metadata.size], [tensor_count, kv_count]);
  for (const [name, expected] of Object.entries(entries)) {
    const found = gguf.metadata.get(name);
    if (Array.isArray(expected)) {
      const kind = typeof expected[0] === "string" ? "texts" : "numbers";
      const list = expected.map((x) => typeof x === "boolean" ? Number(x) : x);
      assertEquals(await readList(gguf, source, name, kind), list, name);
    } else assertEquals(typeof found === "bigint" ? String(found) : found, expected, name);
  }
  const found = [...gguf.tensors.values()].map(({ name, shape, type, offset }) => ({
    ...{ name, shape, offset },
    type: [...GGML_TYPES].find(([, known]) => known === type)![0],
  }));
  assertEquals(found, THEIRS.tensors);
  // Why a header has a reader of its own: theirs fills what is missing with zeros.
  assert(THEIRS.cut_headers_accepted > THEIRS.header_bytes - 64, "theirs refuses cut headers now");
  const bytes = await Deno.readFile(WRITTEN);
  for (let length = 0; length < THEIRS.header_bytes; length++) {
    await assertRejects(() => readGguf(bytesSource(bytes.subarray(0, length))), ModelFileError);
  }
});

/** Numbers that a streamed tensor stands for, its scales applied. */
async function valuesOf(weights: GgufWeights, name: string, chunk_bytes: number): Promise<Float32Array> {
  const tensor = weights.tensor(name);
  const parts = new Map<string, Uint8Array>();
  const wanted = weights.tensors.has(`${name}_scale`) ? [name, `${name}_scale`] : [name];
  for (const part of wanted) parts.set(part, new Uint8Array(weights.tensor(part).bytes));
  await weights.stream(wanted, (chunk, at, { name }) => parts.get(name)!.set(chunk, at), { chunk_bytes });
  const raw = hostView(tensor.dtype, parts.get(name)!.buffer as ArrayBuffer);
  if (wanted.length === 1) {
    if (tensor.dtype !== "bfloat16") return Float32Array.from(raw as ArrayLike<number>);
    return new Float32Array(Uint32Array.from(raw as Uint16Array, (x) => x << 16).buffer);
  }
  const scales = new Float16Array(parts.get(`${name}_scale`)!.buffer as ArrayBuffer);
  const bytes = raw as Int8Array | Uint8Array;
  return Float32Array.from({ length: scales.length * 32 }, (_, i) => {
    const q = tensor.dtype === "int8" ? bytes[i]! : (bytes[i >> 1]! >> i % 2 * 4 & 15) - 8;
    return q * scales[i >> 5]!;
  });
}

const BLOCKS = tensorsIn(goldenPath("gguf/blocks.safetensors"));
const floats = (name: string) => new Float32Array(BLOCKS.get(name)!.bytes.slice().buffer);

for (const type of ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q6_K"]) {
  Deno.test(`${type}: numbers are bit for bit those that gguf reads`, async () => {
    for (const chunk_bytes of [64, 1000, 2 ** 20]) {
      const source = await fileSource(WRITTEN);
      using weights = new GgufWeights(source, await readGguf(source), (name) => ({ name, head_dim: null }));
      assertEquals(await valuesOf(weights, type, chunk_bytes), floats(`${type}.values`));
    }
  });

  Deno.test(`${type}: rows of heads are put in the order of Transformers`, async () => {
    for (const chunk_bytes of [64, 1000, 2 ** 20]) {
      const source = await fileSource(WRITTEN);
      using weights = new GgufWeights(
        source,
        await readGguf(source),
        (name) => ({ name, head_dim: name === type ? 4 : null }),
      );
      const found = await valuesOf(weights, type, chunk_bytes);
      assertEquals(permuted(found, 1, 512), floats(`${type}.values`));
    }
  });
}

Deno.test("types: each that is read has a recording", () => {
  const recorded = [...BLOCKS.keys()].filter((name) => name.endsWith(".values")).map((name) =>
    name.slice(0, -7)
  );
  assertEquals(recorded.filter((type) => formOf(type) === undefined), []);
});

Deno.test("sentencepiece: texts are cut, and put together, as it does", async () => {
  const { tokens, scores, types, cases } = JSON.parse(
    Deno.readTextFileSync(goldenPath("gguf/sentencepiece.json")),
  ) as {
    tokens: string[];
    scores: number[];
    types: number[];
    cases: { text: string; ids: number[]; decoded: string }[];
  };
  const metadata: Record<string, MetaValue> = {
    "general.architecture": { text: "llama" },
    "tokenizer.ggml.model": { text: "llama" },
    "tokenizer.ggml.tokens": { texts: tokens },
    "tokenizer.ggml.scores": { f32s: Float32Array.from(scores) },
    "tokenizer.ggml.token_type": { i32s: Int32Array.from(types) },
    "tokenizer.ggml.bos_token_id": { u32: 1 },
    "tokenizer.ggml.eos_token_id": { u32: 2 },
    "tokenizer.ggml.unknown_token_id": { u32: 0 },
  };
  await inFolder(async (folder) => {
    await Deno.writeFile(`${folder}/a.gguf`, ggufBytes(metadata, []));
    const tokenizer = await AutoTokenizer.from_pretrained(`${folder}/a.gguf`);
    for (const { text, ids, decoded } of cases) {
      // A control token in a text is a text to SentencePiece and a token to Transformers.
      if (text.includes("</s>")) {
        assertEquals(tokenizer.encode(text)[1], 2);
        continue;
      }
      assertEquals(tokenizer.encode(text), [1, ...ids], text);
      assertEquals(tokenizer.encode(text, { add_special_tokens: false }), ids, text);
      assertEquals(tokenizer.decode(ids), decoded, text);
    }
  });
});

Deno.test("byte pairs: words are cut as each name says", async () => {
  const letters = [..."abcdefghijklmnopqrstuvwxyzĠ0123456789'Ċ"];
  const words = ["12", "123", "1234", "'s", "Ġa"];
  const merges = ["1 2", "12 3", "123 4", "' s", "Ġ a"];
  const cases = {
    "gpt-2": ["1234", "Ġa"],
    "llama-bpe": ["123", "4", "Ġa"],
    "qwen2": ["1", "2", "3", "4", "Ġa"],
    "smollm": ["1", "2", "3", "4", "Ġa"],
  };
  const tokens = [...letters, ...words];
  for (const [pre, expected] of Object.entries(cases)) {
    await inFolder(async (folder) => {
      const metadata: Record<string, MetaValue> = {
        "tokenizer.ggml.model": { text: "gpt2" },
        "tokenizer.ggml.pre": { text: pre },
        "tokenizer.ggml.tokens": { texts: tokens },
        "tokenizer.ggml.merges": { texts: merges },
        "tokenizer.ggml.bos_token_id": { u32: 0 },
      };
      await Deno.writeFile(`${folder}/a.gguf`, ggufBytes(metadata, []));
      const tokenizer = await AutoTokenizer.from_pretrained(`${folder}/a.gguf`);
      const found = tokenizer.encode("1234 a").map((id) => tokens[id]!);
      assertEquals(found, pre === "llama-bpe" ? ["a", ...expected] : expected, pre);
      assertEquals(
        tokenizer.decode(tokenizer.encode("it's 1234 a\n", { add_special_tokens: false })),
        "it's 1234 a\n",
      );
    });
  }
});
