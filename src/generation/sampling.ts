/**
 * Choosing the next token from logits.
 *
 * The exponentials are computed by the device's softmax, and everything on the host is exact or ordered
 * arithmetic, so a seed gives the same tokens on every engine in deterministic mode.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import { div } from "../ops/elementwise.ts";
import { argmax, softmax } from "../ops/reduce.ts";
import { tidy } from "../scope.ts";
import type { Tensor } from "../tensor.ts";

/** How tokens are chosen. */
export interface SamplingOptions {
  /** Sample; default false: take the most probable token. */
  do_sample?: boolean;
  /** Divides the logits; default 1. */
  temperature?: number;
  /** Sample among the k most probable tokens; default 50, 0 means all. */
  top_k?: number;
  /** Sample among the most probable tokens whose probabilities reach p together; default 1. */
  top_p?: number;
  /** Makes sampling repeatable; default: random. */
  seed?: number;
}

/** Chooses one token per row of logits (B, V). */
export type Chooser = (logits: Tensor) => Promise<number[]>;

/**
 * Checks the options and builds the chooser for a batch.
 *
 * @throws {InvalidArgument}
 */
export function chooser(options: SamplingOptions, batch: number): Chooser {
  const { do_sample = false, temperature = 1, top_k = 50, top_p = 1 } = options;
  if (typeof do_sample !== "boolean") {
    throw new InvalidArgument(`Cannot generate with do_sample ${String(do_sample)}: expected true or false`);
  }
  const seed = options.seed ?? crypto.getRandomValues(new Uint32Array(1))[0]!;
  const range = (name: string, value: number, fits: boolean, expected: string) => {
    if (!fits) throw new InvalidArgument(`Cannot generate with ${name} ${value}: expected ${expected}`);
  };
  range(
    "temperature",
    temperature,
    Number.isFinite(temperature) && temperature > 0,
    "a number > 0 (for greedy decoding leave do_sample out)",
  );
  range("top_k", top_k, Number.isInteger(top_k) && top_k >= 0, "an integer ≥ 0");
  range("top_p", top_p, Number.isFinite(top_p) && top_p > 0 && top_p <= 1, "a number in (0, 1]");
  range("seed", seed, Number.isSafeInteger(seed) && seed >= 0, "an integer ≥ 0");
  if (!do_sample) return greedy;
  // A generator per row: a row's tokens do not depend on its batch mates.
  const generators = Array.from({ length: batch }, (_, row) => randomGenerator(seed, row));
  return async (logits) => {
    using probabilities = tidy(() => softmax(temperature === 1 ? logits : div(logits, temperature)));
    const all = await probabilities.data() as Float32Array;
    const width = logits.shape[1]!;
    return generators.map((random, row) =>
      draw(all.subarray(row * width, (row + 1) * width), top_k, top_p, random)
    );
  };
}

async function greedy(logits: Tensor): Promise<number[]> {
  using best = argmax(logits);
  return Array.from(await best.data(), Number);
}

/** Draws an index: the k most probable, of these the nucleus of mass p, then by chance (Holtzman et al. 2020). */
function draw(probabilities: Float32Array, top_k: number, top_p: number, random: () => number): number {
  const order = mostProbable(
    probabilities,
    top_k === 0 ? probabilities.length : Math.min(top_k, probabilities.length),
  );
  let kept = order.reduce((sum, i) => sum + probabilities[i]!, 0);
  if (!(kept > 0)) {
    throw new InvalidArgument("Cannot sample the next token: the model's logits are not finite");
  }
  let count = order.length;
  if (top_p < 1) {
    let mass = 0;
    count = 0;
    while (count < order.length && mass < top_p * kept) mass += probabilities[order[count++]!]!;
    kept = mass;
  }
  let left = random() * kept;
  for (let i = 0; i < count; i++) {
    left -= probabilities[order[i]!]!;
    if (left < 0) return order[i]!;
  }
  return order[count - 1]!;
}

/** Indices of the k largest probabilities, largest first, lower index first on ties. */
function mostProbable(probabilities: Float32Array, k: number): number[] {
  const order = Array.from(probabilities, (_, i) => i).filter((i) => probabilities[i]! > 0);
  order.sort((a, b) => probabilities[b]! - probabilities[a]! || a - b);
  return order.slice(0, k);
}

/** Uniform numbers in [0, 1): sfc32 (Doty-Humphrey's Small Fast Counter), seeded by number and stream. */
export function randomGenerator(seed: number, stream: number): () => number {
  let a = seed >>> 0;
  let b = Math.floor(seed / 2 ** 32) >>> 0;
  let c = stream >>> 0;
  let counter = 1;
  const next = () => {
    const t = (a + b + counter++) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + t | 0;
    return (t >>> 0) / 2 ** 32;
  };
  for (let i = 0; i < 15; i++) next();
  return next;
}
