/**
 * Token ids in every form in which they are decoded: one id, a list, rows, or a tensor of these.
 *
 * @module
 */
import { show } from "../config_fields.ts";
import { hostData, Tensor } from "../tensor.ts";

/** Rows of ids, and whether they came as several. */
export interface TokenRows {
  readonly rows: readonly (readonly number[])[];
  readonly several: boolean;
}

/** The rows of ids, or null where these are no ids, nor rows of them. An empty list is a row. */
export function tokenRows(ids: unknown): TokenRows | null {
  if (ids instanceof Tensor) return rowsOfTensor(ids);
  if (typeof ids === "number" || typeof ids === "bigint") return { rows: [[Number(ids)]], several: false };
  const list = listOf(ids);
  if (list === null) return null;
  const row = numbersOf(list);
  if (row !== null) return { rows: [row], several: false };
  const rows = list.map((item) => {
    const inner = listOf(item);
    return inner === null ? null : numbersOf(inner);
  });
  return rows.every((r) => r !== null) ? { rows, several: true } : null;
}

/** What was given, in words. */
export function describeIds(ids: unknown): string {
  return ids instanceof Tensor ? `a tensor of ${ids.dtype} [${ids.shape}]` : show(ids);
}

function rowsOfTensor(ids: Tensor): TokenRows | null {
  const { shape } = ids;
  if ((ids.dtype !== "int32" && ids.dtype !== "int64") || shape.length > 2) return null;
  const host = Array.from(hostData(ids) as ArrayLike<number | bigint>, Number);
  if (shape.length < 2) return { rows: [host], several: false };
  const [batch, length] = shape as [number, number];
  return {
    rows: Array.from({ length: batch }, (_, b) => host.slice(b * length, (b + 1) * length)),
    several: true,
  };
}

/** Items of a list or a typed array, or null. */
function listOf(ids: unknown): unknown[] | null {
  if (Array.isArray(ids)) return ids;
  return ArrayBuffer.isView(ids) && !(ids instanceof DataView)
    ? Array.from(ids as unknown as ArrayLike<number | bigint>)
    : null;
}

function numbersOf(list: readonly unknown[]): number[] | null {
  return list.every((id) => typeof id === "number" || typeof id === "bigint") ? list.map(Number) : null;
}
