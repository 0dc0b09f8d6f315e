/**
 * Tokens as labels: everything visible, on one line, of a known width.
 *
 * @module
 */
import stringWidth from "npm:string-width@8.1.0";

const NAMED: Readonly<Record<string, string>> = {
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\\": "\\\\",
  " ": "␣",
};

const segmenter = new Intl.Segmenter(undefined, { granularity: "grapheme" });

/** Columns a text takes in a terminal. */
export function widthOf(text: string): number {
  return stringWidth(text);
}

/** The characters of a text as people see them. */
export function graphemes(text: string): string[] {
  return Array.from(segmenter.segment(text), ({ segment }) => segment);
}

/**
 * A token's text with spaces, line breaks and whatever is not seen by itself written out. A token that is part of a
 * character has no text of its own: then its id stands for it.
 */
export function tokenLabel(text: string, id: number): string {
  if (text === "" || text.includes("\ufffd")) return `#${id}`;
  const shown = text.replace(
    /[\p{C}\p{Z}\\]/gu,
    (c) => NAMED[c] ?? `\\u{${c.codePointAt(0)!.toString(16)}}`,
  );
  // A combining mark needs something to stand on.
  return /^\p{M}/u.test(shown) ? `◌${shown}` : shown;
}

/** Cuts a text to a width, the end marked. */
export function cut(text: string, width: number): string {
  if (widthOf(text) <= width) return text;
  let kept = "";
  for (const g of graphemes(text)) {
    if (widthOf(kept + g) > width - 1) break;
    kept += g;
  }
  return `${kept}…`;
}

/** Fills a text with spaces on the left. */
export function padLeft(text: string, width: number): string {
  return " ".repeat(Math.max(0, width - widthOf(text))) + text;
}

/** Fills a text with spaces on the right. */
export function padRight(text: string, width: number): string {
  return text + " ".repeat(Math.max(0, width - widthOf(text)));
}

/** A text in the letters of a small font: ASCII, others by their code. */
export function ascii(text: string): string {
  return text.replace(/␣/g, "_").replace(/…/g, "~").replace(/×/g, "x").replace(/≤/g, "<=").replace(
    /[^ -~]/gu,
    (c) => `u${c.codePointAt(0)!.toString(16)}`,
  );
}
