/**
 * Seeded random numbers: the same seed gives the same values on every machine.
 *
 * @module
 */

/** A stream of random numbers. */
export interface Random {
  /** Uniform in [0, 1). */
  next(): number;
  /** `n` numbers uniform in [low, high). */
  uniform(n: number, low?: number, high?: number): Float32Array<ArrayBuffer>;
  /** `n` standard normal numbers times `scale`. */
  normal(n: number, scale?: number): Float32Array<ArrayBuffer>;
  /** An integer in [low, high). */
  int(low: number, high: number): number;
  /** `n` integers in [low, high). */
  ints(n: number, low: number, high: number): Int32Array<ArrayBuffer>;
  /** `n` booleans as 0 and 1, 1 with probability `p`. */
  bools(n: number, p?: number): Uint8Array<ArrayBuffer>;
  /** One of `choices`. */
  pick<T>(choices: readonly T[]): T;
}

/** FNV-1a of a text, so that a case can be seeded by its name. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return h >>> 0;
}

/** A generator (mulberry32) seeded by a number or a text. */
export function seeded(seed: number | string): Random {
  let state = typeof seed === "string" ? hash(seed) : seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const int = (low: number, high: number) => low + Math.floor(next() * (high - low));
  return {
    next,
    int,
    uniform: (n, low = 0, high = 1) => Float32Array.from({ length: n }, () => low + next() * (high - low)),
    // Box–Muller; 1 − next() keeps the logarithm finite.
    normal: (n, scale = 1) =>
      Float32Array.from(
        { length: n },
        () => scale * Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()),
      ),
    ints: (n, low, high) => Int32Array.from({ length: n }, () => int(low, high)),
    bools: (n, p = 0.5) => Uint8Array.from({ length: n }, () => Number(next() < p)),
    pick: (choices) => choices[int(0, choices.length)]!,
  };
}
