/**
 * Swapping attention while a model runs: the tokens stay, the cache stays, and an error changes nothing.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStrictEquals, assertStringIncludes } from "@std/assert";
import {
  ALL_ATTENTION_FUNCTIONS,
  type AttentionFunction,
  AttentionInterface,
  AttentionMaskInterface,
  type AttentionResult,
  AutoModelForCausalLM,
  DynamicCache,
  eager_attention_forward,
  eager_mask,
  flash_attention_forward,
  InvalidArgument,
  liveBuffers,
  ops,
  type PreTrainedModel,
  sdpa_attention_forward,
  sdpa_mask,
  type Streamer,
  Tensor,
} from "../../mod.ts";
import { opsAttention } from "../attention/ops_attention.ts";
import { everywhere, ids, liveTest, LLAMA, reportSkipped, rowsOf, withGpu } from "../models/support.ts";

AttentionInterface.register("ops_attention", opsAttention);
AttentionMaskInterface.register("ops_attention", sdpa_mask);

const NAMES = ["eager", "sdpa", "flash_attention_2", "flex_attention", "ops_attention"];
const PAIRS = NAMES.flatMap((a) => NAMES.filter((b) => b !== a).map((b) => [a, b] as const));
const ROWS = [[21, 6, 49, 10, 35, 11, 23, 17, 42, 10, 12], [0, 0, 0, 10, 47, 6, 12, 36, 47, 47, 13]];
const REAL = [[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]];
const STEPS = 10;

async function load(
  attn_implementation: string,
  device: "wasm" | "webgpu" = "wasm",
): Promise<PreTrainedModel> {
  return await AutoModelForCausalLM.from_pretrained(LLAMA, { attn_implementation, device });
}

/** Generates after the two prompts; `at` runs after the given number of tokens. */
async function generate(
  model: PreTrainedModel,
  at: Record<number, () => unknown> = {},
  past_key_values?: DynamicCache,
): Promise<number[][]> {
  using input_ids = ids(ROWS);
  using attention_mask = Tensor.from(REAL);
  let step = 0;
  const streamer: Streamer = { put: async () => void await at[++step]?.(), end: () => {} };
  const options = { input_ids, attention_mask, max_new_tokens: STEPS, streamer };
  return await rowsOf(await model.generate(past_key_values ? { ...options, past_key_values } : options));
}

let unswapped: number[][] | undefined;
async function expectedTokens(): Promise<number[][]> {
  if (unswapped !== undefined) return unswapped;
  await using model = await load("eager");
  return unswapped = await generate(model);
}

for (const name of NAMES) {
  everywhere(`${name} generates the tokens that eager does on "wasm"`, async (device) => {
    await using model = await load(name, device);
    assertEquals(await generate(model), await expectedTokens());
  });
}

for (const [from, to] of PAIRS) {
  everywhere(`swap ${from} → ${to} in the middle of a generation`, async (device) => {
    await using model = await load(from, device);
    using cache = new DynamicCache();
    const used: unknown[] = [];
    const swap = async () => {
      await model.set_attn_implementation(to);
      used.push(model.config._attn_implementation);
    };
    const tokens = await generate(model, { 4: swap }, cache);
    assertEquals(tokens, await expectedTokens());
    assertEquals(used, [to]);
    assertEquals(cache.get_seq_length(), ROWS[0]!.length + STEPS - 1, "one cache served both");
    assertEquals(model.attention_report().map((r) => r.implementation), [to, to]);
  });

  liveTest(`swap ${from} → ${to} between two generations with one cache`, async () => {
    await using model = await load(from);
    const expected = await expectedTokens();
    using cache = new DynamicCache();
    using input_ids = ids(ROWS);
    using attention_mask = Tensor.from(REAL);
    const first = await rowsOf(
      await model.generate({ input_ids, attention_mask, max_new_tokens: 4, past_key_values: cache }),
    );
    await model.set_attn_implementation(to);
    using longer = ids(first);
    using longerMask = Tensor.from(REAL.map((row) => [...row, 1, 1, 1, 1]));
    const options = {
      input_ids: longer,
      attention_mask: longerMask,
      max_new_tokens: STEPS - 4,
      past_key_values: cache,
    };
    assertEquals(await rowsOf(await model.generate(options)), expected);
  });
}

liveTest("a swap at every step, around all names", async () => {
  await using model = await load("eager");
  const plan = Object.fromEntries(
    Array.from(
      { length: STEPS },
      (_, i) => [i + 1, () => model.set_attn_implementation(NAMES[(i + 1) % NAMES.length]!)],
    ),
  );
  assertEquals(await generate(model, plan), await expectedTokens());
});

liveTest("a swap while a forward runs takes effect in the next one", async () => {
  await using model = await load("eager");
  using input_ids = ids(ROWS);
  const running = model.forward({ input_ids, output_attentions: true });
  await model.set_attn_implementation("sdpa");
  const { logits, attentions, past_key_values } = await running;
  assertEquals([logits!.shape[1], attentions!.length], [11, 2]);
  for (const t of [logits!, ...attentions!, past_key_values!]) t[Symbol.dispose]();
});

for (const bad of ["flash", "SDPA", "", "flash_attention_5", "constructor", "__proto__"]) {
  liveTest(`a swap to the unknown name ${JSON.stringify(bad)} is an error and changes nothing`, async () => {
    await using model = await load("flash_attention_2");
    const report = model.attention_report();
    const refused = await assertRejects(() => model.set_attn_implementation(bad), InvalidArgument);
    for (const known of ["eager", "sdpa", "flash_attention_2"]) assertStringIncludes(refused.message, known);
    assertEquals(model.config._attn_implementation, "flash_attention_2");
    assertEquals(model.attention_report(), report);
    assertEquals(
      await generate(model, { 3: () => assertRejects(() => model.set_attn_implementation(bad)) }),
      await expectedTokens(),
    );
  });
}

liveTest(
  "a record of sub-config names: the empty key is all, an unknown one an error that changes nothing",
  async () => {
    await using model = await load("eager");
    await model.set_attn_implementation({ "": "sdpa" });
    assertEquals(model.config._attn_implementation, "sdpa");
    const refused = await assertRejects(
      () => model.set_attn_implementation({ "": "eager", text_config: "eager" }),
      InvalidArgument,
    );
    assertStringIncludes(refused.message, "text_config");
    assertEquals(model.config._attn_implementation, "sdpa");
  },
);

/** Calls of a function under a name, with the built-in put back afterwards. */
async function overriding(name: string, fn: AttentionFunction, body: () => Promise<void>): Promise<void> {
  const before = ALL_ATTENTION_FUNCTIONS.get(name);
  AttentionInterface.register(name, fn);
  try {
    await body();
  } finally {
    AttentionInterface.register(name, before ?? eager_attention_forward);
  }
}

const BUILT_IN: readonly (readonly [string, AttentionFunction])[] = [
  ["sdpa", sdpa_attention_forward],
  ["flash_attention_2", flash_attention_forward],
  ["eager", eager_attention_forward],
];

for (const [name, fn] of BUILT_IN) {
  liveTest(`"${name}" can be overridden by register, and put back`, async () => {
    await using model = await load(name);
    let calls = 0;
    await overriding(name, (...args) => (calls++, fn(...args)), async () => {
      assertEquals(await generate(model), await expectedTokens());
    });
    assertEquals(calls, 2 * STEPS);
    assertEquals(await generate(model), await expectedTokens());
    assertEquals(calls, 2 * STEPS);
    await assertRejects(
      () => generateWith(model, { temperature_of_heads: 3 }),
      InvalidArgument,
      "temperature_of_heads",
    );
  });
}

async function generateWith(model: PreTrainedModel, extra: Record<string, unknown>): Promise<number[][]> {
  using input_ids = ids([ROWS[0]!]);
  return await rowsOf(await model.generate({ input_ids, max_new_tokens: 3, ...extra }));
}

liveTest("a local overlay does not reach models", async () => {
  await using model = await load("sdpa");
  const mine = new AttentionInterface();
  mine.set("sdpa", () => {
    throw new Error("not for models");
  });
  assertEquals(await generate(model), await expectedTokens());
});

liveTest(
  "keyword arguments of forward and generate reach a custom function of every layer, and only then",
  async () => {
    await using model = await load("sdpa");
    const seen: { layer: number; kwargs: Record<string, unknown> }[] = [];
    AttentionInterface.register("noting", (module, q, k, v, mask, kwargs) => {
      seen.push({ layer: module.layer_idx, kwargs });
      return sdpa_attention_forward(module, q, k, v, mask, kwargs);
    });
    AttentionMaskInterface.register("noting", sdpa_mask);
    await model.set_attn_implementation("noting");
    const marker = { any: "value" };
    using input_ids = ids([ROWS[0]!]);
    const { logits, past_key_values } = await model.forward({ input_ids, marker, temperature_of_heads: 0.5 });
    logits![Symbol.dispose]();
    past_key_values![Symbol.dispose]();
    assertEquals(seen.map((s) => s.layer), [0, 1]);
    for (const { kwargs } of seen) {
      assertStrictEquals(kwargs["marker"], marker);
      assertEquals([kwargs["temperature_of_heads"], kwargs["dropout"], kwargs["scaling"]], [
        0.5,
        0,
        8 ** -0.5,
      ]);
      assert(!("signal" in kwargs) && !("input_ids" in kwargs));
    }
    seen.length = 0;
    await generateWith(model, { marker });
    assertEquals(seen.length, 6);
    assert(seen.every((s) => s.kwargs["marker"] === marker));
    await assertRejects(() => generateWith(model, { max_new_token: 3 }), InvalidArgument, "max_new_tokens");
    await assertRejects(() => model.forward({ input_ids, is_casual: true }), InvalidArgument, "is_causal");
    await model.set_attn_implementation("sdpa");
    await assertRejects(() => model.forward({ input_ids, marker }), InvalidArgument, "marker");
    await assertRejects(() => generateWith(model, { marker }), InvalidArgument, "marker");
  },
);

liveTest("a custom function sees grouped keys with the past, and the mask of its own formatter", async () => {
  await using model = await load("sdpa");
  const shapes: string[] = [];
  AttentionInterface.register("looking", (module, q, k, v, mask, kwargs) => {
    shapes.push(
      `${[q.shape, k.shape, v.shape].join(" ")} ${
        mask instanceof Tensor ? `${mask.dtype} ${mask.shape}` : mask
      }`,
    );
    return eager_attention_forward(module, q, k, v, mask, kwargs);
  });
  AttentionMaskInterface.register("looking", eager_mask);
  await model.set_attn_implementation("looking");
  assertEquals(await generate(model), await expectedTokens());
  assertEquals(shapes[0], "2,4,11,8 2,2,11,8 2,2,11,8 float32 2,1,11,11");
  assertEquals(shapes.at(-1), "2,4,1,8 2,2,20,8 2,2,20,8 float32 2,1,1,20");
});

liveTest("a custom function without a formatter gets null, and says so once", async () => {
  await using model = await load("sdpa");
  const masks = new Set<unknown>();
  AttentionInterface.register("maskless", (module, q, k, v, mask, kwargs) => {
    masks.add(mask);
    return sdpa_attention_forward(module, q, k, v, mask, kwargs);
  });
  await model.set_attn_implementation("maskless");
  const warnings: string[] = [];
  const { warn } = console;
  console.warn = (text: string) => void warnings.push(text);
  try {
    await generateWith(model, {});
    await generateWith(model, {});
  } finally {
    console.warn = warn;
  }
  assertEquals([...masks], [null]);
  assertEquals(warnings.filter((w) => w.includes("maskless")).length, 1);
  assertStringIncludes(warnings[0]!, "AttentionMaskInterface.register");
});

liveTest("an asynchronous function gives the same tokens", async () => {
  await using model = await load("sdpa");
  AttentionInterface.register("later", async (...args) => {
    await new Promise((resolve) => setTimeout(resolve, 1));
    // After an await no scope of the library's is open: temporaries are the function's own.
    return ops.tidy(() => opsAttention(...args) as AttentionResult);
  });
  AttentionMaskInterface.register("later", sdpa_mask);
  await model.set_attn_implementation("later");
  const [first] = await generateWith(model, {});
  assertEquals(first, (await expectedTokens())[0]!.slice(0, first!.length));
});

const mistake = new Error("my own mistake");

/** What a faulty function does, and what the caller sees. */
const FAULTS: readonly (readonly [name: string, fn: AttentionFunction, expected: "its own" | string])[] = [
  ["throws", () => {
    throw mistake;
  }, "its own"],
  ["rejects", () => Promise.reject(mistake), "its own"],
  ["rejects late", async () => {
    await new Promise((resolve) => setTimeout(resolve, 2));
    throw mistake;
  }, "its own"],
  ["throws after making tensors", (_module, q, k) => {
    Tensor.from([1, 2, 3]);
    opsAttention(_module, q, k, k, null, {});
    throw mistake;
  }, "its own"],
  ["returns nothing", () => undefined as never, "undefined"],
  ["returns a number", () => 3 as never, "number"],
  ["returns an empty list", () => [] as never, "got []"],
  [
    "returns a bare tensor",
    (_m, q) => q.view(q.shape, q.strides) as never,
    "expected [attn_output, attn_weights or null]",
  ],
  ["returns the heads unmoved", (_m, q) => [q.view(q.shape, q.strides), null], "[1,4,11,8]"],
  ["returns another width", () => [Tensor.from([[[[1.5]]]]), null], "[1,1,1,1]"],
  ["returns weights that are no tensor", (m, q, k, v, mask, kw) => {
    const [out] = sdpa_attention_forward(m, q, k, v, mask, kw) as [Tensor, null];
    return [out, "weights"] as never;
  }, "attn_weights"],
  ["returns weights of another shape", (m, q, k, v, mask, kw) => {
    const [out] = sdpa_attention_forward(m, q, k, v, mask, kw) as [Tensor, null];
    return [out, Tensor.from([1.5])];
  }, "attn_weights"],
  ["returns a promise of garbage", () => Promise.resolve("garbage") as never, "string"],
  ["returns a disposed tensor", (m, q, k, v, mask, kw) => {
    const result = sdpa_attention_forward(m, q, k, v, mask, kw) as [Tensor, null];
    result[0][Symbol.dispose]();
    return result;
  }, "disposed"],
  ["disposes its inputs", (m, q, k, v, mask, kw) => {
    const result = sdpa_attention_forward(m, q, k, v, mask, kw);
    for (const t of [q, k, v]) t[Symbol.dispose]();
    return result;
  }, ""],
];

for (const [name, fn, expected] of FAULTS) {
  liveTest(
    `a custom function that ${name}: ${
      expected === "" ? "is forgiven" : "an error"
    }; model and cache live on`,
    async () => {
      await using model = await load("sdpa");
      const [whole] = await generateWith(model, { max_new_tokens: 6 }) as [number[]];
      using cache = new DynamicCache();
      const sofar = await generateWith(model, { max_new_tokens: 3, past_key_values: cache });
      const length = cache.get_seq_length(), live = liveBuffers();
      AttentionInterface.register("faulty", fn);
      AttentionMaskInterface.register("faulty", sdpa_mask);
      await model.set_attn_implementation("faulty");
      using prompt = ids([ROWS[0]!]);
      if (expected === "") {
        const output = await model.forward({ input_ids: prompt, use_cache: false });
        output.logits![Symbol.dispose]();
      } else {
        const error = await assertRejects(() => model.forward({ input_ids: prompt, use_cache: false }));
        if (expected === "its own") assertStrictEquals(error, mistake);
        else {
          assert(error instanceof InvalidArgument, String(error));
          assertStringIncludes(error.message, expected);
        }
        assertEquals(liveBuffers(), live, "nothing is left behind");
        using longer = ids(sofar);
        const goOn = () => model.generate({ input_ids: longer, max_new_tokens: 3, past_key_values: cache });
        const again = await assertRejects(goOn);
        if (expected === "its own") assertStrictEquals(again, mistake);
        assertEquals(cache.get_seq_length(), length, "the cache is as it was");
        await model.set_attn_implementation("sdpa");
        assertEquals(await rowsOf(await goOn()), [whole]);
      }
    },
  );
}

liveTest("a function that fails in the second layer leaves the cache as it was", async () => {
  await using model = await load("sdpa");
  const [whole] = await generateWith(model, { max_new_tokens: 6 }) as [number[]];
  using cache = new DynamicCache();
  const sofar = await generateWith(model, { max_new_tokens: 3, past_key_values: cache });
  AttentionInterface.register("second", (module, ...args) => {
    if (module.layer_idx === 1) throw mistake;
    return sdpa_attention_forward(module, ...args);
  });
  AttentionMaskInterface.register("second", sdpa_mask);
  await model.set_attn_implementation("second");
  using longer = ids(sofar);
  const goOn = () => model.generate({ input_ids: longer, max_new_tokens: 3, past_key_values: cache });
  assertStrictEquals(await assertRejects(goOn), mistake);
  assertEquals([0, 1].map((layer) => cache.get_seq_length(layer)), [13, 13]);
  await model.set_attn_implementation("sdpa");
  assertEquals(await rowsOf(await goOn()), [whole]);
});

liveTest("NaN from a custom function does not end up in a cache that others use", async () => {
  await using model = await load("sdpa");
  AttentionInterface.register(
    "nan",
    (
      _m,
      q,
    ) => [
      Tensor.from(new Float32Array(q.size).fill(NaN), {
        shape: [q.shape[0]!, q.shape[2]!, q.shape[1]!, q.shape[3]!],
      }),
      null,
    ],
  );
  AttentionMaskInterface.register("nan", sdpa_mask);
  await model.set_attn_implementation("nan");
  for (const do_sample of [false, true]) {
    await assertRejects(() => generateWith(model, { do_sample }), InvalidArgument, "not finite");
  }
  await model.set_attn_implementation("sdpa");
  assertEquals(await generate(model), await expectedTokens());
});

liveTest(
  "concurrent generations on one model, with swaps between their steps, give their tokens",
  async () => {
    await using model = await load("eager");
    const prompts = [ROWS[0]!, [3, 41, 19], [60], ROWS[0]!.slice(4)];
    const run = (row: number[], streamer?: Streamer) => {
      using input_ids = ids([row]);
      return model.generate({ input_ids, max_new_tokens: 8, ...(streamer ? { streamer } : {}) }).then(rowsOf);
    };
    const alone = [];
    for (const row of prompts) alone.push(await run(row));
    let step = 0;
    const streamer: Streamer = {
      put: () => model.set_attn_implementation(NAMES[step++ % NAMES.length]!),
      end: () => {},
    };
    assertEquals(await Promise.all(prompts.map((row) => run(row, streamer))), alone);
  },
);

withGpu("a model moves to the GPU and back in the middle of a generation, with its cache", async () => {
  for (const name of NAMES) {
    await using model = await load(name);
    using cache = new DynamicCache();
    const tokens = await generate(model, { 3: () => model.to("webgpu"), 7: () => model.to("wasm") }, cache);
    assertEquals(tokens, await expectedTokens(), name);
    assertEquals([model.device, cache.device], ["wasm", "wasm"]);
  }
});

withGpu("a swap of device and of attention in one step", async () => {
  await using model = await load("eager");
  const change = async () => {
    await model.to("webgpu");
    await model.set_attn_implementation("flash_attention_2");
  };
  assertEquals(await generate(model, { 5: change }), await expectedTokens());
  assertEquals(model.attention_report()[0], {
    layer: "layers.0.self_attn",
    implementation: "flash_attention_2",
    device: "webgpu",
    why: 'set_attn_implementation("flash_attention_2")',
  });
});

liveTest("moving to an unknown device is an error and the model stays", async () => {
  await using model = await load("eager");
  await assertRejects(() => model.to("cuda" as never), InvalidArgument, "cuda");
  assertEquals(await generate(model), await expectedTokens());
});

reportSkipped();
