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

/** Collects the warnings of asynchronous work. */
export async function said(work: () => Promise<unknown>): Promise<string[]> {
  const original = console.warn;
  const lines: string[] = [];
  console.warn = (line: unknown) => void lines.push(String(line));
  try {
    await work();
  } finally {
    console.warn = original;
  }
  return lines;
}
