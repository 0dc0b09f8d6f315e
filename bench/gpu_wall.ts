/**
 * Wall time of work on a GPU, measured the same way for everybody.
 *
 * @module
 */

/** Least time of waiting for a queue with nothing to do: some runtimes sleep in it, more than a kernel takes. */
async function waiting(gpu: GPUDevice): Promise<number> {
  let least = Infinity;
  for (let i = 0; i < 5; i++) {
    const start = performance.now();
    await gpu.queue.onSubmittedWorkDone();
    least = Math.min(least, performance.now() - start);
  }
  return least;
}

/**
 * Least ms of a call of `run`, which submits and does not wait, over rounds of `repeats` calls that end when the GPU has
 * done them all, without what waiting takes by itself. The first round is not counted.
 */
export async function wallOf(
  gpu: GPUDevice,
  rounds: number,
  repeats: number,
  run: () => Promise<unknown>,
): Promise<number> {
  const idle = await waiting(gpu);
  let best = Infinity;
  for (let round = 0; round <= rounds; round++) {
    const start = performance.now();
    for (let i = 0; i < repeats; i++) await run();
    await gpu.queue.onSubmittedWorkDone();
    if (round > 0) best = Math.min(best, performance.now() - start - idle);
  }
  return Math.max(best, 0) / repeats;
}
