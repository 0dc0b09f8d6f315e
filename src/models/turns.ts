/**
 * One at a time: work that shares something takes turns, first come, first served.
 *
 * @module
 */

/** A queue of asynchronous work. */
export class Turns {
  #last: Promise<void> = Promise.resolve();

  /** Runs `work` once everything before it has finished. An abort ends the waiting, not what runs. */
  async take<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const before = this.#last;
    const { promise, resolve } = Promise.withResolvers<void>();
    // Whoever gives up waiting leaves the queue, but those behind still wait for those before.
    this.#last = before.then(() => promise);
    try {
      await untilAborted(before, signal);
      return await work();
    } finally {
      resolve();
    }
  }
}

/**
 * Waits for `work`, or rejects with the signal's reason as soon as it is aborted. What `work` then still comes to is given
 * to `unclaimed`.
 */
export async function untilAborted<T>(
  work: Promise<T>,
  signal: AbortSignal | undefined,
  unclaimed: (late: T) => void = () => {},
): Promise<T> {
  if (signal === undefined) return await work;
  const { promise, reject } = Promise.withResolvers<never>();
  const stop = () => reject(signal.reason);
  if (signal.aborted) stop();
  else signal.addEventListener("abort", stop, { once: true });
  try {
    return await Promise.race([promise, work]);
  } catch (error) {
    // Nobody waits for it any more, nor for its errors.
    work.then(unclaimed).catch(() => {});
    throw error;
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
