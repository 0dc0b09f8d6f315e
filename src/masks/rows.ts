/**
 * Computes rows of a mask by ranges.
 *
 * A predicate is compiled into bounds per row (outside them nothing is visible) and, where the bounds do not say
 * it all, a `narrow` step that clears hidden keys of a row. Opaque predicates run inside `narrow`, last, only on
 * keys that everything else left visible. So a causal or windowed mask costs one fill a row instead of a call per
 * element: 4096 × 4096 in milliseconds.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import { rowStart } from "./input.ts";
import { type PackedStructure, type SameStructure, structureOf } from "./structure.ts";
import type { MaskFunction } from "./types.ts";

/** Clears the hidden keys of `row`, whose element i is key `from + i`; visible ones are 1 on entry. */
export type Narrow = (b: number, h: number, q: number, from: number, row: Uint8Array) => void;

/** A predicate, ready to compute rows. Bounds are absolute key positions and may be infinite. */
export interface RowProgram {
  /** Nothing before this key is visible. */
  lo(b: number, q: number): number;
  /** Nothing from this key on is visible. */
  hi(b: number, q: number): number;
  /** What the bounds do not say; null when they say it all. */
  readonly narrow: Narrow | null;
  /** Whether rows may differ between batch elements. */
  readonly perBatch: boolean;
  /** Whether a user function without a description is inside; only such a one can depend on the head. */
  readonly opaque: boolean;
}

/** Compiles a predicate. */
export function compile(fn: MaskFunction): RowProgram {
  const s = structureOf(fn);
  switch (s?.kind) {
    case undefined:
      return { lo: () => -Infinity, hi: () => Infinity, narrow: pointwise(fn), perBatch: true, opaque: true };
    case "interval":
      return { lo: s.lo, hi: s.hi, narrow: null, perBatch: s.perBatch, opaque: false };
    case "keys":
      return {
        lo: () => 0,
        hi: () => s.mask.cols,
        narrow: (b, _h, _q, from, row) => {
          const start = rowStart(s.mask, b, "the padding mask") + from;
          for (let i = 0; i < row.length; i++) row[i]! &= s.mask.data[start + i]!;
        },
        perBatch: s.mask.rows > 1,
        opaque: false,
      };
    case "same":
      return compileSame(s);
    case "and":
      return all(s.parts.map(compile));
    case "or":
      return any(s.parts.map(compile));
    case "shift": {
      const p = compile(s.of);
      return {
        ...p,
        lo: (b, q) => p.lo(b, q + s.q) - s.kv,
        hi: (b, q) => p.hi(b, q + s.q) - s.kv,
        narrow: p.narrow && ((b, h, q, from, row) => p.narrow!(b, h, q + s.q, from + s.kv, row)),
      };
    }
    case "packed":
      return compilePacked(s);
  }
}

function pointwise(fn: MaskFunction): Narrow {
  return (b, h, q, from, row) => {
    for (let i = 0; i < row.length; i++) {
      if (row[i] === 0) continue;
      const visible: unknown = fn(b, h, q, from + i);
      if (typeof visible !== "boolean") {
        throw new InvalidArgument(
          `Cannot use a mask function that returns ${
            visible === null ? "null" : typeof visible
          }: expected a boolean (b=${b}, h=${h}, q=${q}, kv=${from + i})`,
        );
      }
      if (!visible) row[i] = 0;
    }
  };
}

function all(parts: readonly RowProgram[]): RowProgram {
  // Structured steps first: what they hide, an opaque predicate is never asked about.
  const steps = [...parts.filter((p) => !p.opaque), ...parts.filter((p) => p.opaque)]
    .flatMap((p) => p.narrow ?? []);
  return {
    lo: (b, q) => parts.reduce((at, p) => Math.max(at, p.lo(b, q)), -Infinity),
    hi: (b, q) => parts.reduce((at, p) => Math.min(at, p.hi(b, q)), Infinity),
    narrow: steps.length === 0 ? null : (b, h, q, from, row) => {
      for (const step of steps) step(b, h, q, from, row);
    },
    perBatch: parts.some((p) => p.perBatch),
    opaque: parts.some((p) => p.opaque),
  };
}

function any(parts: readonly RowProgram[]): RowProgram {
  const only = parts[0];
  if (only !== undefined && parts.length === 1) return only;
  const ordered = [...parts.filter((p) => !p.opaque), ...parts.filter((p) => p.opaque)];
  let room = new Uint8Array(0), left = new Uint8Array(0);
  return {
    lo: (b, q) => parts.reduce((at, p) => Math.min(at, p.lo(b, q)), Infinity),
    hi: (b, q) => parts.reduce((at, p) => Math.max(at, p.hi(b, q)), -Infinity),
    narrow: (b, h, q, from, row) => {
      if (room.length < row.length) {
        room = new Uint8Array(row.length);
        left = new Uint8Array(row.length);
      }
      room.set(row);
      row.fill(0);
      for (const p of ordered) {
        const s = clamp(p.lo(b, q) - from, row.length), e = clamp(p.hi(b, q) - from, row.length);
        if (s >= e) continue;
        if (p.narrow === null) {
          row.set(room.subarray(s, e), s);
          continue;
        }
        const rest = left.subarray(s, e);
        for (let i = s; i < e; i++) left[i] = room[i]! & ~row[i]!;
        p.narrow(b, h, q, from + s, rest);
        for (let i = s; i < e; i++) row[i]! |= left[i]!;
      }
    },
    perBatch: parts.some((p) => p.perBatch),
    opaque: parts.some((p) => p.opaque),
  };
}

/** Bounds of a row are the first and last place of its id; where ids come in runs they say it all. */
function compileSame({ ids, min }: SameStructure): RowProgram {
  const { rows, cols, data } = ids;
  const first = new Int32Array(data.length), end = new Int32Array(data.length);
  let runs = true;
  for (let r = 0; r < rows; r++) {
    const seen = new Map<number, { start: number; end: number }>();
    for (let i = 0; i < cols; i++) {
      const span = seen.get(data[r * cols + i]!);
      if (span === undefined) seen.set(data[r * cols + i]!, { start: i, end: i + 1 });
      else {
        runs &&= span.end === i || data[r * cols + i]! < min;
        span.end = i + 1;
      }
    }
    for (let i = r * cols; i < (r + 1) * cols; i++) {
      if (data[i]! < min) continue;
      const span = seen.get(data[i]!)!;
      first[i] = span.start;
      end[i] = span.end;
    }
  }
  const at = (b: number, q: number): number => rowStart(ids, b, "sequence ids") + q;
  const outside = (q: number): boolean => q < 0 || q >= cols;
  return {
    lo: (b, q) => outside(q) ? 0 : first[at(b, q)]!,
    hi: (b, q) => outside(q) ? 0 : end[at(b, q)]!,
    narrow: runs ? null : (b, _h, q, from, row) => {
      const id = data[at(b, q)], start = at(b, from);
      for (let i = 0; i < row.length; i++) if (data[start + i] !== id) row[i] = 0;
    },
    perBatch: rows > 1,
    opaque: false,
  };
}

/** Within one sequence a position is the index plus a constant, so the inner program only has to be shifted. */
function compilePacked({ of, positions, ids }: PackedStructure): RowProgram {
  const same = compileSame({ kind: "same", ids, min: -Infinity });
  const inner = compile(of);
  const position = (b: number, q: number): number =>
    positions.data[rowStart(positions, b, "position_ids") + q] ?? 0;
  return {
    lo: (b, q) => Math.max(same.lo(b, q), inner.lo(b, position(b, q)) - position(b, q) + q),
    hi: (b, q) => Math.min(same.hi(b, q), inner.hi(b, position(b, q)) - position(b, q) + q),
    narrow: inner.narrow &&
      ((b, h, q, from, row) => inner.narrow!(b, h, position(b, q), from + position(b, q) - q, row)),
    perBatch: same.perBatch || positions.rows > 1 || inner.perBatch,
    opaque: inner.opaque,
  };
}

/** `x` limited to 0…n. */
export function clamp(x: number, n: number): number {
  return x <= 0 ? 0 : x >= n ? n : x;
}
