/**
 * Logits processors against what they are defined by, on any scores; ranking and exponentials under them.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { AutoModelForCausalLM, InvalidArgument, type LogitsProcessor } from "../../mod.ts";
import { minLength, minP, repetitionPenalty, topK, topP } from "../../src/generation/processors.ts";
import { descending, largest } from "../../src/generation/ranking.ts";
import { argmaxOf, draw, exp, randomGenerator, weightsOf } from "../../src/generation/sampling.ts";
import { ids, liveTest, LLAMA, rowsOf } from "../models/support.ts";
import fc from "../support/fast_check.ts";

/** Scores with ties and tokens that were taken out; one at least is left. */
const anyScores = fc.array(
  fc.oneof(
    fc.integer({ min: -20, max: 20 }).map((n) => n / 2),
    fc.float({ min: -30, max: 30, noNaN: true }),
    fc.constant(-Infinity),
  ),
  { minLength: 1, maxLength: 60 },
).filter((list) => list.some(Number.isFinite)).map((list) => Float32Array.from(list));

const keptOf = (scores: Float32Array) => [...scores.keys()].filter((i) => scores[i]! > -Infinity);

/** Probabilities in plain arithmetic. */
function softmax(scores: Float32Array): number[] {
  const top = Math.max(...scores), exps = Array.from(scores, (x) => Math.exp(x - top));
  const sum = exps.reduce((a, b) => a + b);
  return exps.map((x) => x / sum);
}

Deno.test("descending is a stable sort that leaves −∞ out, and largest its beginning", () => {
  fc.assert(fc.property(anyScores, fc.nat(70), (scores, count) => {
    const sorted = keptOf(scores).sort((a, b) => scores[b]! - scores[a]! || a - b);
    assertEquals([...descending(scores)], sorted);
    assertEquals(largest(scores, count), sorted.slice(0, count));
  }));
});

Deno.test("exp is e^x for x ≤ 0, to the last digits of a double", () => {
  const xs = fc.oneof(
    fc.double({ min: -745, max: 0, noNaN: true }),
    fc.double({ min: -1, max: 0, noNaN: true }),
  );
  fc.assert(fc.property(xs, (x) => {
    const expected = Math.exp(x);
    // Numbers below 2⁻¹⁰²² have fewer digits.
    const allowed = Math.max(expected * 1e-15, Number.MIN_VALUE * 2);
    assert(Math.abs(exp(x) - expected) <= allowed, `${exp(x)} for ${expected}`);
  }));
  assertEquals([exp(0), exp(-0), exp(-Infinity), exp(-1e9), exp(NaN)], [1, 1, 0, 0, NaN]);
});

Deno.test("top_k keeps the k largest and what equals the last of them, untouched", () => {
  fc.assert(fc.property(anyScores, fc.integer({ min: 1, max: 70 }), (given, k) => {
    const scores = given.slice();
    topK(k)(scores, [], 0);
    const finite = keptOf(given).map((i) => given[i]!).sort((a, b) => b - a);
    const least = finite[Math.min(k, finite.length) - 1]!;
    assertEquals(scores, given.map((x) => x >= least ? x : -Infinity));
  }));
});

Deno.test("top_p keeps the fewest most probable tokens whose mass reaches p", () => {
  const p = fc.double({ min: 0.01, max: 0.999, noNaN: true });
  fc.assert(fc.property(anyScores, p, fc.integer({ min: 1, max: 4 }), (given, top_p, keep) => {
    const scores = given.slice();
    topP(top_p, keep)(scores, [], 0);
    const kept = keptOf(scores), probabilities = softmax(given);
    assert(kept.every((i) => scores[i] === given[i]));
    const mass = (list: number[]) => list.reduce((sum, i) => sum + probabilities[i]!, 0);
    const rank = [...descending(given)];
    assertEquals(kept, rank.slice(0, kept.length).sort((a, b) => a - b), "none is more probable than these");
    const rounding = 1e-9;
    if (kept.length < rank.length) assert(mass(kept) >= top_p - rounding, `${mass(kept)} < ${top_p}`);
    if (kept.length > keep) {
      assert(mass(rank.slice(0, kept.length - 1)) < top_p + rounding, "one less would do");
    } else assert(kept.length === Math.min(keep, rank.length) || mass(kept) >= top_p - rounding);
  }));
});

Deno.test("min_p keeps what is p times as probable as the most probable, and always the first few", () => {
  const p = fc.double({ min: 0, max: 1, noNaN: true });
  fc.assert(fc.property(anyScores, p, fc.integer({ min: 1, max: 4 }), (given, min_p, keep) => {
    const scores = given.slice();
    minP(min_p, keep)(scores, [], 0);
    const probabilities = softmax(given), top = Math.max(...probabilities);
    const always = keep > 1 ? largest(given, keep) : [];
    for (const i of keptOf(given)) {
      const ratio = probabilities[i]! / top;
      if (Math.abs(ratio - min_p) < 1e-9) continue;
      assertEquals(scores[i], ratio > min_p || always.includes(i) ? given[i] : -Infinity);
    }
    assert(scores[largest(given, 1)[0]!]! > -Infinity, "the most probable stays");
  }));
});

Deno.test("repetition_penalty makes what occurred less likely, once for each token, and leaves the rest", () => {
  const penalty = fc.double({ min: 1, max: 5, noNaN: true });
  const history = fc.array(fc.nat(59), { maxLength: 30 });
  fc.assert(fc.property(anyScores, penalty, history, fc.nat(10), (given, value, tokens, start) => {
    const scores = given.slice();
    repetitionPenalty(value, (row) => row === 3 ? start : 0)(scores, tokens, 3);
    const seen = new Set(tokens.slice(start));
    given.forEach((x, i) => {
      if (!seen.has(i)) assertEquals(scores[i], x);
      else {
        const factor = Math.fround(value);
        assertEquals(scores[i], Math.fround(x < 0 ? x * factor : x / factor));
        assert(scores[i]! <= x);
      }
    });
  }));
});

Deno.test("min_length takes end tokens out until a row is long enough", () => {
  fc.assert(fc.property(anyScores, fc.nat(6), fc.nat(6), fc.array(fc.nat(80)), (given, length, n, eos) => {
    const scores = given.slice();
    minLength(length, eos)(scores, new Array<number>(n).fill(0), 0);
    assertEquals(scores, given.map((x, i) => n < length && eos.includes(i) ? -Infinity : x));
  }));
});

Deno.test("draws come as often as their weights say, and never from what was taken out", () => {
  const scores = Float32Array.from([0, -Infinity, Math.log(3), -1000, Math.log(4)]);
  const { weights, total } = weightsOf(scores);
  const random = randomGenerator(11, 0);
  const counts = new Array<number>(5).fill(0);
  for (let i = 0; i < 8000; i++) counts[draw(weights, total, random)]!++;
  assertEquals([counts[1], counts[3]], [0, 0]);
  // Four standard deviations of a binomial of 8000 draws with p = 1/8, 3/8, 4/8.
  for (const [i, p] of [[0, 1 / 8], [2, 3 / 8], [4, 4 / 8]] as const) {
    const deviation = Math.sqrt(8000 * p * (1 - p));
    assert(Math.abs(counts[i]! - 8000 * p) < 4 * deviation, `${counts}`);
  }
  assertEquals(
    draw(Float64Array.of(0, 1, 0), 1, () => 1 - 2 ** -53),
    1,
    "rounding leads to no weightless index",
  );
  assertEquals(argmaxOf(Float32Array.of(-Infinity, 2, 1, 2)), 1);
});

const PROMPT = [3, 41, 19, 10, 47, 6, 12, 36];

liveTest("a processor of yours sees every row and all of its tokens, and decides", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  const other = [...PROMPT].reverse();
  using input_ids = ids([PROMPT, other]);
  const seen: [number[], number, number][] = [];
  /** Counts up from 10 in the first row, from 20 in the second. */
  class Counting {
    readonly first = [10, 20];
    process(scores: Float32Array, input_ids: readonly number[], row: number): void {
      seen.push([[...input_ids], row, scores.length]);
      const token = this.first[row]! + input_ids.length - PROMPT.length;
      scores.fill(-Infinity);
      scores[token] = 0;
    }
  }
  for (
    const options of [{}, { do_sample: true, seed: 1 }, { do_sample: true, top_k: 0, top_p: 0.5, min_p: 0.1 }]
  ) {
    seen.length = 0;
    const rows = await rowsOf(
      await model.generate({ input_ids, max_new_tokens: 3, logits_processor: [new Counting()], ...options }),
    );
    assertEquals(rows, [[...PROMPT, 10, 11, 12], [...other, 20, 21, 22]]);
    assertEquals(seen, [
      [PROMPT, 0, 64],
      [other, 1, 64],
      [[...PROMPT, 10], 0, 64],
      [[...other, 20], 1, 64],
      [[...PROMPT, 10, 11], 0, 64],
      [[...other, 20, 21], 1, 64],
    ]);
  }
});

liveTest("processors run in their order: yours after repetition_penalty and before temperature", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  using input_ids = ids([PROMPT]);
  const plain: number[][] = [], penalised: number[][] = [];
  const note = (into: number[][]): LogitsProcessor => (scores) => void into.push([...scores]);
  const options = { input_ids, max_new_tokens: 1, do_sample: true, temperature: 7, top_k: 1 };
  (await model.generate({ ...options, logits_processor: [note(plain)] }))[Symbol.dispose]();
  (await model.generate({ ...options, repetition_penalty: 2, logits_processor: [note(penalised)] }))
    [Symbol.dispose]();
  const expected = plain[0]!.map((x, i) => PROMPT.includes(i) ? Math.fround(x < 0 ? x * 2 : x / 2) : x);
  assertEquals(penalised, [expected]);
});

liveTest(
  "a processor that throws ends the generation with its error; one that leaves nothing is refused",
  async () => {
    await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
    using input_ids = ids([PROMPT]);
    const mistake = new Error("mine");
    const thrower = () => {
      throw mistake;
    };
    for (const more of [{}, { num_beams: 2 }, { do_sample: true }, { num_beams: 2, do_sample: true }]) {
      const failed = model.generate({ input_ids, logits_processor: [thrower], ...more });
      assertEquals(await failed.catch((e: unknown) => e), mistake);
    }
    for (const value of [-Infinity, NaN]) {
      const logits_processor: LogitsProcessor[] = [(scores) => void scores.fill(value)];
      const nothing = model.generate({ input_ids, logits_processor, do_sample: true });
      await assertRejects(() => nothing, InvalidArgument, "logits_processor[0]");
    }
    const none = model.generate({
      input_ids,
      logits_processor: [(scores) => void scores.fill(NaN)],
      num_beams: 2,
    });
    await assertRejects(() => none, InvalidArgument, "logits_processor[0]");
  },
);
