import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { AutoModelForCausalLM, liveBuffers, support, Tensor } from "../../mod.ts";
import { FIRST_BYTES } from "../../src/hub/beginning.ts";
import { hugeFile, serveHuge, temporaryFolder, text } from "../hub/remote_server.ts";
import { writeGguf } from "../support/gguf.ts";
import { bytePairMetadata, llamaParts } from "../support/llama_gguf.ts";
import { attune } from "./fake_io.ts";

const MODEL = "tests/models/demo";
const GOLDEN = "tests/golden/models";

/** What `attune inspect --json` printed. */
async function inspected(model: string, ...args: string[]) {
  const { code, stdout, stderr } = await attune(["inspect", model, ...args, "--json"]);
  assertEquals({ code, stderr }, { code: 0, stderr: "" });
  return JSON.parse(stdout);
}

Deno.test("attune inspect: says what the loaded model says", async () => {
  for (const attn of ["sdpa", "flash_attention_2"]) {
    const { run, stored, config, tokenizer } = await inspected(MODEL, "--attn", attn);
    await using model = await AutoModelForCausalLM.from_pretrained(MODEL, { attn_implementation: attn });
    assertEquals(
      run.layers.map(({ layer, implementation, why }: Record<string, string>) => ({
        layer,
        implementation,
        why,
      })),
      model.attention_report().map(({ layer, implementation, why }) => ({ layer, implementation, why })),
    );
    assertEquals([run.parameters, stored[0].numbers], [model.num_parameters, model.num_parameters]);
    assertEquals([config.model_type, tokenizer.tokens, tokenizer.chat_template], ["llama", 3072, false]);
  }
  assertEquals(liveBuffers(), 0);
});

Deno.test("attune inspect: counts the memory that a run then takes, to the byte", async () => {
  for (const attn of ["eager", "sdpa", "flash_attention_2", "flex_attention"]) {
    for (const tokens of [1, 40, 300]) {
      const { memory } = (await inspected(MODEL, "--attn", attn, "--context", String(tokens))).run;
      await using model = await AutoModelForCausalLM.from_pretrained(MODEL, { attn_implementation: attn });
      assertEquals(memory.weights, model.memory.bytes);
      using input_ids = Tensor.from(new Int32Array(tokens), { shape: [1, tokens] });
      const { logits, past_key_values } = await model.forward({ input_ids, logits_to_keep: 1 });
      logits![Symbol.dispose]();
      past_key_values![Symbol.dispose]();
      assertEquals({ attn, tokens, total: memory.total }, { attn, tokens, total: model.memory.peak });
    }
  }
});

Deno.test("attune inspect: the cache grows by what it says, and windows bound it", async () => {
  const { memory } = (await inspected(MODEL, "--context", "100")).run;
  assertEquals(memory.cache_per_token, { float32: 6144 });
  assertEquals(Object.keys(memory.cache), ["float32"]);
  assertEquals(memory.cache.float32, 100 * 6144);
  const short = (await inspected(`${GOLDEN}/gemma2`, "--context", "4")).run.memory;
  const long = (await inspected(`${GOLDEN}/gemma2`, "--context", "104")).run.memory;
  // Two of its four layers keep 4 tokens.
  assertEquals(long.cache.float32 - short.cache.float32, 100 * short.cache_per_token.float32 / 2);
});

Deno.test("attune inspect: layers say their type, window, cap and the masks they receive", async () => {
  const layer = async (model: string, row: number, ...args: string[]) => {
    const { layer: _layer, why: _why, ...rest } =
      (await inspected(`${GOLDEN}/${model}`, ...args)).run.layers[row];
    return rest;
  };
  const heads = { heads: 4, kv_heads: 2, head_dim: 8 };
  assertEquals(await layer("gemma2", 0, "--context", "9"), {
    type: "sliding_attention",
    implementation: "sdpa",
    ...heads,
    window: 4,
    softcap: 4,
    mask_of_prompt: "bool [1,1,9,9]",
    mask_of_token: "bool [1,1,1,4]",
  });
  assertEquals(await layer("llama4", 3, "--attn", "eager", "--context", "9"), {
    type: "full_attention",
    implementation: "eager",
    ...heads,
    window: null,
    softcap: null,
    mask_of_prompt: "float32 [1,1,9,9]",
    mask_of_token: "float32 [1,1,1,10]",
  });
  const tower = await layer("llava", 0, "--attn", "eager", "--attn", "text_config=flash_attention_2");
  assertEquals([tower.type, tower.implementation, tower.mask_of_prompt], ["bidirectional", "eager", null]);
  const text = await layer("llava", 3, "--attn", "eager", "--attn", "text_config=flash_attention_2");
  assertEquals([text.implementation, text.mask_of_prompt], ["flash_attention_2", "null"]);
  const bert = await layer("bert", 0, "--context", "400");
  assertEquals([bert.type, bert.mask_of_prompt, bert.mask_of_token], ["bidirectional", "null", null]);
});

/** A folder with one file of weights, all holes: `numbers` rows of an embedding, and what a config says. */
async function sparseModel(config: Record<string, unknown>, rows: number): Promise<string> {
  const folder = await Deno.makeTempDir();
  await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify(config));
  const width = Number(config["hidden_size"]);
  const header: Record<string, unknown> = {};
  let at = 0;
  const add = (name: string, shape: number[]) => {
    const bytes = 2 * shape.reduce((a, b) => a * b, 1);
    header[name] = { dtype: "BF16", shape, data_offsets: [at, at += bytes] };
  };
  add("model.embed_tokens.weight", [rows, width]);
  add("model.norm.weight", [width]);
  for (const name of ["q", "k", "v", "o"]) {
    add(`model.layers.0.self_attn.${name}_proj.weight`, [width, width]);
  }
  for (const name of ["gate", "up"]) add(`model.layers.0.mlp.${name}_proj.weight`, [64, width]);
  add("model.layers.0.mlp.down_proj.weight", [width, 64]);
  for (const name of ["input", "post_attention"]) add(`model.layers.0.${name}_layernorm.weight`, [width]);
  const json = new TextEncoder().encode(JSON.stringify(header));
  using file = await Deno.open(`${folder}/model.safetensors`, { write: true, create: true });
  await file.write(new Uint8Array(new BigUint64Array([BigInt(json.length)]).buffer));
  await file.write(json);
  await file.truncate(8 + json.length + at);
  return folder;
}

Deno.test("attune inspect: reads no weights, so that a model may be larger than any memory", async () => {
  const rows = 2 ** 22;
  const folder = await sparseModel({
    ...{ model_type: "llama", vocab_size: rows, hidden_size: 4096, intermediate_size: 64 },
    ...{ num_hidden_layers: 1, num_attention_heads: 32, tie_word_embeddings: true },
  }, rows);
  try {
    const { run, stored } = await inspected(folder);
    assert(stored[0].bytes > 2 ** 35);
    assertEquals([run.memory.fits, run.memory.longest_context], [false, 0]);
    assertEquals(run.parameters, stored[0].numbers);
    assertStringIncludes((await attune(["inspect", folder])).stdout, "It does not fit");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("attune inspect: of a model on a server no more than the headers is fetched", async () => {
  const width = 4096;
  const huge = hugeFile({
    "model.embed_tokens.weight": [2 ** 22, width],
    "model.norm.weight": [width],
    ...Object.fromEntries(["q", "k", "v", "o"].map((name) => [
      `model.layers.0.self_attn.${name}_proj.weight`,
      [width, width],
    ])),
    "model.layers.0.mlp.gate_proj.weight": [64, width],
    "model.layers.0.mlp.up_proj.weight": [64, width],
    "model.layers.0.mlp.down_proj.weight": [width, 64],
    "model.layers.0.input_layernorm.weight": [width],
    "model.layers.0.post_attention_layernorm.weight": [width],
  });
  const config = {
    ...{ model_type: "llama", vocab_size: 2 ** 22, hidden_size: width, intermediate_size: 64 },
    ...{ num_hidden_layers: 1, num_attention_heads: 32, tie_word_embeddings: true },
  };
  await using cache = await temporaryFolder();
  await using site = await serveHuge({ "model.safetensors": huge }, {
    "config.json": text(JSON.stringify(config)),
  });
  const where = ["--cache-dir", cache.path];
  for (
    const [model, ...args] of [
      ["org/name", "--endpoint", site.origin, ...where] as const,
      [`${site.origin}/plain`, ...where] as const,
    ]
  ) {
    site.served.bytes = 0;
    const { run, stored, files, problem } = await inspected(model, ...args);
    assertEquals(problem, null);
    assertEquals([run.memory.fits, run.parameters], [false, stored[0].numbers]);
    assertEquals(files.at(-1), { name: "model.safetensors", bytes: huge.size });
    assertEquals(site.served.bytes, FIRST_BYTES);
  }
  assertStringIncludes((await attune(["inspect", "--help"])).stdout, "only the headers are read");
});

Deno.test("attune inspect: a model that cannot be loaded is still described", async () => {
  const config = { model_type: "llama", vocab_size: 8, hidden_size: 16, num_attention_heads: 2 };
  const folder = await sparseModel({ ...config, intermediate_size: 64, num_hidden_layers: 2 }, 8);
  try {
    const missing = await inspected(folder);
    assertEquals([missing.run, missing.stored[0].dtype], [null, "BF16"]);
    assertStringIncludes(missing.problem, "is missing from the checkpoint");
    await Deno.writeTextFile(`${folder}/config.json`, '{"model_type": "rwkv7"}');
    const { code, stdout } = await attune(["inspect", folder]);
    assertEquals(code, 0);
    assertStringIncludes(
      stdout,
      "This model cannot be loaded here. Cannot read model_type: expected one of bert",
    );
    assertStringIncludes(stdout, "BF16");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("attune inspect: an implementation nobody knows is refused, with those there are", async () => {
  const { code, stdout, stderr } = await attune(["inspect", MODEL, "--attn", "nope"]);
  assertEquals([code, stdout], [1, ""]);
  assertStringIncludes(stderr, 'Cannot use attn_implementation="nope": expected one of eager, sdpa');
  assertEquals((await attune(["inspect", MODEL, "--attn", "vision_config=eager"])).code, 1);
});

Deno.test("attune inspect: the page has the same facts", async () => {
  const { code, stdout } = await attune(["inspect", MODEL, "--context", "100"]);
  assertEquals(code, 0);
  for (
    const fact of [
      ...["model_type: llama", "BF16            56   5.14 M  9.8 MiB", "model.safetensors", 'model "BPE"'],
      ...["memory for a context of 100 tokens", "It fits.", "6 attention layers: 6 full_attention"],
      ...["layers.0.self_attn … layers.5.self_attn", "4/2 × 64", "default: nothing was requested"],
    ]
  ) assertStringIncludes(stdout, fact);
});

Deno.test("attune support: a row for each implementation, a column for each device", async () => {
  const { code, stdout } = await attune(["support", "--json"]);
  assertEquals([code, JSON.parse(stdout)], [0, JSON.parse(JSON.stringify(await support()))]);
  const page = (await attune(["support"])).stdout;
  assertStringIncludes(page, "flash_attention_2  yes");
  assertStringIncludes(page, "wasm: WebAssembly");
});

Deno.test("attune inspect, generate: a GGUF file is a model", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const { metadata, tensors } = llamaParts(MODEL, "Q8_0");
    writeGguf(`${folder}/a.gguf`, { ...metadata, ...bytePairMetadata(MODEL) }, tensors);
    const { files, stored, run, tokenizer, config } = await inspected(`${folder}/a.gguf`, "--context", "40");
    assertEquals(files, [{ name: "a.gguf", bytes: (await Deno.stat(`${folder}/a.gguf`)).size }]);
    assertEquals(stored.map(({ dtype }: { dtype: string }) => dtype).sort(), ["F16", "F32", "Q8_0"]);
    assertEquals([config.model_type, tokenizer.tokens, tokenizer.model], ["llama", 3072, "BPE"]);
    await using model = await AutoModelForCausalLM.from_pretrained(`${folder}/a.gguf`);
    assertEquals([run.parameters, run.memory.weights], [model.num_parameters, model.memory.bytes]);
    const prompt = ["In the beginning", "--max-new-tokens", "4"];
    const whole = await attune(["generate", `${folder}/a.gguf`, ...prompt]);
    const named = await attune(["generate", folder, ...prompt, "--gguf-file", "a.gguf"]);
    assertEquals([whole.code, whole.stderr, named.stdout], [0, "", whole.stdout]);
    assert(whole.stdout.trim().length > 0);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
