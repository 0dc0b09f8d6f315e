/**
 * Beam search: several continuations of every prompt are followed at once, and the best are returned.
 *
 * Method: Transformers, `GenerationMixin._beam_search`, in float32 as there; with `do_sample`, continuations are drawn
 * instead of ranked.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import { sub } from "../ops/elementwise.ts";
import { softmax } from "../ops/reduce.ts";
import { reshape } from "../ops/shape.ts";
import { releasingAfter } from "../release.ts";
import { tidy } from "../scope.ts";
import { Tensor } from "../tensor.ts";
import type { Decoding } from "./decoding.ts";
import type { Generated } from "./output.ts";
import { largest } from "./ranking.ts";
import { draw, randomGenerator, weightsOf } from "./sampling.ts";

/** Taken off a score that must not win any more. */
const NEVER = -1e9;

const { fround } = Math;

/** A continuation of a prompt. */
interface Beam {
  /** Its tokens, the prompt's included. */
  readonly tokens: readonly number[];
  /** Sum of its log-probabilities, divided by a power of its length once it has ended. */
  readonly score: number;
  /** The row every new token was computed from. */
  readonly rows: readonly number[];
}

/** Finds the best sequences of every prompt. */
export async function beamSearch(decoding: Decoding): Promise<Generated> {
  const { num_beams, num_return_sequences, early_stopping, pad } = decoding.settings;
  const searches = decoding.rows.map((tokens, prompt) => new Search(decoding, tokens, prompt));
  for (let open = true; open;) {
    const { scores, width } = await stepScores(decoding);
    const size = num_beams * width;
    searches.forEach((search, i) => search.extend(scores.subarray(i * size, (i + 1) * size), width));
    const running = searches.flatMap((search) => search.running);
    decoding.reorderCache(running.map((beam) => beam.rows.at(-1)!));
    decoding.rows = running.map((beam) => [...beam.tokens]);
    open = searches.some((s) => s.canImprove) && searches.some((s) => s.canContinue) &&
      !(early_stopping === true && searches.every((s) => s.isFull));
  }
  const best = searches.flatMap((search) => search.best(num_return_sequences));
  const filled = (lists: readonly (readonly number[])[], value: number) => {
    const longest = Math.max(...lists.map((list) => list.length));
    return lists.map((list) => [...list, ...new Array<number>(longest - list.length).fill(value)]);
  };
  return {
    rows: filled(best.map((beam) => beam.tokens), pad),
    scores: best.map((beam) => beam.score),
    beam_indices: filled(best.map((beam) => beam.rows), -1),
  };
}

/** The processed log-probabilities (R, V) of the next token. */
async function stepScores(decoding: Decoding): Promise<{ scores: Float32Array; width: number }> {
  using logits = await decoding.step();
  const log_probabilities = tidy(() => {
    const [, lse] = softmax(logits, { return_lse: true });
    return sub(logits, reshape(lse, [logits.shape[0]!, 1]));
  });
  const scores = await releasingAfter(log_probabilities, (values) => values.data()) as Float32Array;
  const width = logits.shape[1]!;
  for (let row = 0; row < decoding.rows.length; row++) {
    decoding.process(scores.subarray(row * width, (row + 1) * width), row);
  }
  const { recorder } = decoding;
  if (recorder.wants("output_scores")) recorder.addScores(Tensor.from(scores, { shape: logits.shape }));
  return { scores, width };
}

/** The search for the continuations of one prompt. */
class Search {
  /** What the next step continues, best first. */
  running: readonly Beam[];
  /** Whether a running beam may still become better than the worst one that has ended. */
  canImprove = true;
  /** Whether any continuation of the last step went on. */
  canContinue = true;
  /** What has ended, best first. */
  #finished: readonly Beam[] = [];
  readonly #decoding: Decoding;
  /** The prompt's first row. */
  readonly #first: number;
  readonly #random: (() => number) | null;

  constructor(decoding: Decoding, tokens: readonly number[], prompt: number) {
    const { num_beams, do_sample, seed } = decoding.settings;
    this.#decoding = decoding;
    this.#first = prompt * num_beams;
    this.#random = do_sample ? randomGenerator(seed, prompt) : null;
    // All beams are alike at first: only one of them counts.
    this.running = Array.from({ length: num_beams }, (_, i) => ({
      tokens,
      score: i === 0 ? 0 : NEVER,
      rows: [],
    }));
  }

  /** Whether as many sequences have ended as there are beams. */
  get isFull(): boolean {
    return this.#finished.length === this.running.length;
  }

  /** The best sequences. */
  best(count: number): readonly Beam[] {
    return [...this.#finished, ...this.running].slice(0, count);
  }

  /** Continues the running beams by a token, given the log-probabilities (num_beams, V) of the next one. */
  extend(scores: Float32Array, width: number): void {
    const { settings: { num_beams, eos }, stopping } = this.#decoding;
    for (const [i, { score }] of this.running.entries()) {
      for (let at = i * width; at < (i + 1) * width; at++) scores[at] = scores[at]! + score;
    }
    // So many that enough go on even if each of the best beams may end in every way.
    const count = Math.min(Math.max(2, 1 + eos.length) * num_beams, scores.length);
    const candidates = this.#choose(scores, count).map((at) => {
      const beam = Math.floor(at / width), row = this.#first + beam;
      const { tokens, rows } = this.running[beam]!;
      const grown = [...tokens, at % width];
      const ended = stopping.stops(grown, row);
      return { tokens: grown, score: scores[at]!, rows: [...rows, row], ended };
    });
    this.canContinue = candidates.some((c) => !c.ended);
    this.#finish(candidates.slice(0, num_beams).filter((c) => c.ended));
    this.running = ranked(
      candidates.map(({ ended, ...beam }) => ended ? { ...beam, score: fround(beam.score + NEVER) } : beam),
    ).slice(0, num_beams);
    this.canImprove &&= this.#mayImprove();
  }

  /** Indices of the continuations to look at, the best first or as they were drawn. */
  #choose(scores: Float32Array, count: number): number[] {
    if (scores.some(Number.isNaN)) {
      throw new InvalidArgument("Cannot choose the next tokens: the model's logits are not finite");
    }
    const chosen = this.#random === null ? largest(scores, count) : drawDistinct(scores, count, this.#random);
    if (chosen.length === 0) throw new InvalidArgument("Cannot choose the next tokens: every score is −∞");
    // Where processors have left fewer, the others are as good as each other.
    for (let at = 0; chosen.length < count; at++) if (!chosen.includes(at)) chosen.push(at);
    return chosen;
  }

  /** Takes sequences that have ended, if they are among the best ones. */
  #finish(ended: readonly Beam[]): void {
    const { num_beams, early_stopping, length_penalty } = this.#decoding.settings;
    if (!this.canImprove || (early_stopping === true && this.isFull)) return;
    const scored = ended.map((beam) => ({
      ...beam,
      score: fround(beam.score / fround(beam.rows.length ** length_penalty)),
    }));
    this.#finished = ranked([...this.#finished, ...scored]).slice(0, num_beams);
  }

  /**
   * Whether the best running beam could beat the worst one that has ended. How long it will become is not known: only
   * `"never"` takes the length at which it would score best.
   */
  #mayImprove(): boolean {
    if (!this.isFull) return true;
    const { settings: { early_stopping, length_penalty, max_length }, prompt_length } = this.#decoding;
    const { score, rows } = this.running[0]!;
    const length = early_stopping === "never" && length_penalty > 0
      ? max_length - prompt_length
      : rows.length;
    return fround(score / fround(length ** length_penalty)) > this.#finished.at(-1)!.score;
  }
}

/** Best first; of equal ones the earlier. */
function ranked(beams: readonly Beam[]): Beam[] {
  return beams.toSorted((a, b) => b.score - a.score);
}

/** Draws up to `count` different indices, each with a probability proportional to e^score among those left. */
function drawDistinct(scores: Float32Array, count: number, random: () => number): number[] {
  const { weights } = weightsOf(scores);
  const drawn: number[] = [];
  while (drawn.length < count) {
    const total = weights.reduce((sum, w) => sum + w, 0);
    if (total === 0) break;
    const at = draw(weights, total, random);
    weights[at] = 0;
    drawn.push(at);
  }
  if (drawn.length === count) return drawn;
  // Too improbable for a weight, but not taken out.
  const rest = scores.slice();
  for (const at of drawn) rest[at] = -Infinity;
  return [...drawn, ...largest(rest, count - drawn.length)];
}
