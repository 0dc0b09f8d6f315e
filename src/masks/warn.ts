/**
 * Warnings that are worth one line, not one line per call.
 *
 * @module
 */

const given = new Set<string>();

/** Warns on the console, the first time only for each `key`. */
export function warnOnce(key: string, message: string): void {
  if (given.has(key)) return;
  given.add(key);
  console.warn(`[attune] ${message}`);
}
