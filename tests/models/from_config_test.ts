/**
 * New models: weights begin as Transformers begins them, repeat with their seed, and a failure changes nothing.
 *
 * @module
 */
import { assert, assertEquals, assertNotEquals, assertRejects, assertStringIncludes } from "@std/assert";
import {
  type AttentionFunction,
  AttentionInterface,
  AttuneError,
  type AutoClass,
  AutoConfig,
  AutoModel,
  AutoModelForCausalLM,
  AutoModelForImageTextToText,
  configure,
  InvalidArgument,
  OutOfMemory,
  type PretrainedConfig,
} from "../../mod.ts";
import { type FileTensor, inFolder, tensorsIn } from "../support/folders.ts";
import { goldenPath } from "../support/golden.ts";
import { changedConfig } from "./hostile.ts";
import { disposeAll, everywhere, ids, liveTest, reportSkipped, rowsOf } from "./support.ts";

const RECORDED: readonly (readonly [arch: string, auto: AutoClass])[] = [
  ["bert", AutoModel],
  ["gemma2", AutoModelForCausalLM],
  ["llama", AutoModelForCausalLM],
  ["llama4", AutoModelForCausalLM],
  ["llava", AutoModelForImageTextToText],
  ["mistral", AutoModelForCausalLM],
];

/** Weights of Transformers' model that take part in nothing here, and which a new one has not. */
const NOT_MADE = /^(bert\.)?pooler\.|^vision_tower\.post_layernorm\./;

function floats({ bytes }: FileTensor): Float32Array {
  return new Float32Array(bytes.slice().buffer);
}

function deviation(values: ArrayLike<number>): number {
  const list = Array.from(values);
  const mean = list.reduce((a, b) => a + b, 0) / list.length;
  return Math.sqrt(list.reduce((sum, x) => sum + (x - mean) ** 2, 0) / list.length);
}

/** The weights a new model has, read from what it saves. */
async function weightsOf(
  auto: AutoClass,
  config: PretrainedConfig,
  options: Parameters<AutoClass["from_config"]>[1] = { seed: 1 },
): Promise<Map<string, FileTensor>> {
  await using model = await auto.from_config(config, options);
  let found = new Map<string, FileTensor>();
  await inFolder(async (folder) => {
    await model.save_pretrained(folder);
    found = tensorsIn(`${folder}/model.safetensors`);
  });
  return found;
}

for (const [arch, auto] of RECORDED) {
  liveTest(`${arch}: a new model has the weights of a recorded one, in name and shape, and runs`, async () => {
    const config = await AutoConfig.from_pretrained(goldenPath(`models/${arch}`));
    const made = await weightsOf(auto, config);
    const recorded = tensorsIn(goldenPath(`models/${arch}/model.safetensors`));
    const shapes = (all: Map<string, FileTensor>) =>
      [...all].filter(([name]) => !NOT_MADE.test(name)).map(([name, t]) => [name, t.dtype, t.shape]);
    assertEquals(shapes(made), shapes(recorded));
    await using model = await auto.from_config(config, { seed: 1 });
    using input_ids = ids([[5, 6, 7]]);
    const output = await model.forward({ input_ids });
    const states = (output.logits ?? output.last_hidden_state)!;
    assert((await states.data() as Float32Array).every(Number.isFinite));
    disposeAll(output);
  });

  liveTest(`${arch}: a new model is saved and read again`, async () => {
    await inFolder(async (folder) => {
      const config = await AutoConfig.from_pretrained(goldenPath(`models/${arch}`));
      await using model = await auto.from_config(config);
      await model.save_pretrained(folder);
      await using again = await auto.from_pretrained(folder);
      assertEquals(again.num_parameters, model.num_parameters);
      if (!model.can_generate()) return;
      using input_ids = ids([[5, 6, 7]]);
      assertEquals(
        await rowsOf(await again.generate({ input_ids, max_new_tokens: 5 })),
        await rowsOf(await model.generate({ input_ids, max_new_tokens: 5 })),
      );
    });
  });
}

everywhere("weights begin normal with the config's range, biases 0, norms 1", async (device) => {
  const config = await changedConfig("llama", {
    initializer_range: 0.5,
    attention_bias: true,
    pad_token_id: 3,
    vocab_size: 512,
  });
  const weights = await weightsOf(AutoModelForCausalLM, config, { seed: 7, device });
  let normal = 0;
  for (const [name, tensor] of weights) {
    const values = floats(tensor);
    if (name.endsWith(".bias")) assert(values.every((x) => x === 0), name);
    else if (name.endsWith("norm.weight")) assert(values.every((x) => x === 1), name);
    else {
      normal++;
      // Of n numbers the deviation is known to about 1/√(2n); five times that.
      const slack = 0.5 * 5 / Math.sqrt(2 * values.length);
      assert(Math.abs(deviation(values) - 0.5) < slack, `${name}: ${deviation(values)}`);
      assert(Math.abs(values.reduce((a, b) => a + b, 0) / values.length) < 0.5 * 5 / Math.sqrt(values.length));
    }
  }
  assert(normal > 10);
  const embedding = weights.get("model.embed_tokens.weight")!;
  const width = embedding.shape[1]!;
  const zero = Array.from({ length: 512 }, (_, row) => row).filter((row) =>
    floats(embedding).subarray(row * width, (row + 1) * width).every((x) => x === 0)
  );
  assertEquals(zero, [3]);
});

liveTest("Gemma's norms begin at 0, as they are added to 1", async () => {
  const config = await AutoConfig.from_pretrained(goldenPath("models/gemma2"));
  for (const [name, tensor] of await weightsOf(AutoModelForCausalLM, config)) {
    if (name.endsWith("norm.weight")) assert(floats(tensor).every((x) => x === 0), name);
  }
});

liveTest("the parts of LLaVA begin as their own configs say", async () => {
  const config = await changedConfig("llava", {
    vision_config: { initializer_range: 0.1, initializer_factor: 2 },
    text_config: { initializer_range: 0.3 },
  });
  const weights = await weightsOf(AutoModelForImageTextToText, config);
  const near = (name: string, expected: number) => {
    const values = floats(weights.get(name)!);
    const slack = expected * 5 / Math.sqrt(2 * values.length);
    assert(Math.abs(deviation(values) - expected) < slack, `${name}: ${deviation(values)}, not ${expected}`);
  };
  // By `_init_weights` of CLIP, with width 24 and 3 layers.
  near("vision_tower.embeddings.patch_embedding.weight", 0.2);
  near("vision_tower.encoder.layers.0.self_attn.q_proj.weight", 24 ** -0.5 * 6 ** -0.5 * 2);
  near("vision_tower.encoder.layers.0.self_attn.out_proj.weight", 24 ** -0.5 * 2);
  near("vision_tower.encoder.layers.0.mlp.fc1.weight", 48 ** -0.5 * 2);
  near("vision_tower.encoder.layers.0.mlp.fc2.weight", 24 ** -0.5 * 6 ** -0.5 * 2);
  near("language_model.model.layers.0.mlp.gate_proj.weight", 0.3);
  near("multi_modal_projector.linear_1.weight", 0.3);
});

liveTest("a seed repeats the weights, whatever else the model has, and without one they differ", async () => {
  const config = await AutoConfig.from_pretrained(goldenPath("models/llama"));
  const first = await weightsOf(AutoModelForCausalLM, config, { seed: 5 });
  assertEquals(await weightsOf(AutoModelForCausalLM, config, { seed: 5 }), first);
  assertNotEquals(await weightsOf(AutoModelForCausalLM, config, { seed: 6 }), first);
  assertNotEquals(
    await weightsOf(AutoModelForCausalLM, config, {}),
    await weightsOf(AutoModelForCausalLM, config, {}),
  );
  const deeper = await weightsOf(AutoModelForCausalLM, await changedConfig("llama", { num_hidden_layers: 3 }), {
    seed: 5,
  });
  for (const [name, tensor] of first) assertEquals(deeper.get(name), tensor, name);
});

everywhere("the type is what is asked for, else what the config says", async (device) => {
  const config = await changedConfig("llama", { dtype: "bfloat16" });
  const types = async (options: object) =>
    new Set([...(await weightsOf(AutoModelForCausalLM, config, { device, ...options })).values()].map((t) => t.dtype));
  assertEquals(await types({}), new Set(["BF16"]));
  assertEquals(await types({ dtype: "float16" }), new Set(["F16"]));
  assertEquals(config["dtype"], "float16");
});

liveTest("the model runs with the config itself: a swap is seen in it", async () => {
  const config = await AutoConfig.from_pretrained(goldenPath("models/llama"));
  await using model = await AutoModelForCausalLM.from_config(config, { attn_implementation: "eager" });
  assert(model.config === config);
  assertEquals(config._attn_implementation, "eager");
  await model.set_attn_implementation("sdpa");
  assertEquals(config._attn_implementation, "sdpa");
});

liveTest("a failure leaves the config as it was", async () => {
  const refuse = async (
    arch: string,
    fields: Readonly<Record<string, unknown>>,
    options: Record<string, unknown>,
    ...words: string[]
  ) => {
    const config = await changedConfig(arch, fields);
    config._attn_implementation = "eager";
    const before = [JSON.stringify(config), config._attn_implementation, Object.keys(config)];
    const auto = arch === "llava" ? AutoModelForImageTextToText : AutoModelForCausalLM;
    const error = await assertRejects(() => auto.from_config(config, options), AttuneError);
    for (const word of words) assertStringIncludes(error.message, word);
    assertEquals([JSON.stringify(config), config._attn_implementation, Object.keys(config)], before);
  };
  await refuse("llama", {}, { attn_implementation: "nobody" }, "nobody", "sdpa");
  await refuse("llama", {}, { attn_implementation: { text_config: "sdpa" } }, "text_config");
  await refuse("llama", {}, { dtype: "int8" }, "int8", "bfloat16");
  await refuse("llama", {}, { device: "cuda" }, "cuda", "webgpu");
  await refuse("llama", {}, { seed: -1 }, "seed");
  await refuse("llama", {}, { seeds: 1 }, '"seeds"', "seed");
  await refuse("llama", { dtype: "int4" }, {}, "dtype");
  await refuse("llama", { initializer_range: -1 }, { attn_implementation: "sdpa" }, "initializer_range");
  await refuse("mistral", { hidden_size: "wide" }, { attn_implementation: "sdpa" }, "hidden_size");
  await refuse("bert", {}, {}, "AutoModel");
  // The architecture fills fields in before its last weight is asked for.
  await refuse("gemma2", { num_hidden_layers: 1, layer_types: null, intermediate_size: 0 }, {}, "intermediate_size");
  await refuse("llava", { vision_config: { hidden_size: -1 } }, { attn_implementation: "sdpa" }, "hidden_size");
  await assertRejects(
    () => AutoModelForCausalLM.from_config({ model_type: "llama" } as unknown as PretrainedConfig),
    InvalidArgument,
  );
});

liveTest("an abort while weights are made leaves nothing and the config as it was", async () => {
  const config = await changedConfig("llama", { vocab_size: 20_000 });
  const before = JSON.stringify(config);
  const controller = new AbortController();
  const reason = new Error("enough");
  setTimeout(() => controller.abort(reason), 1);
  const thrown = await assertRejects(() =>
    AutoModelForCausalLM.from_config(config, { signal: controller.signal, attn_implementation: "eager" })
  );
  assertEquals(thrown, reason);
  assertEquals([JSON.stringify(config), config._attn_implementation], [before, null]);
});

liveTest("weights that do not fit are refused before the first is made", async () => {
  await configure({ max_memory: 16 * 2 ** 20 });
  try {
    const config = await changedConfig("llama", { vocab_size: 200_000 });
    const started = performance.now();
    await assertRejects(() => AutoModelForCausalLM.from_config(config), OutOfMemory);
    assert(performance.now() - started < 1000);
  } finally {
    await configure({ max_memory: 2 ** 32 });
  }
});

liveTest("a function of the user's can be asked for", async () => {
  const seen: string[] = [];
  const mine: AttentionFunction = (_module, query) => {
    seen.push("called");
    const [b, h, q, d] = query.shape as [number, number, number, number];
    return [query.view([b, q, h, d], [h * q * d, d, q * d, 1]), null];
  };
  AttentionInterface.register("from_config_test", mine);
  const config = await AutoConfig.from_pretrained(goldenPath("models/llama"));
  await using model = await AutoModelForCausalLM.from_config(config, { attn_implementation: "from_config_test" });
  using input_ids = ids([[1, 2]]);
  disposeAll(await model.forward({ input_ids }));
  assertEquals(seen.length, 2);
});

reportSkipped();
