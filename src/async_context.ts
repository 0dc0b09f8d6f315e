/**
 * Values that follow asynchronous work, where the runtime can do that.
 *
 * @module
 */

/** What this library needs of Node's `AsyncLocalStorage`, which Deno, Node and Workers have and browsers have not. */
export interface AsyncContext<T> {
  /** The value of the innermost `run` around the current work, if any. */
  getStore(): T | undefined;
  /** Calls `fn` so that it, and all it awaits, sees `value`. */
  run<R>(value: T, fn: () => R): R;
}

type Hooks = { AsyncLocalStorage: new () => AsyncContext<unknown> };

function hooks(): Hooks | undefined {
  const { process } = globalThis as { process?: { getBuiltinModule?: (name: string) => unknown } };
  return process?.getBuiltinModule?.("node:async_hooks") as Hooks | undefined;
}

/** A context of the runtime; null where it has none. */
export function asyncContext<T>(): AsyncContext<T> | null {
  const found = hooks();
  return found === undefined ? null : new found.AsyncLocalStorage() as AsyncContext<T>;
}
