/**
 * Work on several files at once.
 *
 * @module
 */
import type { ReadOptions } from "./source.ts";

/** Files that are worked on at once. */
const AT_ONCE = 4;

/** Works on several names at once. The first failure aborts the rest and is thrown when all have ended. */
export async function inParallel(
  names: readonly string[],
  { signal }: ReadOptions,
  work: (name: string, options: ReadOptions) => Promise<void>,
): Promise<void> {
  const stop = new AbortController();
  const both = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]);
  const waiting = [...new Set(names)];
  const failures: unknown[] = [];
  const worker = async () => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
      try {
        await work(name, { signal: both });
      } catch (error) {
        failures.push(error);
        stop.abort(error);
        return;
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  if (failures.length > 0) throw failures[0];
}
