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
  for (const filter of FILTERS) device.pushErrorScope(filter);
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
  const errors: (GPUError | null)[] = [];
  for (const _ of FILTERS) errors.push(await device.popErrorScope());
  const error = errors.find((e) => e !== null);
  if (error) throw new EngineFailure(`Cannot ${what} on webgpu: ${error.message.trim()}`, { cause: thrown });
  if (failed) {
    if (thrown instanceof EngineFailure) throw thrown;
    const message = thrown instanceof Error ? thrown.message : String(thrown);
    throw new EngineFailure(`Cannot ${what} on webgpu: ${message}`, { cause: thrown });
  }
  return result as T;
}

/** Reports what no scope can catch: the loss of the device and errors outside of scopes. */
export function watch(device: GPUDevice, fail: (failure: EngineFailure) => void): void {
  device.addEventListener("uncapturederror", (event) => {
    const message = "error" in event && event.error instanceof Error
      ? event.error.message
      : gpuMessage(event);
    fail(new EngineFailure(`A webgpu operation failed: ${message}`));
  });
  device.lost.then(({ reason, message }) => {
    if (reason === "destroyed") return;
    fail(
      new EngineFailure(
        `The webgpu device was lost (${
          message || reason || "unknown"
        }) and all that was only on it is gone. ` +
          `Tensors with a host copy can be used again; load the model anew, on "wasm" if the GPU stays away.`,
      ),
    );
  });
}

function gpuMessage(event: Event): string {
  return (event as GPUUncapturedErrorEvent).error?.message ?? "unknown error";
}
