/**
 * What every bad input must meet: a typed error that says what is wrong, within a second and 64 MiB, and nothing
 * left behind.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { AttuneError, liveBuffers } from "../../mod.ts";

/** Longest time a refusal may take. */
export const SOON_MS = 1000;
/** Most memory it may take. */
export const SMALL_BYTES = 64 * 2 ** 20;

/** What a piece of work took. */
export interface Cost {
  readonly ms: number;
  readonly bytes: number;
}

/** Runs `fn` and measures it: the time, and by how much the memory of the process grew. */
export async function measured<T>(fn: () => T | Promise<T>): Promise<{ result: T } & Cost> {
  const before = Deno.memoryUsage(), started = performance.now();
  const result = await fn();
  const ms = performance.now() - started, after = Deno.memoryUsage();
  // The heap shrinks at a collection, the process never; new pages of the engine count in both.
  return { result, ms, bytes: Math.max(0, Math.min(after.rss - before.rss, growth(before, after))) };
}

function growth(before: Deno.MemoryUsage, after: Deno.MemoryUsage): number {
  return after.heapTotal - before.heapTotal + after.external - before.external;
}

/** Asserts that `fn` is refused as it must be, and returns the error. `own` is what the input itself takes. */
export async function assertRefused(
  fn: () => unknown,
  words: readonly string[] = [],
  own = 0,
): Promise<AttuneError> {
  const live = liveBuffers();
  const attempt = () =>
    measured(() => assertRejects(() => new Promise((resolve) => resolve(fn())), AttuneError));
  const first = await attempt();
  // Once more where the machine was busy with something else: what is slow by itself is slow again.
  const { result: error, ms, bytes } = first.ms < SOON_MS ? first : await attempt();
  assert(ms < SOON_MS, `refused after ${Math.round(ms)} ms: ${error.message}`);
  assert(bytes < SMALL_BYTES + own, `refused for ${Math.round(bytes / 2 ** 20)} MiB: ${error.message}`);
  for (const word of words) assertStringIncludes(error.message, word);
  assert(/^Cannot |: /.test(error.message) && error.message.length < 600, error.message);
  assertEquals(liveBuffers(), live, "the refusal left tensors alive");
  return error;
}
