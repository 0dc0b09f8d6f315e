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
  /** Called once no scope will dispose it. */
  escape(): void;
}

/** What a function makes, and the scope it runs in. */
interface Scope {
  readonly outer: Scope | null;
  readonly made: Scoped[];
}

let current: Scope | null = null;

/** Adds a new tensor to the scope that is active, if any. Called by the tensor itself. */
export function enlist(tensor: Scoped): void {
  hand(tensor, current);
}

function hand(tensor: Scoped, scope: Scope | null): void {
  if (scope === null) tensor.escape();
  else scope.made.push(tensor);
}

/** Takes a tensor out of the active scope, so that it outlives it and belongs to the caller. */
export function keep<T extends Scoped>(tensor: T): T {
  const at = current?.made.lastIndexOf(tensor) ?? -1;
  if (at >= 0) {
    current!.made.splice(at, 1);
    tensor.escape();
  }
  return tensor;
}

/**
 * Runs `fn` and disposes every tensor it made, except those in its result (nested arrays and plain objects are
 * searched) and those passed to {@linkcode keep}. Returned tensors belong to the enclosing scope or the caller.
 *
 * @throws {InvalidArgument} when `fn` returns a promise: work after its first `await` would escape the scope.
 */
export function tidy<T>(fn: () => T): T {
  const scope = { outer: current, made: [] };
  const result = enter(scope, fn);
  if (result instanceof Promise) {
    result.catch(() => {});
    close(scope, undefined);
    throw new InvalidArgument(
      "Cannot tidy an async function: expected a synchronous one; use `using` for its tensors",
    );
  }
  close(scope, result);
  return result;
}

/**
 * As {@linkcode tidy} for a function that may be asynchronous: what it made before its first `await` is disposed
 * when it settles; what it made later is its own.
 */
export function tidySettled<T>(fn: () => T | Promise<T>): T | Promise<T> {
  const scope: Scope = { outer: current, made: [] };
  const result = enter(scope, fn);
  if (!(result instanceof Promise)) {
    close(scope, result);
    return result;
  }
  // It may never settle.
  for (const t of scope.made) t.escape();
  return result.then((value) => {
    close(scope, value);
    return value;
  }, (error) => {
    close(scope, undefined);
    throw error;
  });
}

/** Runs `fn` in a new scope, which is closed when it throws. */
function enter<T>(scope: Scope, fn: () => T): T {
  current = scope;
  try {
    return fn();
  } catch (error) {
    close(scope, undefined);
    throw error;
  } finally {
    current = scope.outer;
  }
}

/** Disposes what a scope collected and `result` does not hold, and hands the rest to the outer scope. */
function close({ outer, made }: Scope, result: unknown): void {
  const kept = new Set<Scoped>();
  collect(kept, result);
  for (const t of made) {
    if (!kept.has(t)) t[Symbol.dispose]();
    else hand(t, outer);
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
