/**
 * Loaded before tests (`deno test --preload`), puts Dawn in the place of the runtime's own WebGPU: every test that
 * asks `navigator.gpu` then runs on the implementation browsers of the Chromium family have.
 *
 * @module
 */
import { openDawn } from "./dawn.ts";

// Dawn asks for its turn of the event loop by `setImmediate`, which in `deno test` starves the work it waits for: a
// read of the second test never ends, on a core that is fully busy.
Object.defineProperty(globalThis, "setImmediate", {
  value: (fn: (...args: unknown[]) => void, ...args: unknown[]) => setTimeout(fn, 0, ...args),
});

Object.defineProperty(navigator, "gpu", { value: await openDawn([]), configurable: true });
