/**
 * What the formatters share: checked arguments, padding extended to the keys, and the walk over visible rows.
 *
 * @module
 */
import type { DeviceName } from "../devices/device.ts";
import { InvalidArgument } from "../errors.ts";
import { checkCallable, checkSize } from "./algebra.ts";
import { causal_mask_function } from "./functions.ts";
import { type Matrix, readMask } from "./input.ts";
import { clamp, compile, type RowProgram } from "./rows.ts";
import type { MaskFormatterArgs, MaskFunction } from "./types.ts";

/** Checked arguments of a formatter. */
export interface Frame {
  /** B. */
  readonly batch: number;
  /** Q. */
  readonly queries: number;
  /** N. */
  readonly keys: number;
  /** Absolute position of the first query. */
  readonly queryOffset: number;
  /** Absolute position of the first key. */
  readonly keyOffset: number;
  /** The pattern, without padding. */
  readonly maskFunction: MaskFunction;
  /** (B, ≥ N + offset) bool in absolute positions: extended with false where it was shorter, never shortened. */
  readonly padding: Matrix<Uint8Array> | null;
  /** Window or chunk size of a local pattern. */
  readonly localSize: number | null;
  /** Heads to compare for predicates that depend on the head; 1 when the config does not say. */
  readonly heads: number;
  /** Where the mask will be used. */
  readonly device: DeviceName;
}

/**
 * Checks formatter arguments.
 *
 * @throws {InvalidArgument} naming the argument and its value.
 */
export function readFrame(args: MaskFormatterArgs): Frame {
  const batch = count(args.batch_size, "batch_size");
  const keys = count(args.kv_length, "kv_length");
  const keyOffset = count(args.kv_offset ?? 0, "kv_offset");
  const maskFunction = args.mask_function ?? causal_mask_function;
  checkCallable([maskFunction], "mask_function");
  if (args.local_size !== undefined && args.local_size !== null) checkSize(args.local_size, "local_size");
  const heads = args.config?.num_attention_heads ?? 1;
  return {
    batch,
    queries: count(args.q_length, "q_length"),
    keys,
    queryOffset: count(args.q_offset ?? 0, "q_offset"),
    keyOffset,
    maskFunction,
    padding: extendedPadding(args.attention_mask, batch, keys + keyOffset),
    localSize: args.local_size ?? null,
    heads: typeof heads === "number" && Number.isSafeInteger(heads) && heads > 0 ? heads : 1,
    device: args.device ?? "wasm",
  };
}

function count(value: unknown, name: string): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    throw new InvalidArgument(`Cannot format a mask with ${name} ${String(value)}: expected an integer ≥ 0`);
  }
  return value;
}

function extendedPadding(
  mask: MaskFormatterArgs["attention_mask"],
  batch: number,
  length: number,
): Matrix<Uint8Array> | null {
  if (mask === undefined || mask === null) return null;
  const m = readMask(mask, "attention_mask");
  if (m.rows !== batch) {
    throw new InvalidArgument(
      `Cannot use attention_mask of shape [${m.rows}, ${m.cols}] with batch_size ${batch}: expected ${batch} rows`,
    );
  }
  if (m.cols >= length) return m;
  const data = new Uint8Array(batch * length);
  for (let b = 0; b < batch; b++) data.set(m.data.subarray(b * m.cols, (b + 1) * m.cols), b * length);
  return { rows: batch, cols: length, data };
}

/** Columns [from, from + length) of padding row `b`. */
export function paddingRow(p: Matrix<Uint8Array>, b: number, from: number, length: number): Uint8Array {
  return p.data.subarray(b * p.cols + from, b * p.cols + from + length);
}

/** Whether every element of `values` is `bit`. */
export function isAll(values: Uint8Array, bit: 0 | 1): boolean {
  return values.indexOf(1 - bit) === -1;
}

/**
 * Receives one row: keys [start, end) of the row that begins at element `at` may be visible, all others are
 * hidden. `bits` (end − start) says which; null means exactly those the padding shows.
 */
export type EmitRow = (at: number, b: number, start: number, end: number, bits: Uint8Array | null) => void;

/**
 * The frame's pattern, ready to compute rows. A predicate of the user's is asked once about each place, however
 * often its rows are read: to compare heads, then to make the mask.
 */
export function programOf(frame: Frame): RowProgram {
  const program = compile(frame.maskFunction);
  const { narrow } = program;
  if (narrow === null || !program.opaque) return program;
  const rows = new Map<string, Uint8Array>();
  return {
    ...program,
    narrow: (b, h, q, from, row) => {
      const key = `${b} ${h} ${q}`, known = rows.get(key);
      if (known === undefined) {
        narrow(b, h, q, from, row);
        rows.set(key, pack(row));
      } else for (let i = 0; i < row.length; i++) row[i] = (known[i >> 3]! >> (i & 7)) & 1;
    },
  };
}

/** Eight elements to a byte. */
function pack(row: Uint8Array): Uint8Array {
  const bits = new Uint8Array((row.length + 7) >> 3);
  for (let i = 0; i < row.length; i++) if (row[i] !== 0) bits[i >> 3]! |= 1 << (i & 7);
  return bits;
}

/** Number of mask heads this frame needs: 1, or all when an opaque predicate answers differently between heads. */
export function maskHeads(frame: Frame, program: RowProgram): number {
  if (!program.opaque || frame.heads === 1) return 1;
  const scratch = new Scratch(frame);
  for (let b = 0; b < frame.batch; b++) {
    for (let q = 0; q < frame.queries; q++) {
      const first = scratch.row(program, b, 0, q);
      if (first === null) continue;
      const seen = first.bits!.slice();
      for (let h = 1; h < frame.heads; h++) {
        const other = scratch.row(program, b, h, q)!.bits!;
        if (other.some((bit, i) => bit !== seen[i])) return frame.heads;
      }
    }
  }
  return 1;
}

/** Calls `emit` for every row of a (B, heads, Q, N) mask, in memory order; start = end where nothing is visible. */
export function eachRow(frame: Frame, program: RowProgram, heads: number, emit: EmitRow): void {
  const scratch = new Scratch(frame);
  let at = 0;
  for (let b = 0; b < frame.batch; b++) {
    for (let h = 0; h < heads; h++) {
      for (let q = 0; q < frame.queries; q++, at += frame.keys) {
        const row = scratch.row(program, b, h, q);
        emit(at, b, row?.start ?? 0, row?.end ?? 0, row?.bits ?? null);
      }
    }
  }
}

/** Computes single rows into reused memory. */
class Scratch {
  readonly #frame: Frame;
  readonly #bits: Uint8Array;
  readonly #row = { start: 0, end: 0, bits: null as Uint8Array | null };

  constructor(frame: Frame) {
    this.#frame = frame;
    this.#bits = new Uint8Array(frame.keys);
  }

  /** The row of relative query `q`, or null when nothing is visible. Valid until the next call. */
  row(
    program: RowProgram,
    b: number,
    h: number,
    q: number,
  ): Readonly<{ start: number; end: number; bits: Uint8Array | null }> | null {
    const { keys, keyOffset, queryOffset, padding } = this.#frame;
    const query = q + queryOffset;
    const start = clamp(program.lo(b, query) - keyOffset, keys),
      end = clamp(program.hi(b, query) - keyOffset, keys);
    if (start >= end) return null;
    const row = this.#row;
    row.start = start;
    row.end = end;
    row.bits = null;
    if (program.narrow !== null) {
      row.bits = this.#bits.subarray(0, end - start);
      if (padding === null) row.bits.fill(1);
      else row.bits.set(paddingRow(padding, b, keyOffset + start, end - start));
      program.narrow(b, h, query, keyOffset + start, row.bits);
    }
    return row;
  }
}

/** Whether row values repeat for every batch element, so that one can be copied. */
export function isShared(frame: Frame, program: RowProgram): boolean {
  return frame.batch > 1 && frame.padding === null && !program.perBatch;
}
