/**
 * Heatmaps as one SVG file that needs no other.
 *
 * @module
 */
import { colourOf, hex, leastOf, type Scale, viridis } from "./colour.ts";
import { brief, type Heatmap, scaleOf } from "./heatmap.ts";
import { cut, widthOf } from "./label.ts";
import { type Layout, layOut, type Panel } from "./layout.ts";

const LABEL = 18, FONT = 11, LETTER = 6.7;
/** Up to so many cells each says its own value, beyond it each row says its largest one. */
const TOOLTIPS = 10_000;

/** Draws heatmaps on a common scale, with labels, tooltips and a legend. */
export function heatmapsToSvg(
  maps: readonly Heatmap[],
  columns = 1,
  kind: Scale["kind"] = "linear",
): string {
  const layout = layOut(maps.map(short), columns, {
    textWidth: (text) => widthOf(text) * LETTER,
    line: FONT + 3,
    cells: 256,
    side: 900,
    cell: 20,
  });
  const scale = scaleOf(maps, kind);
  const cells = layout.panels.reduce((n, { map }) => n + map.values.length, 0);
  const body = layout.panels.map((panel) => drawPanel(panel, scale, cells <= TOOLTIPS));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${layout.width}" height="${layout.height}" ` +
    `viewBox="0 0 ${layout.width} ${layout.height}" font-family="ui-monospace, monospace" font-size="${FONT}">`,
    `<title>${escape(maps.map(({ title }) => title).join("; "))}</title>`,
    "<defs>",
    '<pattern id="hidden" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">' +
    '<rect width="5" height="5" fill="#ececec"/><rect width="1" height="5" fill="#b0b0b0"/></pattern>',
    '<linearGradient id="scale">',
    ...Array.from(
      { length: 11 },
      (_, i) => `<stop offset="${i / 10}" stop-color="${hex(viridis(i / 10))}"/>`,
    ),
    "</linearGradient>",
    "</defs>",
    `<rect width="100%" height="100%" fill="#ffffff"/>`,
    ...body.flat(),
    ...drawLegend(layout, scale, maps.some(({ hidden }) => hidden.includes(1))),
    "</svg>",
    "",
  ].join("\n");
}

function short(map: Heatmap): Heatmap {
  const cutAxis = (axis: Heatmap["rows"]) => ({
    ...axis,
    labels: axis.labels.map((label) => cut(label, LABEL)),
  });
  return { ...map, rows: cutAxis(map.rows), columns: cutAxis(map.columns) };
}

function drawPanel(panel: Panel, scale: Scale, tooltips: boolean): string[] {
  const { map, cell, x, y, title, labelled, every } = panel;
  const width = map.columns.labels.length, height = map.rows.labels.length;
  const text = (axis: Heatmap["rows"], i: number) =>
    escape(labelled ? axis.labels[i]! : String(axis.positions[i]!));
  const shown = (axis: Heatmap["rows"], i: number) =>
    axis.block > 1 ? axis.labels[i]! : `${axis.positions[i]!} ${axis.labels[i]!}`.trim();
  const middle = cell / 2 + FONT / 3;
  const parts = title.lines.map((line, i) =>
    `<text x="${title.x}" y="${title.y + (i + 1) * (FONT + 2)}"${i === 0 ? ' font-weight="bold"' : ""}>${
      escape(line)
    }</text>`
  );
  for (let row = 0; row < height; row += every) {
    parts.push(
      `<text x="${x - 5}" y="${y + row * cell + middle}" text-anchor="end">${text(map.rows, row)}</text>`,
    );
  }
  for (let column = 0; column < width; column += every) {
    const [at, base] = [x + column * cell + middle, y - 5];
    parts.push(`<text transform="translate(${at} ${base}) rotate(-90)">${text(map.columns, column)}</text>`);
  }
  // One ground for all that is hidden; a cell that has a value lies on it.
  parts.push(
    `<rect x="${x}" y="${y}" width="${width * cell}" height="${height * cell}" fill="url(#hidden)"/>`,
  );
  for (let row = 0; row < height; row++) {
    const cells: string[] = [];
    let best = -1;
    for (let column = 0; column < width; column++) {
      const at = row * width + column;
      if (map.hidden[at] === 1) continue;
      const value = map.values[at]!;
      if (best < 0 || value > map.values[best]!) best = at;
      const box = `<rect x="${x + column * cell}" y="${
        y + row * cell
      }" width="${cell}" height="${cell}" fill="${hex(colourOf(value, scale))}"`;
      cells.push(
        tooltips
          ? `${box}><title>${
            escape(`${shown(map.rows, row)} → ${shown(map.columns, column)}: ${value}`)
          }</title></rect>`
          : `${box}/>`,
      );
    }
    const summary = best < 0
      ? `${shown(map.rows, row)}: all hidden`
      : `${shown(map.rows, row)}: most ${map.values[best]!} → ${shown(map.columns, best % width)}`;
    parts.push(`<g>${tooltips ? "" : `<title>${escape(summary)}</title>`}${cells.join("")}</g>`);
  }
  return parts;
}

function drawLegend({ legend: { x, y, width, height } }: Layout, scale: Scale, hides: boolean): string[] {
  const least = brief(leastOf(scale)), most = brief(scale.most);
  const base = y + height - 3, end = x + width + 6;
  const after = end + (most.length + 2) * LETTER;
  return [
    `<text x="${x - 6}" y="${base}" text-anchor="end">${least}</text>`,
    `<rect x="${x}" y="${y}" width="${width}" height="${height}" fill="url(#scale)"/>`,
    `<text x="${end}" y="${base}">${most}</text>`,
    ...(hides
      ? [
        `<rect x="${after}" y="${y}" width="${height}" height="${height}" fill="url(#hidden)"/>`,
        `<text x="${after + height + 6}" y="${base}">hidden by the mask</text>`,
      ]
      : []),
  ];
}

/** XML text; what XML forbids even there was written out by the labels. */
function escape(text: string): string {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}
