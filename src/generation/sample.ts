/**
 * One token a row and step: the most probable one, or one by chance.
 *
 * @module
 */
import { argmax } from "../ops/reduce.ts";
import { Tensor } from "../tensor.ts";
import type { Decoding } from "./decoding.ts";
import type { Generated } from "./output.ts";
import { argmaxOf, draw, randomGenerator, weightsOf } from "./sampling.ts";

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

async function choose(
  decoding: Decoding,
  logits: Tensor,
  generators: readonly (() => number)[] | null,
): Promise<number[]> {
  const { recorder, processors } = decoding;
  if (generators === null && processors.length === 0) {
    if (recorder.wants("output_scores")) recorder.addScores(logits.view(logits.shape, logits.strides));
    using best = argmax(logits);
    return Array.from(await best.data(), Number);
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
