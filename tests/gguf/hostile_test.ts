/**
 * GGUF files nobody should load: each is refused with an error that says why, soon and in little memory.
 *
 * @module
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { AutoConfig, AutoModelForCausalLM, AutoTokenizer, ModelFileError } from "../../mod.ts";
import { readGguf } from "../../src/gguf/header.ts";
import { GgufWeights } from "../../src/gguf/weights.ts";
import { type ByteSource, bytesSource } from "../../src/hub/source.ts";
import { assertRefused } from "../hostile/refusal.ts";
import { liveTest, LLAMA } from "../models/support.ts";
import fc from "../support/fast_check.ts";
import { inFolder } from "../support/folders.ts";
import { ggufBytes, type GgufTensor, type MetaValue } from "../support/gguf.ts";
import { llamaParts } from "../support/llama_gguf.ts";

const encoder = new TextEncoder();

/** Fields of a file, little endian: numbers as [bytes, value], texts with their length before them. */
type Field = string | readonly [bytes: 1 | 2 | 4 | 8, value: number | bigint] | Uint8Array;
const u32 = (n: number) => [4, n] as const;
const u64 = (n: number | bigint) => [8, n] as const;

function fileOf(...fields: readonly Field[]): Uint8Array<ArrayBuffer> {
  const out: number[] = [];
  const number = (bytes: number, value: bigint) => {
    for (let i = 0n; i < BigInt(bytes); i++) out.push(Number(BigInt.asUintN(64, value) >> 8n * i & 255n));
  };
  for (const field of fields) {
    if (typeof field === "string") {
      const text = encoder.encode(field);
      number(8, BigInt(text.length));
      out.push(...text);
    } else if (field instanceof Uint8Array) { for (const byte of field) out.push(byte); }
    else number(field[0], BigInt(field[1]));
  }
  return Uint8Array.from(out);
}

const GGUF = encoder.encode("GGUF");
/** A header of version 3 with so many tensors and entries. */
const head = (tensors: number | bigint, entries: number | bigint): Field[] => [
  GGUF,
  u32(3),
  u64(tensors),
  u64(entries),
];
/** A tensor's entry; dimensions as in the file, the contiguous one first. */
const tensor = (
  name: string,
  shape: readonly (number | bigint)[],
  type: number,
  offset: number | bigint,
): Field[] => [
  name,
  u32(shape.length),
  ...shape.map(u64),
  u32(type),
  u64(offset),
];
const data = (bytes: number) => new Uint8Array(bytes);
const HUGE = 2n ** 63n;

/** What is wrong, the file, and words of the message. */
const FILES: readonly (readonly [string, Uint8Array<ArrayBuffer>, ...string[]])[] = [
  ["nothing", data(0), "expected 4 bytes"],
  ["three bytes", GGUF.slice(0, 3), "expected 4 bytes"],
  ["another file", encoder.encode("PK\x03\x04 and more"), 'begin with "GGUF"'],
  ["only the beginning", fileOf(GGUF), "of a header"],
  ["version 0", fileOf(GGUF, u32(0), u64(0), u64(0)), "version 2 or 3, found 0"],
  ["version 1", fileOf(GGUF, u32(1), u32(0), u32(0)), "version 2 or 3, found 1"],
  ["version 4", fileOf(GGUF, u32(4), u64(0), u64(0)), "version 2 or 3, found 4"],
  ["big endian", fileOf(GGUF, u32(3 << 24), u64(0), u64(0)), "big-endian"],
  ["2^63 tensors", fileOf(...head(HUGE, 0)), "at most 0 tensors, found"],
  ["more tensors than bytes", fileOf(...head(1000, 0), data(330)), "at most 10 tensors, found 1000"],
  ["2^63 entries", fileOf(...head(0, HUGE)), "at most 0 entries of metadata, found"],
  ["more entries than allowed", fileOf(...head(0, 2 ** 16 + 1), data(2 ** 20)), "at most 65536 entries"],
  ["a name of 2^63 bytes", fileOf(...head(0, 1), u64(HUGE), data(20)), "its length says"],
  ["a name of 2^53 bytes", fileOf(...head(0, 1), u64(2n ** 53n), data(20)), "its length says"],
  ["a name of the rest", fileOf(...head(0, 1), u64(21), data(20)), "at most 20 bytes, its length says 21"],
  ["a long name", fileOf(...head(0, 1), "x".repeat(1025), u32(0), data(1)), "at most 1024 bytes"],
  ["no name", fileOf(...head(0, 1), "", u32(0), data(1)), "again or empty"],
  ["a name that is not UTF-8", fileOf(...head(0, 1), u64(2), data(2).fill(255), u32(0), data(1)), "UTF-8"],
  ["a name twice", fileOf(...head(0, 2), "a", u32(0), data(1), "a", u32(0), data(1)), '"a" again'],
  ["an unknown type", fileOf(...head(0, 1), "abc", u32(13), data(8)), '"abc" has the unknown type 13'],
  ["a type of 2^32 - 1", fileOf(...head(0, 1), "abc", u32(2 ** 32 - 1), data(8)), "unknown type 4294967295"],
  ["a cut value", fileOf(...head(0, 1), "abc", u32(10), data(7)), "expected 8 bytes"],
  ["a bool of 2", fileOf(...head(0, 1), "abc", u32(7), [1, 2]), "0 or 1, found 2"],
  ["a text of 2^63 bytes", fileOf(...head(0, 1), "abc", u32(8), u64(HUGE)), "its length says"],
  ["a list of lists", fileOf(...head(0, 1), "abc", u32(9), u32(9), u64(1), data(12)), "found type 9"],
  [
    "a list of nothing known",
    fileOf(...head(0, 1), "abc", u32(9), u32(77), u64(1), data(12)),
    "found type 77",
  ],
  // llama.cpp#27188: 43 bytes.
  ["a list of 2^63", fileOf(...head(0, 1), "abc", u32(9), u32(0), u64(HUGE)), "at most 0 elements"],
  [
    "a list of 2^61 numbers",
    fileOf(...head(0, 1), "abc", u32(9), u32(10), u64(2n ** 61n), data(8)),
    "elements",
  ],
  [
    "texts past the end",
    fileOf(...head(0, 1), "abc", u32(9), u32(8), u64(2), "x", data(5)),
    "at most 1 elements",
  ],
  [
    "a text past the end",
    fileOf(...head(0, 1), "abc", u32(9), u32(8), u64(1), u64(6), data(5)),
    "expected 6 bytes",
  ],
  [
    "a text of 2^64 - 1",
    fileOf(...head(0, 1), "abc", u32(9), u32(8), u64(1), u64(2n ** 64n - 1n)),
    "Infinity bytes",
  ],
  ["alignment 0", fileOf(...head(0, 1), "general.alignment", u32(4), u32(0)), "power of two"],
  ["alignment 3", fileOf(...head(0, 1), "general.alignment", u32(4), u32(3)), "power of two"],
  ["alignment 2^31", fileOf(...head(0, 1), "general.alignment", u32(4), u32(2 ** 31)), "up to 65536"],
  ["alignment as text", fileOf(...head(0, 1), "general.alignment", u32(8), "32"), 'found "32"'],
  [
    "a tensor without dimensions",
    fileOf(...head(1, 0), ...tensor("t", [], 0, 0), data(40)),
    "1 to 4 dimensions",
  ],
  ["five dimensions", fileOf(...head(1, 0), ...tensor("t", [1, 1, 1, 1, 1], 0, 0), data(64)), "found 5"],
  ["2^32 dimensions", fileOf(...head(1, 0), "t", u32(2 ** 32 - 1), data(64)), "found 4294967295"],
  ["a dimension of 0", fileOf(...head(1, 0), ...tensor("t", [4, 0], 0, 0), data(64)), "[0,4]"],
  ["a dimension of 2^63", fileOf(...head(1, 0), ...tensor("t", [HUGE], 0, 0), data(64)), "[Infinity]"],
  [
    "a size that overflows 64 bits",
    fileOf(...head(1, 0), ...tensor("t", [2 ** 32, 2 ** 32], 0, 0), data(64)),
    "a size that can be counted",
  ],
  [
    "a size beyond 2^53",
    fileOf(...head(1, 0), ...tensor("t", [2 ** 27, 2 ** 27], 0, 0), data(64)),
    "be counted",
  ],
  ["an unknown element type", fileOf(...head(1, 0), ...tensor("t", [4], 5, 0), data(64)), "unknown type 5"],
  ["half a block", fileOf(...head(1, 0), ...tensor("t", [33], 8, 0), data(256)), "whole blocks of 32"],
  [
    "a tensor past the end",
    fileOf(...head(1, 0), ...tensor("t", [65], 0, 0), data(259)),
    "to end within its",
  ],
  [
    "an offset past the end",
    fileOf(...head(1, 0), ...tensor("t", [4], 0, 2n ** 40n), data(64)),
    "at offset 0",
  ],
  [
    "an offset of 2^64 - 32",
    fileOf(...head(1, 0), ...tensor("t", [4], 0, 2n ** 64n - 32n), data(64)),
    "Infinity",
  ],
  ["an unaligned offset", fileOf(...head(1, 0), ...tensor("t", [4], 0, 4), data(64)), "at offset 0"],
  [
    "tensors that overlap",
    fileOf(...head(2, 0), ...tensor("a", [16], 0, 0), ...tensor("b", [16], 0, 32), data(256)),
    '"b" at offset 64, where the one before it ends, found 32',
  ],
  [
    "tensors in one place",
    fileOf(...head(2, 0), ...tensor("a", [16], 0, 0), ...tensor("b", [16], 0, 0), data(256)),
    "at offset 64",
  ],
  [
    "a hole",
    fileOf(...head(2, 0), ...tensor("a", [16], 0, 0), ...tensor("b", [16], 0, 128), data(256)),
    "at offset 64",
  ],
  [
    "a tensor twice",
    fileOf(...head(2, 0), ...tensor("a", [16], 0, 0), ...tensor("a", [16], 0, 64), data(256)),
    '"a" again',
  ],
];

for (const [what, bytes, ...words] of FILES) {
  Deno.test(`refused: ${what}`, async () => {
    const error = await assertRefused(() => readGguf(bytesSource(bytes, "x.gguf")), ["x.gguf", ...words]);
    assert(error instanceof ModelFileError);
  });
}

/** A file that says it is very long and gives zeros. */
function sparse(beginning: Uint8Array, size: number): ByteSource {
  return {
    name: "sparse.gguf",
    size,
    read(offset, into) {
      into.fill(0);
      into.set(beginning.subarray(offset, offset + into.length));
      return Promise.resolve();
    },
    close() {},
    [Symbol.dispose]() {},
  };
}

Deno.test("refused: what would take long or much memory in a file of 200 GB", async () => {
  const many = 2 ** 33;
  // Millions of empty texts, and lists as long as the file allows.
  const texts = fileOf(...head(0, 2 ** 15), "abc", u32(9), u32(8), u64(many));
  await assertRefused(() => readGguf(sparse(texts, 2e11)), ["sparse.gguf"]);
  const numbers = fileOf(...head(0, 2), "abc", u32(9), u32(0), u64(many));
  await assertRefused(() => readGguf(sparse(numbers, 2e11)), ["at most"]);
  const tensors = fileOf(...head(2 ** 18, 0));
  await assertRefused(() => readGguf(sparse(tensors, 2e11)), ["1 to 4 dimensions"]);
});

const VALID = ggufBytes({
  "general.architecture": { text: "llama" },
  "a.list": { texts: ["x", "", "yz"] },
  "a.number": { u64: 2n ** 60n },
}, [
  { name: "a", shape: [2, 32], type: "Q8_0", values: () => new Float32Array(64) },
  { name: "b", shape: [3], type: "F32", values: () => new Float32Array(3) },
  { name: "c", shape: [2, 32], type: "Q4_0", values: () => new Float32Array(64) },
]);

/** If a file is accepted, streaming gives each byte of what it says once; says whether it was. */
async function neverWronglyAccepted(bytes: Uint8Array): Promise<boolean> {
  try {
    const source = bytesSource(bytes);
    const header = await readGguf(source);
    let end = 0;
    for (const { offset, bytes: length } of header.tensors.values()) {
      assert(offset >= end && offset + length <= bytes.length);
      end = offset + length;
    }
    using weights = new GgufWeights(source, header, (name) => ({ name, head_dim: null }));
    const seen = new Map<string, number>();
    await weights.stream(null, (chunk, at, { name }) => {
      assertEquals(at, seen.get(name) ?? 0);
      seen.set(name, at + chunk.length);
    }, { chunk_bytes: 64 });
    for (const { name, bytes: length } of weights.tensors.values()) assertEquals(seen.get(name) ?? 0, length);
    return true;
  } catch (error) {
    assert(error instanceof ModelFileError, `untyped error: ${error}`);
    return false;
  }
}

Deno.test("a file that is cut anywhere is refused", async () => {
  assert(await neverWronglyAccepted(VALID));
  // The last tensor is followed by padding only.
  const end = VALID.length - (32 - 36 % 32);
  for (let length = 0; length < end; length++) {
    assert(!await neverWronglyAccepted(VALID.subarray(0, length)), `cut to ${length} of ${VALID.length}`);
  }
});

Deno.test("flipped, cut, grown and spliced bytes are refused or harmless", async () => {
  const mutation = fc.record({
    at: fc.nat(VALID.length),
    cut: fc.oneof(fc.constant(1), fc.nat(20)),
    insert: fc.uint8Array({ maxLength: 20 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(mutation, { minLength: 1, maxLength: 3 }), async (mutations) => {
      let bytes: Uint8Array = VALID;
      for (const { at, cut, insert } of mutations) {
        const [from, to] = [bytes.subarray(0, at), bytes.subarray(Math.min(bytes.length, at + cut))];
        bytes = Uint8Array.from([...from, ...insert, ...to]);
      }
      await neverWronglyAccepted(bytes);
    }),
    { numRuns: 1500, seed: 7 },
  );
});

/** Writes the recorded llama with changed metadata and tensors. */
async function changed(
  folder: string,
  metadata: Readonly<Record<string, MetaValue | null>>,
  change: (tensors: GgufTensor[]) => GgufTensor[] = (all) => all,
): Promise<string> {
  const parts = llamaParts(LLAMA, "F32");
  const entries = Object.entries({ ...parts.metadata, ...metadata });
  const kept = Object.fromEntries(
    entries.filter((entry): entry is [string, MetaValue] => entry[1] !== null),
  );
  await Deno.writeFile(`${folder}/a.gguf`, ggufBytes(kept, change(parts.tensors)));
  return `${folder}/a.gguf`;
}

const named = (name: string, shape: readonly number[]): GgufTensor => ({
  name,
  shape,
  type: "F32",
  values: () => new Float32Array(shape.reduce((a, b) => a * b, 1)),
});

/** Metadata and tensors that no Llama has, and words of the message. */
const MODELS: readonly (readonly [
  string,
  Record<string, MetaValue | null>,
  ((all: GgufTensor[]) => GgufTensor[]) | undefined,
  ...string[],
])[] = [
  ["no architecture", { "general.architecture": null }, undefined, '"llama", found nothing'],
  ["another architecture", { "general.architecture": { text: "mamba" } }, undefined, 'found "mamba"'],
  ["no heads", { "llama.attention.head_count": null }, undefined, "llama.attention.head_count"],
  ["0 heads", { "llama.attention.head_count": { u32: 0 } }, undefined, "at least 1, found 0"],
  [
    "heads by layer",
    { "llama.attention.head_count": { i32s: Int32Array.of(4, 4) } },
    undefined,
    "a list of 2",
  ],
  [
    "heads that do not divide",
    { "llama.attention.head_count_kv": { u32: 3 } },
    undefined,
    "num_key_value_heads",
  ],
  ["2^32 layers", { "llama.block_count": { u32: 2 ** 32 - 1 } }, undefined, "num_hidden_layers"],
  ["a layer too many", { "llama.block_count": { u32: 3 } }, undefined, "layers.2"],
  ["a huge vocabulary", { "llama.vocab_size": { u64: 2n ** 62n } }, undefined, "llama.vocab_size"],
  ["another vocabulary", { "llama.vocab_size": { u32: 65 } }, undefined, "embed_tokens"],
  [
    "epsilon NaN",
    { "llama.attention.layer_norm_rms_epsilon": { f32: NaN } },
    undefined,
    "a number, found NaN",
  ],
  ["epsilon as text", { "llama.attention.layer_norm_rms_epsilon": { text: "1" } }, undefined, 'found "1"'],
  ["half a rotation", { "llama.rope.dimension_count": { u32: 4 } }, undefined, "expected 8, found 4"],
  ["long values", { "llama.attention.value_length": { u32: 16 } }, undefined, "expected 8, found 16"],
  ["an odd head", { "llama.attention.key_length": { u32: 7 } }, undefined, "even number"],
  ["experts", { "llama.expert_count": { u32: 8 } }, undefined, "expected 0, found 8"],
  ["a part of a model", { "split.count": { u32: 3 } }, undefined, "expected 1, found 3"],
  ["yarn", { "llama.rope.scaling.type": { text: "yarn" } }, undefined, 'none or linear, found "yarn"'],
  ["strange factors", {}, (all) => [...all, named("rope_freqs.weight", [4])], "rope_freqs.weight"],
  [
    "factors that are a matrix",
    {},
    (all) => [...all, named("rope_freqs.weight", [2, 2])],
    "short list of F32",
  ],
  ["a weight is missing", {}, (all) => all.filter(({ name }) => name !== "blk.1.ffn_up.weight"), "up_proj"],
  ["no weights", {}, () => [], "Cannot"],
  ["weights of other names", {}, (all) => all.map((t) => ({ ...t, name: `${t.name}.x` })), "Cannot"],
  [
    "two weights of one name",
    {},
    (all) => [...all, named("model.norm.weight", [32])],
    'two of its tensors are "model.norm.weight"',
  ],
];

for (const [what, metadata, change, ...words] of MODELS) {
  liveTest(`refused: ${what}`, async () => {
    await inFolder(async (folder) => {
      const path = await changed(folder, metadata, change);
      const error = await assertRefused(() => AutoModelForCausalLM.from_pretrained(path), words);
      assert(error instanceof ModelFileError, `${error}`);
    });
  });
}

Deno.test("refused: heads that are larger than any", async () => {
  const huge = fileOf(...head(1, 0), ...tensor("blk.0.attn_q.weight", [2 ** 20, 2 ** 10], 0, 0));
  await assertRefused(async () => {
    const source = sparse(huge, 2 ** 33);
    const header = await readGguf(source);
    new GgufWeights(source, header, (name) => ({ name, head_dim: 2 ** 10 }));
  }, ["attn_q", "heads of at most 67108864 bytes, they have 4294967296"]);
});

liveTest("factors of llama3: the config says what made them", async () => {
  const heads = 4, head_dim = 8, factor = 32;
  const context = 8192, [low, high] = [1, 4];
  const factors = Float32Array.from({ length: head_dim / 2 }, (_, i) => {
    const wavelength = 2 * Math.PI * 500000 ** (2 * i / head_dim);
    if (wavelength < context / high) return 1;
    if (wavelength > context / low) return factor;
    const smooth = (context / wavelength - low) / (high - low);
    return 1 / ((1 - smooth) / factor + smooth);
  });
  assert(new Set(factors).size >= 3, `${factors} of ${heads}`);
  await inFolder(async (folder) => {
    const rope = { ...named("rope_freqs.weight", [4]), values: () => factors };
    const path = await changed(folder, { "llama.rope.freq_base": { f32: 500000 } }, (all) => [rope, ...all]);
    assertEquals((await AutoConfig.from_pretrained(path))["rope_parameters"], {
      rope_type: "llama3",
      rope_theta: 500000,
      factor,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 8192,
    });
    await using _ = await AutoModelForCausalLM.from_pretrained(path);
    const linear = await changed(folder, {
      "llama.rope.scaling.type": { text: "linear" },
      "llama.rope.scaling.factor": { f32: 4 },
    });
    assertEquals((await AutoConfig.from_pretrained(linear))["rope_parameters"], {
      rope_type: "linear",
      rope_theta: 10000,
      factor: 4,
    });
  });
});

const TOKENS = { "tokenizer.ggml.tokens": { texts: ["a", "b", "c"] } };
const BPE = { "tokenizer.ggml.model": { text: "gpt2" }, "tokenizer.ggml.pre": { text: "gpt-2" }, ...TOKENS };
const SPM = { "tokenizer.ggml.model": { text: "llama" }, ...TOKENS };

/** Vocabularies that make no tokenizer, and words of the message. */
const VOCABULARIES: readonly (readonly [string, Record<string, MetaValue>, ...string[]])[] = [
  [
    "another kind",
    { "tokenizer.ggml.model": { text: "t5" } },
    "gpt2 or llama",
    "AutoTokenizer.from_pretrained",
  ],
  ["a kind that is a number", { "tokenizer.ggml.model": { u32: 1 } }, "expected a text"],
  ["no tokens", { "tokenizer.ggml.model": { text: "gpt2" } }, "no tokenizer.ggml.tokens"],
  ["tokens that are a number", { ...BPE, "tokenizer.ggml.tokens": { u32: 3 } }, "a list of at most"],
  ["tokens that are numbers", { ...BPE, "tokenizer.ggml.tokens": { i32s: Int32Array.of(1) } }, "of type 5"],
  ["a token twice", { ...BPE, "tokenizer.ggml.tokens": { texts: ["a", "b", "a"] } }, '"a" again'],
  ["an unknown way to cut", { ...BPE, "tokenizer.ggml.pre": { text: "mine" } }, "llama-bpe", "found mine"],
  ["no merges", BPE, "no tokenizer.ggml.merges"],
  ["merges that are none", { ...BPE, "tokenizer.ggml.merges": { i32s: Int32Array.of(1) } }, "texts"],
  [
    "types of other tokens",
    { ...SPM, "tokenizer.ggml.token_type": { i32s: Int32Array.of(1) } },
    "expected 3",
  ],
  ["no scores", SPM, "no tokenizer.ggml.scores"],
  // llama.cpp#25969: such a byte was written to.
  ...["<0x-1>", "<0x100>", "<0x>", "x"].map((byte): readonly [string, Record<string, MetaValue>, string] => [
    `the byte ${byte}`,
    {
      ...SPM,
      "tokenizer.ggml.tokens": { texts: ["a", "<0x41>", byte] },
      "tokenizer.ggml.token_type": { i32s: Int32Array.of(1, 6, 6) },
    },
    `<0x00> to <0xFF>, found "${byte}"`,
  ]),
  [
    "a token that is not there",
    { ...BPE, "tokenizer.ggml.merges": { texts: [] }, "tokenizer.ggml.bos_token_id": { u32: 3 } },
    "below 3, found 3",
  ],
  [
    "tokens that are too long",
    {
      ...SPM,
      "tokenizer.ggml.tokens": { texts: Array.from({ length: 400 }, (_, i) => `${i}`.padStart(1000, "x")) },
      "tokenizer.ggml.scores": { f32s: new Float32Array(400) },
    },
    "too long",
  ],
];

for (const [what, metadata, ...words] of VOCABULARIES) {
  Deno.test(`refused vocabulary: ${what}`, async () => {
    await inFolder(async (folder) => {
      await Deno.writeFile(`${folder}/a.gguf`, ggufBytes(metadata, []));
      const error = await assertRefused(() => AutoTokenizer.from_pretrained(`${folder}/a.gguf`), words);
      assertStringIncludes(error.message, "a.gguf");
    });
  });
}
