/**
 * Reads masks, ids and positions that callers give as tensors or nested arrays, synchronously.
 *
 * @module
 */
import { present } from "../dtype.ts";
import { InvalidArgument } from "../errors.ts";
import { hostData, Tensor } from "../tensor.ts";
import type { MatrixInput } from "./types.ts";

/** A row-major matrix of small integers. One row serves every batch element. */
export interface Matrix<T extends Uint8Array | Int32Array = Uint8Array | Int32Array> {
  /** Number of rows: the batch, or 1. */
  readonly rows: number;
  /** Row length. */
  readonly cols: number;
  /** rows · cols values. */
  readonly data: T;
}

/**
 * Start of batch row `b` in a matrix.
 *
 * @throws {InvalidArgument} when there is no such row.
 */
export function rowStart(m: Matrix, b: number, what: string): number {
  if (m.rows === 1) return 0;
  if (b >= m.rows) {
    throw new InvalidArgument(`Cannot read ${what} of batch row ${b}: there are only ${m.rows} rows`);
  }
  return b * m.cols;
}

/**
 * Reads a (B, length) mask of 0/1 or booleans. @throws {InvalidArgument} for another rank or other values.
 */
export function readMask(input: MatrixInput, what: string): Matrix<Uint8Array> {
  const { values, rows, cols, isBool } = readValues(input, what);
  if (isBool && values instanceof Uint8Array) return { rows, cols, data: values };
  const data = new Uint8Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const v = Number(values[i]);
    if (v !== 0 && v !== 1) {
      throw new InvalidArgument(
        `Cannot use ${what} as a mask: expected 1 for real tokens and 0 for padding, row ${
          Math.floor(i / cols)
        } column ${i % cols} is ${v}`,
      );
    }
    data[i] = v;
  }
  return { rows, cols, data };
}

/**
 * Reads a (B, length) matrix of 32-bit integers.
 *
 * @throws {InvalidArgument} for another rank or other values.
 */
export function readIds(input: MatrixInput, what: string): Matrix<Int32Array> {
  const { values, rows, cols } = readValues(input, what);
  if (values instanceof Int32Array) return { rows, cols, data: values };
  const data = new Int32Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const v = Number(values[i]);
    if (!Number.isInteger(v) || (v | 0) !== v) {
      throw new InvalidArgument(
        `Cannot use ${what}: expected integers, row ${Math.floor(i / cols)} column ${i % cols} is ${v}`,
      );
    }
    data[i] = v;
  }
  return { rows, cols, data };
}

/**
 * Reads one integer per batch row from a number, an array or a tensor of rank 1.
 *
 * @throws {InvalidArgument}
 */
export function readVector(input: number | readonly number[] | Tensor, what: string): readonly number[] {
  let list: number[];
  if (typeof input === "number") list = [input];
  else if (input instanceof Tensor) {
    if (input.shape.length !== 1) {
      throw new InvalidArgument(`Cannot use ${what}: expected shape (B), got [${input.shape}]`);
    }
    list = Array.from(present(input.dtype, hostData(input)), Number);
  } else if (Array.isArray(input)) list = input.map(Number);
  else {throw new InvalidArgument(
      `Cannot use ${what}: expected a number, an array or a tensor, got ${typeof input}`,
    );}
  for (const v of list) {
    if (!Number.isSafeInteger(v)) {
      throw new InvalidArgument(`Cannot use ${what}: expected integers, got ${v}`);
    }
  }
  if (list.length === 0) {
    throw new InvalidArgument(`Cannot use ${what}: expected at least one value, got none`);
  }
  return list;
}

interface Values {
  readonly values: ArrayLike<unknown>;
  readonly rows: number;
  readonly cols: number;
  readonly isBool: boolean;
}

function readValues(input: MatrixInput, what: string): Values {
  if (input instanceof Tensor) {
    const [rows, cols] = input.shape;
    if (input.shape.length !== 2 || rows === undefined || cols === undefined) {
      throw new InvalidArgument(`Cannot use ${what}: expected shape (B, length), got [${input.shape}]`);
    }
    return { values: present(input.dtype, hostData(input)), rows, cols, isBool: input.dtype === "bool" };
  }
  if (!Array.isArray(input)) {
    throw new InvalidArgument(
      `Cannot use ${what}: expected a tensor or nested arrays, got ${describe(input)}`,
    );
  }
  const values: unknown[] = [];
  let cols: number | undefined;
  for (const row of input as readonly unknown[]) {
    if (!Array.isArray(row) && !ArrayBuffer.isView(row)) {
      throw new InvalidArgument(
        `Cannot use ${what}: expected rows of numbers (B, length), got a row that is ${describe(row)}`,
      );
    }
    const cells = Array.from(row as ArrayLike<unknown>);
    if (cols !== undefined && cells.length !== cols) {
      throw new InvalidArgument(
        `Cannot use ${what}: a row of ${cells.length} elements beside one of ${cols}`,
      );
    }
    cols = cells.length;
    for (const cell of cells) {
      if (typeof cell !== "number" && typeof cell !== "boolean" && typeof cell !== "bigint") {
        throw new InvalidArgument(
          `Cannot use ${what}: expected numbers in shape (B, length), got ${describe(cell)}`,
        );
      }
      values.push(cell);
    }
  }
  return { values, rows: input.length, cols: cols ?? 0, isBool: false };
}

function describe(x: unknown): string {
  if (x === null) return "null";
  return Array.isArray(x)
    ? "a deeper array"
    : typeof x === "object"
    ? "an object"
    : `${typeof x} ${String(x)}`;
}
