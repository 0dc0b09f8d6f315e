/**
 * Warnings that are worth one line, not one line per call.
 *
 * @module
 */

const given = new WeakMap<WeakKey, Set<string>>();

/** Warns on the console, the first time only for each `key`, or where it is about an `owner` for each of it. */
export function warnOnce(key: string, message: string, owner: WeakKey = given): void {
  const keys = given.get(owner) ?? new Set();
  if (keys.has(key)) return;
  given.set(owner, keys.add(key));
  console.warn(`[attune] ${message}`);
}
