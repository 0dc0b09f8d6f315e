/**
 * Logits processors: each changes the scores of one row before a token is chosen, in the order Transformers has.
 *
 * They run on the host in arithmetic that is the same on every engine: comparisons, + − × ÷, and exponentials made of
 * these. Results are those of Transformers, `generation/logits_process.py`; where several tokens are equal and only some
 * stay, which the reference leaves to its sort, these are the first.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import type { Settings } from "./settings.ts";
import { descending, largest } from "./ranking.ts";
import { exp } from "./sampling.ts";
import { kindOf } from "./stopping.ts";

/**
 * Changes `scores` (V) of the next token in place, or returns others of the same length instead; it cannot be
 * asynchronous. `input_ids` are a copy of the tokens of the row so far, prompt and padding included; `row` is its number.
 * With beams the scores are log-probabilities.
 */
export type LogitsProcessorFunction = (
  scores: Float32Array,
  input_ids: readonly number[],
  row: number,
) => void | Float32Array;

/** A processor of yours: a function, or an object with one. It runs before temperature and what follows it. */
export type LogitsProcessor = LogitsProcessorFunction | { readonly process: LogitsProcessorFunction };

/** Scores of tokens that occurred are divided by the penalty where positive, else multiplied (Keskar et al. 2019). */
export function repetitionPenalty(
  penalty: number,
  /** First token of a row that is no padding. */
  start: (row: number) => number = () => 0,
): LogitsProcessorFunction {
  const factor = Math.fround(penalty);
  return (scores, input_ids, row) => {
    for (const token of new Set(input_ids.slice(start(row)))) {
      const score = scores[token]!;
      scores[token] = score < 0 ? score * factor : score / factor;
    }
  };
}

/** No end token before a row has `length` tokens. */
export function minLength(length: number, eos: readonly number[]): LogitsProcessorFunction {
  return (scores, input_ids) => {
    if (input_ids.length >= length) return;
    for (const token of eos) if (token >= 0 && token < scores.length) scores[token] = -Infinity;
  };
}

/** Divides the scores. */
export function temperatureWarper(temperature: number): LogitsProcessorFunction {
  const divisor = Math.fround(temperature);
  return (scores) => {
    for (let i = 0; i < scores.length; i++) scores[i] = scores[i]! / divisor;
  };
}

/** Keeps the k largest scores, and those equal to the last of them (Fan et al. 2018, arXiv 1805.04833). */
export function topK(k: number, min_tokens_to_keep = 1): LogitsProcessorFunction {
  const count = Math.max(k, min_tokens_to_keep);
  return (scores) => {
    if (count >= scores.length) return;
    const kept = largest(scores, count);
    if (kept.length < count) return;
    const least = scores[kept.at(-1)!]!;
    for (let i = 0; i < scores.length; i++) if (scores[i]! < least) scores[i] = -Infinity;
  };
}

/** Keeps the most probable tokens until their probabilities reach p (Holtzman et al. 2020, arXiv 1904.09751). */
export function topP(p: number, min_tokens_to_keep = 1): LogitsProcessorFunction {
  return (scores) => {
    const top = maximum(scores);
    let total = 0;
    for (let i = 0; i < scores.length; i++) total += exp(scores[i]! - top);
    const kept: number[] = [];
    let mass = 0;
    for (const i of descending(scores)) {
      if (mass >= p * total && kept.length >= min_tokens_to_keep) break;
      kept.push(i);
      mass += exp(scores[i]! - top);
    }
    keepOnly(scores, kept);
  };
}

/** Keeps tokens at least `p` times as probable as the most probable one (Nguyen et al. 2024, arXiv 2407.01082). */
export function minP(p: number, min_tokens_to_keep = 1): LogitsProcessorFunction {
  return (scores) => {
    const top = maximum(scores);
    const always = min_tokens_to_keep > 1 ? new Set(largest(scores, min_tokens_to_keep)) : null;
    for (let i = 0; i < scores.length; i++) {
      if (exp(scores[i]! - top) < p && !(always?.has(i) ?? false)) scores[i] = -Infinity;
    }
  };
}

/** The largest score, or −∞. */
export function maximum(scores: Float32Array): number {
  let top = -Infinity;
  for (let i = 0; i < scores.length; i++) if (scores[i]! > top) top = scores[i]!;
  return top;
}

function keepOnly(scores: Float32Array, kept: readonly number[]): void {
  const values = kept.map((i) => scores[i]!);
  scores.fill(-Infinity);
  kept.forEach((i, n) => scores[i] = values[n]!);
}

/** The processors that settings ask for, in their order; `start` is the first token of a row that is no padding. */
export function processorsOf(
  settings: Settings,
  start: (row: number) => number,
): LogitsProcessorFunction[] {
  const { eos, do_sample, temperature, top_k, top_p, min_p, num_beams } = settings;
  const list: LogitsProcessorFunction[] = [];
  if (settings.repetition_penalty !== 1) list.push(repetitionPenalty(settings.repetition_penalty, start));
  if (settings.min_length > 0 && eos.length > 0) list.push(minLength(settings.min_length, eos));
  list.push(...settings.logits_processor);
  if (!do_sample) return list;
  // A beam needs a token that goes on for every one that may end it.
  const keep = num_beams > 1 ? Math.max(2, eos.length + 1) : 1;
  if (temperature !== 1) list.push(temperatureWarper(temperature));
  if (top_k > 0) list.push(topK(top_k, keep));
  if (top_p < 1) list.push(topP(top_p, keep));
  if (min_p !== null) list.push(minP(min_p, keep));
  return list;
}

/** A processor of the caller's: what it returns and leaves is checked, and what it is given it may keep. */
function guarded(process: LogitsProcessorFunction, name: string, beams: boolean): LogitsProcessorFunction {
  return (scores, input_ids, row) => {
    const sound = canChoose(scores, beams);
    const answer: unknown = process(scores, [...input_ids], row);
    if (answer instanceof Float32Array && answer.length === scores.length) scores.set(answer);
    else if (answer !== undefined) {
      throw new InvalidArgument(
        `Cannot generate with ${name}: expected nothing from it, or a Float32Array of ${scores.length} scores, got ${
          kindOf(answer)
        }`,
      );
    }
    if (sound && !canChoose(scores, beams)) {
      throw new InvalidArgument(
        `Cannot choose the next token of row ${row}: ${name} left ${
          scores.some(Number.isNaN) ? "NaN among the scores" : "every score at −∞"
        }`,
      );
    }
  };
}

/** Whether a token can be chosen by scores. A beam may be left without any: others go on. */
function canChoose(scores: Float32Array, beams: boolean): boolean {
  return !scores.some(Number.isNaN) && (beams || maximum(scores) > -Infinity);
}

/**
 * Checks processors from outside.
 *
 * @throws {InvalidArgument}
 */
export function checkProcessors(given: unknown, beams: boolean): LogitsProcessorFunction[] {
  if (given === undefined || given === null) return [];
  if (!Array.isArray(given)) {
    throw new InvalidArgument(
      `Cannot generate with logits_processor of ${typeof given}: expected a list of functions or of objects with process`,
    );
  }
  return given.map((item: unknown, i) => {
    const { process } = (item ?? {}) as { process?: unknown };
    const fn = typeof item === "function" ? item : typeof process === "function" ? process.bind(item) : null;
    if (fn !== null) return guarded(fn as LogitsProcessorFunction, `logits_processor[${i}]`, beams);
    throw new InvalidArgument(
      `Cannot generate with logits_processor[${i}] of ${typeof item}: expected a function (scores, input_ids, row), or an object with process`,
    );
  });
}
