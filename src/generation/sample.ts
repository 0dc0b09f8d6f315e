/**
 * One token a row and step: the most probable one, or one by chance.
 *
 * @module
 */
import type { TypedArray } from "../dtype.ts";
import { ComputationDropped } from "../errors.ts";
import { argmax, max } from "../ops/reduce.ts";
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
    using logits = await decoding.step();
    done = await decoding.advance(await choose(decoding, logits, generators));
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
  for (const value of await valuesOf(() => max(logits, { dim: -1 }))) checkLargest(Number(value));
}

/** Most aborts of others that may hit one reading. */
const ATTEMPTS = 16;

/**
 * The values of what `compute` records. It is recorded beside other requests' forwards, so that the abort of one of
 * these may drop it: its operands are there, and it is computed again.
 */
async function valuesOf(compute: () => Tensor): Promise<TypedArray> {
  for (let attempt = 1;; attempt++) {
    using result = compute();
    try {
      return await result.data();
    } catch (error) {
      if (!(error instanceof ComputationDropped) || attempt === ATTEMPTS) throw error;
    }
  }
}

async function choose(
  decoding: Decoding,
  logits: Tensor,
  generators: readonly (() => number)[] | null,
): Promise<number[]> {
  const { recorder, processors } = decoding;
  if (generators === null && processors.length === 0) {
    if (recorder.wants("output_scores")) recorder.addScores(logits.view(logits.shape, logits.strides));
    const tokens = Array.from(await valuesOf(() => argmax(logits)), Number);
    await checkChosen(logits, tokens, decoding.rows[0]!.length === decoding.prompt_length);
    return tokens;
  }
  const all = new Float32Array(await logits.data() as Float32Array);
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
