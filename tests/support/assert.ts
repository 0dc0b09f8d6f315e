/**
 * The assertions the tests use, with the names and signatures of `jsr:@std/assert@1`, over `node:util`.
 *
 * Tests import `@std/assert`; deno.json maps that to this file so that a run needs no network. Mapping it to
 * `jsr:@std/assert@1` instead changes nothing.
 *
 * @module
 */
import { inspect } from "node:util";

/** What a failed assertion throws. */
export class AssertionError extends Error {
  override readonly name = "AssertionError";
}

/** A constructor of `T`, abstract or not. */
type Class<T> = abstract new (...args: never[]) => T;

function show(x: unknown): string {
  return inspect(x, { depth: 6, maxArrayLength: 64, maxStringLength: 2000, breakLength: 110, sorted: true });
}

function refuse(text: string, msg: string | undefined): never {
  throw new AssertionError(msg === undefined ? text : `${text}: ${msg}`);
}

/** Structural equality. As in `@std/assert`, NaN equals NaN and 0 equals −0. */
export function equal(a: unknown, b: unknown): boolean {
  return difference(a, b, "", new Map()) === null;
}

/** Where `a` and `b` first differ, as a path, or null. */
function difference(a: unknown, b: unknown, path: string, seen: Map<unknown, unknown>): string | null {
  if (a === b || Object.is(a, b)) return null;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return path;
  if (seen.get(a) === b) return null;
  if ((Object.getPrototypeOf(a) ?? Object.prototype) !== (Object.getPrototypeOf(b) ?? Object.prototype)) {
    return path;
  }
  seen.set(a, b);
  if (a instanceof Date && b instanceof Date) return equal(a.getTime(), b.getTime()) ? null : path;
  if ((a instanceof RegExp && b instanceof RegExp) || (a instanceof URL && b instanceof URL)) {
    return String(a) === String(b) ? null : path;
  }
  if (a instanceof ArrayBuffer && b instanceof ArrayBuffer) {
    return difference(new Uint8Array(a), new Uint8Array(b), path, seen);
  }
  if (a instanceof DataView && b instanceof DataView) {
    const bytes = (v: DataView) => new Uint8Array(v.buffer, v.byteOffset, v.byteLength);
    return difference(bytes(a), bytes(b), path, seen);
  }
  if (a instanceof Set && b instanceof Set) {
    const inB = (x: unknown) => b.has(x) || [...b].some((y) => equal(x, y));
    return a.size === b.size && [...a].every(inB) ? null : path;
  }
  if (a instanceof Map && b instanceof Map) {
    const other = (x: unknown) => b.has(x) ? x : [...b.keys()].find((y) => equal(x, y));
    if (a.size !== b.size) return path;
    for (const [key, value] of a) {
      const match = other(key);
      if (!b.has(match)) return `${path}.get(${show(key)})`;
      const at = difference(value, b.get(match), `${path}.get(${show(key)})`, seen);
      if (at !== null) return at;
    }
    return null;
  }
  if (ArrayBuffer.isView(a) && ArrayBuffer.isView(b)) {
    const x = a as unknown as ArrayLike<unknown>, y = b as unknown as ArrayLike<unknown>;
    if (x.length !== y.length) return `${path}.length`;
    for (let i = 0; i < x.length; i++) if (x[i] !== y[i] && !Object.is(x[i], y[i])) return `${path}[${i}]`;
    return null;
  }
  if (a instanceof Error && b instanceof Error && a.message !== b.message) return `${path}.message`;
  if (Array.isArray(a) && Array.isArray(b) && a.length !== b.length) return `${path}.length`;
  const x = a as Record<PropertyKey, unknown>, y = b as Record<PropertyKey, unknown>;
  const symbols = (o: object) =>
    Object.getOwnPropertySymbols(o).filter((s) => Object.prototype.propertyIsEnumerable.call(o, s));
  const keys: PropertyKey[] = [...Object.keys(x), ...symbols(x)];
  if (keys.length !== Object.keys(y).length + symbols(y).length) return path === "" ? "(keys)" : path;
  for (const key of keys) {
    const step = Array.isArray(a) ? `${path}[${String(key)}]` : `${path}.${String(key)}`;
    if (!Object.hasOwn(y, key)) return step;
    const at = difference(x[key], y[key], step, seen);
    if (at !== null) return at;
  }
  return null;
}

/** Asserts that `expr` is truthy. */
export function assert(expr: unknown, msg = ""): asserts expr {
  if (!expr) throw new AssertionError(msg);
}

/** Asserts that `expr` is falsy. */
export function assertFalse(expr: unknown, msg?: string): asserts expr is null | undefined | 0 | false | "" {
  if (expr) refuse(`Expected a falsy value, got ${show(expr)}`, msg);
}

/** Fails. */
export function fail(msg?: string): never {
  return refuse("Failed assertion", msg);
}

/** Asserts structural equality. */
export function assertEquals<T>(actual: T, expected: T, msg?: string): void {
  const at = difference(actual, expected, "", new Map());
  if (at === null) return;
  const where = at === "" ? "" : `, first difference at ${at}`;
  refuse(`Values are not equal${where}\n  actual: ${show(actual)}\n  expected: ${show(expected)}\n`, msg);
}

/** Asserts structural inequality. */
export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void {
  if (equal(actual, expected)) refuse(`Expected a value different from ${show(expected)}`, msg);
}

/** Asserts identity by `Object.is`. */
export function assertStrictEquals<T>(actual: unknown, expected: T, msg?: string): asserts actual is T {
  if (!Object.is(actual, expected)) {
    refuse(`Values are not strictly equal\n  actual: ${show(actual)}\n  expected: ${show(expected)}\n`, msg);
  }
}

/** Asserts that two values are not the same by `Object.is`. */
export function assertNotStrictEquals<T>(actual: T, expected: T, msg?: string): void {
  if (Object.is(actual, expected)) refuse(`Expected another value than ${show(expected)}`, msg);
}

/** Asserts |actual − expected| ≤ tolerance, by default 1e-7 of `expected`. */
export function assertAlmostEquals(actual: number, expected: number, tolerance?: number, msg?: string): void {
  if (Object.is(actual, expected)) return;
  const allowed = tolerance ?? (Number.isFinite(expected) ? Math.abs(expected * 1e-7) : 1e-7);
  const error = Math.abs(expected - actual);
  if (!(error <= allowed)) {
    refuse(`Expected ${actual} to be close to ${expected}: error ${error}, allowed ${allowed}`, msg);
  }
}

/** Asserts that a string contains another. */
export function assertStringIncludes(actual: string, expected: string, msg?: string): void {
  if (!actual.includes(expected)) refuse(`Expected ${show(actual)} to contain ${show(expected)}`, msg);
}

/** Asserts that every element of `expected` is in `actual`. */
export function assertArrayIncludes<T>(actual: ArrayLike<T>, expected: ArrayLike<T>, msg?: string): void {
  const missing = Array.from(expected).filter((x) => !Array.from(actual).some((y) => equal(x, y)));
  if (missing.length > 0) refuse(`Expected ${show(actual)} to include ${show(missing)}`, msg);
}

/** Asserts that a string matches a pattern. */
export function assertMatch(actual: string, expected: RegExp, msg?: string): void {
  if (!expected.test(actual)) refuse(`Expected ${show(actual)} to match ${expected}`, msg);
}

/** Asserts that a string does not match a pattern. */
export function assertNotMatch(actual: string, expected: RegExp, msg?: string): void {
  if (expected.test(actual)) refuse(`Expected ${show(actual)} not to match ${expected}`, msg);
}

/** Asserts that `actual` has at least the properties of `expected`. */
export function assertObjectMatch(
  actual: Record<PropertyKey, unknown>,
  expected: Record<PropertyKey, unknown>,
  msg?: string,
): void {
  const pick = (a: unknown, e: unknown): unknown => {
    if (Array.isArray(a) && Array.isArray(e)) return a.map((x, i) => pick(x, e[i]));
    const plain = (x: unknown): x is Record<string, unknown> =>
      typeof x === "object" && x !== null && Object.getPrototypeOf(x) === Object.prototype;
    if (!plain(a) || !plain(e)) return a;
    return Object.fromEntries(Object.keys(e).filter((k) => k in a).map((k) => [k, pick(a[k], e[k])]));
  };
  assertEquals(pick(actual, expected), expected as unknown, msg);
}

/** Asserts that a value is neither null nor undefined. */
export function assertExists<T>(actual: T, msg?: string): asserts actual is NonNullable<T> {
  if (actual === undefined || actual === null) refuse(`Expected a value, got ${actual}`, msg);
}

/** Asserts that a value is an instance of a class. */
export function assertInstanceOf<T>(actual: unknown, expectedType: Class<T>, msg = ""): asserts actual is T {
  if (!(actual instanceof expectedType)) {
    refuse(`Expected an instance of ${expectedType.name}, got ${show(actual)}`, msg || undefined);
  }
}

/** Asserts actual > expected. */
export function assertGreater<T>(actual: T, expected: T, msg?: string): void {
  if (!(actual > expected)) refuse(`Expected ${show(actual)} > ${show(expected)}`, msg);
}

/** Asserts actual ≥ expected. */
export function assertGreaterOrEqual<T>(actual: T, expected: T, msg?: string): void {
  if (!(actual >= expected)) refuse(`Expected ${show(actual)} >= ${show(expected)}`, msg);
}

/** Asserts actual < expected. */
export function assertLess<T>(actual: T, expected: T, msg?: string): void {
  if (!(actual < expected)) refuse(`Expected ${show(actual)} < ${show(expected)}`, msg);
}

/** Asserts actual ≤ expected. */
export function assertLessOrEqual<T>(actual: T, expected: T, msg?: string): void {
  if (!(actual <= expected)) refuse(`Expected ${show(actual)} <= ${show(expected)}`, msg);
}

/** Asserts that `error` is an Error, of a class and with a text where those are given. */
export function assertIsError<E extends Error = Error>(
  error: unknown,
  ErrorClass?: Class<E>,
  msgMatches?: string | RegExp,
  msg?: string,
): asserts error is E {
  if (!(error instanceof Error)) refuse(`Expected an Error, got ${show(error)}`, msg);
  if (ErrorClass !== undefined && !(error instanceof ErrorClass)) {
    refuse(`Expected a ${ErrorClass.name}, got ${error.constructor.name}: ${error.message}`, msg);
  }
  if (typeof msgMatches === "string" && !error.message.includes(msgMatches)) {
    refuse(`Expected the message to contain ${show(msgMatches)}, got ${show(error.message)}`, msg);
  }
  if (msgMatches instanceof RegExp && !msgMatches.test(error.message)) {
    refuse(`Expected the message to match ${msgMatches}, got ${show(error.message)}`, msg);
  }
}

/** Asserts that `fn` throws, and returns what it threw. */
export function assertThrows(fn: () => unknown, msg?: string): unknown;
/** Asserts that `fn` throws an `ErrorClass` whose message contains `msgIncludes`, and returns it. */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  ErrorClass: Class<E>,
  msgIncludes?: string,
  msg?: string,
): E;
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  errorClassOrMsg?: Class<E> | string,
  msgIncludes?: string,
  msg?: string,
): unknown {
  const [type, text] = typeof errorClassOrMsg === "string"
    ? [undefined, errorClassOrMsg]
    : [errorClassOrMsg, msg];
  try {
    fn();
  } catch (error) {
    if (type !== undefined) assertIsError(error, type, msgIncludes, text);
    return error;
  }
  return refuse("Expected function to throw", text);
}

/** Asserts that a promise rejects, and returns the reason. */
export function assertRejects(fn: () => PromiseLike<unknown>, msg?: string): Promise<unknown>;
/** Asserts that a promise rejects with an `ErrorClass` whose message contains `msgIncludes`, and returns it. */
export function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  ErrorClass: Class<E>,
  msgIncludes?: string,
  msg?: string,
): Promise<E>;
export async function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  errorClassOrMsg?: Class<E> | string,
  msgIncludes?: string,
  msg?: string,
): Promise<unknown> {
  const [type, text] = typeof errorClassOrMsg === "string"
    ? [undefined, errorClassOrMsg]
    : [errorClassOrMsg, msg];
  let promise: PromiseLike<unknown>;
  try {
    promise = fn();
  } catch (error) {
    return refuse(`Function throws when expected to reject: ${show(error)}`, text);
  }
  try {
    await promise;
  } catch (error) {
    if (type !== undefined) assertIsError(error, type, msgIncludes, text);
    return error;
  }
  return refuse("Expected function to reject", text);
}
