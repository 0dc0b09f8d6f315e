/**
 * One command on several threads: what the main thread does of it, and how it ends.
 *
 * @module
 */
import type { Command } from "./command.ts";
import {
  BEGIN,
  BELL,
  END,
  FAILED,
  INSIDE,
  LAST_FIRST,
  LEAST,
  LISTENING,
  MOST,
  NEXT,
  SHARES,
  STATE,
  TICKET,
} from "./control.ts";
import type { Hand } from "./hand.ts";
import type { Runner, Running } from "./running.ts";

/** How long a worker may be inside after everybody else is done before it is ended, in milliseconds. */
const STALL_MS = 3000;

/** How long the main thread looks for the others' end before it sleeps, in milliseconds. */
const SPIN_MS = 0.05;

/** What a shared command needs of its crew. */
export interface Helpers {
  readonly control: Int32Array<SharedArrayBuffer>;
  /** The workers there are. */
  readonly hands: readonly Hand[];
  /** Forgets a worker that has ended. */
  lose(hand: Hand): void;
  /** The command is over: no worker is inside. */
  over(): void;
}

/** See the module comment. It is offered when this is made. */
export class Shared implements Running {
  readonly #helpers: Helpers;
  readonly #control: Int32Array<SharedArrayBuffer>;
  readonly #command: Command;
  readonly #call: Runner;
  /** Claims of workers that were lost: done again here. */
  readonly #again: { begin: number; end: number }[] = [];
  #offered = true;
  #waitingSince = 0;

  constructor(helpers: Helpers, command: Command, call: Runner) {
    this.#helpers = helpers;
    this.#control = helpers.control;
    this.#command = command;
    this.#call = call;
  }

  step(): "more" | "waiting" | "done" {
    const claim = this.#again.pop() ?? this.#claim();
    if (claim !== null) {
      this.#run(claim.begin, claim.end);
      return "more";
    }
    this.#close();
    if (!this.#isQuiet()) {
      this.#endStalled();
      return "waiting";
    }
    if (this.#again.length > 0) return "more";
    this.#helpers.over();
    return "done";
  }

  wait(ms: number): void {
    const control = this.#control, start = performance.now();
    while (this.#isInside()) {
      const spent = performance.now() - start;
      if (spent < SPIN_MS) continue;
      if (spent >= ms) return;
      const rung = Atomics.load(control, BELL);
      Atomics.store(control, LISTENING, 1);
      try {
        if (this.#isInside()) Atomics.wait(control, BELL, rung, ms - spent);
      } catch {
        // The main thread of a page may not sleep: the event loop turns instead.
        return;
      } finally {
        Atomics.store(control, LISTENING, 0);
      }
    }
  }

  halt(): void {
    Atomics.store(this.#control, NEXT, this.#command.parts);
    this.#close();
    while (!this.#isQuiet()) {
      this.#endStalled();
      this.wait(10);
    }
    this.#helpers.over();
  }

  #run(begin: number, end: number): void {
    const { parts } = this.#command;
    if (this.#control[LAST_FIRST] !== 0) this.#call(this.#command, parts - end, parts - begin);
    else this.#call(this.#command, begin, end);
  }

  /** As the workers do: shares of what is left, so that all are done at the same time. */
  #claim(): { begin: number; end: number } | null {
    const control = this.#control, { parts } = this.#command;
    for (let begin = Atomics.load(control, NEXT); begin < parts;) {
      const share = Math.floor((parts - begin) / control[SHARES]!);
      const end = Math.min(parts, begin + Math.min(control[MOST]!, Math.max(control[LEAST]!, share)));
      const found = Atomics.compareExchange(control, NEXT, begin, end);
      if (found === begin) return { begin, end };
      begin = found;
    }
    return null;
  }

  #close(): void {
    if (this.#offered) Atomics.add(this.#control, TICKET, 1);
    this.#offered = false;
  }

  #isInside(): boolean {
    for (const hand of this.#helpers.hands) {
      if (Atomics.load(this.#control, hand.line + INSIDE) !== 0 && !hand.isDead) return true;
    }
    return false;
  }

  /** Whether no worker is inside. What lost ones had claimed is noted. */
  #isQuiet(): boolean {
    if (this.#isInside()) return false;
    const control = this.#control;
    for (const hand of this.#helpers.hands) {
      const { line } = hand;
      const lost = Atomics.load(control, line + STATE) === FAILED ||
        hand.isDead && Atomics.load(control, line + INSIDE) !== 0;
      if (!lost) continue;
      const begin = control[line + BEGIN]!, end = Math.min(this.#command.parts, control[line + END]!);
      if (begin < end) this.#again.push({ begin, end });
      this.#helpers.lose(hand);
    }
    return true;
  }

  /** Ends workers that take far too long. Until they have ended they may write. */
  #endStalled(): void {
    const now = performance.now();
    if (this.#waitingSince === 0) this.#waitingSince = now;
    if (now - this.#waitingSince < STALL_MS) return;
    for (const hand of this.#helpers.hands) {
      if (Atomics.load(this.#control, hand.line + INSIDE) !== 0) hand.end();
    }
  }
}
