/**
 * Where everything of a picture of heatmaps lies, whoever draws it.
 *
 * @module
 */
import { type Heatmap, pooled, scaleNote } from "./heatmap.ts";

/** What a picture measures in. */
export interface Metrics {
  /** Width of a text. */
  readonly textWidth: (text: string) => number;
  /** Height of a line. */
  readonly line: number;
  /** Most cells in a direction; larger heatmaps are made smaller. */
  readonly cells: number;
  /** Side of a heatmap to aim at. */
  readonly side: number;
  /** Largest side of a cell. */
  readonly cell: number;
}

/** A heatmap in its place. */
export interface Panel {
  readonly map: Heatmap;
  /** Side of a cell. */
  readonly cell: number;
  /** Upper left corner of the first cell. */
  readonly x: number;
  readonly y: number;
  readonly title: { readonly x: number; readonly y: number; readonly lines: readonly string[] };
  /** Whether there is room for a label at every cell; else positions stand at every n-th. */
  readonly labelled: boolean;
  /** Cells from one label to the next. */
  readonly every: number;
}

/** Everything of a picture. */
export interface Layout {
  readonly width: number;
  readonly height: number;
  readonly panels: readonly Panel[];
  /** Upper left corner and size of the bar that shows the scale. */
  readonly legend: {
    readonly x: number;
    readonly y: number;
    readonly width: number;
    readonly height: number;
  };
}

const MARGIN = 12, GAP = 6;

/** Lays heatmaps out, `columns` side by side. */
export function layOut(maps: readonly Heatmap[], columns: number, metrics: Metrics): Layout {
  const across = Math.max(1, Math.min(columns, maps.length));
  const { line, textWidth } = metrics;
  const side = metrics.side / Math.sqrt(across);
  const sizes = maps.map((whole) => {
    const most = Math.min(metrics.cells, Math.floor(side));
    const map = pooled(whole, most, most);
    const [rows, width] = [map.rows.labels.length, map.columns.labels.length];
    const cell = Math.max(1, Math.min(metrics.cell, Math.floor(side / Math.max(rows, width))));
    const labelled = cell >= line;
    const texts = (axis: Heatmap["rows"]) => labelled ? axis.labels : axis.positions.map(String);
    const widest = (labels: readonly string[]) => Math.max(0, ...labels.map(textWidth));
    const note = scaleNote(map);
    const lines = [map.title, ...(note === null ? [] : [note])];
    return {
      map,
      cell,
      labelled,
      every: Math.ceil(line / cell),
      lines,
      left: widest(texts(map.rows)) + GAP,
      top: lines.length * line + widest(texts(map.columns)) + 2 * GAP,
      rows,
      width,
    };
  });
  // Panels of a column have one width, those of a row one height.
  const columnWidths = Array.from(
    { length: across },
    (_, i) =>
      Math.max(
        ...sizes.filter((_, j) => j % across === i)
          .map((s) => Math.max(s.left + s.width * s.cell, ...s.lines.map(textWidth))),
      ),
  );
  const panels: Panel[] = [];
  let y = MARGIN;
  for (let i = 0; i < sizes.length; i += across) {
    const row = sizes.slice(i, i + across);
    const top = Math.max(...row.map((s) => s.top));
    let x = MARGIN;
    for (const [j, s] of row.entries()) {
      const { map, cell, labelled, every, lines, left } = s;
      panels.push({ map, cell, labelled, every, title: { x, y, lines }, x: x + left, y: y + top });
      x += columnWidths[j]! + 2 * MARGIN;
    }
    y += top + Math.max(...row.map((s) => s.rows * s.cell)) + 2 * MARGIN;
  }
  const legend = { x: MARGIN + textWidth("1.0e-4") + GAP, y, width: 160, height: line };
  const width = columnWidths.reduce((sum, w) => sum + w + 2 * MARGIN, 0);
  return {
    width: Math.ceil(Math.max(width, legend.x + legend.width + textWidth("0.000 ▪ hidden by the mask") + 60)),
    height: Math.ceil(y + line + MARGIN),
    panels,
    legend,
  };
}
