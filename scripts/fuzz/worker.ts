/**
 * Reads one mutated input after the other, where a reader that never comes back can be ended from outside.
 *
 * @module
 */
import { AttuneError, liveBuffers } from "../../mod.ts";
import { type Random, seeded } from "../../tests/support/random.ts";
import { TARGETS } from "./targets.ts";

/** What a worker is to do. */
export interface Job {
  readonly targets: readonly string[];
  readonly seed: number;
  /** The first case and, exclusively, the last. */
  readonly from: number;
  readonly to: number;
  readonly until_ms: number;
  readonly folder: string;
  /** [case in work, cases refused, cases accepted] */
  readonly progress: SharedArrayBuffer;
}

/** An input that was not read as it must be. */
export interface Finding {
  readonly case: number;
  readonly target: string;
  readonly why: string;
}

/** Longest time of one case, and most memory it may keep. */
export const MOST_MS = 1000;
export const MOST_BYTES = 64 * 2 ** 20;

/** The target and the random numbers of a case. */
export function caseOf(
  targets: readonly string[],
  seed: number,
  index: number,
): { target: string; random: Random } {
  return {
    target: targets[index % targets.length]!,
    random: seeded(`${seed} ${index}`),
  };
}

/** Runs one case; returns what is wrong, or whether it was refused. */
async function judge(
  target: string,
  random: Random,
  folder: string,
): Promise<"refused" | "accepted" | { why: string }> {
  const { make, read } = TARGETS[target]!;
  const input = make(random);
  const live = liveBuffers(), before = Deno.memoryUsage(), started = performance.now();
  let error: unknown;
  try {
    await read(input, folder);
  } catch (thrown) {
    error = thrown;
  }
  const ms = performance.now() - started, after = Deno.memoryUsage();
  const bytes = after.heapUsed + after.external - before.heapUsed - before.external;
  if (error !== undefined && !(error instanceof AttuneError)) {
    return { why: error instanceof Error ? error.stack ?? String(error) : String(error) };
  }
  if (ms > MOST_MS) return { why: `it took ${Math.round(ms)} ms${error === undefined ? "" : `: ${error}`}` };
  if (bytes > MOST_BYTES) return { why: `memory grew by ${Math.round(bytes / 2 ** 20)} MiB` };
  if (liveBuffers() !== live) return { why: `${liveBuffers() - live} tensors stay alive` };
  return error === undefined ? "accepted" : "refused";
}

async function work({ targets, seed, from, to, until_ms, folder, progress }: Job): Promise<void> {
  const counts = new Int32Array(progress);
  for (let index = from; index < to && Date.now() < until_ms; index++) {
    Atomics.store(counts, 0, index);
    const { target, random } = caseOf(targets, seed, index);
    const verdict = await judge(target, random, folder);
    if (typeof verdict === "object") {
      const finding: Finding = { case: index, target, why: verdict.why };
      self.postMessage(finding);
    } else Atomics.add(counts, verdict === "refused" ? 1 : 2, 1);
  }
  self.postMessage("done");
}

/** The part of a worker's global scope that is used. */
declare const self: {
  postMessage(message: Finding | "done"): void;
  onmessage: ((event: MessageEvent<Job>) => void) | null;
};

if (typeof WorkerGlobalScope !== "undefined") self.onmessage = ({ data }) => void work(data);
declare const WorkerGlobalScope: unknown;
