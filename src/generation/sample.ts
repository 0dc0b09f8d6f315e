/**
 * One token a row and step: the most probable one, or one by chance.
 *
 * @module
 */
import type { TypedArray } from "../dtype.ts";
import { ComputationDropped } from "../errors.ts";
import { argmax, max } from "../ops/reduce.ts";
import { releasingAfter } from "../release.ts";
import { Tensor } from "../tensor.ts";
import type { Decoding } from "./decoding.ts";
import type { Generated } from "./output.ts";
import { argmaxOf, checkLargest, draw, randomGenerator, weightsOf } from "./sampling.ts";

/** Greedy decoding, or with `do_sample` multinomial sampling. */
export async function sample(decoding: Decoding): Promise<Generated> {
  const { do_sample, seed } = decoding.settings;
  // A generator per row: a row's tokens do not depend on its batch mates.
  const count = decoding.prompts * decoding.rows_per_prompt;
  const generators = do_sample ? Array.from({ length: count }, (_, row) => randomGenerator(seed, row)) : null;
  for (let done = false; !done;) {
    done = await decoding.advance(await nextTokens(decoding, generators));
  }
  return { rows: decoding.rows };
}

/**
 * Checks the largest logits (…, V), where they may not be numbers: in the first step, as a weight that is none spoils
 * every step, and later where token 0 is chosen, as it is where all are NaN or −∞.
 *
 * @throws {InvalidArgument}
 */
export async function checkChosen(
  logits: Tensor,
  tokens: readonly number[],
  first: boolean,
): Promise<void> {
  if (!first && !tokens.includes(0)) return;
  for (const value of await again(() => read((x) => max(x, { dim: -1 }), logits))) {
    checkLargest(Number(value));
  }
}

/** Most aborts of others that may hit one reading. */
const ATTEMPTS = 16;

/** What a token is chosen from: the largest logit's place, or all logits. */
type Needed = (logits: Tensor) => Tensor;

/** Records what is needed of the logits and reads it. Recorded before this returns. */
async function read(needed: Needed, logits: Tensor): Promise<TypedArray> {
  return await releasingAfter(needed(logits), (result) => result.data());
}

/**
 * The values of a reading. It is recorded beside other requests' forwards, so that the abort of one of these may drop
 * it: its operands are there, and it is computed again.
 */
async function again(reading: (attempt: number) => Promise<TypedArray>): Promise<TypedArray> {
  for (let attempt = 1;; attempt++) {
    try {
      return await reading(attempt);
    } catch (error) {
      if (!(error instanceof ComputationDropped) || attempt === ATTEMPTS) throw error;
    }
  }
}

/** Logits of a step and what is needed of them, which is read in the submit of the step. */
async function stepAndRead(
  decoding: Decoding,
  needed: Needed,
): Promise<{ logits: Tensor; values: TypedArray }> {
  const early: Promise<TypedArray>[] = [];
  let logits: Tensor;
  try {
    logits = await decoding.step((recorded) => {
      early.push(read(needed, recorded));
      void Promise.allSettled(early); // a rejection is met below
    });
  } catch (error) {
    // What it holds is released before anybody hears of the error.
    await Promise.allSettled(early);
    throw error;
  }
  try {
    const values = await again((attempt) => (attempt === 1 ? early[0] : undefined) ?? read(needed, logits));
    return { logits, values };
  } catch (error) {
    logits[Symbol.dispose]();
    throw error;
  }
}

async function nextTokens(
  decoding: Decoding,
  generators: readonly (() => number)[] | null,
): Promise<number[]> {
  const { recorder, processors } = decoding;
  if (generators === null && processors.length === 0) {
    const step = await stepAndRead(decoding, argmax);
    using logits = step.logits;
    if (recorder.wants("output_scores")) recorder.addScores(logits.view(logits.shape, logits.strides));
    const tokens = Array.from(step.values, Number);
    await checkChosen(logits, tokens, decoding.rows[0]!.length === decoding.prompt_length);
    return tokens;
  }
  const step = await stepAndRead(decoding, (logits) => logits.view(logits.shape, logits.strides));
  using logits = step.logits;
  const all = new Float32Array(step.values as Float32Array);
  const width = logits.shape[1]!;
  const tokens = decoding.rows.map((_, row) => {
    const scores = all.subarray(row * width, (row + 1) * width);
    decoding.process(scores, row);
    if (generators === null) return argmaxOf(scores);
    const { weights, total } = weightsOf(scores);
    return draw(weights, total, generators[row]!);
  });
  if (recorder.wants("output_scores")) recorder.addScores(Tensor.from(all, { shape: logits.shape }));
  return tokens;
}
