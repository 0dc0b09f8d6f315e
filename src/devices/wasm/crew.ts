/**
 * The threads of this process that help its engines.
 *
 * One crew serves all engines: a main thread records and runs one command at a time, so more threads than one crew
 * has would only take processors from each other. While a command of one engine is offered, another engine that gets
 * a turn works alone.
 *
 * Nothing is lost with a worker. Parts are independent and none of a command's inputs is among its outputs, so what a
 * lost worker had claimed is done again by the main thread. If a kernel is at fault, it fails there too, as it would
 * with one thread. All that matters is that a lost worker writes no more: it said so itself, or was ended some seconds ago.
 *
 * @module
 */
import { warnOnce } from "../../notice.ts";
import type { Command } from "./command.ts";
import {
  ENGINE,
  INSIDE,
  KERNEL,
  LAST_FIRST,
  LEAST,
  LEFT,
  LINE,
  MOST,
  NEXT,
  PARAMS,
  PARKED,
  PARTS,
  READY,
  SEEN,
  SHARES,
  STARTING,
  STATE,
  TICKET,
  WORKERS,
} from "./control.ts";
import { Hand } from "./hand.ts";
import { partsPerCall, type Runner, type Running } from "./running.ts";
import { type Helpers, Shared } from "./spread.ts";
import { workersFor } from "./threads.ts";

/** Cost of a command that is worth a thread's attention: 15 µs of work, of which sharing takes three (bench/NOTES.md). */
export const SHARED_COST = 6e5;

/** Cost of the smallest claim: a claim takes well below a microsecond. */
const CLAIM_COST = 1e5;

/** Cost of shareable work before threads are started: about what starting one takes, 15 ms. */
const START_COST = 5e8;

/** How often, and after how many commands, the main thread looks whether all workers still come. */
const LOOK_MS = 1000, LOOK_COMMANDS = 64;

/** Threads that may be lost, none having worked for a while in between, before no other is started. */
const MOST_LOST = 8;

/** An engine, as its crew needs it. */
export interface Workplace {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  /** Address of the params of the command that runs. */
  readonly params: number;
  /** For each worker the engine has room for, its scratch memory and where its stack begins. */
  readonly workspaces: readonly { readonly scratch: number; readonly stack: number }[];
}

/** Numbers of engines and of their modules' exports. */
interface Known {
  readonly engine: number;
  readonly kernels: ReadonlyMap<string, number>;
}

/** See the module comment. */
export class Crew implements Helpers {
  readonly control: Int32Array<SharedArrayBuffer>;
  /** By the number of their line and workspace. One that was dismissed keeps its place until it is gone. */
  readonly #hands: (Hand | null)[];
  hands: readonly Hand[] = [];
  readonly #places = new Map<Workplace, Known>();
  /** Commands that were shared, and workers that were lost, for tests. */
  shared = 0;
  losses = 0;
  #engines = 0;
  #owed = 0;
  #lost = 0;
  #looked = 0;
  #offered = 0;
  #current: Shared | null = null;
  #changed = () => {};

  /** A crew of at most `size` workers; none is started yet. */
  constructor(size: number) {
    this.control = new Int32Array(new SharedArrayBuffer(4 * (WORKERS + size * LINE)));
    this.#hands = new Array(size).fill(null);
  }

  /** Workers that are ready. */
  get ready(): number {
    return this.hands.filter((hand) => this.#stateOf(hand) === READY && !hand.isDismissed).length;
  }

  /** Workers that are inside a kernel. */
  get inside(): number {
    return this.hands.filter(({ line }) => Atomics.load(this.control, line + INSIDE) !== 0).length;
  }

  /** Begins a command on all threads that are there; null where it is better run on this one alone. */
  share(place: Workplace, command: Command, call: Runner): Running | null {
    if (this.#current !== null || command.parts < 2 || command.cost < SHARED_COST) return null;
    this.#owed += command.cost;
    if (this.#owed < START_COST) return null;
    this.#look();
    this.#fill();
    const workers = this.#introduce(place);
    if (workers === 0) return null;
    const { control } = this, { engine, kernels } = this.#places.get(place)!;
    control[ENGINE] = engine;
    control[KERNEL] = kernels.get(command.kernel)!;
    control[PARAMS] = place.params;
    control[PARTS] = command.parts;
    control[MOST] = partsPerCall(command);
    control[LEAST] = Math.min(control[MOST]!, Math.ceil(CLAIM_COST * command.parts / command.cost));
    control[SHARES] = 2 * (workers + 1);
    control[LAST_FIRST] = command.lastFirst === true ? 1 : 0;
    Atomics.store(control, NEXT, 0);
    Atomics.add(control, TICKET, 1);
    if (Atomics.load(control, PARKED) > 0) Atomics.notify(control, TICKET);
    this.#offered++;
    this.shared++;
    return this.#current = new Shared(this, command, call);
  }

  /** Starts one worker now, for those who ask for threads. Resolves with why there is none, null when it is ready. */
  async start(): Promise<string | null> {
    const hand = this.hands.find((h) => !h.isDismissed) ?? this.#startOne();
    while (hand !== null && this.hands.includes(hand) && this.#stateOf(hand) <= READY) {
      if (this.#stateOf(hand) === READY) return null;
      await new Promise<void>((resolve) => this.#changed = resolve);
    }
    return hand?.reason || "no worker can be started";
  }

  /** Lets go of an engine that closes: none of its commands is offered any more. Without engines the workers end. */
  forget(place: Workplace): void {
    const known = this.#places.get(place);
    if (known === undefined) return;
    this.#places.delete(place);
    for (const hand of this.hands) if (hand.engines.delete(known.engine)) hand.tell({ engine: known.engine });
    if (this.#places.size === 0) this.dismiss();
  }

  /** Ends all workers, each when it is between two commands. New ones are started for work that comes later. */
  dismiss(): void {
    for (const hand of this.hands) hand.dismiss();
    this.#owed = 0;
  }

  lose(hand: Hand): void {
    const at = this.#hands.indexOf(hand);
    if (at === -1) return;
    this.#put(at, null);
    if (hand.isDismissed || this.#stateOf(hand) === LEFT) return;
    this.#lost++;
    this.losses++;
    if (hand.reason === "") return;
    warnOnce(`thread ${hand.reason}`, `A worker thread ended: ${hand.reason}. What it did is done again.`);
  }

  over(): void {
    this.#current = null;
  }

  #put(at: number, hand: Hand | null): void {
    this.#hands[at] = hand;
    this.hands = this.#hands.filter((h) => h !== null);
  }

  #stateOf(hand: Hand): number {
    return Atomics.load(this.control, hand.line + STATE);
  }

  /** Tells workers of an engine they do not know. Returns how many can work for it. */
  #introduce(place: Workplace): number {
    let known = this.#places.get(place);
    if (known === undefined) {
      const names = WebAssembly.Module.exports(place.module).map(({ name }, i) => [name, i] as const);
      this.#places.set(place, known = { engine: ++this.#engines, kernels: new Map(names) });
    }
    let workers = 0;
    for (let i = 0; i < this.#hands.length; i++) {
      const workspace = place.workspaces[i], hand = this.#hands[i];
      if (!hand || hand.isDismissed || workspace === undefined) continue;
      workers++;
      if (hand.engines.has(known.engine)) continue;
      hand.engines.add(known.engine);
      hand.tell({ engine: known.engine, module: place.module, memory: place.memory, ...workspace });
    }
    return workers;
  }

  /** Looks for workers that are gone or no longer come. */
  #look(): void {
    for (const hand of this.hands) {
      if (hand.isDead || this.#stateOf(hand) >= LEFT) this.lose(hand);
    }
    const now = performance.now();
    if (this.#offered < LOOK_COMMANDS || now - this.#looked < LOOK_MS) return;
    this.#looked = now;
    this.#offered = 0;
    for (const hand of this.hands) {
      const seen = this.control[hand.line + SEEN]!;
      if (seen !== hand.seen) this.#lost = 0;
      else if (this.#stateOf(hand) === READY) hand.end();
      hand.seen = seen;
    }
  }

  /** Starts a worker where one is missing: one at a time, as a start stops this thread for some milliseconds. */
  #fill(): void {
    for (const hand of this.hands) if (this.#stateOf(hand) === STARTING) return;
    this.#startOne();
  }

  #startOne(): Hand | null {
    const free = this.#hands.indexOf(null);
    if (free === -1 || this.#lost >= MOST_LOST) return null;
    try {
      const hand = new Hand(this.control, free, (changed) => this.#hear(changed));
      this.#put(free, hand);
      return hand;
    } catch (error) {
      this.#notStarted(error instanceof Error ? error.message : String(error));
      return null;
    }
  }

  /** A worker is ready, or has failed. */
  #hear(hand: Hand): void {
    if (hand.isDead) {
      if (this.#stateOf(hand) === STARTING) this.#notStarted(hand.reason);
      // Inside a command it is the command that must know.
      if (this.#current === null) this.lose(hand);
    }
    this.#changed();
  }

  #notStarted(reason: string): void {
    this.#lost++;
    warnOnce("threads", `Computing on one thread: a worker cannot be started (${reason}).`);
  }
}

let crew: Crew | null = null;

/** The crew of this process; of as many workers as `threads` says when it is made. */
export function theCrew(): Crew {
  return crew ??= new Crew(workersFor(Infinity));
}

/** Tells the crew, if there is one, that an engine closes. */
export function leaveCrew(place: Workplace): void {
  crew?.forget(place);
}

/** Ends the crew; the next engine that has work for one makes another. */
export function endCrew(): void {
  crew?.dismiss();
  crew = null;
}
