/**
 * Beam search: against every sequence there is, with chance, with caches of the caller's, interrupted.
 *
 * @module
 */
import { assert, assertEquals, assertNotEquals, assertRejects, assertStrictEquals } from "@std/assert";
import {
  AutoModelForCausalLM,
  AutoModelForImageTextToText,
  type DeviceName,
  DynamicCache,
  type GenerateOptions,
  InvalidArgument,
  type PreTrainedModel,
  StaticCache,
  Tensor,
} from "../../mod.ts";
import { disposeAll, everywhere, ids, liveTest, LLAMA, reportSkipped, rowsOf } from "../models/support.ts";
import { goldenPath } from "../support/golden.ts";
import { seeded } from "../support/random.ts";
import { assertClose, toleranceOf } from "../support/tolerance.ts";

const PROMPT = [3, 41, 19, 10, 47, 6, 12, 36];
const OTHER = [...PROMPT].reverse();
const V = 64;

const load = (device: DeviceName = "wasm"): Promise<PreTrainedModel> =>
  AutoModelForCausalLM.from_pretrained(LLAMA, { device });

async function generate(
  model: PreTrainedModel,
  options: Partial<GenerateOptions>,
  rows: number[][] = [PROMPT],
): Promise<number[][]> {
  using input_ids = ids(rows);
  return await rowsOf(await model.generate({ input_ids, max_new_tokens: 6, ...options }));
}

/** Log-probabilities of the next token after every row, in plain arithmetic. */
async function logProbabilities(model: PreTrainedModel, rows: number[][]): Promise<number[][]> {
  using input_ids = ids(rows);
  const { logits, past_key_values } = await model.forward({ input_ids, logits_to_keep: 1 });
  past_key_values![Symbol.dispose]();
  using owned = logits!;
  const all = await owned.tolist() as number[][][];
  return all.map(([row]) => {
    const top = Math.max(...row!), lse = top + Math.log(row!.reduce((s, x) => s + Math.exp(x - top), 0));
    return row!.map((x) => x - lse);
  });
}

everywhere("with a beam for every token, the best sequences of two tokens are found", async (device) => {
  await using model = await load(device);
  for (const length_penalty of [0, 1]) {
    const [first] = await logProbabilities(model, [PROMPT]) as [number[]];
    const second = await logProbabilities(model, first.map((_, token) => [...PROMPT, token]));
    const all = second.flatMap((row, a) => row.map((p, b) => ({ tokens: [a, b], score: first[a]! + p })))
      .sort((x, y) => y.score - x.score).slice(0, 7);
    using input_ids = ids([PROMPT]);
    using output = await model.generate({
      input_ids,
      max_new_tokens: 2,
      num_beams: V,
      num_return_sequences: 7,
      length_penalty,
      return_dict_in_generate: true,
      output_scores: true,
    });
    assertEquals(await output.sequences.tolist(), all.map(({ tokens }) => [...PROMPT, ...tokens]));
    assertClose(
      await output.sequences_scores!.data() as Float32Array,
      all.map(({ score }) => score / 2 ** length_penalty),
      toleranceOf("logits", device),
    );
    assertEquals(
      await output.beam_indices!.tolist(),
      all.map((
        { tokens: [a] },
      ) => [0, first.filter((p, i) => p > first[a!]! || (p === first[a!] && i < a!)).length]),
      "the second token was computed from the row of the first",
    );
  }
});

liveTest("rows of a batch find what they find alone", async () => {
  await using model = await load();
  const options = { num_beams: 3, num_return_sequences: 2 };
  const both = await generate(model, options, [PROMPT, OTHER]);
  assertEquals(both.slice(0, 2), await generate(model, options, [PROMPT]));
  assertEquals(both.slice(2), await generate(model, options, [OTHER]));
});

liveTest("one beam is greedy decoding", async () => {
  await using model = await load();
  assertEquals(await generate(model, { num_beams: 1, length_penalty: 3 }), await generate(model, {}));
});

everywhere("with do_sample a seed repeats its beams, another gives others", async (device) => {
  await using model = await load(device);
  const options = { num_beams: 3, do_sample: true, temperature: 3, num_return_sequences: 3 };
  const first = await generate(model, { ...options, seed: 4 }, [PROMPT, PROMPT]);
  assertEquals(await generate(model, { ...options, seed: 4 }, [PROMPT, PROMPT]), first);
  assertEquals(
    await generate(model, { ...options, seed: 4 }),
    first.slice(0, 3),
    "a prompt draws for itself",
  );
  assertNotEquals(first.slice(0, 3), first.slice(3));
  assertNotEquals(await generate(model, { ...options, seed: 5 }, [PROMPT, PROMPT]), first);
  for (const rows of [first.slice(0, 3), first.slice(3)]) assertEquals(new Set(rows.map(String)).size, 3);
});

liveTest("drawn beams stay among the tokens that filters leave, and reach all of them", async () => {
  await using model = await load();
  const [p] = await logProbabilities(model, [PROMPT]) as [number[]];
  const top = [...p.keys()].sort((a, b) => p[b]! - p[a]!).slice(0, 5);
  const seen = new Set<number>();
  for (let seed = 0; seed < 40; seed++) {
    const rows = await generate(model, {
      num_beams: 2,
      num_return_sequences: 2,
      do_sample: true,
      top_k: 5,
      temperature: 4,
      max_new_tokens: 1,
      seed,
    });
    for (const row of rows) seen.add(row.at(-1)!);
    assertNotEquals(rows[0], rows[1]);
  }
  assertEquals([...seen].sort(), [...top].sort());
});

liveTest("fewer tokens than beams are continued as far as they go", async () => {
  await using model = await load();
  const only: GenerateOptions["logits_processor"] = [(scores) => {
    scores.fill(-Infinity);
    scores[9] = 0;
  }];
  const expected = [[...PROMPT, 9, 9, 9]];
  for (const do_sample of [false, true]) {
    assertEquals(
      await generate(model, { num_beams: 3, logits_processor: only, max_new_tokens: 3, do_sample, seed: 1 }),
      expected,
    );
  }
});

for (const kind of ["dynamic", "static"] as const) {
  liveTest(`a ${kind} cache with the beginning of the prompts gives its rows to the beams`, async () => {
    await using model = await load();
    const { config } = model;
    const rows = [PROMPT, OTHER], options = { num_beams: 3, num_return_sequences: 2 };
    const expected = await generate(model, options, rows);
    using past_key_values = kind === "dynamic"
      ? new DynamicCache({ config })
      : new StaticCache({ config, max_cache_len: 32 });
    using head = ids(rows.map((row) => row.slice(0, 5)));
    const { logits } = await model.forward({ input_ids: head, past_key_values });
    logits![Symbol.dispose]();
    assertEquals(await generate(model, { ...options, past_key_values }, rows), expected);
    assertEquals(past_key_values.get_seq_length(), PROMPT.length + 5, "every token but the last");
    using next = Tensor.from([[1], [2]], { dtype: "int32" });
    await assertRejects(() => model.forward({ input_ids: next, past_key_values }), InvalidArgument);
    using six = Tensor.from([[1], [2], [3], [4], [5], [6]], { dtype: "int32" });
    const { logits: more } = await model.forward({ input_ids: six, past_key_values });
    more![Symbol.dispose]();
  });
}

liveTest("implementations are swapped in the middle of a beam search", async () => {
  await using model = await load();
  const expected = await generate(model, { num_beams: 3, num_return_sequences: 3 });
  const names = ["eager", "flash_attention_2", "flex_attention", "sdpa"];
  for (const cache_implementation of ["dynamic", "static"] as const) {
    let step = 0;
    const swap = (_scores: Float32Array, _ids: readonly number[], row: number) => {
      if (row === 0) void model.set_attn_implementation(names[step++ % names.length]!);
    };
    const rows = await generate(model, {
      num_beams: 3,
      num_return_sequences: 3,
      logits_processor: [swap],
      cache_implementation,
    });
    assertEquals(rows, expected);
    assertEquals(step, 6);
  }
});

liveTest(
  "an aborted search rejects with the reason, leaves nothing behind, and the model usable",
  async () => {
    await using model = await load();
    const expected = await generate(model, { num_beams: 3 });
    const reason = new Error("enough");
    for (const at of [1, 2, 4]) {
      const controller = new AbortController();
      using past_key_values = new DynamicCache();
      let step = 0;
      const logits_processor: GenerateOptions["logits_processor"] = [(_scores, _ids, row) => {
        if (row === 0 && ++step === at) controller.abort(reason);
      }];
      using input_ids = ids([PROMPT]);
      const stopped = model.generate({
        input_ids,
        num_beams: 3,
        logits_processor,
        past_key_values,
        signal: controller.signal,
        return_dict_in_generate: true,
        output_scores: true,
        output_logits: true,
        output_attentions: true,
        output_hidden_states: true,
      });
      assertStrictEquals(await stopped.catch((e: unknown) => e), reason);
      assertEquals(past_key_values.get_seq_length(), PROMPT.length + at - 1);
      assertEquals(await generate(model, { num_beams: 3 }), expected);
    }
    const aborted = AbortSignal.abort(reason);
    assertStrictEquals(
      await generate(model, { num_beams: 3, signal: aborted }).catch((e: unknown) => e),
      reason,
    );
  },
);

liveTest("searches beside each other find what each finds alone", async () => {
  await using model = await load();
  const options = { num_beams: 3, num_return_sequences: 3 };
  const alone = [await generate(model, options), await generate(model, options, [OTHER])];
  assertEquals(await Promise.all([generate(model, options), generate(model, options, [OTHER])]), alone);
});

liveTest("the result can be continued with its own cache", async () => {
  await using model = await load();
  using input_ids = ids([PROMPT]);
  using output = await model.generate({
    input_ids,
    num_beams: 2,
    max_new_tokens: 4,
    return_dict_in_generate: true,
  });
  const { past_key_values } = output;
  assertEquals(past_key_values.get_seq_length(), PROMPT.length + 3);
  using next = Tensor.from([[1], [2]], { dtype: "int32" });
  disposeAll({ logits: (await model.forward({ input_ids: next, past_key_values })).logits });
  assert(output.scores === undefined && output.sequences_scores === undefined);
});

liveTest("images are read once, with the prompt, and every beam sees them", async () => {
  await using model = await AutoModelForImageTextToText.from_pretrained(goldenPath("models/llava"));
  const prompt = [59, 19, 63, 63, 63, 63, 44, 19, 43];
  const values = Float32Array.from(seeded("images").normal(3 * 8 * 8, 1));
  using pixel_values = Tensor.from(values, { shape: [1, 3, 8, 8] });
  using input_ids = ids([prompt]);
  using output = await model.generate({
    input_ids,
    pixel_values,
    num_beams: 3,
    num_return_sequences: 3,
    max_new_tokens: 4,
    return_dict_in_generate: true,
    output_scores: true,
  });
  const scores = await output.sequences_scores!.data() as Float32Array;
  for (const [i, row] of (await output.sequences.tolist() as number[][]).entries()) {
    // The score of a sequence, from one forward over all of it.
    using whole = ids([row]);
    const { logits, past_key_values } = await model.forward({ input_ids: whole, pixel_values });
    past_key_values![Symbol.dispose]();
    using owned = logits!;
    const [all] = await owned.tolist() as number[][][];
    let sum = 0;
    for (let at = prompt.length; at < row.length; at++) {
      const given = all![at - 1]!;
      sum += given[row[at]!]! - Math.log(given.reduce((total, x) => total + Math.exp(x), 0));
    }
    assertClose([scores[i]!], [sum / 4], toleranceOf("logits", "wasm"));
  }
});

reportSkipped();
