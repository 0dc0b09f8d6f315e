/**
 * Warnings, caught.
 *
 * @module
 */

/** Runs a synchronous function and collects what it warns of instead of showing it. */
export function quietly<T>(fn: () => T): { readonly result: T; readonly warnings: readonly string[] } {
  const warn = console.warn, warnings: string[] = [];
  console.warn = (...args: unknown[]) => void warnings.push(args.join(" "));
  try {
    return { result: fn(), warnings };
  } finally {
    console.warn = warn;
  }
}
