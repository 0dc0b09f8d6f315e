/**
 * The hidden description that built-in predicates carry, so that formatters can fill rows by ranges.
 *
 * A predicate stays a plain function for everybody else; without a description it is opaque and is called
 * once per query and key.
 *
 * @module
 */
import type { Matrix } from "./input.ts";
import type { MaskFunction } from "./types.ts";

/** Visible keys of query `q` are lo ≤ kv < hi. */
export interface IntervalStructure {
  /** Discriminates. */
  readonly kind: "interval";
  /** First visible key; −∞ for no limit. */
  lo(b: number, q: number): number;
  /** One past the last visible key; +∞ for no limit. */
  hi(b: number, q: number): number;
  /** Whether the limits differ between batch rows. */
  readonly perBatch: boolean;
}

/** Visible keys do not depend on the query: `mask[b][kv]`, false beyond the end. */
export interface KeysStructure {
  /** Discriminates. */
  readonly kind: "keys";
  /** (B, length) bool. */
  readonly mask: Matrix<Uint8Array>;
}

/** Query and key carry the same id: `ids[b][q] == ids[b][kv] ≥ min`, false beyond the end. */
export interface SameStructure {
  /** Discriminates. */
  readonly kind: "same";
  /** (B, length). */
  readonly ids: Matrix<Int32Array>;
  /** Smaller ids see nothing. */
  readonly min: number;
}

/** All or any of the parts. */
export interface CombinedStructure {
  /** Discriminates. */
  readonly kind: "and" | "or";
  /** The combined predicates. */
  readonly parts: readonly MaskFunction[];
}

/** `of(b, h, q + q_offset, kv + kv_offset)`. */
export interface ShiftedStructure {
  /** Discriminates. */
  readonly kind: "shift";
  /** The shifted predicate. */
  readonly of: MaskFunction;
  /** Added to the query position. */
  readonly q: number;
  /** Added to the key position. */
  readonly kv: number;
}

/** `of` seen with positions that restart in every packed sequence. Positions are consecutive within an id. */
export interface PackedStructure {
  /** Discriminates. */
  readonly kind: "packed";
  /** The predicate inside a sequence. */
  readonly of: MaskFunction;
  /** (B, length) positions that restart. */
  readonly positions: Matrix<Int32Array>;
  /** (B, length) ids of the sequences. */
  readonly ids: Matrix<Int32Array>;
}

/** What a predicate may say about itself. Every described predicate ignores the head unless a part is opaque. */
export type Structure =
  | IntervalStructure
  | KeysStructure
  | SameStructure
  | CombinedStructure
  | ShiftedStructure
  | PackedStructure;

const structures = new WeakMap<MaskFunction, Structure>();

/** Attaches a description to a predicate and returns the predicate. */
export function describe(fn: MaskFunction, structure: Structure): MaskFunction {
  structures.set(fn, structure);
  return fn;
}

/** The description of a predicate; undefined for an opaque one. */
export function structureOf(fn: MaskFunction): Structure | undefined {
  return structures.get(fn);
}
