/**
 * Which register tile matrix products are made of.
 *
 * An engine that turns pairs of vectors into vectors of 256 bits is fastest with wide tiles (wasm/kernels/src/wide.rs),
 * for which others have too few registers. V8 does so behind a flag (`--experimental-wasm-revectorize`), and only where
 * it needs no bounds checks in software, so a probe times both kinds. It looks for a moment at a time, between pieces of
 * large work: compilers need some of these until their best code is there, and who computes little never pays for it.
 * Results are the same bits with either.
 *
 * @module
 */
import type { KernelExports } from "./loader.ts";

/** Kinds of tiles: rows by columns. */
export type Tile = "narrow" | "wide";

/** Chains of a look, a tenth of a millisecond of them. */
const ROUNDS = 100;
/** Looks after which, and milliseconds in all after which, it is decided. */
const MOST_LOOKS = 60;
const MOST_MS = 20;
/** What wide tiles must gain, in so many looks one after the other. */
const GAIN = 1.2;
const AGREED = 3;
/** Columns of narrow tiles, and sums of a wide one: time is compared by the sum. */
const NARROW_COLUMNS = 8;
const WIDE = 4 * 16;

/** Times both kinds of tile, a look at a time, until one is chosen. */
export class TileProbe {
  #least: Record<Tile, number> = { narrow: Infinity, wide: Infinity };
  #looks = 0;
  #spent = 0;
  #agreed = 0;
  #verdict: Tile | null = null;
  readonly #narrow: number;
  readonly #now: () => number;

  /** `rows` of the narrow tile: six with relaxed SIMD, else five. `now` tells milliseconds. */
  constructor(rows: 5 | 6, now: () => number = () => performance.now()) {
    this.#narrow = rows * NARROW_COLUMNS;
    this.#now = now;
  }

  /** What was chosen; null as long as nothing is. */
  get verdict(): Tile | null {
    return this.#verdict;
  }

  /** Speed of wide tiles as a multiple of that of narrow ones, as far as it was seen. */
  get gain(): number {
    return this.#least.narrow / this.#least.wide;
  }

  /** Looks once more: about 0.1 ms, in 16 KiB at `room`. Does nothing when it is decided. */
  look(kernels: KernelExports, room: number): void {
    if (this.#verdict !== null) return;
    const narrow = this.#time(kernels, "narrow", this.#narrow, room);
    const wide = this.#time(kernels, "wide", WIDE, room);
    this.#agreed = narrow > GAIN * wide ? this.#agreed + 1 : 0;
    if (this.#agreed === AGREED) this.#verdict = "wide";
    else if (++this.#looks === MOST_LOOKS || this.#spent > MOST_MS) this.#verdict = "narrow";
  }

  #time(kernels: KernelExports, tile: Tile, sums: number, room: number): number {
    const from = this.#now();
    kernels["probe_tiles"]!(Number(tile === "wide"), room, ROUNDS);
    const ms = this.#now() - from;
    this.#spent += ms;
    const each = ms / sums;
    this.#least[tile] = Math.min(this.#least[tile], each);
    return each;
  }
}

const probes = new Map<string, TileProbe>();

/** The probe of a kernel build: one for all engines that run it. */
export function tileProbe(build: string): TileProbe {
  let probe = probes.get(build);
  if (probe === undefined) probes.set(build, probe = new TileProbe(build.startsWith("relaxed") ? 6 : 5));
  return probe;
}

/** In words: which tiles a build uses, and why. */
export function describeTiles(build: string): string {
  const probe = tileProbe(build);
  const narrow = build.startsWith("relaxed") ? "6 × 8" : "5 × 8";
  const gain = probe.gain.toFixed(2);
  if (probe.verdict === null) return `${narrow} tiles, not probed yet`;
  return probe.verdict === "wide"
    ? `4 × 16 tiles (${gain} times as fast as ${narrow})`
    : `${narrow} tiles (4 × 16 are ${gain} times as fast)`;
}
