/**
 * Llama against recordings of Transformers, and against a float64 Llama of the tests' own for what they lack.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import {
  AutoModel,
  AutoModelForCausalLM,
  type DeviceName,
  DynamicCache,
  InvalidArgument,
  ModelFileError,
  type PreTrainedModel,
  Tensor,
} from "../../mod.ts";
import { type GoldenCase, goldenCases, goldenTensor, type GoldenValue } from "../support/golden.ts";
import { assertClose, EXACT, type Tolerance, toleranceOf } from "../support/tolerance.ts";
import { llamaLogits } from "./llama_oracle.ts";
import { disposeAll, everywhere, ids, LLAMA, liveTest, reportSkipped, rowsOf, writeTinyLlama } from "./support.ts";

const CASES = goldenCases("model").filter((c) => c.params.arch === "llama");

/** The three names of flash attention are one computation here: each is compared with the recordings of the first. */
function namesFor(recorded: GoldenCase): string[] {
  const name = recorded.params.attn_implementation as string;
  return name === "flash_attention_2" ? [name, "flash_attention_3", "flash_attention_4"] : [name];
}

/** What a recording allows; GPU arithmetic gets what its own row of the table allows, if that is more. */
function allowed(recorded: GoldenCase, device: DeviceName): Tolerance {
  const table = toleranceOf("logits", device);
  return {
    atol: Math.max(recorded.atol ?? 0, table.atol),
    rtol: Math.max(recorded.rtol ?? 0, table.rtol),
  };
}

/** Numbers of the rows a case compares: all, or those of real tokens. */
function comparable(recorded: GoldenCase, values: ArrayLike<number>, width: number): Float64Array {
  const all = Float64Array.from(values);
  if (recorded.compare_rows !== "attention_mask") return all;
  const real = (recorded.params.attention_mask as number[][]).flat();
  return all.filter((_, at) => real[Math.floor(at / width)] === 1);
}

type Fields = Readonly<Record<string, GoldenValue>>;

async function load(device: DeviceName, attn_implementation: string): Promise<PreTrainedModel> {
  return await AutoModelForCausalLM.from_pretrained(LLAMA, { attn_implementation, device });
}

function maskOf(recorded: GoldenCase): Tensor | null {
  const given = recorded.params.attention_mask;
  if (given === undefined) return null;
  return Tensor.from(given as never, { dtype: recorded.op === "generate" || (given as number[][][][])[0]![0]!.length === undefined ? "int64" : "bool" });
}

for (const recorded of CASES.filter((c) => c.op === "forward")) {
  for (const name of namesFor(recorded)) {
    everywhere(`forward agrees with ${recorded.id} as ${name}`, async (device) => {
      await using model = await load(device, name);
      const { params } = recorded;
      using input_ids = ids(params.input_ids as number[][]);
      using attention_mask = maskOf(recorded);
      using position_ids = params.position_ids === undefined ? null : ids(params.position_ids as number[][]);
      const output = await model.forward({
        input_ids,
        ...(attention_mask === null ? {} : { attention_mask }),
        ...(position_ids === null ? {} : { position_ids }),
        ...(typeof params.use_cache === "boolean" ? { use_cache: params.use_cache } : {}),
        ...(typeof params.is_causal === "boolean" ? { is_causal: params.is_causal } : {}),
        ...(params.output_attentions === true ? { output_attentions: true } : {}),
      });
      const expect = recorded.expect as Fields;
      const expected = goldenTensor(expect.output);
      assertEquals(output.logits?.shape, expected.shape);
      const width = expected.shape[2]!;
      const logits = await output.logits!.data() as Float32Array;
      assertEquals(logits.findIndex((x) => !Number.isFinite(x)), -1, "every logit is finite, padded rows too");
      assertClose(
        comparable(recorded, logits, width),
        comparable(recorded, expected.data, width),
        allowed(recorded, device),
        "logits",
      );
      assertEquals(output.past_key_values === undefined, params.use_cache === false);
      const attentions = expect.attentions as GoldenValue[] | undefined;
      assertEquals(output.attentions?.length, attentions?.length);
      for (const [i, ref] of (attentions ?? []).entries()) {
        const weights = goldenTensor(ref);
        assertEquals(output.attentions![i]!.shape, weights.shape);
        const actual = await output.attentions![i]!.data() as Float32Array;
        assertClose(actual, weights.data, allowed(recorded, device), `attention weights of layer ${i}`);
      }
      disposeAll(output);
    });
  }
}

const waiting = CASES.filter((c) => c.op === "generate" && c.params.cache === "static");

for (const recorded of CASES.filter((c) => c.op === "generate" && c.params.cache !== "static")) {
  const names = [...namesFor(recorded), ...(recorded.params.attn_implementation === "sdpa" ? ["flash_attention_2"] : [])];
  for (const name of names) {
    everywhere(`generate gives the tokens of ${recorded.id} as ${name}`, async (device) => {
      await using model = await load(device, name);
      using input_ids = ids(recorded.params.input_ids as number[][]);
      using attention_mask = maskOf(recorded);
      const tokens = await rowsOf(
        await model.generate({
          input_ids,
          max_new_tokens: recorded.params.max_new_tokens as number,
          ...(attention_mask === null ? {} : { attention_mask }),
        }),
      );
      const prompt = recorded.params.input_ids as number[][];
      const expected = (recorded.expect as Fields).tokens as number[][];
      assertEquals(tokens, prompt.map((row, i) => [...row, ...expected[i]!]));
    });
  }
}

Deno.test(`gaps: ${waiting.length} recordings wait: static cache not available yet`, async () => {
  const { StaticCache } = await import("../../mod.ts") as Record<string, unknown>;
  assertEquals(StaticCache, undefined, "there is a static cache now: run these recordings");
  console.log(`${waiting.length} recordings of generate wait: static cache not available yet`);
});

for (const recorded of CASES.filter((c) => c.op === "cache_continuation")) {
  for (const name of ["eager", "sdpa", "flash_attention_2"]) {
    everywhere(`a continued cache agrees with ${recorded.id} as ${name}`, async (device) => {
      await using model = await load(device, name);
      using past_key_values = new DynamicCache({ config: model.config });
      const rows = recorded.params.input_ids as number[][], at = recorded.params.split_at as number;
      const expect = recorded.expect as Fields;
      for (const [part, expected] of [[rows.map((r) => r.slice(0, at)), expect.first], [rows.map((r) => r.slice(at)), expect.second]] as const) {
        using input_ids = ids(part);
        const { logits } = await model.forward({ input_ids, past_key_values });
        using owned = logits!;
        const values = await owned.data() as Float32Array;
        assertClose(values, goldenTensor(expected).data, allowed(recorded, device), "logits");
      }
      assertEquals(past_key_values.get_seq_length(), rows[0]!.length);
    });
  }
}

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

everywhere("logits_to_keep gives the last rows of all logits", async (device) => {
  await using model = await load(device, "sdpa");
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
    await using model = await load("wasm", "sdpa");
    const given = inputs();
    const refused = await assertRejects(() => model.forward(given), InvalidArgument);
    for (const word of mentions) assertStringIncludes(refused.message.toLowerCase(), word.toLowerCase());
    using input_ids = ids([PROMPT]);
    disposeAll(await model.forward({ input_ids }));
    disposeAll(given);
  });
}

liveTest("a disposed model refuses work; its results and caches stay readable", async () => {
  const model = await load("wasm", "sdpa");
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
