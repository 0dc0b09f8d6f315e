/**
 * Dawn, the implementation of WebGPU in Chromium, as a native library in this process.
 *
 * @module
 */
import { DeviceUnavailable } from "../../errors.ts";

// Not a literal in the import: checking, publishing and lock files do not depend on a package of 130 MB.
const PACKAGE = "npm:webgpu@0.6.2";
/** Subgroup matrices are still behind this toggle. */
const TOGGLES = ["enable-dawn-features=allow_unsafe_apis"];

/**
 * Dawn's `navigator.gpu`, with experimental features let in.
 *
 * @throws {DeviceUnavailable} where it cannot be loaded
 */
export async function openDawn(): Promise<GPU> {
  try {
    const { create } = await import(PACKAGE) as { create(toggles: readonly string[]): GPU };
    return create(TOGGLES);
  } catch (cause) {
    throw new DeviceUnavailable(
      `Cannot use device "webgpu" by Dawn: ${PACKAGE} could not be loaded ` +
        `(${
          cause instanceof Error ? cause.message.split("\n")[0] : String(cause)
        }). It needs Deno, --allow-ffi and ` +
        `the package, which "deno cache ${PACKAGE}" brings`,
      { cause },
    );
  }
}
