/**
 * Caches in files: what is read goes on as what was written, and nothing else is read.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import {
  type AttuneError,
  AutoModelForCausalLM,
  type Cache,
  type DeviceName,
  DynamicCache,
  InvalidArgument,
  load_cache,
  ModelFileError,
  PretrainedConfig,
  type PreTrainedModel,
  save_cache,
  StaticCache,
  Tensor,
} from "../../mod.ts";
import { writeSafetensors } from "../../src/hub/safetensors_write.ts";
import { inFolder, namesIn, tensorsIn } from "../support/folders.ts";
import { goldenPath } from "../support/golden.ts";
import { everywhere, ids, liveTest, LLAMA, reportSkipped, rowsOf } from "../models/support.ts";
import { states } from "./states.ts";

/** Longer than every window of the recorded models. */
const PROMPT = Array.from({ length: 21 }, (_, i) => (7 * i + 3) % 60);

const KINDS:
  readonly (readonly [name: string, make: (config: PretrainedConfig) => DynamicCache | StaticCache])[] = [
    ["dynamic", (config) => new DynamicCache({ config })],
    ["static", (config) => new StaticCache({ config, max_cache_len: 40 })],
  ];

async function generate(model: PreTrainedModel, rows: number[][], cache: Cache, max_new_tokens = 6) {
  using input_ids = ids(rows);
  return await rowsOf(
    await model.generate({ input_ids, max_new_tokens, past_key_values: cache, eos_token_id: null }),
  );
}

/** Fills a cache with all but the last token of the prompt. */
async function prefill(model: PreTrainedModel, rows: number[][], cache: Cache): Promise<void> {
  using input_ids = ids(rows.map((row) => row.slice(0, -1)));
  const { logits } = await model.forward({ input_ids, past_key_values: cache });
  logits![Symbol.dispose]();
}

// Layers with a window (mistral), with and without (gemma2), in chunks and without (llama4), and without (llama).
for (const arch of ["llama", "gemma2", "mistral", "llama4"]) {
  for (const [kind, make] of KINDS) {
    everywhere(`${arch}: generation goes on with a ${kind} cache from a file`, async (device) => {
      await inFolder(async (folder) => {
        await using model = await AutoModelForCausalLM.from_pretrained(goldenPath(`models/${arch}`), {
          device,
        });
        const { config } = model;
        const rows = [PROMPT, PROMPT.map((id) => (id + 5) % 60)];
        using cache = make(config);
        await prefill(model, rows, cache);
        const token_ids = rows.map((row) => row.slice(0, -1));
        await save_cache(cache, `${folder}/a`, { config, token_ids });
        assertEquals(namesIn(folder), ["a"]);
        const loaded = await load_cache(`${folder}/a`, { config, device });
        using again = loaded.past_key_values;
        assertEquals(again.constructor, cache.constructor);
        assertEquals(loaded.token_ids, token_ids);
        assertEquals([again.get_seq_length(), again.device], [20, device]);
        for (let layer = 0; layer < again.is_sliding.length; layer++) {
          assertEquals(again.get_mask_sizes(1, layer), cache.get_mask_sizes(1, layer));
        }
        const expected = await generate(model, rows, cache);
        assertEquals(await generate(model, rows, again), expected);
        // The states that came to it since are the same too, bit for bit.
        await save_cache(cache, `${folder}/b`, { config });
        await save_cache(again, `${folder}/c`, { config });
        assertEquals(await Deno.readFile(`${folder}/c`), await Deno.readFile(`${folder}/b`));
        assert(tensorsIn(`${folder}/b`).size > 0);
      });
    });
  }
}

everywhere(
  "a cropped cache, an empty one and one of another device are read as they were",
  async (device) => {
    await inFolder(async (folder) => {
      await using model = await AutoModelForCausalLM.from_pretrained(LLAMA, { device });
      const { config } = model;
      using cache = new DynamicCache({ config });
      await save_cache(cache, `${folder}/empty`, { config, token_ids: [[]] });
      const empty = await load_cache(`${folder}/empty`, { config, device });
      using fresh = empty.past_key_values;
      assertEquals([fresh.get_seq_length(), empty.token_ids], [0, [[]]]);
      const whole = await generate(model, [PROMPT], cache);
      assertEquals(await generate(model, [PROMPT], fresh), whole);
      cache.crop(-(cache.get_seq_length() - 9));
      await save_cache(cache, `${folder}/cropped`, { config });
      // Written here, read for the CPU; it moves to its model at the next use.
      using nine = (await load_cache(`${folder}/cropped`, { config })).past_key_values;
      assertEquals([nine.get_seq_length(), nine.device], [9, "wasm"]);
      assertEquals(await generate(model, [PROMPT], nine), whole);
    });
  },
);

liveTest("a cache that no config made is read without one", async () => {
  await inFolder(async (folder) => {
    using cache = new DynamicCache();
    using x = states(1, 3, { B: 2 });
    using y = states(-1, 3, { B: 2 });
    for (let layer = 0; layer < 2; layer++) for (const t of cache.update(x, y, layer)) t[Symbol.dispose]();
    await save_cache(cache, `${folder}/a`);
    using again = (await load_cache(`${folder}/a`)).past_key_values;
    assertEquals([again.is_sliding, again.get_seq_length(1)], [[false, false], 3]);
    const [keys, values] = again.update(x, y, 1);
    using k = keys;
    using v = values;
    assertEquals(k.shape, [2, 2, 6, 4]);
    assertEquals((await k.data()).slice(0, 12), (await x.data()).slice(0, 12));
    assertEquals((await v.data()).slice(0, 12), (await y.data()).slice(0, 12));
  });
});

liveTest("an abort leaves the file that was there", async () => {
  await inFolder(async (folder) => {
    using cache = new DynamicCache();
    using x = states(1, 3);
    for (const t of cache.update(x, x, 0)) t[Symbol.dispose]();
    await save_cache(cache, `${folder}/a`);
    const before = await Deno.readFile(`${folder}/a`);
    for (const t of cache.update(x, x, 0)) t[Symbol.dispose]();
    const reason = new Error("enough");
    const signal = AbortSignal.abort(reason);
    assertEquals(await assertRejects(() => save_cache(cache, `${folder}/a`, { signal })), reason);
    assertEquals(await assertRejects(() => load_cache(`${folder}/a`, { signal })), reason);
    assertEquals([namesIn(folder), await Deno.readFile(`${folder}/a`)], [["a"], before]);
  });
});

liveTest("what cannot be saved is refused, and nothing is written", async () => {
  await inFolder(async (folder) => {
    const config = new PretrainedConfig({ num_hidden_layers: 2 });
    const windowed = new PretrainedConfig({ num_hidden_layers: 2, sliding_window: 4 });
    using cache = new DynamicCache({ config });
    using x = states(1, 3);
    for (let layer = 0; layer < 2; layer++) for (const t of cache.update(x, x, layer)) t[Symbol.dispose]();
    using half = new DynamicCache();
    for (const [layer, times] of [[0, 2], [1, 1]] as const) {
      for (let i = 0; i < times; i++) for (const t of half.update(x, x, layer)) t[Symbol.dispose]();
    }
    using fixed = new StaticCache({ config, max_cache_len: 4 });
    const refuse = async (subject: Cache, options: object, ...words: string[]) => {
      const error = await assertRejects(() => save_cache(subject, `${folder}/a`, options), InvalidArgument);
      for (const word of words) assertStringIncludes(error.message, word);
    };
    await refuse({ ...cache } as unknown as Cache, {}, "DynamicCache");
    await refuse(cache, { ids: [] }, '"ids"', "token_ids");
    await refuse(cache, { config: {} as PretrainedConfig }, "PretrainedConfig");
    await refuse(cache, { config: windowed }, "windows");
    await refuse(half, {}, "in the middle of a forward");
    await refuse(fixed, {}, "StaticCache", "config");
    await refuse(cache, { token_ids: [[1, 2]] }, "token_ids", "3 in every row");
    await refuse(cache, { token_ids: [[1, 2, 3], [1, 2, 3]] }, "batch 1");
    await refuse(cache, { token_ids: [[1, 2, -3]] }, "≥ 0");
    assertEquals(namesIn(folder), []);
  });
});

/** A cache file of two layers with three tokens, changed. */
function file(
  change: {
    metadata?: Readonly<Record<string, string>>;
    drop?: string;
    tensors?: Readonly<Record<string, readonly [dtype: "float32" | "float16" | "int64", shape: number[]]>>;
  } = {},
): Uint8Array {
  const shape = [1, 2, 3, 4];
  const all: Record<string, readonly ["float32" | "float16" | "int64", number[]]> = {};
  for (let i = 0; i < 2; i++) {
    for (const part of ["key", "value"]) all[`layers.${i}.${part}`] = ["float32", shape];
  }
  const bytes = { float32: 4, float16: 2, int64: 8 };
  const tensors = Object.fromEntries(
    Object.entries({ ...all, ...change.tensors }).filter(([name]) => name !== change.drop).map((
      [name, [dtype, shape]],
    ) => [name, { dtype, shape, data: new Uint8Array(shape.reduce((a, b) => a * b, bytes[dtype])) }]),
  );
  const metadata = { format: "attune-cache", version: "1", kind: "dynamic", seen: "3", layers: "2" };
  return writeSafetensors(tensors, { ...metadata, ...change.metadata });
}

const HOSTILE: readonly (readonly [Uint8Array, ...string[]])[] = [
  [new Uint8Array(4), "safetensors"],
  [file().subarray(0, -1), "ends after the end"],
  [writeSafetensors({ x: { dtype: "float32", shape: [1], data: new Float32Array(1) } }), "format"],
  [file({ metadata: { format: "pt" } }), "format", '"pt"'],
  [file({ metadata: { version: "2" } }), "version", '"2"'],
  [file({ metadata: { kind: "paged" } }), "dynamic or static", '"paged"'],
  [file({ metadata: { layers: "3" } }), "3 layers"],
  [file({ metadata: { layers: "1" } }), "1 layers"],
  [file({ metadata: { layers: "99999" } }), "layers", "4096"],
  [file({ metadata: { layers: "two" } }), "layers"],
  [file({ metadata: { seen: "-3" } }), "seen"],
  [file({ metadata: { seen: "4" } }), "layer 0", "4, D"],
  [file({ metadata: { seen: "0" } }), "tensors"],
  [file({ metadata: { kind: "static", max_cache_len: "8" } }), "fingerprint"],
  [file({ drop: "layers.1.value" }), "3 tensors"],
  [file({ drop: "layers.1.value", tensors: { other: ["float32", [1]] } }), "layers.1.value"],
  [file({ tensors: { other: ["float32", [1]] } }), "5 tensors"],
  [file({ tensors: { "layers.1.key": ["float32", [1, 2, 4, 3]] } }), "layer 1"],
  [file({ tensors: { "layers.1.value": ["float32", [1, 3, 3, 4]] } }), "layer 1"],
  [file({ tensors: { "layers.1.value": ["float16", [1, 2, 3, 4]] } }), "layer 1", "F16"],
  [
    file({ tensors: { "layers.0.key": ["int64", [1, 2, 3, 4]], "layers.0.value": ["int64", [1, 2, 3, 4]] } }),
    "I64",
  ],
  [file({ tensors: { "layers.0.key": ["float32", [3, 4]] } }), "layer 0"],
  [
    file({
      tensors: { "layers.1.key": ["float32", [2, 2, 3, 4]], "layers.1.value": ["float32", [2, 2, 3, 4]] },
    }),
    "layer 1",
  ],
  [
    file({
      tensors: { "layers.0.key": ["float32", [1, 0, 3, 4]], "layers.0.value": ["float32", [1, 0, 3, 4]] },
    }),
    "0",
  ],
  [file({ tensors: { token_ids: ["int64", [1, 2]] } }), "token_ids"],
  [file({ tensors: { token_ids: ["int64", [2, 3]] } }), "layer 0"],
  [file({ tensors: { token_ids: ["float32", [1, 3]] } }), "token_ids"],
];

for (const [i, [bytes, ...words]] of HOSTILE.entries()) {
  liveTest(`a file that is no cache is refused (${i}: ${words.join(", ")})`, async () => {
    await inFolder(async (folder) => {
      await Deno.writeFile(`${folder}/a`, bytes);
      const error = await assertRejects(() => load_cache(`${folder}/a`), ModelFileError);
      for (const word of words) assertStringIncludes(error.message, word);
    });
  });
}

liveTest("a cache of another model, or without the config it needs, is refused", async () => {
  await inFolder(async (folder) => {
    await Deno.writeFile(`${folder}/plain`, file());
    const config = new PretrainedConfig({ model_type: "llama", num_hidden_layers: 2, vocab_size: 9 });
    using cache = new DynamicCache({ config });
    using x = states(1, 3);
    for (let layer = 0; layer < 2; layer++) for (const t of cache.update(x, x, layer)) t[Symbol.dispose]();
    await save_cache(cache, `${folder}/a`, { config, token_ids: [[1, 2, 8]] });
    const refuse = async (
      name: string,
      options: object,
      kind: new (message: string) => AttuneError,
      word: string,
    ) =>
      assertStringIncludes(
        (await assertRejects(() => load_cache(`${folder}/${name}`, options), kind)).message,
        word,
      );
    await refuse("a", {}, InvalidArgument, "without config");
    await refuse("a", { device: "cuda" as DeviceName }, InvalidArgument, "cuda");
    await refuse("a", { model: 1 }, InvalidArgument, '"model"');
    await refuse("missing", {}, ModelFileError, "missing");
    await refuse("plain", { config }, ModelFileError, "fingerprint");
    for (
      const other of [
        { num_hidden_layers: 3 },
        { model_type: "mistral" },
        { sliding_window: 8 },
        { rope_parameters: { rope_theta: 5 } },
      ]
    ) {
      const changed = new PretrainedConfig({ ...config.toJSON(), ...other });
      await refuse("a", { config: changed }, ModelFileError, "fingerprint");
    }
    // What does not change keys and values does not matter, nor does the order of fields.
    const same = new PretrainedConfig({
      dtype: "float16",
      vocab_size: 9,
      num_hidden_layers: 2,
      model_type: "llama",
    });
    using again = (await load_cache(`${folder}/a`, { config: same })).past_key_values;
    assertEquals(again.get_seq_length(), 3);
    using more = Tensor.from(new Float32Array(16), { shape: [1, 2, 1, 8] });
    // Heads of another size, as a file of somebody else could have them, are refused when they meet the model's.
    await assertRejects(() => Promise.resolve().then(() => again.update(more, more, 0)), InvalidArgument);
  });
});

Deno.test({
  name: "without leave to write or read, the error names the flag",
  permissions: { read: false, write: false },
  fn: async () => {
    using cache = new DynamicCache();
    const write = await assertRejects(() => save_cache(cache, "./somewhere"), ModelFileError);
    assertStringIncludes(write.message, "--allow-");
    const read = await assertRejects(() => load_cache("./somewhere"), ModelFileError);
    assertStringIncludes(read.message, "--allow-read");
  },
});

reportSkipped();
