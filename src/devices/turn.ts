/**
 * Turns of the event loop: long work stops now and then so that timers, streams and aborts are served.
 *
 * @module
 */

/** Longest stretch of work between two turns, in milliseconds: short, so that a busy machine still serves timers. */
export const SLICE_MS = 4;

let last = 0;

/** Lets the event loop turn once. `setImmediate` costs about 7 µs in Deno; a nested `setTimeout` 1–4 ms. */
export function turn(): Promise<void> {
  return new Promise<void>((resolve) => {
    const done = () => {
      last = performance.now();
      resolve();
    };
    if (typeof setImmediate === "function") setImmediate(done);
    else if (typeof MessageChannel === "function") {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => {
        port1.close();
        done();
      };
      port2.postMessage(0);
    } else setTimeout(done, 0);
  });
}

/** Whether the last turn lies so far back that one is due. */
export function turnIsDue(): boolean {
  return performance.now() - last > SLICE_MS;
}
