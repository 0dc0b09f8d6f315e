/**
 * Heatmaps as pixels.
 *
 * @module
 */
import { type Colour, colourOf, leastOf, type Scale, viridis } from "./colour.ts";
import { ink, LETTER } from "./font.ts";
import { brief, type Heatmap, scaleOf } from "./heatmap.ts";
import { ascii, cut } from "./label.ts";
import { type Layout, layOut, type Panel } from "./layout.ts";

/** A picture of pixels. */
export interface Pixels {
  readonly width: number;
  readonly height: number;
  /** Red, green, blue; row-major. */
  readonly data: Uint8Array<ArrayBuffer>;
  /** Where everything lies. */
  readonly layout: Layout;
}

const BLACK: Colour = [30, 30, 30];
const PAPER: Colour = [255, 255, 255];
const VEIL: Colour = [236, 236, 236], HATCH: Colour = [176, 176, 176];
const LABEL = 14;
/** Least side of a cell with a border. */
const BORDERED = 6;

const fitting = (label: string) => ascii(cut(label, LABEL));

/** Draws heatmaps on a common scale, with labels and a legend. */
export function heatmapsToPixels(
  maps: readonly Heatmap[],
  columns = 1,
  kind: Scale["kind"] = "linear",
): Pixels {
  const fit = maps.map((map) => ({
    ...map,
    rows: { ...map.rows, labels: map.rows.labels.map(fitting) },
    columns: { ...map.columns, labels: map.columns.labels.map(fitting) },
  }));
  const layout = layOut(fit, columns, {
    textWidth: (text) => ascii(text).length * LETTER,
    line: LETTER + 2,
    cells: 512,
    side: 900,
    cell: 18,
  });
  const { width, height, panels, legend } = layout;
  const data = new Uint8Array(3 * width * height).fill(255);
  const dot = (x: number, y: number, colour: Colour) => {
    if (x >= 0 && y >= 0 && x < width && y < height) data.set(colour, 3 * (y * width + x));
  };
  const canvas = new Canvas(dot);
  const scale = scaleOf(maps, kind);
  for (const panel of panels) drawPanel(canvas, panel, scale);
  for (let x = 0; x < legend.width; x++) {
    canvas.box(legend.x + x, legend.y, 1, legend.height, viridis(x / (legend.width - 1)));
  }
  const least = brief(leastOf(scale)), most = brief(scale.most);
  canvas.text(least, legend.x - least.length * LETTER - 4, legend.y + 1);
  const end = legend.x + legend.width + 6;
  canvas.text(most, end, legend.y + 1);
  if (!maps.some(({ hidden }) => hidden.includes(1))) return { width, height, data, layout };
  const after = end + (most.length + 2) * LETTER;
  canvas.hatch(after, legend.y, legend.height);
  canvas.text("hidden by the mask", after + legend.height + 6, legend.y + 1);
  return { width, height, data, layout };
}

function drawPanel(canvas: Canvas, panel: Panel, scale: Scale): void {
  const { map, cell, x, y, title, every } = panel;
  const width = map.columns.labels.length;
  title.lines.forEach((line, i) => canvas.text(ascii(line), title.x, title.y + i * (LETTER + 2)));
  const border = cell >= BORDERED ? 1 : 0;
  map.values.forEach((value, at) => {
    const [left, top] = [x + at % width * cell, y + Math.floor(at / width) * cell];
    if (map.hidden[at] === 1) canvas.hatch(left, top, cell - border);
    else canvas.box(left, top, cell - border, cell - border, colourOf(value, scale));
  });
  const middle = Math.max(0, Math.floor((cell - LETTER) / 2));
  const { rows, columns } = labels(panel);
  rows.forEach((label, i) => {
    if (i % every === 0) canvas.text(label, x - 4 - label.length * LETTER, y + i * cell + middle);
  });
  columns.forEach((label, i) => {
    if (i % every === 0) canvas.upwards(label, x + i * cell + middle, y - 4);
  });
}

function labels({ map, labelled }: Panel): { rows: readonly string[]; columns: readonly string[] } {
  const of = (axis: Heatmap["rows"]) => labelled ? axis.labels : axis.positions.map(String);
  return { rows: of(map.rows), columns: of(map.columns) };
}

/** Boxes and letters out of dots. */
class Canvas {
  constructor(readonly dot: (x: number, y: number, colour: Colour) => void) {}

  box(x: number, y: number, width: number, height: number, colour: Colour): void {
    for (let j = 0; j < height; j++) for (let i = 0; i < width; i++) this.dot(x + i, y + j, colour);
  }

  /** What the mask hides is no weight of 0, and looks it. */
  hatch(x: number, y: number, side: number): void {
    for (let j = 0; j < side; j++) {
      for (let i = 0; i < side; i++) this.dot(x + i, y + j, (i + j) % 6 === 0 && side > 3 ? HATCH : VEIL);
    }
  }

  text(text: string, x: number, y: number): void {
    this.#letters(text, (i, along, down) => this.dot(x + i * LETTER + along, y + down, BLACK));
  }

  /** Text that runs from the bottom, at `y`, upwards. */
  upwards(text: string, x: number, y: number): void {
    this.#letters(text, (i, along, down) => this.dot(x + down, y - 1 - i * LETTER - along, BLACK));
  }

  #letters(text: string, put: (letter: number, along: number, down: number) => void): void {
    for (let i = 0; i < text.length; i++) {
      for (let down = 0; down < LETTER; down++) {
        for (let along = 0; along < LETTER; along++) if (ink(text[i]!, along, down)) put(i, along, down);
      }
    }
  }
}

/** The colours of what is no value: for those who read a picture. */
export const NO_VALUE: { readonly hidden: readonly Colour[]; readonly paper: Colour } = {
  hidden: [VEIL, HATCH],
  paper: PAPER,
};
