/**
 * What generate returns with return_dict_in_generate, and who owns it.
 *
 * @module
 */
import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import {
  AutoModelForCausalLM,
  DynamicCache,
  type GenerateDictOptions,
  type GenerateOutput,
  liveBuffers,
  type Tensor,
} from "../../mod.ts";
import { everywhere, ids, liveTest, LLAMA, reportSkipped } from "../models/support.ts";
import { assertClose, toleranceOf } from "../support/tolerance.ts";

const ROWS = [[3, 41, 19, 10, 47, 6, 12, 36], [21, 6, 49, 10, 35, 2, 33, 50]];
const N = ROWS[0]!.length, STEPS = 3, V = 64, E = 32, H = 4, LAYERS = 2;

const ALL = {
  max_new_tokens: STEPS,
  return_dict_in_generate: true,
  output_scores: true,
  output_logits: true,
  output_attentions: true,
  output_hidden_states: true,
} as const;

/** Shapes of everything in an output. */
function shapesOf(output: GenerateOutput) {
  const shapes = (list: Tensor[] | undefined) => list?.map((t) => t.shape);
  return {
    sequences: output.sequences.shape,
    scores: shapes(output.scores),
    logits: shapes(output.logits),
    attentions: output.attentions?.map(shapes),
    hidden_states: output.hidden_states?.map(shapes),
  };
}

/** The shapes there should be, for so many computed rows. */
function expectedShapes(rows: number, returned: number) {
  const steps = Array.from({ length: STEPS }, (_, i) => i);
  return {
    sequences: [returned, N + STEPS],
    scores: steps.map(() => [rows, V]),
    logits: steps.map(() => [rows, V]),
    attentions: steps.map((i) => Array(LAYERS).fill([rows, H, i === 0 ? N : 1, N + i])),
    hidden_states: steps.map((i) => Array(LAYERS + 1).fill([rows, i === 0 ? N : 1, E])),
  };
}

everywhere(
  "every step's scores, logits, weights and states, of every row that was computed",
  async (device) => {
    await using model = await AutoModelForCausalLM.from_pretrained(LLAMA, { device });
    using input_ids = ids(ROWS);
    const kinds: [Partial<GenerateDictOptions>, number, number][] = [
      [{}, 2, 2],
      [{ do_sample: true, seed: 1, num_return_sequences: 2 }, 4, 4],
      [{ num_beams: 3, num_return_sequences: 2 }, 6, 4],
    ];
    for (const [options, rows, returned] of kinds) {
      using output = await model.generate({ input_ids, ...options, ...ALL });
      assertEquals(shapesOf(output) as unknown, expectedShapes(rows, returned));
      assertEquals(output.past_key_values.get_seq_length(), N + STEPS - 1);
    }
  },
);

liveTest(
  "greedy tokens are the argmax of the scores, which are the logits where nothing changes them",
  async () => {
    await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
    using input_ids = ids(ROWS);
    using output = await model.generate({ input_ids, ...ALL });
    const tokens = await output.sequences.tolist() as number[][];
    for (let step = 0; step < STEPS; step++) {
      const scores = await output.scores![step]!.tolist() as number[][];
      assertEquals(scores, await output.logits![step]!.tolist());
      scores.forEach((row, b) => assertEquals(row.indexOf(Math.max(...row)), tokens[b]![N + step]));
    }
    // The same from one forward over everything.
    using whole = ids(tokens.map((row) => row.slice(0, -1)));
    const { logits, past_key_values } = await model.forward({ input_ids: whole });
    past_key_values![Symbol.dispose]();
    using owned = logits!;
    const all = await owned.tolist() as number[][][];
    for (let step = 0; step < STEPS; step++) {
      const expected = all.flatMap((row) => row[N - 1 + step]!);
      const actual = await output.logits![step]!.data() as Float32Array;
      assertClose(actual, expected, toleranceOf("logits", "wasm"));
    }
  },
);

liveTest("scores of sampling are divided and filtered, and logits are not", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  using input_ids = ids(ROWS);
  const options = { do_sample: true, seed: 3, top_k: 4, temperature: 2 };
  using output = await model.generate({ input_ids, ...options, ...ALL });
  const tokens = await output.sequences.tolist() as number[][];
  for (let step = 0; step < STEPS; step++) {
    const scores = await output.scores![step]!.tolist() as number[][];
    const logits = await output.logits![step]!.tolist() as number[][];
    scores.forEach((row, b) => {
      const kept = row.flatMap((x, i) => x > -Infinity ? [i] : []);
      assertEquals(kept.length, 4);
      assert(kept.includes(tokens[b]![N + step]!));
      for (const i of kept) assertEquals(row[i], Math.fround(logits[b]![i]! / 2));
    });
  }
});

liveTest("only what is asked for is there", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  using input_ids = ids(ROWS);
  using bare = await model.generate({ input_ids, max_new_tokens: 2, return_dict_in_generate: true });
  assertEquals(Object.keys(bare).sort(), ["past_key_values", "sequences"]);
  using one = await model.generate({
    input_ids,
    max_new_tokens: 2,
    return_dict_in_generate: true,
    output_attentions: true,
  });
  assertEquals(Object.keys(one).sort(), ["attentions", "past_key_values", "sequences"]);
  const plain = await model.generate({ input_ids, max_new_tokens: 2 });
  assertEquals(await plain.tolist(), await bare.sequences.tolist());
  plain[Symbol.dispose]();
});

liveTest("disposing the result gives the tensors back, and a cache that was made here", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  using input_ids = ids(ROWS);
  // The first forward makes a table of positions, which stays.
  (await model.generate({ input_ids, max_new_tokens: 1 }))[Symbol.dispose]();
  const before = liveBuffers();
  const output = await model.generate({ input_ids, num_beams: 2, ...ALL });
  assert(liveBuffers() > before);
  output[Symbol.dispose]();
  assertEquals(liveBuffers(), before);
  using past_key_values = new DynamicCache();
  const given = await model.generate({ input_ids, past_key_values, ...ALL });
  assertStrictEquals(given.past_key_values, past_key_values);
  given[Symbol.dispose]();
  assertEquals(past_key_values.get_seq_length(), N + STEPS - 1, "a cache of the caller's stays");
});

liveTest("a generation that fails gives back what it had collected", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  using input_ids = ids(ROWS);
  (await model.generate({ input_ids, max_new_tokens: 1 }))[Symbol.dispose]();
  const before = liveBuffers();
  const mistake = new Error("the client went away");
  let puts = 0;
  for (const end of [false, true]) {
    puts = 0;
    const streamer = {
      put() {
        if (++puts === 2 && !end) throw mistake;
      },
      end() {
        if (end) throw mistake;
      },
    };
    const failed = model.generate({ input_ids, streamer, ...ALL });
    assertStrictEquals(await failed.catch((e: unknown) => e), mistake);
    assertEquals(liveBuffers(), before);
  }
});

reportSkipped();
