/**
 * How many threads engines compute with.
 *
 * @module
 */
import { InvalidArgument } from "../../errors.ts";
import { settings } from "../settings.ts";
import { SCRATCH_BYTES } from "./command.ts";
import { whyNoWorkers } from "./hand.ts";

/** Most threads without being asked: each costs an isolate, and is waited for at the end of every command. */
const AUTOMATIC = 8;

/** Most threads that can be asked for. */
export const MOST_THREADS = 64;

/** Bytes of a thread's stack; the kernels take a few KiB. */
export const STACK_BYTES = 1 << 16;

/** Bytes a worker takes of an engine's memory: its stack lies above its scratch memory, into which it would overflow. */
export const WORKSPACE_BYTES = SCRATCH_BYTES + STACK_BYTES;

/** The part of an engine's memory that may go into workspaces. */
const SHARE = 1 / 8;

/** How many workers' workspaces an engine of `maximum` bytes has room for. */
function workersThatFit(maximum: number): number {
  return Math.floor(maximum * SHARE / WORKSPACE_BYTES);
}

/** Workers of a new engine of `maximum` bytes. */
export function workersFor(maximum: number): number {
  if (whyNoWorkers() !== null) return 0;
  return Math.min(wantedThreads() - 1, workersThatFit(maximum));
}

/** Threads that are asked for, or what this machine suggests. */
function wantedThreads(): number {
  if (settings.threads !== "auto") return settings.threads;
  return Math.max(1, Math.min(AUTOMATIC, globalThis.navigator?.hardwareConcurrency ?? 1));
}

/**
 * Checks a number of threads that somebody asks for.
 *
 * @throws {InvalidArgument}
 */
export function checkThreads(threads: unknown, max_memory: number): void {
  if (threads === "auto" || threads === 1) return;
  const asked = `Cannot configure threads: ${threads}`;
  if (typeof threads !== "number" || !Number.isInteger(threads) || threads < 1 || threads > MOST_THREADS) {
    throw new InvalidArgument(`${asked}: expected "auto" or a whole number from 1 to ${MOST_THREADS}`);
  }
  const why = whyNoWorkers();
  if (why !== null) throw new InvalidArgument(`${asked}: allowed is 1 here, because ${why}`);
  const most = workersThatFit(max_memory) + 1;
  if (threads > most) {
    throw new InvalidArgument(
      `${asked}: each but the first takes ${WORKSPACE_BYTES} bytes of an engine, an eighth of it at most; ` +
        `with max_memory ${max_memory} up to ${most} are allowed`,
    );
  }
}

/** In words: how many threads new engines compute with, and if it is one, why. */
export function describeThreads(workers: number): string {
  if (workers > 0) return `${workers + 1} threads`;
  if (settings.threads === 1) return "1 thread, as configured";
  const why = whyNoWorkers();
  if (why !== null) return `1 thread, because ${why}`;
  return wantedThreads() === 1 ? "1 thread, as there is one processor" : "1 thread, as its memory is small";
}
