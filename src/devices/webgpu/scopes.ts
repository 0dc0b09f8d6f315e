/**
 * GPU errors become exceptions here and nowhere else.
 *
 * Without error scopes WebGPU reports nothing to the code that caused an error: an invalid pipeline leaves old
 * bytes in its output and the promise of its results resolves.
 *
 * @module
 */
import { EngineFailure } from "../../errors.ts";

const FILTERS: readonly GPUErrorFilter[] = ["validation", "out-of-memory", "internal"];

/**
 * Runs `body` inside error scopes.
 *
 * @throws {EngineFailure} naming `what` when the GPU reported an error
 */
export async function scoped<T>(device: GPUDevice, what: string, body: () => T | Promise<T>): Promise<T> {
  const close = openScopes(device);
  let result: T | undefined;
  let thrown: unknown;
  let failed = false;
  try {
    // Nothing else runs on the device meanwhile: flushes follow one another.
    result = await body();
  } catch (error) {
    failed = true;
    thrown = error;
  }
  const error = firstError(await Promise.all(close()));
  if (error) throw new EngineFailure(`Cannot ${what} on webgpu: ${messageOf(error)}`, { cause: thrown });
  if (failed) {
    if (thrown instanceof EngineFailure) throw thrown;
    throw new EngineFailure(`Cannot ${what} on webgpu: ${messageOf(thrown)}`, { cause: thrown });
  }
  return result as T;
}

/** Opens a scope for every kind of error; what is returned closes them, and promises their errors. */
export function openScopes(device: GPUDevice): () => Promise<GPUError | null>[] {
  for (const filter of FILTERS) device.pushErrorScope(filter);
  return () => FILTERS.map(() => device.popErrorScope());
}

/** The first error of some scopes. */
export function firstError(errors: readonly (GPUError | null)[]): GPUError | undefined {
  return errors.find((e) => e !== null) ?? undefined;
}

/** What an error, of a scope or thrown, says. */
export function messageOf(error: unknown): string {
  const { message } = Object(error) as { message?: unknown };
  return String(typeof message === "string" ? message : error).trim();
}

/**
 * Reports what no scope can catch: errors outside of scopes, and the loss of the device unless it `isExpected`.
 */
export function watch(
  device: GPUDevice,
  isExpected: () => boolean,
  fail: (failure: EngineFailure) => void,
): void {
  device.addEventListener("uncapturederror", (event) => {
    const { error } = event as GPUUncapturedErrorEvent;
    fail(new EngineFailure(`A webgpu operation failed: ${messageOf(error ?? "unknown error")}`));
  });
  device.lost.then(({ reason, message }) => {
    if (!isExpected()) fail(lost(message || reason || "unknown"));
  });
}

/** Why nothing can be computed on a device that is lost. */
function lost(why: string): EngineFailure {
  return new EngineFailure(
    `The webgpu device was lost (${why}) and all that was only on it is gone. Tensors with a host copy can be ` +
      `used again, and a model that was loaded from files goes on after await model.to("wasm"), or to("webgpu") ` +
      "if the GPU is back; caches begin anew.",
  );
}
