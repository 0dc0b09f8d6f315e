/**
 * generate: end tokens, padding, batches, continued caches, and what it refuses.
 *
 * @module
 */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import {
  AutoModel,
  AutoModelForCausalLM,
  type DeviceName,
  DynamicCache,
  type GenerateOptions,
  InvalidArgument,
  type PreTrainedModel,
  Tensor,
} from "../../mod.ts";
import { everywhere, ids, liveTest, LLAMA, reportSkipped, rowsOf } from "../models/support.ts";

const PROMPT = [3, 41, 19, 10, 47, 6, 12, 36];
const OTHER = [21, 6, 49, 10, 35];

async function load(device: DeviceName = "wasm", attn_implementation = "sdpa"): Promise<PreTrainedModel> {
  return await AutoModelForCausalLM.from_pretrained(LLAMA, { device, attn_implementation });
}

/** New tokens after prompts of one length. */
async function generate(
  model: PreTrainedModel,
  rows: readonly (readonly number[])[],
  options: Partial<GenerateOptions> = {},
): Promise<number[][]> {
  using input_ids = ids(rows);
  const tokens = await rowsOf(await model.generate({ input_ids, max_new_tokens: 10, ...options }));
  return tokens.map((row) => row.slice(rows[0]!.length));
}

everywhere("greedy generation is the argmax of a forward over everything so far", async (device) => {
  await using model = await load(device);
  const row = [...PROMPT];
  for (let step = 0; step < 5; step++) {
    using input_ids = ids([row]);
    const { logits } = await model.forward({ input_ids, use_cache: false, logits_to_keep: 1 });
    using owned = logits!;
    const values = await owned.data() as Float32Array;
    row.push(values.indexOf(values.reduce((a, b) => Math.max(a, b))));
  }
  assertEquals(await generate(model, [PROMPT], { max_new_tokens: 5 }), [row.slice(PROMPT.length)]);
});

liveTest(
  "the result is int64 (B, N + new), prompts included, and 20 tokens are added by default",
  async () => {
    await using model = await load();
    using input_ids = Tensor.from([PROMPT], { dtype: "int32" });
    using tokens = await model.generate({ input_ids });
    assertEquals([tokens.dtype, tokens.shape], ["int64", [1, PROMPT.length + 20]]);
    assertEquals((await tokens.tolist() as number[][])[0]!.slice(0, PROMPT.length), PROMPT);
  },
);

liveTest("an end token ends its row, stays in it, and the rest is padding", async () => {
  await using model = await load();
  const [plain] = await generate(model, [PROMPT]) as [number[]];
  const eos = plain[3]!, at = plain.indexOf(eos);
  assertEquals(await generate(model, [PROMPT], { eos_token_id: eos }), [plain.slice(0, at + 1)]);
  assertEquals(await generate(model, [PROMPT], { eos_token_id: [63, eos] }), [plain.slice(0, at + 1)]);
  assertEquals(await generate(model, [PROMPT], { eos_token_id: null }), [plain]);
  assertEquals(await generate(model, [PROMPT], { eos_token_id: [] }), [plain]);
  // A batch goes on until its last row ends; finished rows are filled.
  const rows = [PROMPT, [...PROMPT].reverse()];
  const both = await generate(model, rows);
  const end = both[0]!.find((t) => !both[1]!.includes(t))!, ended = both[0]!.indexOf(end);
  const filled = both[0]!.map((t, i) => i <= ended ? t : 62);
  assertEquals(await generate(model, rows, { eos_token_id: end, pad_token_id: 62 }), [filled, both[1]!]);
  const withEos = both[0]!.map((t, i) => i <= ended ? t : end);
  assertEquals(
    await generate(model, rows, { eos_token_id: end }),
    [withEos, both[1]!],
    "pads with the end token",
  );
});

everywhere("rows of a left-padded batch give the tokens they give alone", async (device) => {
  for (const name of ["eager", "sdpa", "flash_attention_2"]) {
    await using model = await load(device, name);
    const rows = [PROMPT, OTHER, [7]];
    const width = PROMPT.length;
    const alone = [];
    for (const row of rows) alone.push((await generate(model, [row]))[0]!);
    using attention_mask = Tensor.from(
      rows.map((r) => [...Array(width - r.length).fill(0), ...r.map(() => 1)]),
    );
    const padded = rows.map((r) => [...Array<number>(width - r.length).fill(5), ...r]);
    assertEquals(await generate(model, padded, { attention_mask }), alone, name);
    using bool = Tensor.from(rows.map((r) => [...Array(width - r.length).fill(false), ...r.map(() => true)]));
    assertEquals(await generate(model, padded, { attention_mask: bool }), alone, `${name}, bool mask`);
  }
});

liveTest("without a mask, the padding token is hidden where the prompt has any", async () => {
  await using model = await load();
  const alone = (await generate(model, [OTHER]))[0]!;
  const padded = [[60, 60, ...OTHER], [3, 41, ...OTHER]];
  assertEquals((await generate(model, padded, { pad_token_id: 60 }))[0], alone);
});

everywhere("a generation continued in two calls gives the tokens of one call", async (device) => {
  for (const name of ["eager", "sdpa", "flash_attention_2"]) {
    await using model = await load(device, name);
    const whole = await generate(model, [PROMPT, [...PROMPT].reverse()], { max_new_tokens: 9 });
    using past_key_values = new DynamicCache();
    const rows = [PROMPT, [...PROMPT].reverse()];
    const first = await generate(model, rows, { max_new_tokens: 4, past_key_values });
    assertEquals(past_key_values.get_seq_length(), PROMPT.length + 3, "every token but the last");
    const longer = rows.map((row, i) => [...row, ...first[i]!]);
    const second = await generate(model, longer, { max_new_tokens: 5, past_key_values });
    assertEquals(first.map((row, i) => [...row, ...second[i]!]), whole, name);
  }
});

everywhere(
  "a cache that a forward filled is continued, and one that is cropped goes back",
  async (device) => {
    await using model = await load(device);
    const whole = await generate(model, [PROMPT]);
    using past_key_values = new DynamicCache({ config: model.config });
    using head = ids([PROMPT.slice(0, 5)]);
    const { logits } = await model.forward({ input_ids: head, past_key_values });
    logits![Symbol.dispose]();
    assertEquals(await generate(model, [PROMPT], { past_key_values }), whole);
    past_key_values.crop(-(past_key_values.get_seq_length() - 3));
    assertEquals(await generate(model, [PROMPT], { past_key_values }), whole);
    past_key_values.reset();
    assertEquals(await generate(model, [PROMPT], { past_key_values }), whole);
  },
);

liveTest("a left-padded generation continued in two calls gives the tokens of one call", async () => {
  await using model = await load();
  const width = PROMPT.length, gap = width - OTHER.length;
  const rows = [PROMPT, [...Array<number>(gap).fill(0), ...OTHER]];
  const real = [PROMPT.map(() => 1), [...Array<number>(gap).fill(0), ...OTHER.map(() => 1)]];
  using attention_mask = Tensor.from(real);
  const whole = await generate(model, rows, { max_new_tokens: 8, attention_mask });
  using past_key_values = new DynamicCache();
  const first = await generate(model, rows, { max_new_tokens: 3, attention_mask, past_key_values });
  using longerMask = Tensor.from(real.map((row) => [...row, 1, 1, 1]));
  const longer = rows.map((row, i) => [...row, ...first[i]!]);
  const second = await generate(model, longer, {
    max_new_tokens: 5,
    attention_mask: longerMask,
    past_key_values,
  });
  assertEquals(first.map((row, i) => [...row, ...second[i]!]), whole);
});

liveTest("concurrent calls on one model give the tokens each gives alone", async () => {
  await using model = await load();
  const prompts = [PROMPT, OTHER, [1, 2, 3], [60]];
  const alone = [];
  for (const p of prompts) alone.push(await generate(model, [p]));
  assertEquals(await Promise.all(prompts.map((p) => generate(model, [p]))), alone);
});

liveTest("forwards and generations interleave", async () => {
  await using model = await load();
  const alone = await generate(model, [PROMPT]);
  using input_ids = ids([OTHER]);
  const forwards = async () => {
    for (let i = 0; i < 5; i++) {
      const { logits, past_key_values } = await model.forward({ input_ids });
      logits![Symbol.dispose]();
      past_key_values![Symbol.dispose]();
    }
  };
  const [tokens] = await Promise.all([generate(model, [PROMPT]), forwards()]);
  assertEquals(tokens, alone);
});

/** Options generate refuses, and what the message names. */
const REFUSED:
  readonly (readonly [name: string, options: () => Record<string, unknown>, mentions: readonly string[]])[] =
    [
      ["no ids", () => ({ input_ids: undefined }), ["input_ids", "int32 or int64"]],
      ["ids as an array", () => ({ input_ids: [PROMPT] }), ["input_ids", "tensor"]],
      ["fractional ids", () => ({ input_ids: Tensor.from([[1.5]]) }), ["float32"]],
      ["ids of one dimension", () => ({ input_ids: Tensor.from(PROMPT) }), ["(B, N)"]],
      ["an empty prompt", () => ({ input_ids: Tensor.from([], { shape: [1, 0], dtype: "int64" }) }), [
        "[1,0]",
        "at least one token",
      ]],
      ["a batch of none", () => ({ input_ids: Tensor.from([], { shape: [0, 3], dtype: "int64" }) }), [
        "[0,3]",
      ]],
      ["an id as large as the vocabulary", () => ({ input_ids: ids([[64]]) }), ["64", "0…63"]],
      ["an id of −1", () => ({ input_ids: ids([[3, -1]]) }), ["-1", "0…63"]],
      ["a huge id", () => ({ input_ids: Tensor.from([[2n ** 62n]]) }), ["0…63"]],
      ["no new tokens", () => ({ max_new_tokens: 0 }), ["max_new_tokens", "≥ 1"]],
      ["a fraction of tokens", () => ({ max_new_tokens: 1.5 }), ["max_new_tokens 1.5"]],
      ["NaN tokens", () => ({ max_new_tokens: NaN }), ["max_new_tokens NaN"]],
      ["endless tokens", () => ({ max_new_tokens: Infinity }), ["max_new_tokens Infinity"]],
      ["a string of tokens", () => ({ max_new_tokens: "4" }), ["max_new_tokens"]],
      ["a misspelt max_new_tokens", () => ({ max_new_token: 4 }), ["max_new_token", "max_new_tokens"]],
      ["a misspelt temperature", () => ({ temprature: 4 }), ["temprature", "temperature"]],
      ["a misspelt is_causal", () => ({ is_casual: false }), ["is_casual", "is_causal"]],
      ["an option nothing reads", () => ({ beams: 4 }), ["beams", "Known"]],
      ["an end token that is a string", () => ({ eos_token_id: "</s>" }), ["</s>", "integer"]],
      ["end tokens with a fraction", () => ({ eos_token_id: [1, 2.5] }), ["2.5"]],
      ["a padding token outside the vocabulary", () => ({ pad_token_id: 64 }), ["pad_token_id", "64"]],
      ["a padding token that is a string", () => ({ pad_token_id: "pad" }), ["pad_token_id"]],
      ["a mask of another shape", () => ({ attention_mask: Tensor.from([[1, 1]]) }), [
        "attention_mask",
        "[1,8]",
      ]],
      ["a mask that is no tensor", () => ({ attention_mask: [[1]] }), ["attention_mask"]],
      ["a mask of halves", () => ({ attention_mask: Tensor.from([PROMPT.map(() => 0.5)]) }), [
        "0.5",
        "0 and 1",
      ]],
      ["right padding", () => ({ attention_mask: Tensor.from([[1, 1, 1, 1, 1, 1, 1, 0]]) }), [
        "row 0",
        "left",
      ]],
      ["a mask of nothing but padding", () => ({ attention_mask: Tensor.from([PROMPT.map(() => 0)]) }), [
        "left",
      ]],
      ["a streamer without put", () => ({ streamer: { end() {} } }), ["streamer", "put"]],
      ["a streamer that is a function", () => ({ streamer: () => {} }), ["streamer", "put"]],
      ["a cache that is none", () => ({ past_key_values: {} }), ["past_key_values"]],
      ["a signal that is none", () => ({ signal: {} }), ["signal"]],
      ["temperature 0", () => ({ do_sample: true, temperature: 0 }), ["temperature 0", "> 0"]],
      ["a negative temperature", () => ({ do_sample: true, temperature: -1 }), ["temperature -1"]],
      ["an infinite temperature", () => ({ do_sample: true, temperature: Infinity }), ["temperature"]],
      ["NaN temperature", () => ({ do_sample: true, temperature: NaN }), ["temperature"]],
      ["temperature as a string", () => ({ do_sample: true, temperature: "1" }), ["temperature"]],
      ["a negative top_k", () => ({ do_sample: true, top_k: -1 }), ["top_k -1"]],
      ["a fractional top_k", () => ({ do_sample: true, top_k: 2.5 }), ["top_k 2.5"]],
      ["top_p 0", () => ({ do_sample: true, top_p: 0 }), ["top_p 0"]],
      ["top_p above 1", () => ({ do_sample: true, top_p: 1.1 }), ["top_p 1.1"]],
      ["top_p as a string", () => ({ do_sample: true, top_p: "0.5" }), ["top_p"]],
      ["a fractional seed", () => ({ do_sample: true, seed: 0.5 }), ["seed 0.5"]],
      ["do_sample as a string", () => ({ do_sample: "yes" }), ["do_sample"]],
    ];

for (const [name, options, mentions] of REFUSED) {
  liveTest(`generate refuses ${name}, and the model lives on`, async () => {
    await using model = await load();
    using prompt = ids([PROMPT]);
    const given = options();
    const refused = await assertRejects(
      () => model.generate({ input_ids: prompt, max_new_tokens: 2, ...given }),
      InvalidArgument,
    );
    for (const word of mentions) assertStringIncludes(refused.message, word);
    for (const x of Object.values(given)) if (x instanceof Tensor) x[Symbol.dispose]();
    assertEquals((await generate(model, [PROMPT], { max_new_tokens: 2 }))[0]!.length, 2);
  });
}

liveTest("a cache that already holds the whole sequence is refused and unchanged", async () => {
  await using model = await load();
  using past_key_values = new DynamicCache();
  await generate(model, [PROMPT], { past_key_values, max_new_tokens: 2 });
  const length = past_key_values.get_seq_length();
  await assertRejects(
    () => generate(model, [PROMPT], { past_key_values }),
    InvalidArgument,
    `${length} tokens`,
  );
  assertEquals(past_key_values.get_seq_length(), length);
});

liveTest("a cache of another batch or model is refused and unchanged", async () => {
  await using model = await load();
  using past_key_values = new DynamicCache();
  await generate(model, [OTHER], { past_key_values, max_new_tokens: 2 });
  const length = past_key_values.get_seq_length();
  await assertRejects(() => generate(model, [PROMPT, PROMPT], { past_key_values }), InvalidArgument, "cache");
  assertEquals(past_key_values.get_seq_length(), length);
  const goOn = [...OTHER, ...(await generate(model, [OTHER], { max_new_tokens: 2 }))[0]!];
  const expected = await generate(model, [goOn], { max_new_tokens: 3 });
  assertEquals(await generate(model, [goOn], { max_new_tokens: 3, past_key_values }), expected);
});

liveTest("a model without a head is refused by name", async () => {
  await using base = await AutoModel.from_pretrained(LLAMA);
  using input_ids = ids([PROMPT]);
  await assertRejects(() => base.generate({ input_ids }), InvalidArgument, "AutoModelForCausalLM");
});

liveTest("the caller's tensors are untouched and still its own", async () => {
  await using model = await load();
  using input_ids = ids([PROMPT]);
  using attention_mask = Tensor.from([PROMPT.map(() => 1)]);
  (await model.generate({ input_ids, attention_mask, max_new_tokens: 2 }))[Symbol.dispose]();
  assertEquals(await input_ids.tolist(), [PROMPT]);
  assertEquals(await attention_mask.tolist(), [PROMPT.map(() => 1)]);
});

reportSkipped();
