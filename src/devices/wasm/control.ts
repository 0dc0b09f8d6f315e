/**
 * The words that the threads of a crew share, apart from the engines' memories.
 *
 * Threads meet by tickets. A command is offered by raising {@linkcode TICKET} to an odd number; whoever comes claims
 * parts from {@linkcode NEXT} until none are left, and it is closed by raising the ticket again. A worker says that it
 * is inside before it looks at the ticket a second time, and the main thread closes before it looks who is inside, so
 * nobody begins to work on a command that has ended, and nobody waits for a worker that has not come.
 *
 * Words that different threads write lie {@linkcode LINE} apart: processors fetch two cache lines at a time.
 *
 * @module
 */

/** Words between places that different threads write. */
export const LINE = 32;

/** Odd while a command is offered. Workers sleep on it. */
export const TICKET = 0;
/** The first part nobody has claimed. */
export const NEXT = LINE;
/** What is offered, written before the ticket: engine, kernel, address of the params. */
export const ENGINE = 2 * LINE, KERNEL = ENGINE + 1, PARAMS = ENGINE + 2;
/** … its parts, the least and most of them in a claim, what a claim divides the rest by, and whether the last go first. */
export const PARTS = ENGINE + 3,
  LEAST = ENGINE + 4,
  MOST = ENGINE + 5,
  SHARES = ENGINE + 6,
  LAST_FIRST = ENGINE + 7;
/** Workers that sleep. */
export const PARKED = 3 * LINE;
/** Raised by a worker that goes while the main thread sleeps on it, and whether that is so. */
export const BELL = 4 * LINE, LISTENING = 5 * LINE;
/** From here on a line for each worker. */
export const WORKERS = 6 * LINE;

/** In a worker's line: whether it may be inside a kernel, and the parts it claimed last. */
export const INSIDE = 0, BEGIN = 1, END = 2;
/** … the messages sent to it, which it leaves its sleep for; what became of it; how often it has come to work. */
export const MAIL = 3, STATE = 4, SEEN = 5;

/** States: started but not there yet, at work, gone by itself, gone because a kernel or its start failed. */
export const STARTING = 0, READY = 1, LEFT = 2, FAILED = 3;
