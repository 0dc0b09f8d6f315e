/**
 * Assisted decoding: the same tokens, or the same distribution, in fewer forwards.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import {
  AutoModel,
  AutoModelForCausalLM,
  DynamicCache,
  type GenerateDictOptions,
  type GenerateOptions,
  InvalidArgument,
  liveBuffers,
  PretrainedConfig,
  type PreTrainedModel,
  StaticCache,
  type Tensor,
} from "../../mod.ts";
import { everywhere, ids, liveTest, LLAMA, reportSkipped, rowsOf } from "../models/support.ts";
import { goldenPath } from "../support/golden.ts";
import { assertClose, toleranceOf } from "../support/tolerance.ts";

/** Longer than every window of the recorded models, and with repetitions. */
const PROMPT = Array.from({ length: 21 }, (_, i) => (7 * (i % 9) + 3) % 60);

async function generate(model: PreTrainedModel, options: Partial<GenerateOptions> = {}): Promise<number[]> {
  using input_ids = ids([PROMPT]);
  const request = { input_ids, max_new_tokens: 14, eos_token_id: null, ...options };
  return (await rowsOf(await model.generate(request)))[0]!.slice(PROMPT.length);
}

/** Counts the forwards of a model, and the tokens that go through them, until it is put back. */
function counting(model: PreTrainedModel): { forwards: number; tokens: number } & Disposable {
  const count = { forwards: 0, tokens: 0, [Symbol.dispose]: () => Reflect.deleteProperty(model, "forward") };
  const { forward } = model;
  Object.defineProperty(model, "forward", {
    configurable: true,
    value: (inputs: { input_ids: Tensor }) => {
      count.forwards++;
      count.tokens += inputs.input_ids.size;
      return forward.call(model, inputs);
    },
  });
  return count;
}

// Layers without a window, with and without, with one, and in chunks.
for (const arch of ["llama", "gemma2", "mistral", "llama4"]) {
  everywhere(`${arch}: greedy tokens are those without an assistant, whatever it guesses`, async (device) => {
    await using model = await AutoModelForCausalLM.from_pretrained(goldenPath(`models/${arch}`), { device });
    const folder = goldenPath(`models/${arch}`);
    await using rounded = await AutoModelForCausalLM.from_pretrained(folder, { device, dtype: "bfloat16" });
    await using other = await AutoModelForCausalLM.from_pretrained(
      goldenPath(`models/${arch === "llama" ? "mistral" : "llama"}`),
    );
    const { config } = model;
    const expected = await generate(model);
    // All, most and few of the guesses are right.
    for (const assistant_model of [model, rounded, other]) {
      for (const num_assistant_tokens of [1, 4]) {
        assertEquals(await generate(model, { assistant_model, num_assistant_tokens }), expected);
      }
    }
    for (const prompt_lookup_num_tokens of [1, 6]) {
      assertEquals(await generate(model, { prompt_lookup_num_tokens }), expected);
    }
    const length = PROMPT.length + 14;
    for (
      const past_key_values of [
        new DynamicCache({ config }),
        new StaticCache({ config, max_cache_len: length }),
      ]
    ) {
      using cache = past_key_values;
      assertEquals(await generate(model, { assistant_model: other, past_key_values: cache }), expected);
      // As after every generation, it holds all tokens but the last.
      assertEquals(cache.get_seq_length(), length - 1);
      using input_ids = ids([[...PROMPT, ...expected]]);
      if (cache instanceof StaticCache) continue;
      const on = await rowsOf(
        await model.generate({ input_ids, max_new_tokens: 4, eos_token_id: null, past_key_values: cache }),
      );
      assertEquals(on[0], [...PROMPT, ...await generate(model, { max_new_tokens: 18 })]);
    }
  });
}

liveTest("guesses that are right save forwards", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  await using twin = await AutoModelForCausalLM.from_pretrained(LLAMA);
  {
    using plain = counting(model);
    await generate(model);
    assertEquals(plain.forwards, 14);
  }
  for (const do_sample of [false, true]) {
    using count = counting(model);
    await generate(model, { assistant_model: twin, num_assistant_tokens: 4, do_sample, seed: 3 });
    // The prompt, five tokens twice, three more: nothing is computed twice.
    assertEquals([count.forwards, count.tokens], [4, PROMPT.length + 5 + 5 + 3]);
  }
  using count = counting(model);
  using input_ids = ids([Array.from({ length: 24 }, (_, i) => [9, 8, 7][i % 3]!)]);
  const repeat = [9, 8, 7];
  let step = 0;
  // Scores of the caller's that make the text repeat itself.
  await rowsOf(
    await model.generate({
      input_ids,
      max_new_tokens: 12,
      eos_token_id: null,
      prompt_lookup_num_tokens: 3,
      logits_processor: [(scores, row) => {
        step++;
        scores.fill(0);
        scores[repeat[row.length % 3]!] = 1;
      }],
    }),
  );
  assert(step >= 12);
  assertEquals(count.forwards, 4);
});

liveTest("processors, end tokens, stop strings and criteria act as without an assistant", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  await using other = await AutoModelForCausalLM.from_pretrained(goldenPath("models/mistral"));
  const plain = await generate(model);
  const tokenizer = { decode: (list: readonly number[]) => list.map((id) => `<${id}>`).join("") };
  const cases: Partial<GenerateOptions>[] = [
    { repetition_penalty: 1.7 },
    { repetition_penalty: 1.7, min_new_tokens: 9, eos_token_id: plain[2]! },
    { eos_token_id: plain[5]! },
    { stop_strings: `<${plain[3]}><${plain[4]}>`, tokenizer },
    { stopping_criteria: [(row) => row.length >= PROMPT.length + 7] },
    { max_new_tokens: 1 },
    { max_new_tokens: 2 },
    { logits_processor: [(scores) => scores.reverse()] },
  ];
  for (const options of cases) {
    const expected = await generate(model, options);
    for (const assistant_model of [model, other]) {
      using cache = new DynamicCache({ config: model.config });
      const got = await generate(model, { ...options, assistant_model, past_key_values: cache });
      assertEquals(got, expected);
      assertEquals(cache.get_seq_length(), PROMPT.length + expected.length - 1);
    }
    assertEquals(await generate(model, { ...options, prompt_lookup_num_tokens: 5 }), expected);
  }
});

liveTest("a padded prompt is continued as without an assistant", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  await using twin = await AutoModelForCausalLM.from_pretrained(LLAMA, { dtype: "bfloat16" });
  using attention_mask = ids([PROMPT.map((_, i) => i < 4 ? 0 : 1)]);
  const expected = await generate(model, { attention_mask });
  assertEquals(await generate(model, { attention_mask, assistant_model: twin }), expected);
});

/** A model so small that every sequence it can generate is counted. */
async function tiny(seed: number): Promise<PreTrainedModel> {
  const config = new PretrainedConfig({
    model_type: "llama",
    vocab_size: 4,
    hidden_size: 8,
    intermediate_size: 8,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    max_position_embeddings: 32,
    initializer_range: 0.6,
  });
  return await AutoModelForCausalLM.from_config(config, { seed });
}

const START = [1, 2, 3, 1, 2];
const NEW = 4;

/** Probabilities of all sequences of new tokens, by a forward over each of them. */
async function probabilities(model: PreTrainedModel): Promise<Float64Array> {
  const all = Array.from(
    { length: 4 ** NEW },
    (_, n) => Array.from({ length: NEW }, (_, i) => (n >> (2 * i)) & 3),
  );
  using input_ids = ids(all.map((tokens) => [...START, ...tokens]));
  const { logits } = await model.forward({ input_ids, use_cache: false });
  using owned = logits!;
  const values = await owned.data() as Float32Array;
  const length = START.length + NEW;
  return Float64Array.from(all, (tokens, n) =>
    tokens.reduce((product, token, i) => {
      const at = (n * length + START.length + i - 1) * 4;
      const weights = Array.from(values.subarray(at, at + 4), Math.exp);
      return product * weights[token]! / weights.reduce((a, b) => a + b, 0);
    }, 1));
}

/** Pearson's statistic of counts against probabilities, outcomes that are expected less than 5 times taken together. */
function pearson(
  counts: Float64Array,
  expected: Float64Array,
  n: number,
): { statistic: number; freedom: number } {
  let statistic = 0, freedom = -1, restCount = 0, restExpected = 0;
  const add = (count: number, mean: number) => {
    statistic += (count - mean) ** 2 / mean;
    freedom++;
  };
  counts.forEach((count, i) => {
    const mean = n * expected[i]!;
    if (mean >= 5) return add(count, mean);
    restCount += count;
    restExpected += mean;
  });
  if (restExpected >= 5) add(restCount, restExpected);
  return { statistic, freedom };
}

/** The statistic that chance exceeds once in about 10⁴ times (Wilson & Hilferty 1931). */
function limit(freedom: number): number {
  const a = 2 / (9 * freedom);
  return freedom * (1 - a + 3.72 * Math.sqrt(a)) ** 3;
}

for (const how of ["assistant_model", "prompt_lookup_num_tokens"] as const) {
  liveTest(`sampling with ${how} gives every sequence its probability`, async () => {
    await using model = await tiny(1);
    await using assistant_model = await tiny(2);
    const [expected, guessed] = [await probabilities(model), await probabilities(assistant_model)];
    const n = 2500;
    const counts = new Float64Array(4 ** NEW);
    using input_ids = ids([START]);
    const help = how === "assistant_model"
      ? { assistant_model, num_assistant_tokens: 2 }
      : { prompt_lookup_num_tokens: 2 };
    for (let seed = 0; seed < n; seed++) {
      const options = { do_sample: true, top_k: 0, eos_token_id: null, max_new_tokens: NEW, seed, ...help };
      const [row] = await rowsOf(await model.generate({ input_ids, ...options }));
      counts[row!.slice(START.length).reduce((sum, token, i) => sum + (token << (2 * i)), 0)]! += 1;
    }
    const { statistic, freedom } = pearson(counts, expected, n);
    assert(statistic < limit(freedom), `${statistic} of ${freedom} degrees of freedom`);
    // What the assistant would have given is told apart.
    const others = pearson(guessed.map((p) => p * n), expected, n);
    assert(others.statistic > 3 * limit(others.freedom), `${others.statistic}`);
  });
}

liveTest(
  "scores, logits, states and weights are returned for every token as without an assistant",
  async () => {
    await using model = await AutoModelForCausalLM.from_pretrained(LLAMA, { attn_implementation: "eager" });
    await using other = await AutoModelForCausalLM.from_pretrained(goldenPath("models/mistral"));
    for (const more of [{}, { repetition_penalty: 1.5 }]) {
      using input_ids = ids([PROMPT]);
      const request: GenerateDictOptions = {
        input_ids,
        max_new_tokens: 8,
        eos_token_id: null,
        return_dict_in_generate: true,
        output_scores: true,
        output_logits: true,
        output_attentions: true,
        output_hidden_states: true,
        ...more,
      };
      using plain = await model.generate(request);
      for (const assistant_model of [model, other]) {
        using helped = await model.generate({ ...request, assistant_model });
        assertEquals(await helped.sequences.tolist(), await plain.sequences.tolist());
        assertEquals(helped.past_key_values.get_seq_length(), PROMPT.length + 7);
        for (const name of ["scores", "logits", "attentions", "hidden_states"] as const) {
          const [a, b] = [helped[name]!, plain[name]!];
          assertEquals(a.length, 8, name);
          for (let step = 0; step < 8; step++) {
            const [x, y] = [[a[step]!].flat(), [b[step]!].flat()];
            assertEquals(x.map((t) => t.shape), y.map((t) => t.shape), `${name} of step ${step}`);
            for (const [i, t] of x.entries()) {
              const [got, expected] = [await t.data(), await y[i]!.data()] as Float32Array[];
              assertClose(got!, expected!, toleranceOf("logits", "wasm"), `${name} of step ${step}`);
            }
          }
        }
      }
    }
  },
);

liveTest("tokens are streamed one by one, and an abort leaves a cache that can be continued", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  await using other = await AutoModelForCausalLM.from_pretrained(goldenPath("models/mistral"));
  const expected = await generate(model);
  for (const assistant_model of [model, other]) {
    const seen: number[] = [];
    const streamer = { put: (tokens: number[]) => void seen.push(...tokens), end: () => {} };
    await generate(model, { assistant_model, streamer });
    assertEquals(seen, expected);
    for (const after of [1, 2, 4, 7]) {
      using cache = new DynamicCache({ config: model.config });
      const controller = new AbortController();
      const reason = new Error("enough");
      const partial: number[] = [];
      const before = liveBuffers();
      const thrown = await assertRejects(() =>
        generate(model, {
          assistant_model,
          past_key_values: cache,
          signal: controller.signal,
          streamer: {
            put: (tokens) => {
              partial.push(...tokens);
              if (partial.length < after) return;
              controller.abort(reason);
              controller.signal.throwIfAborted();
            },
            end: () => {},
          },
        })
      );
      assertEquals([thrown, partial], [reason, expected.slice(0, after)]);
      assert(liveBuffers() - before <= 2 * model.attention_layers.length, "only the caller's cache is alive");
      assertEquals(cache.get_seq_length(), PROMPT.length + after - 1);
      using input_ids = ids([[...PROMPT, ...partial]]);
      const rest = { max_new_tokens: 14 - after, eos_token_id: null, past_key_values: cache };
      const [row] = await rowsOf(await model.generate({ input_ids, ...rest }));
      assertEquals(row!.slice(PROMPT.length), expected);
    }
  }
});

liveTest("what cannot be assisted is refused", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  await using base = await AutoModel.from_pretrained(LLAMA);
  await using small = await tiny(1);
  const refuse = async (options: Record<string, unknown>, ...words: string[]) => {
    using input_ids = ids([PROMPT]);
    const request = { input_ids, ...options } as GenerateOptions;
    const error = await assertRejects(() => model.generate(request), InvalidArgument);
    for (const word of words) assertStringIncludes(error.message, word);
  };
  using two = ids([PROMPT, PROMPT]);
  await refuse({ assistant_model: small }, "vocabulary", "64", "4");
  await refuse({ assistant_model: base }, "language-modelling head");
  await refuse({ assistant_model: {} }, "AutoModelForCausalLM");
  await refuse({ assistant_model: model, num_beams: 2 }, "num_beams 1");
  await refuse(
    { assistant_model: model, do_sample: true, num_return_sequences: 2 },
    "num_return_sequences 1",
  );
  await refuse({ assistant_model: model, input_ids: two }, "one prompt");
  await refuse({ prompt_lookup_num_tokens: 2, input_ids: two }, "one prompt");
  await refuse({ assistant_model: model, prompt_lookup_num_tokens: 2 }, "one of them");
  await refuse({ assistant_model: model, num_assistant_tokens: 0 }, "num_assistant_tokens", "≥ 1");
  await refuse({ prompt_lookup_num_tokens: 0 }, "prompt_lookup_num_tokens");
  await refuse({ prompt_lookup_num_tokens: 2, max_matching_ngram_size: 1.5 }, "max_matching_ngram_size");
});

reportSkipped();

liveTest("guesses are counted: how many there were, how many stayed, and in how many forwards", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  await using twin = await AutoModelForCausalLM.from_pretrained(LLAMA);
  await using other = await AutoModelForCausalLM.from_pretrained(goldenPath("models/mistral"));
  using input_ids = ids([PROMPT]);
  const counts = async (assistant_model?: PreTrainedModel) => {
    using count = counting(model);
    using output = await model.generate({
      input_ids,
      max_new_tokens: 14,
      eos_token_id: null,
      num_assistant_tokens: 4,
      ...(assistant_model === undefined ? {} : { assistant_model }),
      return_dict_in_generate: true,
    });
    return { drafts: output.drafts, forwards: count.forwards };
  };
  assertEquals((await counts()).drafts, undefined);
  // One token from the prompt, five twice, three more.
  assertEquals((await counts(twin)).drafts, { proposed: 10, accepted: 10, forwards: 4 });
  const { drafts, forwards } = await counts(other);
  assert(drafts!.accepted < drafts!.proposed, "a stranger guesses wrong");
  // Every forward gives a token besides the guesses it accepts.
  assertEquals([drafts!.forwards + drafts!.accepted, drafts!.forwards <= forwards], [14, true]);
});
