/**
 * How the parts of one command get done: here alone, or by {@linkcode "./crew.ts"} on several threads.
 *
 * @module
 */
import type { Command } from "./command.ts";

/** Cost of one call into WASM, so that a call takes about a millisecond even in the baseline compiler. */
export const CALL_COST = 1e7;

/** Most parts one call should do. */
export function partsPerCall({ parts, cost }: Command): number {
  return Math.max(1, Math.floor(CALL_COST * parts / Math.max(cost, 1)));
}

/** Runs a command's parts `begin..end` on this thread. */
export type Runner = (command: Command, begin: number, end: number) => void;

/** A command that has begun. */
export interface Running {
  /**
   * Does some parts on this thread. `"waiting"`: none are left, but other threads are not done with theirs.
   *
   * @throws what the kernel throws
   */
  step(): "more" | "waiting" | "done";
  /** Blocks until another thread is done, at most about `ms`; may return sooner. */
  wait(ms: number): void;
  /** Gives up what is left. Returns once no other thread is at work. */
  halt(): void;
}

/** Runs commands on this thread, one at a time. */
export class Alone implements Running {
  readonly #call: Runner;
  #command: Command | null = null;
  #part = 0;
  #step = 1;

  constructor(call: Runner) {
    this.#call = call;
  }

  /** Begins a command. The last one is done or halted. */
  begin(command: Command): this {
    this.#command = command;
    this.#part = 0;
    this.#step = partsPerCall(command);
    return this;
  }

  step(): "more" | "done" {
    const command = this.#command!, begin = this.#part;
    this.#part = Math.min(command.parts, begin + this.#step);
    if (this.#part > begin) this.#call(command, begin, this.#part);
    return this.#part < command.parts ? "more" : "done";
  }

  wait(): void {}

  halt(): void {}
}
