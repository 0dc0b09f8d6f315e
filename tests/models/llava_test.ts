/**
 * LLaVA against recordings of Transformers, its two backbones each with its own attention, and what it must refuse.
 *
 * @module
 */
import { assertEquals, assertRejects } from "@std/assert";
import {
  type AttentionFunction,
  AttentionInterface,
  AttentionMaskInterface,
  type AttnImplementation,
  AutoModel,
  AutoModelForImageTextToText,
  InvalidArgument,
  type PreTrainedModel,
  sdpa_attention_forward,
  sdpa_mask,
  Tensor,
} from "../../mod.ts";
import { goldenPath } from "../support/golden.ts";
import { seeded } from "../support/random.ts";
import { assertClose, EXACT, toleranceOf } from "../support/tolerance.ts";
import { changedConfig, hostileConfigs, hostileInputs } from "./hostile.ts";
import { recordedTests } from "./recorded.ts";
import { disposeAll, everywhere, ids, liveTest, reportSkipped, rowsOf } from "./support.ts";

recordedTests({ arch: "llava" });

hostileConfigs("llava", AutoModelForImageTextToText, [
  [{ image_token_index: 64 }, "image_token_index", "at most 63"],
  [{ image_token_index: -1 }, "image_token_index"],
  [{ image_token_index: "63" }, "image_token_index"],
  [{ vision_feature_layer: 4 }, "vision_feature_layer", "4 hidden states"],
  [{ vision_feature_layer: -5 }, "vision_feature_layer"],
  [{ vision_feature_layer: 1.5 }, "vision_feature_layer"],
  [{ vision_feature_layer: [-2, -1] }, "multi_modal_projector", "[32,48]"],
  [{ vision_feature_select_strategy: "cls" }, "vision_feature_select_strategy"],
  [{ projector_hidden_act: "swiglu" }, "projector_hidden_act"],
  [{ vision_config: null }, "vision_config"],
  [{ text_config: null }, "text_config"],
  [{ vision_config: { model_type: "siglip_vision_model" } }, "model_type", "clip_vision_model"],
  [{ vision_config: { patch_size: 3 } }, "patch_size", "divisor"],
  [{ vision_config: { patch_size: 0 } }, "patch_size"],
  [{ vision_config: { image_size: 1e9 } }, "image_size"],
  [{ vision_config: { image_size: 16 } }, "position_embedding"],
  [{ vision_config: { num_channels: 4 } }, "patch_embedding", "[24,4,4,4]"],
  [{ vision_config: { num_attention_heads: 5 } }, "num_attention_heads"],
  [{ vision_config: { layer_norm_eps: NaN } }, "layer_norm_eps"],
  [{ text_config: { model_type: "qwen2" } }, "model_type", "llama, mistral"],
  [{ text_config: { vocab_size: 32 } }, "image_token_index"],
  [{ text_config: { num_key_value_heads: 3 } }, "num_key_value_heads"],
]);

const PROMPT = [59, 19, 63, 63, 63, 63, 44, 19, 43];
const images = (count = 1, shape: readonly number[] = [3, 8, 8]): Tensor => {
  const full = [count, ...shape];
  const values = seeded("images").normal(full.reduce((a, b) => a * b, 1), 1);
  return Tensor.from(Float32Array.from(values), { shape: full });
};

async function load(attn_implementation: AttnImplementation = "sdpa"): Promise<PreTrainedModel> {
  return await AutoModelForImageTextToText.from_pretrained(goldenPath("models/llava"), {
    attn_implementation,
  });
}

async function logitsOf(model: PreTrainedModel, inputs: Record<string, unknown>): Promise<Float32Array> {
  const output = await model.forward(inputs);
  const values = await output.logits!.data() as Float32Array;
  disposeAll(output);
  return values;
}

liveTest("a report has the rows of both backbones, each with its own implementation", async () => {
  await using model = await load({ vision_config: "eager", text_config: "flash_attention_2" });
  assertEquals(model.attention_report().map((r) => [r.layer, r.implementation]), [
    ...[0, 1, 2].map((i) => [`vision_tower.layers.${i}.self_attn`, "eager"]),
    ...[0, 1].map((i) => [`language_model.layers.${i}.self_attn`, "flash_attention_2"]),
  ]);
  await model.set_attn_implementation({ vision_config: "flash_attention_2" });
  assertEquals(
    new Set(model.attention_report().map((r) => r.implementation)),
    new Set(["flash_attention_2"]),
  );
  await assertRejects(
    () => model.set_attn_implementation({ audio_config: "eager" }),
    InvalidArgument,
    "text_config",
  );
});

/** Registers a function that computes as sdpa does and notes the layers it is called for. */
function spy(name: string, before: () => Promise<void> | void = () => {}): string[] {
  const calls: string[] = [];
  const fn: AttentionFunction = async (...args) => {
    const [module, , , , mask, kwargs] = args;
    calls.push(
      `${module.config["model_type"]} ${module.layer_idx} ${module.is_causal} ${kwargs["mark"]} ${
        mask === null
      }`,
    );
    await before();
    return sdpa_attention_forward(...args);
  };
  AttentionInterface.register(name, fn);
  AttentionMaskInterface.register(name, sdpa_mask);
  return calls;
}

everywhere("each backbone asks its own config which function it uses", async (device) => {
  const seen = { vision: spy("vision_spy"), text: spy("text_spy") };
  await using model = await load({ vision_config: "vision_spy", text_config: "text_spy" });
  await model.to(device);
  using input_ids = ids([PROMPT]);
  using pixel_values = images();
  await logitsOf(model, { input_ids, pixel_values, mark: 7 });
  // The last layer of the tower comes after the features, so it is not run.
  assertEquals(seen.vision, [0, 1].map((i) => `clip_vision_model ${i} false 7 true`));
  assertEquals(seen.text, [0, 1].map((i) => `llama ${i} true 7 true`));
});

liveTest(
  "a swap while the tower computes takes effect in the next forward, for mask and function alike",
  async () => {
    await using model = await load("eager");
    using input_ids = ids([PROMPT]);
    using pixel_values = images();
    const before = await logitsOf(model, { input_ids, pixel_values });
    let swap: (() => Promise<void>) | null = () => model.set_attn_implementation("flash_attention_2");
    spy("swapping", async () => {
      const now = swap;
      swap = null;
      await now?.();
    });
    await model.set_attn_implementation({ vision_config: "swapping" });
    const during = await logitsOf(model, { input_ids, pixel_values });
    assertEquals(model.config._attn_implementation, "flash_attention_2");
    const within = toleranceOf("logits", "wasm");
    assertClose(during, before, within, "during");
    assertClose(await logitsOf(model, { input_ids, pixel_values }), before, within, "after");
  },
);

liveTest("generate reads images with the prompt only, and continues a cache without them", async () => {
  await using model = await load();
  const calls = spy("counting");
  await model.set_attn_implementation({ vision_config: "counting" });
  using input_ids = ids([PROMPT]);
  using pixel_values = images();
  const tokens = await rowsOf(await model.generate({ input_ids, pixel_values, max_new_tokens: 5 }));
  assertEquals(calls.length, 2);
  // By hand: the whole text again for every token.
  const rows = [...PROMPT];
  for (let step = 0; step < 5; step++) {
    using all = ids([rows]);
    const logits = await logitsOf(model, { input_ids: all, pixel_values, logits_to_keep: 1 });
    rows.push(logits.indexOf(Math.max(...logits)));
  }
  assertEquals(tokens, [rows]);
});

liveTest("text alone is read as the language model reads it; images can be more than the rows", async () => {
  await using model = await load();
  await using base = await AutoModel.from_pretrained(goldenPath("models/llava"));
  using text = ids([[59, 19, 44]]);
  assertEquals((await logitsOf(model, { input_ids: text })).length, 3 * 64);
  const output = await base.forward({ input_ids: text });
  assertEquals([output.logits, output.last_hidden_state?.shape], [undefined, [1, 3, 32]]);
  disposeAll(output);
  // Two images in one row, then one in each of two rows: the features go to the places in order.
  using pixel_values = images(2);
  using one = ids([[...PROMPT, ...PROMPT]]);
  using two = ids([PROMPT, PROMPT]);
  const joined = await logitsOf(model, { input_ids: one, pixel_values });
  const apart = await logitsOf(model, { input_ids: two, pixel_values });
  const n = PROMPT.length * 64;
  assertClose(joined.subarray(0, n), apart.subarray(0, n), toleranceOf("logits", "wasm"), "first image");
});

liveTest("pixels of a half type are widened", async () => {
  await using model = await load();
  using input_ids = ids([PROMPT]);
  using pixel_values = images();
  using half = await pixel_values.to("float16");
  using widened = await half.to("float32");
  const expected = await logitsOf(model, { input_ids, pixel_values: widened });
  assertClose(await logitsOf(model, { input_ids, pixel_values: half }), expected, EXACT, "logits");
});

liveTest("with the class token an image takes one place more", async () => {
  const config = await changedConfig("llava", { vision_feature_select_strategy: "full" });
  const path = goldenPath("models/llava");
  await using model = await AutoModelForImageTextToText.from_pretrained(path, { config });
  using pixel_values = images();
  using four = ids([PROMPT]);
  using five = ids([[63, ...PROMPT]]);
  await assertRejects(() => model.forward({ input_ids: four, pixel_values }), InvalidArgument, "expected 5");
  assertEquals((await logitsOf(model, { input_ids: five, pixel_values })).length, (PROMPT.length + 1) * 64);
});

hostileInputs("llava", load, () => ({ input_ids: ids([PROMPT]), pixel_values: images() }), [
  [
    "more image tokens than features",
    () => ({ input_ids: ids([[63, ...PROMPT]]), pixel_values: images() }),
    "5 image tokens",
    "expected 4",
  ],
  [
    "fewer image tokens than features",
    () => ({ input_ids: ids([PROMPT.slice(3)]), pixel_values: images() }),
    "3 image tokens",
  ],
  ["images without places", () => ({ input_ids: ids([[1, 2]]), pixel_values: images() }), "0 image tokens"],
  [
    "two images for the places of one",
    () => ({ input_ids: ids([PROMPT]), pixel_values: images(2) }),
    "expected 8",
  ],
  ["no images in pixel_values", () => ({ input_ids: ids([PROMPT]), pixel_values: images(0) }), "[0,3,8,8]"],
  [
    "images of another size",
    () => ({ input_ids: ids([PROMPT]), pixel_values: images(1, [3, 8, 12]) }),
    "[1,3,8,12]",
    "3,8,8",
  ],
  [
    "images of another depth",
    () => ({ input_ids: ids([PROMPT]), pixel_values: images(1, [1, 8, 8]) }),
    "[1,1,8,8]",
  ],
  [
    "a single image without its batch",
    () => ({ input_ids: ids([PROMPT]), pixel_values: images(3, [8, 8]) }),
    "[3,8,8]",
  ],
  ["integer pixels", () => ({
    input_ids: ids([PROMPT]),
    pixel_values: Tensor.from(new Int32Array(192), { shape: [1, 3, 8, 8], dtype: "int32" }),
  }), "int32"],
  ["nested arrays as pixels", () => ({ input_ids: ids([PROMPT]), pixel_values: [[[[1]]]] }), "pixel_values"],
  ["images with embeddings", () => ({
    inputs_embeds: Tensor.from(new Float32Array(32), { shape: [1, 1, 32] }),
    pixel_values: images(),
  }), "input_ids"],
  ["a misspelt argument", () => ({ input_ids: ids([PROMPT]), pixel_value: 1 }), "pixel_values"],
]);

reportSkipped();
