/**
 * First-fit allocator over the addresses of one WASM memory.
 *
 * It lives in TypeScript, so Rust never allocates, running out is a typed error and the peak is exact.
 *
 * @module
 */

/** Alignment of every block: one cache line, and enough for any vector. */
export const ALIGN = 64;

/** Hands out aligned address ranges of `[base, limit)`. */
export class Allocator {
  /** Free ranges `[start, end)` sorted by address, never adjacent. */
  #free: { start: number; end: number }[];
  #limit: number;

  constructor(base: number, limit: number) {
    this.#free = [{ start: Math.ceil(base / ALIGN) * ALIGN, end: limit }];
    this.#limit = limit;
  }

  /** End of the managed range. */
  get limit(): number {
    return this.#limit;
  }

  /** Extends the managed range, after the memory grew. */
  extend(limit: number): void {
    this.give(this.#limit, limit - this.#limit);
    this.#limit = limit;
  }

  /** Address of `bytes` free bytes, or undefined when no gap is large enough. */
  take(bytes: number): number | undefined {
    const size = roundUp(bytes);
    for (let i = 0; i < this.#free.length; i++) {
      const gap = this.#free[i]!;
      if (gap.end - gap.start < size) continue;
      const at = gap.start;
      gap.start += size;
      if (gap.start === gap.end) this.#free.splice(i, 1);
      return at;
    }
    return undefined;
  }

  /** Gives back what {@linkcode take} returned for the same number of bytes. */
  give(address: number, bytes: number): void {
    const end = address + roundUp(bytes);
    let low = 0;
    let high = this.#free.length;
    while (low < high) {
      const mid = (low + high) >> 1;
      if (this.#free[mid]!.start < address) low = mid + 1;
      else high = mid;
    }
    const before = this.#free[low - 1];
    const after = this.#free[low];
    const joinsBefore = before !== undefined && before.end === address;
    const joinsAfter = after !== undefined && after.start === end;
    if (joinsBefore && joinsAfter) {
      before.end = after.end;
      this.#free.splice(low, 1);
    } else if (joinsBefore) before.end = end;
    else if (joinsAfter) after.start = address;
    else this.#free.splice(low, 0, { start: address, end });
  }

  /** Size of the largest free range, for error messages. */
  get largest(): number {
    return this.#free.reduce((most, gap) => Math.max(most, gap.end - gap.start), 0);
  }
}

/** Bytes a block of `bytes` really occupies. */
export function roundUp(bytes: number): number {
  return Math.max(ALIGN, Math.ceil(bytes / ALIGN) * ALIGN);
}
