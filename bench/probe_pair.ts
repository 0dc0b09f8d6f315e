/**
 * Two probes in threads of their own: what two threads of this machine can do at all.
 *
 * @module
 */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import type { ProbeLetter } from "./probe_worker.ts";

/** Megabytes that each probe reads. */
export const SWEEP_MIB = 128;

/** Probes run so often at a time: starting one costs a message. */
const REPEATED = 4;

/** What work is bound by: multiply-adds, or reading memory. */
export type Bound = "peak" | "sweep";

/** See the module comment. Both do the same work. */
export class Probes {
  readonly #workers: readonly Worker[];

  private constructor(workers: readonly Worker[]) {
    this.#workers = workers;
  }

  static async open(): Promise<Probes> {
    const url = new URL("probe_worker.ts", import.meta.url);
    const [a, b] = [new Worker(url), new Worker(url)];
    const turns = await Probes.#ask(a, { mebibytes: SWEEP_MIB });
    await Probes.#ask(b, { mebibytes: SWEEP_MIB, turns });
    return new Probes([a, b]);
  }

  static async #ask(worker: Worker, letter: ProbeLetter): Promise<number> {
    const answer = once(worker, "message");
    worker.postMessage(letter);
    const [turns] = await answer;
    return turns;
  }

  /** Runs `count` of them, together. */
  async run(bound: Bound, count: 1 | 2): Promise<void> {
    await Promise.all(
      this.#workers.slice(0, count).map(async (worker) => {
        for (let i = 0; i < REPEATED; i++) await Probes.#ask(worker, { run: bound });
      }),
    );
  }

  async close(): Promise<void> {
    for (const worker of this.#workers) await worker.terminate();
  }
}
