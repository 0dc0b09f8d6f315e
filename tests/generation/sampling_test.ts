/**
 * Sampling: repeatable by seed, bounded by top_k and top_p, and with the probabilities the model gives.
 *
 * @module
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { AutoModelForCausalLM, type GenerateOptions, type PreTrainedModel } from "../../mod.ts";
import { everywhere, ids, liveTest, LLAMA, reportSkipped, rowsOf } from "../models/support.ts";

const PROMPT = [3, 41, 19, 10, 47, 6, 12, 36];

/** Quantile of χ² with many degrees of freedom that one draw in 10⁴ exceeds (Wilson & Hilferty 1931). */
function chiSquareBound(freedom: number): number {
  const z = 3.719;
  return freedom * (1 - 2 / (9 * freedom) + z * Math.sqrt(2 / (9 * freedom))) ** 3;
}

async function sample(
  model: PreTrainedModel,
  rows: number[][],
  options: Partial<GenerateOptions>,
): Promise<number[][]> {
  using input_ids = ids(rows);
  const all = await rowsOf(
    await model.generate({ input_ids, do_sample: true, max_new_tokens: 12, ...options }),
  );
  return all.map((row) => row.slice(rows[0]!.length));
}

everywhere("a seed repeats its tokens, another gives others, and none is random", async (device) => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA, { device });
  const first = await sample(model, [PROMPT], { seed: 7 });
  assertEquals(await sample(model, [PROMPT], { seed: 7 }), first);
  assertNotEquals(await sample(model, [PROMPT], { seed: 8 }), first);
  assertNotEquals(await sample(model, [PROMPT], {}), await sample(model, [PROMPT], {}));
});

liveTest("rows of a batch draw on their own, and a row draws what it draws alone", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  const [a, b] = await sample(model, [PROMPT, PROMPT], { seed: 3 }) as [number[], number[]];
  assertNotEquals(a, b);
  assertEquals(await sample(model, [PROMPT], { seed: 3 }), [a]);
});

liveTest("top_k 1 and a tiny top_p are greedy; a small temperature is, too", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  using input_ids = ids([PROMPT]);
  const greedy = await rowsOf(await model.generate({ input_ids, max_new_tokens: 12 }));
  const expected = greedy.map((row) => row.slice(PROMPT.length));
  for (const options of [{ top_k: 1 }, { top_p: 1e-6 }, { top_p: 1e-6, top_k: 0 }, { temperature: 1e-3 }]) {
    assertEquals(await sample(model, [PROMPT], { ...options, seed: 5 }), expected, JSON.stringify(options));
  }
});

liveTest("options of sampling do nothing without do_sample", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  using input_ids = ids([PROMPT]);
  const greedy = await rowsOf(await model.generate({ input_ids, max_new_tokens: 6 }));
  const options = { temperature: 3, top_k: 4, top_p: 0.3, seed: 1 };
  assertEquals(await rowsOf(await model.generate({ input_ids, max_new_tokens: 6, ...options })), greedy);
});

const DRAWS = 2000;

/** Rows of the table: options, and what they make of the model's probabilities (most probable first). */
const DISTRIBUTIONS: readonly {
  readonly name: string;
  readonly options: Partial<GenerateOptions>;
  readonly kept: (sorted: readonly number[]) => number;
  readonly temperature?: number;
}[] = [
  { name: "all tokens", options: { top_k: 0 }, kept: (p) => p.length },
  { name: "temperature 2", options: { top_k: 0, temperature: 2 }, kept: (p) => p.length, temperature: 2 },
  { name: "top_k 5", options: { top_k: 5 }, kept: () => 5 },
  {
    name: "top_p 0.6: the smallest set whose mass reaches it",
    options: { top_k: 0, top_p: 0.6 },
    kept: (p) => p.findIndex((_, i) => p.slice(0, i + 1).reduce((a, b) => a + b) >= 0.6) + 1,
  },
];

for (const { name, options, kept, temperature = 1 } of DISTRIBUTIONS) {
  liveTest(`draws have the model's probabilities: ${name}`, async () => {
    await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
    using input_ids = ids([PROMPT]);
    const { logits, past_key_values } = await model.forward({ input_ids, logits_to_keep: 1 });
    past_key_values![Symbol.dispose]();
    using owned = logits!;
    const scores = Array.from(await owned.data() as Float32Array, (x) => x / temperature);
    const top = Math.max(...scores),
      exps = scores.map((x) => Math.exp(x - top)),
      sum = exps.reduce((a, b) => a + b);
    const ranked = exps.map((x, token) => ({ token, p: x / sum })).sort((a, b) => b.p - a.p);
    const support = ranked.slice(0, kept(ranked.map((r) => r.p)));
    const mass = support.reduce((s, r) => s + r.p, 0);
    // A batch of equal prompts: every row draws from its own stream.
    const rows = Array.from({ length: DRAWS }, () => PROMPT);
    const drawn = (await sample(model, rows, { ...options, max_new_tokens: 1, seed: 42 })).flat();
    const counts = new Map<number, number>();
    for (const token of drawn) counts.set(token, (counts.get(token) ?? 0) + 1);
    for (const token of counts.keys()) {
      assert(support.some((r) => r.token === token), `token ${token} was excluded`);
    }
    // Cells with few expected draws are joined, as χ² wants.
    const cells: { expected: number; seen: number }[] = [];
    let rest = { expected: 0, seen: 0 };
    for (const { token, p } of support) {
      const cell = { expected: p / mass * DRAWS, seen: counts.get(token) ?? 0 };
      if (cell.expected >= 5) cells.push(cell);
      else rest = { expected: rest.expected + cell.expected, seen: rest.seen + cell.seen };
    }
    if (rest.expected >= 5) cells.push(rest);
    const chiSquare = cells.reduce((s, c) => s + (c.seen - c.expected) ** 2 / c.expected, 0);
    const bound = chiSquareBound(cells.length - 1);
    assert(chiSquare < bound, `χ² is ${chiSquare} over ${cells.length} cells, expected below ${bound}`);
  });
}

reportSkipped();
