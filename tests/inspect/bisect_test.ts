import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import {
  type AttentionBisection,
  AutoModelForCausalLM,
  bisect_attention,
  type BisectInputs,
  type BisectOptions,
  InvalidArgument,
  liveBuffers,
  type PreTrainedModel,
  sdpa_attention_forward,
  Tensor,
} from "../../mod.ts";
import { DEMO, ids, liveTest, reportSkipped, withGpu, writeTinyLlama } from "../models/support.ts";
import { seeded } from "../support/random.ts";
import { broken, golden, nan, prompt, shortsighted } from "./broken.ts";

const BUILTIN = ["eager", "sdpa", "flash_attention_2", "flex_attention"];

/** Compares two implementations on one model. */
async function compare(
  model: PreTrainedModel,
  a: string,
  b: string,
  rows: readonly (readonly number[])[],
  options: BisectOptions = {},
  inputs: Partial<BisectInputs> = {},
): Promise<AttentionBisection> {
  using input_ids = ids(rows);
  return await bisect_attention(
    { model, attn_implementation: a },
    { model, attn_implementation: b },
    { input_ids, ...inputs },
    options,
  );
}

/** The place a comparison found. */
function place({ divergence: d }: AttentionBisection): unknown {
  return d && { origin: d.origin, position: d.position, layer: d.layer_index, head: d.head, step: d.step };
}

const attention = (position: number, layer: number, head: number, step = 0) => ({
  origin: "attention",
  position,
  layer,
  head,
  step,
});

for (const arch of ["llama", "mistral", "gemma2", "llama4", "bert"]) {
  liveTest(`bisect: all built-in implementations agree on ${arch}`, async () => {
    await using model = await golden(arch);
    for (const [i, a] of BUILTIN.entries()) {
      for (const b of BUILTIN.slice(i + 1)) {
        // Past the windows, which are 4 and 5 tokens long; flash knows no chunks.
        const flash = arch === "llama4" && [a, b].includes("flash_attention_2");
        const found = await compare(model, a, b, [prompt(flash ? 3 : 7)], {
          ...(arch === "bert" ? {} : { max_new_tokens: flash ? 1 : 3 }),
        });
        assertEquals(found.divergence, null, `${a} and ${b}`);
        assertEquals(found.layers.length, model.attention_report().length);
        assert(found.layers.every(({ isolated }) => isolated.ratio <= 1));
        assertEquals(
          found.steps.map(({ length }) => length),
          arch === "bert" ? [7] : flash ? [3, 1] : [7, 1, 1, 1],
        );
        for (const { greedy } of found.steps) assertEquals(greedy?.a, greedy?.b);
      }
    }
  });
}

liveTest("bisect: a vision model's two parts are compared, patches and tokens", async () => {
  await using model = await golden("llava");
  using pixel_values = Tensor.from(seeded("image").normal(3 * 64), { dtype: "float32", shape: [1, 3, 8, 8] });
  const image = Array.from({ length: imageTokens(model) }, () => 63);
  const found = await compare(model, "eager", "flash_attention_2", [[5, ...image, 6]], {}, { pixel_values });
  assertEquals(found.divergence, null);
  // The features are those of the last layer but one: no forward reaches the last.
  const reached = model.attention_report().map(({ layer }) => layer).filter((layer) =>
    !/vision.*\.2\./.test(layer)
  );
  assertEquals(found.layers.map(({ layer }) => layer), reached);
});

/** Places an image takes in the ids. */
function imageTokens(model: PreTrainedModel): number {
  const { image_size, patch_size } = model.config.sub_configs.vision_config as unknown as Record<
    string,
    number
  >;
  return (image_size! / patch_size!) ** 2;
}

liveTest("bisect: padding is not compared, and a batch is", async () => {
  await using model = await golden("llama");
  using attention_mask = Tensor.from([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], { dtype: "int64" });
  const rows = [[2, 2, 5, 6, 7], prompt(5)];
  for (const b of ["sdpa", "flash_attention_2", "flex_attention"]) {
    const found = await compare(model, "eager", b, rows, { max_new_tokens: 2 }, { attention_mask });
    assertEquals(found.divergence, null, b);
  }
});

withGpu("bisect: the CPU and the GPU agree", async () => {
  await using cpu = await golden("llama");
  await using gpu = await golden("llama", "sdpa", "webgpu");
  using input_ids = ids([prompt(9)]);
  for (const attn_implementation of BUILTIN) {
    const found = await bisect_attention({ model: cpu, attn_implementation }, {
      model: gpu,
      attn_implementation,
    }, { input_ids });
    assertEquals(found.divergence, null, attn_implementation);
    assertEquals([found.a.device, found.b.device], ["wasm", "webgpu"]);
  }
});

withGpu("bisect: a fault on the GPU is found by the CPU", async () => {
  await using cpu = await golden("llama");
  await using gpu = await golden("llama", "sdpa", "webgpu");
  using input_ids = ids([prompt(9)]);
  const attn_implementation = broken({ layer: 1, heads: [3], at: (p) => p >= 4 });
  const found = await bisect_attention({ model: cpu }, { model: gpu, attn_implementation }, { input_ids });
  assertEquals(place(found), attention(4, 1, 3));
});

liveTest("bisect: a wrong scale in one head of one layer, from one token on, is found there", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(DEMO);
  const name = broken({ layer: 1, heads: [2], at: (p) => p >= 5 });
  for (const a of BUILTIN) {
    const found = await compare(model, a, name, [prompt(12)]);
    assertEquals(place(found), attention(5, 1, 2));
    const { divergence, layers, steps } = found;
    assertEquals(divergence!.heads, [2]);
    assertEquals(divergence!.token_id, prompt(12)[5]);
    assertEquals(steps.length, 1, "nothing is run after the first difference");
    // What comes after has drifted, and is not blamed.
    assertEquals(layers.map(({ isolated }) => isolated.ratio > 1), [false, true, false, false, false, false]);
    assertEquals(layers.map(({ in_run }) => in_run.ratio > 1), [false, true, true, true, true, true]);
    assertEquals(layers[1]!.by_position.map((ratio) => ratio > 1), prompt(12).map((_, p) => p >= 5));
  }
});

liveTest("bisect: of two faults the one at the earlier token comes first", async () => {
  await using model = await golden("gemma2");
  const name = broken(
    { layer: 1, heads: [0], at: (p) => p === 6 },
    { layer: 3, heads: [1, 2], at: (p) => p === 4 },
  );
  const found = await compare(model, "sdpa", name, [prompt(8)]);
  assertEquals(place(found), attention(4, 3, 1));
  assertEquals(found.divergence!.heads, [1, 2]);
});

liveTest("bisect: a mask that is off by one at one query shows in what it sees", async () => {
  await using model = await golden("llama");
  const name = broken({ layer: 1, heads: [0, 1, 2, 3], at: (p) => p === 6, wrong: shortsighted });
  const { divergence, ...found } = await compare(model, "eager", name, [prompt(9)]);
  assertEquals(place({ divergence, ...found }), attention(6, 1, 0));
  assertEquals(divergence!.mask_a.visible, [0, 1, 2, 3, 4, 5, 6]);
  assertStringIncludes(divergence!.mask_a.words, "a float32 tensor of shape [1,1,9,9]");
  assertStringIncludes(divergence!.mask_a.drawing!, "q 6  ■ ■ ■ ■ ■ ■ ■ ⬚ ⬚  ← here");
  assertStringIncludes(divergence!.mask_b.words, "null");
  assertEquals(divergence!.mask_b.drawing, divergence!.mask_a.drawing);
});

liveTest("bisect: NaN is a difference, and is found where it begins", async () => {
  await using model = await golden("llama");
  const found = await compare(
    model,
    "sdpa",
    broken({ layer: 0, heads: [1], at: (p) => p === 3, wrong: nan }),
    [
      prompt(6),
    ],
  );
  assertEquals(place(found), attention(3, 0, 1));
  assertEquals(found.divergence!.isolated.max_abs, Infinity);
  assertEquals(found.divergence!.isolated.worst!.b, NaN);
});

liveTest("bisect: a fault that only a later token meets is found in its forward", async () => {
  await using model = await golden("mistral");
  const name = broken({ layer: 2, heads: [3], at: () => true, wrong: alone });
  // Layers that slide hand out the window: the position is that of the sequence, not of the window.
  const found = await compare(model, "flash_attention_2", name, [prompt(7)], { max_new_tokens: 3 });
  assertEquals(place(found), attention(7, 2, 3, 1));
  assertEquals(found.divergence!.mask_a.visible, [4, 5, 6, 7]);
});

/** NaN for single queries only, as a kernel for decoding may give them. */
const alone: typeof nan = (module, query, ...rest) =>
  (query.shape[2] === 1 ? nan : sdpa_attention_forward)(module, query, ...rest);

liveTest("bisect: what projections and norms do is inherited, not attention's", async () => {
  await using near = await writeTinyLlama({ seed: "one" });
  await using far = await writeTinyLlama({ seed: "one", config: { rms_norm_eps: 0.5 } });
  await using a = await AutoModelForCausalLM.from_pretrained(near.folder);
  await using b = await AutoModelForCausalLM.from_pretrained(far.folder);
  using input_ids = ids([prompt(5).map((id) => id % 48)]);
  const { divergence, layers } = await bisect_attention({ model: a }, { model: b }, { input_ids });
  assertEquals([divergence!.origin, divergence!.position, divergence!.layer_index], ["inherited", 0, 0]);
  assert(layers.every(({ isolated }) => isolated.ratio <= 1));
});

liveTest("bisect: with little memory forwards are repeated and the answer is the same", async () => {
  await using model = await golden("gemma2");
  const name = broken({ layer: 3, heads: [1], at: (p) => p === 8 });
  const runs: string[] = [];
  const progress_callback = ({ step, side }: { step: number; side: string }) =>
    void runs.push(`${step}${side}`);
  const whole = await compare(model, "eager", name, [prompt(7)], { progress_callback });
  assertEquals(runs, ["0a", "0b", "1a", "1b", "2a", "2b"]);
  runs.length = 0;
  const parts = await compare(model, "eager", name, [prompt(7)], { progress_callback, capture_bytes: 1 });
  assertEquals(runs.length, 3 * 2 * 4);
  assertEquals(parts, whole);
  assertEquals(place(parts), attention(8, 3, 1, 2));
});

liveTest("bisect: a given tolerance is taken as it stands", async () => {
  await using model = await golden("llama");
  const found = await compare(model, "eager", "flash_attention_2", [prompt(9)], {
    tolerance: { atol: 0, rtol: 0 },
  });
  assertEquals(found.scaled, { tolerance: false, run_tolerance: true });
  assert(found.divergence === null || found.divergence.isolated.max_abs > 0);
  const name = broken({ layer: 0, heads: [0], at: () => true });
  const wide = { atol: 1e3, rtol: 0 };
  const blind = await compare(model, "eager", name, [prompt(5)], { tolerance: wide, run_tolerance: wide });
  assertEquals(blind.divergence, null);
});

liveTest("bisect: the model keeps the implementation it had, also after an error or an abort", async () => {
  await using model = await golden("llava", "eager");
  await model.set_attn_implementation({ text_config: "flash_attention_2" });
  const before = JSON.stringify(model.attention_report());
  await compare(model, "sdpa", "eager", [[5, 6, 7]]);
  const alive = liveBuffers(); // the model's own, its table of positions included
  assertEquals(JSON.stringify(model.attention_report()), before);
  await assertRejects(() => compare(model, "sdpa", "nope", [[5]]), InvalidArgument, "nope");
  const stop = new AbortController();
  const reason = new Error("enough");
  const stopping = compare(model, "sdpa", "eager", [[5, 6, 7]], {
    signal: stop.signal,
    progress_callback: ({ step, side }) => step === 1 && side === "b" ? stop.abort(reason) : undefined,
  });
  assertEquals(await assertRejects(() => stopping), reason);
  const failing = compare(model, "sdpa", "eager", [[5, 6, 7]], {
    progress_callback: ({ side }) => {
      if (side === "b") throw reason;
    },
  });
  assertEquals(await assertRejects(() => failing), reason);
  assertEquals(JSON.stringify(model.attention_report()), before);
  assertEquals(liveBuffers(), alive);
});

liveTest("bisect: refuses models that are not the same, and inputs that do not fit", async () => {
  await using a = await golden("llama");
  await using b = await golden("mistral");
  await using encoder = await golden("bert");
  using input_ids = ids([prompt(4)]);
  await assertRejects(
    () => bisect_attention({ model: a }, { model: b }, { input_ids }),
    InvalidArgument,
    "not the same",
  );
  await assertRejects(
    () => bisect_attention({ model: b }, { model: a }, { input_ids }),
    InvalidArgument,
    "not the same",
  );
  const same = { model: encoder };
  await assertRejects(
    () => bisect_attention(same, same, { input_ids }, { max_new_tokens: 2 }),
    InvalidArgument,
    "max_new_tokens 0",
  );
  using attention_mask = ids([[1]]);
  await assertRejects(
    () => bisect_attention(same, same, { input_ids, attention_mask }),
    InvalidArgument,
    "attention_mask",
  );
});

reportSkipped();
