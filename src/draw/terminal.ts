/**
 * Heatmaps in a terminal: blocks of colour, or shades where there are no colours.
 *
 * @module
 */
import { ansi256, colourOf, leastOf, partOf, type Scale } from "./colour.ts";
import { brief, type Heatmap, pooled, scaleNote, scaleOf } from "./heatmap.ts";
import { cut, graphemes, padLeft, padRight, widthOf } from "./label.ts";

/** What a terminal can show. */
export interface TerminalStyle {
  /** Columns of a line. */
  readonly width: number;
  /** Colours of 24 bits, of a palette of 256, or none. */
  readonly colours: "24-bit" | "256" | "none";
  /** Default: linear. */
  readonly scale?: Scale["kind"];
  /** Heatmaps side by side at most; default 1. With more than one, labels are positions only. */
  readonly columns?: number;
}

const SHADES = [" ", "░", "▒", "▓", "█"];
const HIDDEN = " ·";
const LABEL = 16;
const ROWS = 64;
/** Least columns of cells in one of several heatmaps. */
const SMALL = 8;

/** Draws heatmaps with a common scale, and its legend. */
export function heatmapsToText(maps: readonly Heatmap[], style: TerminalStyle): string {
  if (maps.length === 0) return "";
  const scale = scaleOf(maps, style.scale ?? "linear");
  const room = (n: number) => Math.floor((style.width - 3 * (n - 1)) / n);
  let across = Math.min(style.columns ?? 1, maps.length);
  while (across > 1 && room(across) < 6 + 2 * SMALL) across--;
  const drawn = maps.map((map) => panel(map, scale, { ...style, width: room(across) }, maps.length === 1));
  const notes = new Set(drawn.flatMap(({ note }) => note ?? []));
  const lines: string[] = [];
  for (let i = 0; i < drawn.length; i += across) {
    const row = drawn.slice(i, i + across).map((panel) => panel.lines);
    const widths = row.map((panel) => Math.max(...panel.map((line) => line.width)));
    const height = Math.max(...row.map((panel) => panel.length));
    for (let y = 0; y < height; y++) {
      const cells = row.map((panel, j) => {
        const line = panel[y];
        if (j === row.length - 1) return line?.text ?? "";
        return (line?.text ?? "") + " ".repeat(widths[j]! - (line?.width ?? 0));
      });
      lines.push(cells.join("   ").trimEnd());
    }
    lines.push("");
  }
  const hides = maps.some(({ hidden }) => hidden.includes(1));
  return [...lines, ...notes, legend(scale, hides, style)].join("\n");
}

/** A line and its width, which escape sequences do not add to. */
interface Line {
  readonly text: string;
  readonly width: number;
}

/** Its lines, and what is to be said of its cells. */
function panel(
  whole: Heatmap,
  scale: Scale,
  style: TerminalStyle,
  full: boolean,
): { lines: Line[]; note: string | null } {
  const digits = String(Math.max(0, ...whole.rows.positions)).length;
  const named = full && whole.rows.labels.some((label) => label !== "");
  const names = named ? Math.min(LABEL, Math.max(...whole.rows.labels.map(widthOf))) : 0;
  const left = digits + 1 + (named ? names + 1 : 0);
  const columns = Math.max(1, Math.floor((style.width - left) / 2));
  const map = pooled(whole, full ? ROWS : columns, columns);
  const label = (i: number) => {
    const position = padLeft(String(map.rows.positions[i]!), digits);
    if (!named) return `${position} `;
    return `${position} ${padRight(map.rows.block === 1 ? cut(map.rows.labels[i]!, names) : "", names)} `;
  };
  const text = (line: string): Line => ({ text: line, width: widthOf(line) });
  const width = map.columns.labels.length;
  const lines = [
    text(cut(map.title, style.width)),
    ...header(map, full).map((line) => text(" ".repeat(left) + line)),
    ...map.rows.labels.map((_, row) => {
      const cells = Array.from({ length: width }, (_, column) => {
        const at = row * width + column;
        return map.hidden[at] === 1 ? null : map.values[at]!;
      });
      return { text: label(row) + paint(cells, scale, style), width: left + 2 * width };
    }),
  ];
  return { lines, note: scaleNote(map) };
}

/** Labels of the columns from top to bottom, ending at the cells. */
function header({ columns }: Heatmap, full: boolean): string[] {
  const labels = columns.labels.map((label, i) =>
    full && columns.block === 1 ? cut(label, LABEL) : String(columns.positions[i]!)
  );
  if (!full) {
    // Too small for a label a column: the first and the last.
    const [first, last] = [labels[0]!, labels.at(-1)!];
    const room = 2 * labels.length;
    return [first + (room > first.length + last.length ? padLeft(last, room - first.length) : "")];
  }
  const letters = labels.map(graphemes);
  const height = Math.max(...letters.map((l) => l.length));
  return Array.from(
    { length: height },
    (_, y) => letters.map((l) => padRight(l[y - height + l.length] ?? "", 2)).join(""),
  );
}

/** Cells of two columns each; null is hidden. */
function paint(cells: readonly (number | null)[], scale: Scale, { colours }: TerminalStyle): string {
  let text = "", open = "";
  for (const value of cells) {
    const code = value === null || colours === "none" ? "" : background(value, scale, colours);
    if (code !== open) text += open !== "" && code === "" ? `\x1b[49m${code}` : code;
    open = code;
    text += value === null
      ? HIDDEN
      : Number.isNaN(value)
      ? "!!"
      : colours === "none"
      ? shade(value, scale)
      : "  ";
  }
  return open === "" ? text : `${text}\x1b[49m`;
}

function background(value: number, scale: Scale, colours: "24-bit" | "256"): string {
  const colour = colourOf(value, scale);
  return colours === "256" ? `\x1b[48;5;${ansi256(colour)}m` : `\x1b[48;2;${colour.join(";")}m`;
}

function shade(value: number, scale: Scale): string {
  return SHADES[Math.round(partOf(value, scale) * (SHADES.length - 1))]!.repeat(2);
}

function legend(scale: Scale, hides: boolean, style: TerminalStyle): string {
  const steps = style.colours === "none" ? SHADES.length : 16;
  const cells = Array.from({ length: steps }, (_, i) => i / (steps - 1));
  const bar = paint(cells, { most: 1, kind: "linear" }, style);
  return `${brief(leastOf(scale))} ${bar} ${brief(scale.most)}${
    hides ? `   ${HIDDEN.trim()} hidden by the mask` : ""
  }`;
}
