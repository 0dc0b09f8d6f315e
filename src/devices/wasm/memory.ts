/**
 * WASM memories and their reuse.
 *
 * Memories start small and grow between commands, when no kernel runs: V8 counts every page of a memory, touched or
 * not, as pressure on its garbage collector, so a few memories that begin at 4 GiB make it collect without end.
 * Dropped memories do not return to the system reliably, so closed engines leave theirs here and the next engine
 * takes the one with the most touched pages.
 *
 * @module
 */
import { OutOfMemory } from "../../errors.ts";

/** Bytes of a WASM page. */
export const PAGE = 65536;

/** A memory and how much of it was ever used. */
export interface PooledMemory {
  readonly memory: WebAssembly.Memory;
  readonly shared: boolean;
  /** Largest size in bytes the memory may have. */
  readonly maximum: number;
  /** Highest address ever handed out: pages above it were never touched. */
  touched: number;
}

/** Pages a memory begins with: 16 MiB. */
const FIRST_PAGES = 256;

const pool: PooledMemory[] = [];

/** Whether memories can be shared between threads here. Browsers need cross-origin isolation for it. */
export function canShare(): boolean {
  return typeof SharedArrayBuffer === "function";
}

/**
 * A memory that can hold `maximum` bytes: a used one if there is one, else a new one.
 *
 * @throws {OutOfMemory}
 */
export function takeMemory(maximum: number): PooledMemory {
  const shared = canShare();
  const fitting = pool.filter((m) => m.maximum === maximum && m.shared === shared)
    .sort((a, b) => b.touched - a.touched);
  const used = fitting[0];
  if (used !== undefined) {
    pool.splice(pool.indexOf(used), 1);
    return used;
  }
  const pages = Math.floor(maximum / PAGE);
  try {
    const memory = new WebAssembly.Memory({ initial: Math.min(pages, FIRST_PAGES), maximum: pages, shared });
    return { memory, shared, maximum, touched: 0 };
  } catch (error) {
    throw new OutOfMemory(
      `Cannot reserve ${maximum} bytes of WASM memory: ${
        error instanceof Error ? error.message : String(error)
      }; ` +
        `lower it with configure({ max_memory })`,
    );
  }
}

/** Leaves the memory of a closed engine for the next one. */
export function giveMemory(memory: PooledMemory): void {
  pool.push(memory);
}
