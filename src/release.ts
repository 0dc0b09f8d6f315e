/**
 * Resources that live as long as one use of them.
 *
 * `using` says this as a rule. Where its variable is used but once, at the beginning of the next statement, the minifier
 * of esbuild (and so `deno bundle --minify`) puts the value there and drops the disposal (evanw/esbuild, issue 4482):
 * such a use is written with these functions, and a test of the package counts that a bundle has lost no `using`.
 *
 * @module
 */

/** What `use` makes of `resource`, which is released then. */
export function releasing<R extends Disposable | null, T>(resource: R, use: (resource: R) => T): T {
  try {
    return use(resource);
  } finally {
    resource?.[Symbol.dispose]();
  }
}

/** What `use` makes of `resource` in its own time; `resource` is released before anybody hears of it. */
export async function releasingAfter<R extends Disposable | null, T>(
  resource: R,
  use: (resource: R) => Promise<T>,
): Promise<T> {
  try {
    return await use(resource);
  } finally {
    resource?.[Symbol.dispose]();
  }
}
