/**
 * Worker threads: whether there can be any, how one is started, and how its end is known.
 *
 * @module
 */
import { LINE, MAIL, TICKET, WORKERS } from "./control.ts";
import { type Letter, WORKER_SOURCE } from "./worker_source.ts";

/** Why there can be no worker threads here; null where there can. */
export function whyNoWorkers(): string | null {
  if (typeof SharedArrayBuffer !== "function") {
    return "there is no SharedArrayBuffer: a page must be cross-origin isolated (headers Cross-Origin-Opener-Policy " +
      "same-origin and Cross-Origin-Embedder-Policy require-corp)";
  }
  if (typeof Worker !== "function") return "there is no Worker";
  return null;
}

/**
 * How long a thread that is ended may still run, in milliseconds. Nothing tells of its end; Deno lets the script go on
 * for two seconds and stops it then, others stop it at once.
 */
const END_MS = 4000;

/**
 * A Deno process lives as long as its Workers, and they have no public `unref`. What its own `node:worker_threads` uses
 * for that is a method under a symbol without a name. That module itself would take 90 ms more to start a thread.
 * Without the symbol, an idle worker ends by itself and lets the process go.
 */
function unref(worker: Worker): void {
  if (!("Deno" in globalThis)) return;
  for (let at = Object.getPrototypeOf(worker); at !== null; at = Object.getPrototypeOf(at)) {
    const methods: Record<symbol, unknown> = at;
    for (const symbol of Object.getOwnPropertySymbols(methods)) {
      const method = methods[symbol];
      if (symbol.description === undefined && typeof method === "function") method.call(worker, false);
    }
  }
}

/** One worker thread as the main thread sees it. */
export class Hand {
  /** Where its line of the control words begins. */
  readonly line: number;
  /** What went wrong, as far as it said so. */
  reason = "";
  /** Set once it was told to leave. */
  isDismissed = false;
  /** How often it had come when it was last looked at. */
  seen = -1;
  /** Engines it was told of. */
  readonly engines = new Set<number>();
  readonly #control: Int32Array<SharedArrayBuffer>;
  readonly #worker: Worker;
  /** When it was ended, and from when on it writes nothing any more. */
  #dead = Infinity;

  /**
   * Starts a thread. `changed` is called when it is ready and when it failed.
   *
   * @throws where the runtime refuses at once
   */
  constructor(control: Int32Array<SharedArrayBuffer>, index: number, changed: (hand: Hand) => void) {
    this.#control = control;
    this.line = WORKERS + index * LINE;
    control.fill(0, this.line, this.line + LINE);
    const url = URL.createObjectURL(new Blob([WORKER_SOURCE], { type: "text/javascript" }));
    this.#worker = new Worker(url, { type: "module", name: "attune" });
    this.#worker.onmessage = ({ data }: MessageEvent<{ failed?: string }>) => {
      URL.revokeObjectURL(url);
      // Not before: while it starts, somebody may wait for it and for nothing else.
      unref(this.#worker);
      if (data.failed !== undefined) this.reason = data.failed;
      changed(this);
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.reason = event.message === "" ? "its script was refused" : event.message;
      // The error was thrown between commands, so the thread is not inside one.
      this.end();
      this.#dead = 0;
      changed(this);
    };
    this.tell({ control, line: this.line });
  }

  /** Sends a message, which the worker reads before the next command. */
  tell(letter: Letter): void {
    this.#worker.postMessage(letter);
    Atomics.add(this.#control, this.line + MAIL, 1);
    // By two: what is offered stays offered.
    Atomics.add(this.#control, TICKET, 2);
    Atomics.notify(this.#control, TICKET);
  }

  /** Ends the thread when it is between two commands. */
  dismiss(): void {
    this.isDismissed = true;
    this.tell({ leave: true });
  }

  /** Ends the thread wherever it is; `isDead` says when it has ended. */
  end(): void {
    if (this.#dead < Infinity) return;
    this.#worker.terminate();
    this.#dead = performance.now() + END_MS;
  }

  /** Whether the thread has ended: it writes nothing any more. */
  get isDead(): boolean {
    return this.#dead < Infinity && performance.now() > this.#dead;
  }
}
