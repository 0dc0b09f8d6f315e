/**
 * The ordered work of one WASM engine: kernel calls and writes, run in slices.
 *
 * @module
 */
import { EngineFailure } from "../../errors.ts";
import { breathe, turnIsDue } from "../turn.ts";
import type { Command } from "./command.ts";

/** Cost of one call into WASM, so that a call takes a few milliseconds even in the baseline compiler. */
const CALL_COST = 3e7;

/** Longest queue before it is run without waiting for a flush, so that it cannot grow without bound. */
const LONGEST = 20_000;

/** A kernel call, or anything else that must happen in order. */
type Entry = Command | (() => void);

/** Runs one command's parts `begin..end`. */
export type Runner = (command: Command, begin: number, end: number) => void;

/** First in, first out; see {@linkcode Queue.run}. */
export class Queue {
  #entries: Entry[] = [];
  #next = 0;
  #part = 0;
  #running: Promise<void> | null = null;
  readonly #call: Runner;
  /** Set when a kernel trapped: nothing runs afterwards. */
  failure: EngineFailure | null = null;

  constructor(call: Runner) {
    this.#call = call;
  }

  /** Whether everything recorded has run. */
  get isEmpty(): boolean {
    return this.#next === this.#entries.length;
  }

  /** Appends work. */
  push(entry: Entry): void {
    this.#entries.push(entry);
    if (this.#entries.length - this.#next > LONGEST && this.#running === null) this.runNow();
  }

  /** Runs everything without a turn of the event loop. */
  runNow(): void {
    while (!this.isEmpty) this.#slice();
    this.#clear();
  }

  /** Runs everything, letting the event loop turn; an abort drops what is left and rejects. */
  async run(signal?: AbortSignal): Promise<void> {
    while (!this.isEmpty) {
      const mine = this.#running === null;
      this.#running ??= this.#drain(signal).finally(() => this.#running = null);
      try {
        await this.#running;
      } catch (error) {
        // An abort by whoever runs the queue is not ours: what it dropped is marked and read as such.
        if (mine || this.failure !== null) throw error;
      }
    }
    if (this.failure !== null) throw this.failure;
  }

  async #drain(signal?: AbortSignal): Promise<void> {
    try {
      await breathe(signal);
      while (!this.isEmpty) {
        this.#slice();
        if (turnIsDue()) await breathe(signal);
      }
      this.#clear();
    } catch (error) {
      this.drop();
      throw error;
    }
  }

  /** Runs one call's worth of parts. */
  #slice(): void {
    const entry = this.#entries[this.#next]!;
    if (typeof entry === "function") {
      entry();
      this.#next++;
      return;
    }
    const step = Math.max(1, Math.floor(CALL_COST * entry.parts / Math.max(entry.cost, 1)));
    const end = Math.min(entry.parts, this.#part + step);
    try {
      if (end > this.#part) this.#call(entry, this.#part, end);
    } catch (error) {
      this.failure = new EngineFailure(
        `Kernel "${entry.kernel}" failed (${error instanceof Error ? error.message : String(error)}); ` +
          "this engine is closed, load the model again",
        { cause: error },
      );
      this.drop();
      throw this.failure;
    }
    this.#part = end;
    if (end === entry.parts) {
      this.#part = 0;
      this.#next++;
    }
  }

  /** Forgets what has not run and marks what it would have filled. */
  drop(): void {
    for (const entry of this.#entries.slice(this.#next)) {
      if (typeof entry === "function") entry();
      else for (const allocation of entry.writes) allocation.dropped = true;
    }
    this.#clear();
  }

  #clear(): void {
    this.#entries = [];
    this.#next = 0;
    this.#part = 0;
  }
}
