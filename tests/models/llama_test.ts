/**
 * Llama against recordings of Transformers, and against a float64 Llama of the tests' own for what they lack.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import {
  AutoModel,
  AutoModelForCausalLM,
  InvalidArgument,
  ModelFileError,
  type PreTrainedModel,
  Tensor,
} from "../../mod.ts";
import { assertClose, EXACT, toleranceOf } from "../support/tolerance.ts";
import { llamaLogits } from "./llama_oracle.ts";
import { recordedTests } from "./recorded.ts";
import { disposeAll, everywhere, ids, LLAMA, liveTest, reportSkipped, writeTinyLlama } from "./support.ts";

recordedTests({ arch: "llama" });

const PROMPT = [3, 41, 19, 10, 47, 6, 12, 36];

everywhere("AutoModel gives hidden states: after the embedding and after every layer, the last one normalised", async (device) => {
  await using base = await AutoModel.from_pretrained(LLAMA, { device });
  using input_ids = ids([PROMPT]);
  const output = await base.forward({ input_ids, output_hidden_states: true });
  assertEquals(output.logits, undefined);
  assertEquals(output.last_hidden_state?.shape, [1, PROMPT.length, 32]);
  assertEquals(output.hidden_states?.map((h) => h.shape), [1, 2, 3].map(() => [1, PROMPT.length, 32]));
  const last = await output.last_hidden_state!.data() as Float32Array;
  assertClose(await output.hidden_states![2]!.data() as Float32Array, last, EXACT);
  disposeAll(output);
});

everywhere("inputs_embeds give the same logits as the ids they are made of", async (device) => {
  await using base = await AutoModel.from_pretrained(LLAMA, { device });
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA, { device });
  using input_ids = ids([PROMPT, [...PROMPT].reverse()]);
  const states = await base.forward({ input_ids, output_hidden_states: true });
  const embedded = states.hidden_states![0]!;
  using inputs_embeds = Tensor.from(await embedded.data(), { shape: embedded.shape, device });
  disposeAll(states);
  const [a, b] = [await model.forward({ input_ids }), await model.forward({ inputs_embeds })];
  assertClose(await b.logits!.data() as Float32Array, await a.logits!.data() as Float32Array, EXACT);
  disposeAll(a);
  disposeAll(b);
});

everywhere("the three names of flash attention are one computation", async (device) => {
  const bits = [];
  for (const attn_implementation of ["flash_attention_2", "flash_attention_3", "flash_attention_4"]) {
    await using model = await AutoModelForCausalLM.from_pretrained(LLAMA, { attn_implementation, device });
    using input_ids = ids([PROMPT]);
    const output = await model.forward({ input_ids });
    bits.push(await output.logits!.data());
    disposeAll(output);
  }
  assertEquals(bits[1], bits[0]);
  assertEquals(bits[2], bits[0]);
});

everywhere("logits_to_keep gives the last rows of all logits", async (device) => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA, { device });
  using input_ids = ids([PROMPT]);
  const [all, two] = [await model.forward({ input_ids }), await model.forward({ input_ids, logits_to_keep: 2 })];
  assertEquals(two.logits!.shape, [1, 2, 64]);
  const values = await all.logits!.data() as Float32Array;
  assertClose(await two.logits!.data() as Float32Array, values.slice(-2 * 64), toleranceOf("linear", device));
  disposeAll(all);
  disposeAll(two);
});

const LLAMA3 = {
  rope_type: "llama3",
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 32,
};

/** Checkpoints the recordings lack, each compared with the float64 Llama. */
const CHECKPOINTS: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  "plain rotary embedding": {},
  "rope_parameters with another base": { rope_parameters: { rope_type: "default", rope_theta: 500 } },
  "linear rope scaling": { rope_theta: 5000, rope_scaling: { rope_type: "linear", factor: 4 } },
  "llama3 rope scaling": { rope_theta: 5000, rope_scaling: LLAMA3 },
  "llama3 rope scaling as rope_parameters": { rope_parameters: { rope_theta: 700, ...LLAMA3, factor: 3 } },
  "a head tied to the embedding": { tie_word_embeddings: true },
  "biases in attention": { attention_bias: true },
  "biases in the feed-forward layer": { mlp_bias: true },
  "biases everywhere, multi-query": { attention_bias: true, mlp_bias: true, num_key_value_heads: 1 },
  "as many key heads as query heads": { num_key_value_heads: 4 },
  "another epsilon": { rms_norm_eps: 0.01 },
};

for (const [name, config] of Object.entries(CHECKPOINTS)) {
  everywhere(`agrees with a float64 Llama: ${name}`, async (device) => {
    await using checkpoint = await writeTinyLlama({ config, seed: name });
    await using model = await AutoModelForCausalLM.from_pretrained(checkpoint.folder, { device });
    const long = Array.from({ length: 40 }, (_, i) => (i * 7 + 3) % 48);
    using input_ids = ids([long]);
    using logits = (await forwardOnly(model, input_ids)).logits;
    const expected = llamaLogits(checkpoint.config, checkpoint.weights, long);
    assertClose(await logits.data() as Float32Array, expected, toleranceOf("logits", device), "logits");
  });
}

async function forwardOnly(model: PreTrainedModel, input_ids: Tensor): Promise<{ logits: Tensor }> {
  const { logits, past_key_values } = await model.forward({ input_ids });
  past_key_values?.[Symbol.dispose]();
  return { logits: logits! };
}

for (const stored of ["float32", "bfloat16", "float16"] as const) {
  for (const dtype of ["auto", "float32", "bfloat16", "float16"] as const) {
    liveTest(`weights stored as ${stored}, loaded as ${dtype}`, async () => {
      await using checkpoint = await writeTinyLlama({ dtype: stored, config: { attention_bias: true } });
      await using model = await AutoModelForCausalLM.from_pretrained(checkpoint.folder, { dtype });
      using input_ids = ids([PROMPT]);
      using logits = (await forwardOnly(model, input_ids)).logits;
      assertEquals(logits.dtype, "float32");
      const expected = llamaLogits(checkpoint.config, checkpoint.weights, PROMPT);
      // Weights that keep their stored values are widened exactly; rounding them to a narrower type is what costs.
      const exact = dtype === "auto" || dtype === stored || dtype === "float32";
      const kept = exact ? "float32" : dtype;
      assertClose(await logits.data() as Float32Array, expected, toleranceOf("logits", "wasm", kept), "logits");
    });
  }
}

liveTest("a dtype that no weight can have is refused", async () => {
  for (const dtype of ["int8", "float8", 3]) {
    const refused = await assertRejects(
      () => AutoModelForCausalLM.from_pretrained(LLAMA, { dtype: dtype as never }),
      InvalidArgument,
    );
    assertStringIncludes(refused.message, "auto, float32, float16 or bfloat16");
  }
});

const LOAD_ERRORS: readonly (readonly [name: string, options: Record<string, unknown>, mentions: readonly string[]])[] = [
  ["a misspelt option", { atn_implementation: "sdpa" }, ["atn_implementation", "attn_implementation"]],
  ["an unknown implementation", { attn_implementation: "flash_attention_9" }, ["flash_attention_9", "eager", "sdpa", "flash_attention_2"]],
  ["an implementation in capitals", { attn_implementation: "SDPA" }, ["SDPA", "sdpa"]],
  ["a sub-config that is not there", { attn_implementation: { vision_config: "sdpa" } }, ["vision_config"]],
  ["an unknown device", { device: "cuda" }, ["cuda", "wasm", "webgpu"]],
  ["a config that is not one", { config: { model_type: "llama" } }, ["PretrainedConfig"]],
];

for (const [name, options, mentions] of LOAD_ERRORS) {
  liveTest(`loading is refused for ${name}`, async () => {
    const refused = await assertRejects(() => AutoModelForCausalLM.from_pretrained(LLAMA, options), InvalidArgument);
    for (const word of mentions) assertStringIncludes(refused.message, word);
  });
}

liveTest("a checkpoint that lacks a weight, or has it in another shape, is refused by name", async () => {
  await using checkpoint = await writeTinyLlama({ config: { tie_word_embeddings: true } });
  for (const change of [{ attention_bias: true }, { intermediate_size: 48 }, { tie_word_embeddings: false }]) {
    const fields = { ...checkpoint.config.toJSON(), ...change };
    await Deno.writeTextFile(`${checkpoint.folder}/config.json`, JSON.stringify(fields));
    const refused = await assertRejects(
      () => AutoModelForCausalLM.from_pretrained(checkpoint.folder),
      ModelFileError,
    );
    assert(/weight "(model\.layers\.0\.|lm_head)/.test(refused.message), refused.message);
  }
});

liveTest("loading reports its progress up to the last byte, and an abort rejects with its reason", async () => {
  const seen: { status: string; loaded: number; total: number }[] = [];
  const progress_callback = (event: (typeof seen)[number]) => void seen.push(event);
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA, { progress_callback });
  assert(model.num_parameters > 0);
  const last = seen.at(-1)!;
  assertEquals([last.status, last.loaded], ["done", last.total]);
  assert(seen.every((e, i) => i === 0 || e.loaded >= seen[i - 1]!.loaded));
  const reason = new Error("enough");
  const controller = new AbortController();
  const loading = AutoModelForCausalLM.from_pretrained(LLAMA, {
    signal: controller.signal,
    progress_callback: () => controller.abort(reason),
  });
  assertEquals(await assertRejects(() => loading), reason);
  assertEquals(await assertRejects(() => AutoModelForCausalLM.from_pretrained(LLAMA, { signal: AbortSignal.abort(reason) })), reason);
});

/** Inputs a forward refuses before it computes anything, and what the message names. */
const FORWARD_ERRORS: readonly (readonly [name: string, inputs: () => Record<string, unknown>, mentions: readonly string[]])[] = [
  ["neither ids nor embeddings", () => ({}), ["input_ids", "inputs_embeds"]],
  ["both", () => ({ input_ids: ids([PROMPT]), inputs_embeds: Tensor.from([[[1, 2]]]) }), ["exactly one"]],
  ["ids that are not a tensor", () => ({ input_ids: [[1, 2]] }), ["int32 or int64"]],
  ["fractional ids", () => ({ input_ids: Tensor.from([[1.5]]) }), ["float32"]],
  ["ids of one dimension", () => ({ input_ids: Tensor.from([1, 2]) }), ["(B, N)"]],
  ["an empty prompt", () => ({ input_ids: Tensor.from([], { shape: [1, 0], dtype: "int64" }) }), ["[1,0]"]],
  ["a batch of none", () => ({ input_ids: Tensor.from([], { shape: [0, 4], dtype: "int64" }) }), ["[0,4]"]],
  ["an id as large as the vocabulary", () => ({ input_ids: ids([[1, 64]]) }), ["64", "0…63"]],
  ["an id of −1", () => ({ input_ids: ids([[-1]]) }), ["-1", "0…63"]],
  ["embeddings of another width", () => ({ inputs_embeds: Tensor.from([[[1.5, 2]]]) }), ["[1,1,2]", "32"]],
  ["positions of another length", () => ({ input_ids: ids([PROMPT]), position_ids: [[0, 1]] }), ["position_ids", "[1,2]"]],
  ["negative positions", () => ({ input_ids: ids([[1, 2]]), position_ids: [[0, -1]] }), ["-1"]],
  ["a misspelt is_causal", () => ({ input_ids: ids([PROMPT]), is_casual: false }), ["is_casual", "is_causal"]],
  ["a misspelt attention_mask", () => ({ input_ids: ids([PROMPT]), attention_masks: null }), ["attention_mask"]],
  ["an argument nothing reads", () => ({ input_ids: ids([PROMPT]), temperature: 2 }), ["temperature", "known", "attention function"]],
  ["a mask of another batch", () => ({ input_ids: ids([[1, 2]]), attention_mask: [[1, 1], [1, 1]] }), ["mask"]],
  ["a negative logits_to_keep", () => ({ input_ids: ids([PROMPT]), logits_to_keep: -1 }), ["-1"]],
];

for (const [name, inputs, mentions] of FORWARD_ERRORS) {
  liveTest(`forward refuses ${name}, and the model lives on`, async () => {
    await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
    const given = inputs();
    const refused = await assertRejects(() => model.forward(given), InvalidArgument);
    for (const word of mentions) assertStringIncludes(refused.message.toLowerCase(), word.toLowerCase());
    using input_ids = ids([PROMPT]);
    disposeAll(await model.forward({ input_ids }));
    disposeAll(given);
  });
}

liveTest("a disposed model refuses work; its results and caches stay readable", async () => {
  const model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  using input_ids = ids([PROMPT]);
  const output = await model.forward({ input_ids });
  await model.dispose();
  await model.dispose();
  await assertRejects(() => model.forward({ input_ids }), InvalidArgument, "disposed");
  await assertRejects(() => model.generate({ input_ids }), InvalidArgument, "disposed");
  await assertRejects(() => model.set_attn_implementation("eager"), InvalidArgument, "disposed");
  assertEquals((await output.logits!.data()).length, PROMPT.length * 64);
  disposeAll(output);
});

reportSkipped();
