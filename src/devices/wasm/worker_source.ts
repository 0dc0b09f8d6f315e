/**
 * The program of a worker thread. It is text, so that it needs no file beside it and no bundler changes it: functions
 * turned back into text break where a build adds calls of its own to them.
 *
 * It gets the control words, then engines: a compiled module and the memory it runs on. Messages are only read between
 * commands, as a sleeping thread reads none: whoever sends one raises the worker's MAIL and wakes it.
 *
 * @module
 */
import {
  BEGIN,
  BELL,
  END,
  ENGINE,
  FAILED,
  INSIDE,
  KERNEL,
  LAST_FIRST,
  LEAST,
  LEFT,
  LISTENING,
  MAIL,
  MOST,
  NEXT,
  PARAMS,
  PARKED,
  PARTS,
  READY,
  SEEN,
  SHARES,
  STATE,
  TICKET,
} from "./control.ts";

/** What a worker is told first. */
export interface Greeting {
  readonly control: Int32Array<SharedArrayBuffer>;
  /** Where its line begins. */
  readonly line: number;
}

/** An engine to work for. */
export interface Post {
  readonly engine: number;
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  /** The thread's scratch memory, and where its stack begins, from where it grows down. */
  readonly scratch: number;
  readonly stack: number;
}

/** Everything a worker is told: an engine's number alone means that it has closed. */
export type Letter = Greeting | Post | { readonly engine: number } | { readonly leave: true };

/** How long a worker looks for the next command before it sleeps, in milliseconds: about what waking it would take. */
const SPIN_MS = 0.05;

/** How long it sleeps before it ends, in milliseconds: an idle thread is memory, and a new one takes 20 ms. */
export const IDLE_MS = 3000;

/** The source of a classic script or module. */
export const WORKER_SOURCE = `"use strict";
const { add, compareExchange, load, notify, store, sub, wait } = Atomics;
const pause = Atomics.pause ?? (() => {});
const engines = new Map();
let control, line, received = 0, done = 0;

onmessage = ({ data }) => {
  received++;
  try {
    read(data);
    if (line !== undefined && !data.leave) loop();
  } catch (error) {
    fail(error);
  }
};

function read(letter) {
  if (letter.leave) return leave();
  if (letter.control) {
    ({ control, line } = letter);
    store(control, line + ${STATE}, ${READY});
    return postMessage({ ready: true });
  }
  const { engine, module, memory, scratch, stack } = letter;
  if (module === undefined) return engines.delete(engine);
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  exports.__stack_pointer.value = stack;
  const kernels = WebAssembly.Module.exports(module).map(({ name }) => exports[name]);
  engines.set(engine, { kernels, scratch });
}

function leave() {
  store(control, line + ${STATE}, ${LEFT});
  close();
}

function fail(error) {
  postMessage({ failed: String(error) });
  store(control, line + ${STATE}, ${FAILED});
  store(control, line + ${INSIDE}, 0);
  ring();
  close();
}

function ring() {
  if (load(control, ${LISTENING}) === 0) return;
  add(control, ${BELL}, 1);
  notify(control, ${BELL});
}

function loop() {
  for (let since = performance.now();;) {
    const ticket = load(control, ${TICKET});
    if (load(control, line + ${MAIL}) !== received) return;
    if (ticket % 2 !== 0 && ticket !== done) {
      work(ticket);
      done = ticket;
      since = performance.now();
      continue;
    }
    for (let i = 0; i < 16; i++) pause();
    if (performance.now() - since < ${SPIN_MS}) continue;
    add(control, ${PARKED}, 1);
    const woken = wait(control, ${TICKET}, ticket, ${IDLE_MS});
    sub(control, ${PARKED}, 1);
    if (woken === "timed-out") return leave();
    since = performance.now();
  }
}

function work(ticket) {
  control[line + ${BEGIN}] = control[line + ${END}] = 0;
  store(control, line + ${INSIDE}, 1);
  if (load(control, ${TICKET}) === ticket) {
    const engine = engines.get(control[${ENGINE}]);
    if (engine !== undefined) {
      run(engine.kernels[control[${KERNEL}]], engine.scratch);
    }
    control[line + ${SEEN}]++;
  }
  store(control, line + ${INSIDE}, 0);
  ring();
}

function run(kernel, scratch) {
  const params = control[${PARAMS}], parts = control[${PARTS}], last = control[${LAST_FIRST}] !== 0;
  const least = control[${LEAST}], most = control[${MOST}], shares = control[${SHARES}];
  for (let begin = load(control, ${NEXT}); begin < parts;) {
    const size = Math.min(most, Math.max(least, Math.floor((parts - begin) / shares)));
    const end = Math.min(parts, begin + size);
    // Before the claim: whatever ends this thread, the main thread knows which parts to do again.
    control[line + ${BEGIN}] = begin;
    store(control, line + ${END}, end);
    const found = compareExchange(control, ${NEXT}, begin, end);
    if (found === begin) {
      if (last) kernel(params, scratch, parts - end, parts - begin);
      else kernel(params, scratch, begin, end);
      begin = load(control, ${NEXT});
    } else begin = found;
  }
}
`;
