/**
 * Timing by interleaved rounds: every contestant runs once a round, so that a machine that slows down slows all.
 *
 * @module
 */
import process from "node:process";

/** Something to be timed. */
export interface Contestant {
  readonly name: string;
  /** One call, complete when it returns or its promise resolves. All of it is timed unless it returns {@linkcode Elapsed}. */
  run(): Promise<unknown> | unknown;
  /** Whether it only stands beside the others: it gets less time. */
  readonly beside?: boolean;
}

/** Milliseconds of processor time this process has used, on all its threads. */
export function cpuNow(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** Returned by a contestant that timed a part of its call itself. */
export class Elapsed {
  constructor(readonly wall: number, readonly cpu: number) {}
}

/** What a contestant took, in milliseconds. */
export interface Timing {
  /**
   * Least processor time of a call. Rates and ratios are made of it: where other programs want the processor too,
   * no long call is left alone, and wall time then tells about them. On one thread of a quiet machine it equals
   * `wall`.
   */
  readonly cpu: number;
  /** Least and median wall time. */
  readonly wall: number;
  readonly median: number;
  readonly rounds: number;
}

/**
 * Which time rates and ratios are made of: processor time where everything computes on one thread, wall time where
 * several compute.
 */
export type Clock = "cpu" | "wall";

/** How often to run. */
export interface Effort {
  /** Calls before anything is timed: V8 compiles hot WASM functions meanwhile. */
  readonly warmups: number;
  readonly rounds: number;
}

/** The effort of a full and of a quick run. */
export const EFFORT = {
  full: { warmups: 5, rounds: 15 },
  quick: { warmups: 3, rounds: 5 },
} as const satisfies Record<string, Effort>;

/** The middle value; of an even number the mean of the two middle ones. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}

/** Slower calls are long past V8's compilation after one of them. */
const LONG_CALL_MS = 500;

/** What a contestant's rounds may take; a slow one runs in the first rounds only, but in three at least. */
const BUDGET_MS = 2500;
const BUDGET_BESIDE_MS = 800;
const LEAST_ROUNDS = 3;

/**
 * Times all contestants in interleaved rounds; each round starts with another one, so that none always runs after
 * the same neighbour.
 */
export async function interleave(
  contestants: readonly Contestant[],
  { warmups, rounds }: Effort,
  progress: (text: string) => void = () => {},
): Promise<Map<string, Timing>> {
  const allowed = new Map<string, number>();
  for (const c of contestants) {
    let call = 0;
    // Comparing was a call as well.
    for (let i = 0; i < (call > LONG_CALL_MS ? 1 : warmups); i++) {
      progress(`warm-up ${i + 1}/${warmups}: ${c.name}`);
      const start = performance.now();
      await c.run();
      call = performance.now() - start;
    }
    allowed.set(c.name, Math.max(LEAST_ROUNDS, Math.floor((c.beside ? BUDGET_BESIDE_MS : BUDGET_MS) / call)));
  }
  const took = new Map<string, Elapsed[]>(contestants.map((c) => [c.name, []]));
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < contestants.length; i++) {
      const c = contestants[(round + i) % contestants.length]!;
      if (round >= allowed.get(c.name)!) continue;
      progress(`round ${round + 1}/${rounds}: ${c.name}`);
      const [start, used] = [performance.now(), cpuNow()];
      const result = await c.run();
      const elapsed = result instanceof Elapsed
        ? result
        : new Elapsed(performance.now() - start, cpuNow() - used);
      took.get(c.name)!.push(elapsed);
    }
  }
  return new Map([...took].map(([name, all]) => {
    const wall = all.map((e) => e.wall);
    const cpu = Math.min(...all.map((e) => e.cpu));
    return [name, { cpu, wall: Math.min(...wall), median: median(wall), rounds: all.length }];
  }));
}
