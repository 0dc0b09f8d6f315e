/**
 * What callers bring along: functions that misbehave, numbers that are too large, caches in use, logits that are none.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStrictEquals, assertStringIncludes } from "@std/assert";
import {
  AttentionInterface,
  AttentionMaskInterface,
  AutoModelForCausalLM,
  AutoTokenizer,
  DynamicCache,
  type GenerateOptions,
  InvalidArgument,
  type LogitsProcessor,
  OutOfMemory,
  type PreTrainedModel,
  sdpa_attention_forward,
  sdpa_mask,
  Tensor,
  TextIteratorStreamer,
} from "../../mod.ts";
import { DEMO, ids, liveTest, LLAMA, rowsOf } from "../models/support.ts";

const PROMPT = [3, 41, 19, 10, 47, 6, 12, 36];
const load = (): Promise<PreTrainedModel> => AutoModelForCausalLM.from_pretrained(LLAMA);

async function generate(model: PreTrainedModel, options: Record<string, unknown> = {}): Promise<number[]> {
  using input_ids = ids([PROMPT]);
  const given = { input_ids, max_new_tokens: 5, ...options } as GenerateOptions;
  return (await rowsOf(await model.generate(given)))[0]!.slice(PROMPT.length);
}

const never = () => new Promise<void>(() => {});

for (const method of ["put", "put_prompt", "end"] as const) {
  liveTest(`an abort ends a generation whose streamer never finishes its ${method}`, async () => {
    await using model = await load();
    const controller = new AbortController(), reason = new Error("enough");
    const streamer = {
      put: () => {},
      end: () => {},
      [method]: () => {
        setTimeout(() => controller.abort(reason), 5);
        return never();
      },
    };
    const error = await assertRejects(() => generate(model, { streamer, signal: controller.signal }));
    assertStrictEquals(error, reason);
    assertEquals((await generate(model)).length, 5);
  });
}

liveTest("an abort ends a generation whose text nobody reads on", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(DEMO);
  const tokenizer = await AutoTokenizer.from_pretrained(DEMO);
  const controller = new AbortController(), reason = new Error("enough");
  const streamer = new TextIteratorStreamer(tokenizer, { high_water_mark: 1 });
  const done = assertRejects(() =>
    generate(model, { streamer, signal: controller.signal, max_new_tokens: 40 })
  );
  const reader = streamer[Symbol.asyncIterator]();
  await reader.next();
  setTimeout(() => controller.abort(reason), 20);
  assertStrictEquals(await done, reason);
});

liveTest("numbers of rows and lengths that cannot be are refused at once", async () => {
  await using model = await load();
  for (
    const options of [
      { num_beams: 1e9 },
      { num_beams: 2 ** 16 + 1 },
      { do_sample: true, num_return_sequences: 1e9 },
      { generation_config: { num_beams: 1e9 } },
    ]
  ) {
    const begun = performance.now();
    await assertRejects(() => generate(model, options), InvalidArgument, "65536");
    assert(performance.now() - begun < 1000);
  }
  for (const max_new_tokens of [1e9, 1e15]) {
    await assertRejects(
      () => generate(model, { max_new_tokens, cache_implementation: "static" }),
      OutOfMemory,
    );
  }
  using many = Tensor.from(new Int32Array(2 ** 10 + 1).fill(3), { shape: [2 ** 10 + 1, 1] });
  await assertRejects(
    () => generate(model, { input_ids: many, num_beams: 2 ** 14 }),
    InvalidArgument,
    "expected at most",
  );
});

liveTest("scores that a processor returns replace those it was given", async () => {
  await using model = await load();
  const only = (scores: Float32Array, token: number) => scores.map((_, i) => i === token ? 0 : -Infinity);
  const forced: LogitsProcessor = (scores) => only(scores, 7);
  assertEquals(await generate(model, { logits_processor: [forced] }), [7, 7, 7, 7, 7]);
  const beams = await generate(model, { logits_processor: [forced], num_beams: 2, max_new_tokens: 1 });
  assertEquals(beams, [7]);
  for (
    const wrong of [
      () => null,
      () => [1],
      () => new Float32Array(3),
      () => Promise.resolve(),
      () => Promise.reject(new Error("late")),
    ]
  ) {
    await assertRejects(
      () => generate(model, { logits_processor: [wrong] }),
      InvalidArgument,
      "logits_processor[0]",
    );
    await assertRejects(
      () => generate(model, { stopping_criteria: [wrong] }),
      InvalidArgument,
      "stopping_criteria[0]",
    );
  }
  // A promise whose rejection nobody handles would have failed this test.
  await new Promise((resolve) => setTimeout(resolve, 5));
});

liveTest("callers' functions cannot change the rows", async () => {
  await using model = await load();
  const plain = await generate(model);
  const spoil = (input_ids: readonly number[]) => {
    (input_ids as number[]).push(7);
    (input_ids as number[]).length = 0;
  };
  const options = {
    logits_processor: [(_: Float32Array, input_ids: readonly number[]) => spoil(input_ids)],
    stopping_criteria: [(input_ids: readonly number[]) => {
      spoil(input_ids);
      return false;
    }],
  };
  assertEquals(await generate(model, options), plain);
});

liveTest("parameters of Transformers that are not here are refused, whatever the attention", async () => {
  await using model = await load();
  const seen: string[][] = [];
  const attention: typeof sdpa_attention_forward = (...args) => {
    seen.push(Object.keys(args[5] ?? {}));
    return sdpa_attention_forward(...args);
  };
  AttentionInterface.register("callers_attention", attention);
  AttentionMaskInterface.register("callers_attention", sdpa_mask);
  for (const name of ["sdpa", "callers_attention"]) {
    await model.set_attn_implementation(name);
    for (
      const [key, value] of [
        ["no_repeat_ngram_size", 2],
        ["bad_words_ids", [[3]]],
        ["max_time", 3],
        ["penalty_alpha", 0.6],
        ["low_memory", true],
        ["use_cache", false],
      ] as const
    ) {
      const error = await assertRejects(() => generate(model, { [key]: value }), InvalidArgument);
      assertStringIncludes(error.message, `with ${key} `);
    }
    assertEquals((await generate(model, { use_cache: true, no_repeat_ngram_size: 0 })).length, 5);
  }
  await generate(model, { my_own: 3 });
  assert(seen.at(-1)!.includes("my_own"));
  assert(!seen.flat().includes("no_repeat_ngram_size"));
});

liveTest("a cache serves one generation at a time", async () => {
  await using model = await load();
  const plain = await generate(model);
  using past_key_values = new DynamicCache();
  const first = generate(model, { past_key_values });
  await assertRejects(() => generate(model, { past_key_values }), InvalidArgument, "the cache is in use");
  assertEquals(await first, plain);
  past_key_values.reset();
  assertEquals(await generate(model, { past_key_values }), plain);
});

liveTest("a text beyond max_position_embeddings is noted once for a model", async () => {
  const { warn } = console, warnings: string[] = [];
  console.warn = (...args: unknown[]) => void warnings.push(args.join(" "));
  try {
    for (let i = 0; i < 2; i++) {
      await using model = await load();
      assertEquals((await generate(model, { max_new_tokens: 248 })).length, 248);
      const before = warnings.length;
      for (let j = 0; j < 2; j++) await generate(model, { max_new_tokens: 252 });
      assertEquals(warnings.length, before + 1);
      assertStringIncludes(warnings.at(-1)!, "max_position_embeddings");
    }
    assertEquals(warnings.length, 2);
  } finally {
    console.warn = warn;
  }
});

liveTest("nothing instead of options is refused, and null is no generation config", async () => {
  await using model = await load();
  const nothing = undefined as unknown as GenerateOptions;
  await assertRejects(() => model.generate(nothing), InvalidArgument, "expected options");
  await assertRejects(() => model.forward(nothing), InvalidArgument, "expected inputs");
  assertEquals((await generate(model, { generation_config: null })).length, 5);
  const tokenizer = { decode: () => 5 };
  await assertRejects(
    () => generate(model, { stop_strings: "x", tokenizer }),
    InvalidArgument,
    "tokenizer.decode",
  );
});

liveTest("scores among which no token can be chosen are an error, not token 0", async () => {
  await using model = await load();
  for (const value of [NaN, -Infinity]) {
    const fill = (scores: Float32Array) => void scores.fill(value);
    for (const rest of [{}, { do_sample: true, seed: 1 }, { num_beams: 2 }]) {
      await assertRejects(
        () => generate(model, { logits_processor: [fill], ...rest }),
        InvalidArgument,
        "Cannot choose the next token",
      );
    }
  }
  const without = (scores: Float32Array) => void scores.fill(-Infinity);
  await assertRejects(() => generate(model, { logits_processor: [without] }), InvalidArgument, "[0] left");
  // A model whose norm is not a number.
  AttentionInterface.register(
    "nan_attention",
    (_module, query) => {
      const [b, h, n, d] = query.shape as [number, number, number, number];
      return [Tensor.from(new Float32Array(b * h * n * d).fill(NaN), { shape: [b, n, h, d] }), null];
    },
  );
  AttentionMaskInterface.register("nan_attention", sdpa_mask);
  await model.set_attn_implementation("nan_attention");
  for (const rest of [{}, { repetition_penalty: 1.2 }, { prompt_lookup_num_tokens: 2 }]) {
    await assertRejects(() => generate(model, rest), InvalidArgument, "logits are not finite");
  }
});
