/**
 * Dawn, the second implementation of WebGPU, as a native library in this process.
 *
 * @module
 */

// Not a literal in the import, so that checking, publishing and the lock file do not depend on a package of 130 MB.
const DAWN = "npm:webgpu@0.6.2";

/** Dawn's `navigator.gpu`, with the given toggles. */
export async function openDawn(toggles: readonly string[]): Promise<GPU> {
  const { create } = await import(DAWN) as { create(toggles: readonly string[]): GPU };
  return create(toggles);
}
