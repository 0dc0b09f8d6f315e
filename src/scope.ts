/**
 * Scopes collect the tensors made inside them, so that intermediate results need no bookkeeping.
 *
 * A scope is synchronous: it covers what a function makes before it returns. Asynchronous code uses `using`.
 *
 * @module
 */
import { InvalidArgument } from "./errors.ts";

/** What a scope collects. */
interface Scoped extends Disposable {
  readonly isTensor: true;
}

let current: Set<Scoped> | null = null;

/** Adds a new tensor to the scope that is active, if any. Called by the tensor itself. */
export function enlist(tensor: Scoped): void {
  current?.add(tensor);
}

/** Takes a tensor out of the active scope, so that it outlives it and belongs to the caller. */
export function keep<T extends Scoped>(tensor: T): T {
  current?.delete(tensor);
  return tensor;
}

/**
 * Runs `fn` and disposes every tensor it made, except those in its result (nested arrays and plain objects are
 * searched) and those passed to {@linkcode keep}. Returned tensors belong to the enclosing scope or the caller.
 *
 * @throws {InvalidArgument} when `fn` returns a promise: work after its first `await` would escape the scope.
 */
export function tidy<T>(fn: () => T): T {
  const { result, close } = enter(fn);
  if (result instanceof Promise) {
    result.catch(() => {});
    close(undefined);
    throw new InvalidArgument(
      "Cannot tidy an async function: expected a synchronous one; use `using` for its tensors",
    );
  }
  close(result);
  return result;
}

/**
 * As {@linkcode tidy} for a function that may be asynchronous: what it made before its first `await` is disposed
 * when it settles; what it made later is its own.
 */
export function tidySettled<T>(fn: () => T | Promise<T>): T | Promise<T> {
  const { result, close } = enter(fn);
  if (!(result instanceof Promise)) {
    close(result);
    return result;
  }
  return result.then((value) => {
    close(value);
    return value;
  }, (error) => {
    close(undefined);
    throw error;
  });
}

/** Runs `fn` in a new scope; `close` disposes what `result` does not hold and hands the rest to the outer scope. */
function enter<T>(fn: () => T): { result: T; close: (result: unknown) => void } {
  const outer = current;
  const scope = new Set<Scoped>();
  const close = (result: unknown) => {
    const kept = new Set<Scoped>();
    collect(kept, result);
    for (const t of scope) {
      if (!kept.has(t)) t[Symbol.dispose]();
      else outer?.add(t);
    }
  };
  current = scope;
  try {
    return { result: fn(), close };
  } catch (error) {
    close(undefined);
    throw error;
  } finally {
    current = outer;
  }
}

/** The tensors inside plain nested arrays and records. */
function collect(into: Set<Scoped>, value: unknown): void {
  if (typeof value !== "object" || value === null) return;
  if ("isTensor" in value) into.add(value as Scoped);
  else if (Array.isArray(value)) value.forEach((v) => collect(into, v));
  else if (Object.getPrototypeOf(value) === Object.prototype) {
    Object.values(value).forEach((v) => collect(into, v));
  }
}
