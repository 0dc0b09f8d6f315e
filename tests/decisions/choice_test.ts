/**
 * Decisions about names and masks: which implementation a request leads to, and what its masks can say. Each test is
 * named after the point of the decision; those about results are in results_test.ts.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import {
  ALL_ATTENTION_FUNCTIONS,
  ALL_MASK_ATTENTION_FUNCTIONS,
  AttentionInterface,
  AttentionRefused,
  AutoConfig,
  AutoModelForImageTextToText,
  create_causal_mask,
  InvalidArgument,
  is_kernel,
  type MaskArgs,
  PretrainedConfig,
  sdpa_attention_forward,
  sdpa_kernel,
  sdpa_mask,
  SDPBackend,
  Tensor,
} from "../../mod.ts";
import { ids, liveTest } from "../models/support.ts";
import { goldenPath } from "../support/golden.ts";
import { quietly } from "../support/quiet.ts";
import { ARCHITECTURES, assertParts, attend, callFunction, load, NAMES, valuesOf } from "./point.ts";

const llava = (name: string) => ({ "": name, text_config: name, vision_config: name });
const inputs_embeds = { shape: [1, 4, 8] };

liveTest("L1: an empty key is for every part without a key of its own", async () => {
  await using model = await load("llava", { "": "eager" });
  assertParts(model, llava("eager"));
  await model.set_attn_implementation({ "": "flex_attention", vision_config: "sdpa" });
  assertParts(model, { ...llava("flex_attention"), vision_config: "sdpa" });
});

liveTest("L2: an unknown part is an error that lists the parts there are", async () => {
  const request = { audio_config: "sdpa" };
  const loading = await assertRejects(() => load("llava", request), InvalidArgument, "audio_config");
  await using model = await load("llava");
  const switching = await assertRejects(() => model.set_attn_implementation(request), InvalidArgument);
  for (const { message } of [loading, switching]) {
    for (const part of ["text_config", "vision_config"]) assertStringIncludes(message, part);
  }
  assertParts(model, llava("sdpa"));
});

liveTest("L3: an error changes nothing, the caller's config included", async () => {
  await using model = await load("llava", "eager");
  for (
    const request of [{ text_config: "sdpa", vision_config: "nope" }, "nope", { "": "sdpa", nope: "sdpa" }]
  ) {
    await assertRejects(() => model.set_attn_implementation(request), InvalidArgument, "nope");
    assertParts(model, llava("eager"));
  }
  const config = await AutoConfig.from_pretrained(goldenPath("models/llava"), {
    attn_implementation: "eager",
  });
  const path = goldenPath("models/llava");
  const options = { config, attn_implementation: { text_config: "sdpa", vision_config: "nope" } };
  await assertRejects(
    () => AutoModelForImageTextToText.from_pretrained(path, options),
    InvalidArgument,
    "nope",
  );
  for (const part of [config, ...Object.values(config.sub_configs)]) {
    assertEquals(part._attn_implementation, "eager");
  }
});

liveTest("L4: paged names are implementations of their own and keep their names", async () => {
  await using model = await load("llama");
  for (const name of NAMES.filter((name) => name.startsWith("paged|"))) {
    assert(ALL_ATTENTION_FUNCTIONS.has(name));
    await model.set_attn_implementation(name);
    assertEquals(model.config._attn_implementation, name);
    assertEquals(model.attention_report()[0]!.implementation, name);
  }
});

liveTest("L5: an explicit request is not replaced; without one the config says what was chosen", async () => {
  await using model = await load("llama");
  assertEquals(model.config._attn_implementation, "sdpa");
  await assertRejects(() => load("llama", "SDPA"), InvalidArgument, '"SDPA"');
  using input_ids = ids([[1, 2, 3]]);
  using _ = sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]);
  const refused = await assertRejects(() => model.forward({ input_ids }), AttentionRefused);
  assertEquals(refused.candidates.map(({ name }) => name).sort(), [
    "CUDNN_ATTENTION",
    "EFFICIENT_ATTENTION",
    "FLASH_ATTENTION",
    "MATH",
    "OVERRIDEABLE",
  ]);
  assert(refused.candidates.every(({ verdict }) => verdict.startsWith("rejected (")));
});

liveTest("L6: flash takes float32, and float32 it returns", async () => {
  await using model = await load("llama", "flash_attention_2");
  using input_ids = ids([[1, 2, 3]]);
  const { logits, past_key_values } = await model.forward({ input_ids });
  using owned = logits!;
  using _cache = past_key_values!;
  assertEquals(owned.dtype, "float32");
});

liveTest("L7: flash refuses masks it cannot express, and names who can", () => {
  const all = () => true;
  for (
    const extra of [{ or_mask_function: all }, { and_mask_function: all }, {
      block_sequence_ids: [[0, 0, 1, 1]],
    }]
  ) {
    for (const name of NAMES.filter((name) => name.includes("flash"))) {
      const args: MaskArgs = { config: { _attn_implementation: name }, inputs_embeds, ...extra };
      const { message } = assertThrows(
        () => create_causal_mask(args),
        AttentionRefused,
        Object.keys(extra)[0]!,
      );
      assertStringIncludes(message, "sdpa");
    }
  }
});

Deno.test("L8: a custom name without a formatter gets null, and one warning names the missing call", () => {
  AttentionInterface.register("L8", sdpa_attention_forward);
  const build = () => create_causal_mask({ config: { _attn_implementation: "L8" }, inputs_embeds });
  const { result, warnings } = quietly(() => [build(), build()]);
  assertEquals(result, [null, null]);
  assertEquals(warnings.length, 1);
  assertStringIncludes(warnings[0]!, 'AttentionMaskInterface.register("L8"');
});

liveTest(
  "L12: a function of a package is named repo:function; until packages load, the error says so",
  async () => {
    assert(is_kernel("org/repo:attention"));
    await using model = await load("llama");
    const set = () => model.set_attn_implementation("org/repo:attention");
    await assertRejects(set, InvalidArgument, "kernel packages cannot be loaded yet");
    assertEquals(model.config._attn_implementation, "sdpa");
  },
);

liveTest("L16: every class can switch to every implementation", async () => {
  for (const arch of ARCHITECTURES) {
    await using model = await load(arch);
    for (const name of NAMES) {
      await model.set_attn_implementation(name);
      assert(model.attention_report().every(({ implementation }) => implementation === name));
    }
  }
});

liveTest("L17: a predicate that depends on the head gives a mask per head, or an error", async () => {
  const mask_function = (_b: number, h: number, _q: number, kv: number) => kv % 2 === h % 2;
  const config = new PretrainedConfig({ num_attention_heads: 2 });
  const sizes = {
    batch_size: 1,
    q_length: 2,
    kv_length: 2,
    mask_function,
    config,
    allow_is_causal_skip: false,
  };
  using mask = sdpa_mask(sizes) as Tensor;
  assertEquals(await mask.tolist(), [[[[true, false], [true, false]], [[false, true], [false, true]]]]);
  const call = () => attend({ attn_implementation: "flash_attention_2", mask_function });
  await assertRejects(call, AttentionRefused, "mask_function");
});

liveTest("L19: a 2-D mask shorter than the keys is extended with false by every formatter", async () => {
  using attention_mask = Tensor.from([[true, true]]);
  const sizes = { batch_size: 1, q_length: 1, kv_length: 4, q_offset: 3, attention_mask };
  for (const name of ["eager", "sdpa", "flash_attention_2", "flex_attention"]) {
    const mask = ALL_MASK_ATTENTION_FUNCTIONS.get(name)!(sizes)!;
    using owned = mask as unknown as Disposable;
    const dense = mask instanceof Tensor ? mask : (mask as unknown as { to_dense(): Tensor }).to_dense();
    using _dense = dense;
    const row = (await dense.tolist() as unknown[]).flat(3).map((x) => x === true || x === 0);
    assertEquals(row, [true, true, false, false], name);
    assert(owned);
  }
});

liveTest("L20: every class takes every name; what a name cannot do is an error of that forward", async () => {
  for (const arch of ARCHITECTURES) {
    for (const name of NAMES) {
      await using model = await load(arch, name);
      assertEquals(model.config._attn_implementation, name);
    }
  }
  await using model = await load("llama4", "flash_attention_2");
  using short = ids([[1, 2]]);
  await valuesOf(model, { input_ids: short });
  using long = ids([Array.from({ length: 40 }, (_, i) => i)]);
  await assertRejects(() => model.forward({ input_ids: long }), AttentionRefused, "attention_chunk_size");
});

liveTest("L21: without a paged cache paged|X is X, its masks too; the bare functions need one", async () => {
  for (const name of ["eager", "sdpa", "flash_attention_2"]) {
    const of = (attn: string) => ALL_MASK_ATTENTION_FUNCTIONS.resolve(attn);
    assertEquals(of(`paged|${name}`), of(name));
    const call = () => callFunction(`paged|${name}`, null, { cache: null });
    await assertRejects(call, InvalidArgument, "without a cache");
    await callFunction(`paged|${name}`, null, {});
  }
  await using model = await load("llava", "sdpa");
  using input_ids = ids([[59, 19, 63, 63, 63, 63, 44]]);
  using pixel_values = Tensor.from(new Float32Array(192).fill(0.5), { shape: [1, 3, 8, 8] });
  const plain = await valuesOf(model, { input_ids, pixel_values });
  await model.set_attn_implementation("paged|sdpa");
  assertEquals(await valuesOf(model, { input_ids, pixel_values }), plain);
});

liveTest(
  "L23: null lets a part choose; sub_configs is a record; configs do not check names, models do",
  async () => {
    await using model = await load("llava", { "": "eager", vision_config: null });
    assertParts(model, { "": "eager", text_config: "eager", vision_config: "sdpa" });
    assertEquals(Object.keys(model.config.sub_configs).sort(), ["text_config", "vision_config"]);
    const config = await AutoConfig.from_pretrained(goldenPath("models/llava"), {
      attn_implementation: "nope",
    });
    assertEquals(config._attn_implementation, "nope");
    const path = goldenPath("models/llava");
    await assertRejects(
      () => AutoModelForImageTextToText.from_pretrained(path, { config }),
      InvalidArgument,
      "nope",
    );
  },
);
