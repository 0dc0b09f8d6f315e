/**
 * Generation compared with what Transformers does: tokens of greedy and beam search, scores, filtered logits exactly, and
 * where stop strings end a text. `tests/golden/make_generation.py` recorded it.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import {
  AutoModelForCausalLM,
  AutoTokenizer,
  type GenerateOptions,
  liveBuffers,
  type PreTrainedModel,
  Tensor,
} from "../../mod.ts";
import {
  type LogitsProcessorFunction,
  minLength,
  minP,
  repetitionPenalty,
  temperatureWarper,
  topK,
  topP,
} from "../../src/generation/processors.ts";
import { DEMO, everywhere, ids, liveTest, reportSkipped, rowsOf } from "../models/support.ts";
import { goldenPath } from "../support/golden.ts";
import { assertClose, toleranceOf } from "../support/tolerance.ts";

type Scores = readonly (number | null)[];

interface Generation {
  readonly id: string;
  readonly arch: string;
  readonly attention_mask: number[][] | null;
  readonly options: Readonly<Record<string, unknown>>;
  readonly expect: {
    readonly sequences: number[][];
    readonly sequences_scores?: number[];
    readonly beam_indices?: number[][];
    readonly scores?: readonly (readonly Scores[])[];
    readonly logits?: readonly (readonly Scores[])[];
  };
}

interface Processing {
  readonly op: "top_k" | "top_p" | "min_p" | "repetition_penalty" | "temperature" | "min_length";
  readonly value: number;
  readonly keep?: number;
  readonly start?: number;
  readonly history?: number[];
  readonly eos?: number[];
  readonly scores: Scores;
  readonly kept?: number[];
  readonly result?: Scores;
}

const RECORDED = JSON.parse(await Deno.readTextFile(goldenPath("generation.json"))) as {
  prompts: number[][];
  generations: Generation[];
  processors: Processing[];
  stop_strings: {
    prompt: number[];
    tokens: number[];
    text: string;
    cases: { stop_strings: string[]; new_tokens: number }[];
  };
};

const values = (scores: Scores) => Float32Array.from(scores, (x) => x ?? -Infinity);

/** Recorded null is what the reference has as a default. */
function optionsOf({ options }: Generation): Partial<GenerateOptions> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== null));
}

async function check(
  model: PreTrainedModel,
  c: Generation,
  more: Partial<GenerateOptions> = {},
): Promise<void> {
  const { sequences, sequences_scores, beam_indices, scores, logits } = c.expect;
  using input_ids = ids(RECORDED.prompts);
  using attention_mask = Tensor.from(c.attention_mask ?? RECORDED.prompts.map((row) => row.map(() => 1)));
  using output = await model.generate({
    input_ids,
    attention_mask,
    output_scores: true,
    output_logits: true,
    ...optionsOf(c),
    ...more,
    return_dict_in_generate: true,
  });
  const where = JSON.stringify(more);
  assertEquals(await output.sequences.tolist(), sequences, where);
  const tolerance = toleranceOf("logits", model.device);
  assertEquals(output.sequences_scores !== undefined, sequences_scores !== undefined);
  if (sequences_scores !== undefined) {
    assertClose(await output.sequences_scores!.data() as Float32Array, sequences_scores, tolerance);
    assertEquals(await output.beam_indices!.tolist(), beam_indices);
  }
  for (const [actual, expected] of [[output.scores, scores], [output.logits, logits]] as const) {
    for (const [step, rows] of expected?.entries() ?? []) {
      const flat = values(rows.flat());
      assertClose(await actual![step]!.data() as Float32Array, flat, tolerance, `step ${step}`);
    }
    if (expected !== undefined) assertEquals(actual!.length, expected.length);
  }
}

for (const arch of new Set(RECORDED.generations.map((c) => c.arch))) {
  const cases = RECORDED.generations.filter((c) => c.arch === arch);
  for (const cache_implementation of ["dynamic", "static"] as const) {
    liveTest(`${arch} with a ${cache_implementation} cache`, async (t) => {
      await using model = await AutoModelForCausalLM.from_pretrained(goldenPath(`models/${arch}`));
      // The first forward makes a table of positions, which stays.
      await check(model, cases[0]!);
      const before = liveBuffers();
      for (const c of cases) {
        await t.step(c.id, async () => {
          await check(model, c, { cache_implementation });
          assertEquals(liveBuffers(), before);
        });
      }
    });
  }
  // Every way to a token once: a GPU in software takes long.
  const few = [
    "greedy/repetition_penalty/padded",
    "beams_3/padded",
    "beams_3/early_never/length_penalty_2.0",
  ];
  everywhere(`${arch}: processors, padding and beams`, async (device) => {
    await using model = await AutoModelForCausalLM.from_pretrained(goldenPath(`models/${arch}`), { device });
    const chosen = cases.filter((c) => few.includes(c.id.slice(arch.length + 1)));
    assertEquals(chosen.length, few.length);
    for (const c of chosen) await check(model, c);
  });
}

liveTest("beams are the same under every attention implementation", async () => {
  const c = RECORDED.generations.find((g) => g.id === "mistral/beams_3/padded")!;
  await using model = await AutoModelForCausalLM.from_pretrained(goldenPath("models/mistral"));
  for (const name of ["eager", "flash_attention_2", "flex_attention"]) {
    await model.set_attn_implementation(name);
    for (const cache_implementation of ["dynamic", "static"] as const) {
      await check(model, c, { cache_implementation });
    }
  }
});

function processorOf(c: Processing): LogitsProcessorFunction {
  switch (c.op) {
    case "top_k":
      return topK(c.value, c.keep);
    case "top_p":
      return topP(c.value, c.keep);
    case "min_p":
      return minP(c.value, c.keep);
    case "repetition_penalty":
      return repetitionPenalty(c.value, () => c.start!);
    case "temperature":
      return temperatureWarper(c.value);
    case "min_length":
      return minLength(c.value, c.eos!);
  }
}

for (const op of new Set(RECORDED.processors.map((c) => c.op))) {
  Deno.test(`${op}: every score is exactly the recorded one`, () => {
    const cases = RECORDED.processors.filter((r) => r.op === op);
    let split = 0;
    for (const c of cases) {
      const given = values(c.scores), scores = given.slice();
      processorOf(c)(scores, c.history ?? [0], 0);
      const where = JSON.stringify({ ...c, scores: null });
      if (c.result !== undefined) {
        assertEquals(scores, values(c.result), where);
        continue;
      }
      const kept = [...scores.keys()].filter((i) => scores[i] !== -Infinity);
      const sorted = (indices: number[]) => indices.map((i) => given[i]!).sort((a, b) => a - b);
      assertEquals(sorted(kept), sorted(c.kept!), where);
      assert(kept.every((i) => scores[i] === given[i]), "what is kept is as it was");
      // Of equal scores the reference keeps any where some must go; everywhere else it is these tokens.
      const least = Math.min(...sorted(kept));
      if (sorted(kept).filter((x) => x === least).length === given.filter((x) => x === least).length) {
        assertEquals(kept, c.kept, where);
      } else split++;
    }
    assert(split < cases.length / 2, "most cases leave no choice");
  });
}

liveTest("stop strings end the text of the demo model where the reference ends it", async () => {
  const { prompt, tokens, cases } = RECORDED.stop_strings;
  await using model = await AutoModelForCausalLM.from_pretrained(DEMO);
  const tokenizer = await AutoTokenizer.from_pretrained(DEMO);
  using input_ids = ids([prompt]);
  assert(
    cases.some((c) => c.new_tokens < tokens.length) && cases.some((c) => c.new_tokens === tokens.length),
  );
  for (const { stop_strings, new_tokens } of cases) {
    const [row] = await rowsOf(
      await model.generate({ input_ids, eos_token_id: null, max_new_tokens: 24, stop_strings, tokenizer }),
    );
    assertEquals(row!.slice(prompt.length), tokens.slice(0, new_tokens), JSON.stringify(stop_strings));
  }
});

reportSkipped();
