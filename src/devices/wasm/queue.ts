/**
 * The ordered work of one WASM engine: kernel calls and writes, run in slices.
 *
 * @module
 */
import { EngineFailure } from "../../errors.ts";
import { turn, turnIsDue } from "../turn.ts";
import type { Command } from "./command.ts";
import { Alone, type Runner, type Running } from "./running.ts";

/** How long the thread sleeps on others at a time, in milliseconds: less than a slice, so that the event loop turns. */
const SLEEP_MS = 1;

/** Longest queue before it is run without waiting for a flush, so that it cannot grow without bound. */
const LONGEST = 20_000;

/** A kernel call, or anything else that must happen in order. */
type Entry = Command | (() => void);

/** Stands for a command that was dropped, so that the others keep their numbers. */
const nothing = () => {};

/** Somebody who waits until entries `from…end` have run. */
interface Waiting {
  readonly from: number;
  readonly end: number;
  readonly signal: AbortSignal | undefined;
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
}

/** First in, first out; see {@linkcode Queue.run}. */
export class Queue {
  #entries: Entry[] = [];
  /** Number of the first of `#entries`, counting all there ever were. */
  #base = 0;
  #next = 0;
  /** The command `#next`, once it has begun. */
  #begun: Running | null = null;
  #running = false;
  readonly #waiting = new Set<Waiting>();
  readonly #alone: Alone;
  readonly #share: (command: Command) => Running | null;
  /** Set when a kernel trapped: nothing runs afterwards. */
  failure: EngineFailure | null = null;

  /** Runs commands by `call`, or as `share` says where it begins one. */
  constructor(call: Runner, share: (command: Command) => Running | null = () => null) {
    this.#alone = new Alone(call);
    this.#share = share;
  }

  /** Whether everything recorded has run. */
  get isEmpty(): boolean {
    return this.#next === this.#entries.length;
  }

  /** Number of the entry that is recorded next, to tell one caller's work from another's. */
  get mark(): number {
    return this.#base + this.#entries.length;
  }

  /** Appends work. */
  push(entry: Entry): void {
    this.#entries.push(entry);
    if (this.#entries.length - this.#next > LONGEST && !this.#running) this.runNow();
  }

  /** Runs everything without a turn of the event loop. */
  runNow(): void {
    while (!this.isEmpty) this.#slice();
    this.#clear();
  }

  /**
   * Runs everything recorded so far, letting the event loop turn. When `signal` aborts, what was recorded since `from`
   * and has not run is dropped, what others recorded is not, and the promise rejects with the signal's reason.
   */
  async run(signal?: AbortSignal, from = 0): Promise<void> {
    if (this.failure !== null) throw this.failure;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiting.add({ from, end: this.mark, signal, resolve, reject });
    if (!this.#running) void this.#drain();
    await promise;
    if (this.failure !== null) throw this.failure;
  }

  /** Runs until nobody waits any more. */
  async #drain(): Promise<void> {
    this.#running = true;
    try {
      while (this.#waiting.size > 0) {
        if (turnIsDue()) await turn();
        this.#settle();
        if (this.#waiting.size > 0) this.#slice();
        if (this.#next > LONGEST) this.#clear();
      }
      this.#clear();
    } catch (error) {
      for (const { reject } of this.#waiting) reject(error);
      this.#waiting.clear();
    } finally {
      this.#running = false;
    }
  }

  /** Answers those whose entries have run, and those who gave up. */
  #settle(): void {
    for (const waiting of this.#waiting) {
      const { from, end, signal, resolve, reject } = waiting;
      if (signal?.aborted) {
        this.#dropCommands(from, end);
        reject(signal.reason);
      } else if (this.#base + this.#next >= end) resolve();
      else continue;
      this.#waiting.delete(waiting);
    }
  }

  /** Forgets commands `from…end` that have not run. Writes of host data stay in their place: their tensors live on. */
  #dropCommands(from: number, end: number): void {
    const first = Math.max(from - this.#base, this.#next), last = end - this.#base;
    if (first === this.#next && first < last) this.#halt();
    for (let i = first; i < last; i++) {
      const entry = this.#entries[i]!;
      if (typeof entry === "function") continue;
      for (const allocation of entry.writes) allocation.dropped = true;
      this.#entries[i] = nothing;
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
    try {
      this.#begun ??= this.#share(entry) ?? this.#alone.begin(entry);
      const state = this.#begun.step();
      if (state === "more") return;
      if (state === "waiting") return this.#begun.wait(SLEEP_MS);
    } catch (error) {
      this.failure = new EngineFailure(
        `Kernel "${entry.kernel}" failed (${error instanceof Error ? error.message : String(error)}); ` +
          "this engine is closed, load the model again",
        { cause: error },
      );
      this.drop();
      throw this.failure;
    }
    this.#begun = null;
    this.#next++;
  }

  /** Stops the command that has begun. */
  #halt(): void {
    const begun = this.#begun;
    this.#begun = null;
    begun?.halt();
  }

  /** Forgets what has not run and marks what it would have filled. */
  drop(): void {
    this.#halt();
    for (const entry of this.#entries.slice(this.#next)) {
      if (typeof entry === "function") entry();
      else for (const allocation of entry.writes) allocation.dropped = true;
    }
    this.#next = this.#entries.length;
    this.#clear();
  }

  /** Lets go of what has run. */
  #clear(): void {
    this.#base += this.#next;
    this.#entries.splice(0, this.#next);
    this.#next = 0;
  }
}
