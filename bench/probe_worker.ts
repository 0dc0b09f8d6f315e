/**
 * The probe in a thread of its own, for threads.ts: told which yardstick to run, it answers when that is done. It is a
 * thread's program, so it listens when it is loaded.
 *
 * @module
 */
import { parentPort } from "node:worker_threads";
import { makeProbe, type Probe } from "./probe.ts";

/** What the thread is told: how to be made, or what to run. It answers with the turns of its loop. */
export type ProbeLetter =
  | { readonly mebibytes: number; readonly turns?: number }
  | { readonly run: "peak" | "sweep" };

let probe: Probe | undefined;

parentPort?.on("message", (letter: ProbeLetter) => {
  if ("run" in letter) probe![letter.run]();
  else probe = makeProbe(letter.mebibytes, letter.turns);
  parentPort!.postMessage(probe!.turns);
});
