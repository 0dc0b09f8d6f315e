/**
 * Horizontal bars on a logarithmic axis, which grow from 1: to the right what is faster, to the left what is slower.
 *
 * @module
 */

/** One bar. */
export interface Bar {
  /** The key of its colour in the legend. */
  readonly kind: string;
  readonly value: number;
  /** What is said behind the bar; default: its value. */
  readonly said?: string;
  /** A value that is marked on the bar's line. */
  readonly mark?: number;
}

/** Bars under one label. */
export interface Group {
  readonly label: string;
  readonly bars: readonly Bar[];
}

/** A part of the chart with a heading. */
export interface Part {
  readonly heading: string;
  readonly groups: readonly Group[];
}

/** A chart. */
export interface Chart {
  readonly title: string;
  /** What is measured, in which unit, where. */
  readonly about: readonly string[];
  /** Left and right of 1 on the axis. */
  readonly less: string;
  readonly more: string;
  readonly colours: Readonly<Record<string, string>>;
  readonly parts: readonly Part[];
}

const WIDTH = 1120, MARGIN = 24, LABELS = 300, VALUES = 150;
const BAR = 13, GAP = 3, BETWEEN = 12, HEADING = 34, LINE = 18;
const FONT = 'font-family="DejaVu Sans, Verdana, sans-serif"';
/** The font's mean width of a letter, in shares of its size. */
const LETTER = 0.6;

const escape = (text: string) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function text(x: number, y: number, content: string, size: number, rest = ""): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" font-size="${size}" ${rest}>${
    escape(content)
  }</text>`;
}

/** 1, 2, 5, 10, … and their reciprocals within the limits. */
function ticksWithin(least: number, most: number): number[] {
  const decades = [-3, -2, -1, 0, 1, 2].flatMap((e) => [1, 2, 5].map((d) => d * 10 ** e));
  return decades.filter((t) => t >= least * 0.999 && t <= most * 1.001);
}

const short = (x: number) => x >= 10 ? x.toFixed(0) : x >= 0.095 ? x.toFixed(2) : x.toFixed(3);

/** Words in lines of so many letters. */
function wrapped(content: string, letters: number): string[] {
  const lines: string[] = [];
  for (const word of content.split(" ")) {
    const last = lines.at(-1);
    if (last === undefined || last.length + word.length + 1 > letters) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines;
}

/** Draws a chart as one SVG file that needs no other. */
export function barChart({ title, about, less, more, colours, parts }: Chart): string {
  const bars = parts.flatMap((p) => p.groups.flatMap((g) => g.bars));
  const values = bars.flatMap(({ value, mark = 1 }) => [value, mark]).filter((v) => v > 0);
  const least = Math.min(0.5, ...values), most = Math.max(2, ...values);
  const [left, right] = [MARGIN + LABELS, WIDTH - MARGIN - VALUES];
  const span = Math.log(most / least);
  const x = (value: number) => left + (right - left) * Math.log(value / least) / span;
  const body: string[] = [];
  let y = MARGIN + 22;
  body.push(text(MARGIN, y, title, 20, 'font-weight="bold"'));
  for (const line of about.flatMap((a) => wrapped(a, (WIDTH - 2 * MARGIN) / 12 / LETTER * 1.08))) {
    body.push(text(MARGIN, y += LINE, line, 12, 'fill="#444"'));
  }
  y += 24;
  let at = MARGIN;
  for (const [kind, colour] of Object.entries(colours)) {
    if (!bars.some((b) => b.kind === kind)) continue;
    const width = 20 + kind.length * 12 * LETTER + 16;
    if (at + width > WIDTH - MARGIN) [at, y] = [MARGIN, y + LINE];
    body.push(`<rect x="${at}" y="${y - 10}" width="13" height="13" fill="${colour}"/>`);
    body.push(text(at + 19, y + 1, kind, 12));
    at += width;
  }
  y += 26;
  body.push(text(x(1) - 8, y, `← ${less}`, 11, 'text-anchor="end" fill="#444"'));
  body.push(text(x(1) + 8, y, `${more} →`, 11, 'fill="#444"'));
  y += 16;
  const ticks = ticksWithin(least, most);
  for (const t of ticks) {
    body.push(text(x(t), y, `${t >= 1 ? t : short(t)}×`, 10, 'text-anchor="middle" fill="#666"'));
  }
  const top = y + 5;
  const marks: string[] = [];
  for (const { heading, groups } of parts) {
    if (groups.length === 0) continue;
    y += HEADING - 6;
    marks.push(text(MARGIN, y, heading, 13, 'font-weight="bold"'));
    y += 12;
    for (const { label, bars } of groups) {
      const height = bars.length * (BAR + GAP) - GAP;
      marks.push(text(left - 10, y + height / 2 + 4, label, 11.5, 'text-anchor="end"'));
      for (const { kind, value, said = `${short(value)}×`, mark } of bars) {
        const [from, to] = [Math.min(x(1), x(value)), Math.max(x(1), x(value))];
        const width = Math.max(2, to - from);
        marks.push(
          `<rect x="${from.toFixed(1)}" y="${y}" width="${width.toFixed(1)}" height="${BAR}" fill="${
            colours[kind] ?? "#000"
          }"/>`,
        );
        if (mark !== undefined) {
          marks.push(
            `<path d="M${x(mark).toFixed(1)} ${y - 1}v${
              BAR + 2
            }" stroke="#000" stroke-width="2" stroke-dasharray="3 2"/>`,
          );
        }
        marks.push(
          text(
            Math.max(to, x(1), mark === undefined ? 0 : x(mark)) + 6,
            y + BAR - 3,
            said,
            10,
            'fill="#222"',
          ),
        );
        y += BAR + GAP;
      }
      y += BETWEEN;
    }
  }
  const grid = ticks.map((t) =>
    `<path d="M${x(t).toFixed(1)} ${top}V${y}" stroke="${t === 1 ? "#000" : "#ddd"}" stroke-width="1"/>`
  );
  const height = y + MARGIN;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" ${FONT}>`,
    `<title>${escape(title)}</title>`,
    '<rect width="100%" height="100%" fill="#fff"/>',
    ...grid,
    ...body,
    ...marks,
    "</svg>",
    "",
  ].join("\n");
}
