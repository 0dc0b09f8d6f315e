/**
 * Heatmaps before they are drawn: numbers on two axes of tokens, made smaller where there is no room.
 *
 * @module
 */

import type { Scale } from "./colour.ts";

/** One direction of a heatmap. */
export interface Axis {
  /** What stands at each cell. */
  readonly labels: readonly string[];
  /** Position in the sequence at which each cell begins. */
  readonly positions: readonly number[];
  /** Tokens in a cell. */
  readonly block: number;
}

/** A matrix of numbers ≥ 0. */
export interface Heatmap {
  readonly title: string;
  readonly rows: Axis;
  readonly columns: Axis;
  /** Row-major. */
  readonly values: Float64Array<ArrayBuffer>;
  /** 1 where there is no value because nothing may be there; row-major. */
  readonly hidden: Uint8Array<ArrayBuffer>;
}

/** An axis of single tokens. */
export function axis(labels: readonly string[], first = 0): Axis {
  return { labels, positions: labels.map((_, i) => first + i), block: 1 };
}

/** A heatmap of at most so many cells: a cell then shows the largest value of several tokens. */
export function pooled(map: Heatmap, most_rows: number, most_columns: number): Heatmap {
  const rows = shorter(map.rows, most_rows), columns = shorter(map.columns, most_columns);
  if (rows === map.rows && columns === map.columns) return map;
  const [r, c] = [rows.block / map.rows.block, columns.block / map.columns.block];
  const [height, width] = [rows.labels.length, columns.labels.length];
  const values = new Float64Array(height * width), hidden = new Uint8Array(height * width).fill(1);
  for (let row = 0; row < map.rows.labels.length; row++) {
    for (let column = 0; column < map.columns.labels.length; column++) {
      const from = row * map.columns.labels.length + column;
      if (map.hidden[from] === 1) continue;
      const to = Math.floor(row / r) * width + Math.floor(column / c);
      // Math.max hands NaN on, which is not to be overlooked.
      values[to] = Math.max(values[to]!, map.values[from]!);
      hidden[to] = 0;
    }
  }
  return { title: map.title, rows, columns, values, hidden };
}

function shorter(whole: Axis, most: number): Axis {
  const n = whole.labels.length, by = Math.ceil(n / Math.max(1, most));
  if (by <= 1) return whole;
  const starts = Array.from({ length: Math.ceil(n / by) }, (_, i) => i * by);
  const positions = starts.map((i) => whole.positions[i]!);
  const last = (i: number) => whole.positions[Math.min(n, i + by) - 1]! + whole.block - 1;
  return {
    labels: starts.map((i, at) => {
      const [from, to] = [positions[at]!, last(i)];
      return from === to ? `${from}` : `${from}…${to}`;
    }),
    positions,
    block: whole.block * by,
  };
}

/** The scale of several heatmaps, which ends at their largest number. */
export function scaleOf(maps: readonly Heatmap[], kind: Scale["kind"]): Scale {
  let most = 0;
  for (const { values } of maps) for (const x of values) if (x > most) most = x;
  return { most, kind };
}

/** Says what a cell of a heatmap stands for, or nothing where it is one token by one. */
export function scaleNote({ rows, columns }: Heatmap): string | null {
  if (rows.block === 1 && columns.block === 1) return null;
  return `a cell is ${rows.block} × ${columns.block} tokens and shows the largest of them`;
}

/** A number in few letters. */
export function brief(x: number): string {
  if (x === 0 || !Number.isFinite(x)) return String(x);
  return Math.abs(x) >= 1e-3 && Math.abs(x) < 1e4 ? String(Number(x.toPrecision(3))) : x.toExponential(1);
}
