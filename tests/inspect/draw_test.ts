import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { ansi256, colourOf, hex, NOT_A_NUMBER, viridis } from "../../src/draw/colour.ts";
import { axis, type Heatmap, pooled } from "../../src/draw/heatmap.ts";
import { cut, tokenLabel, widthOf } from "../../src/draw/label.ts";
import { heatmapsToPixels, NO_VALUE } from "../../src/draw/raster.ts";
import { heatmapsToSvg } from "../../src/draw/svg.ts";
import { heatmapsToText } from "../../src/draw/terminal.ts";

/** A lower triangle of weights 0, 1/n, 2/n, … over tokens. */
function triangle(labels: readonly string[], title = "a triangle"): Heatmap {
  const n = labels.length;
  const cell = (i: number) => [Math.floor(i / n), i % n] as const;
  return {
    title,
    rows: axis(labels),
    columns: axis(labels),
    values: Float64Array.from({ length: n * n }, (_, i) => {
      const [q, kv] = cell(i);
      return kv > q ? 0 : kv / n;
    }),
    hidden: Uint8Array.from({ length: n * n }, (_, i) => cell(i)[1] > cell(i)[0] ? 1 : 0),
  };
}

/** Elements and attributes of an SVG, which must be well-formed. */
function parse(xml: string): { name: string; attributes: Map<string, string>; text: string }[] {
  const open: { name: string; attributes: Map<string, string>; text: string }[] = [], all: typeof open = [];
  const decode = (text: string) => text.replace(/&#(\d+);/g, (_, code) => String.fromCodePoint(Number(code)));
  let at = 0;
  for (const tag of xml.matchAll(/<(\/?)([A-Za-z]+)((?:\s+[A-Za-z-]+(?::[a-z]+)?="[^"<]*")*)\s*(\/?)>/g)) {
    const between = xml.slice(at, tag.index);
    assert(!/[<>]/.test(between) && !/&(?!#\d+;)/.test(between), `stray characters: ${between}`);
    if (open.length > 0) open.at(-1)!.text += decode(between);
    else assertEquals(between.trim(), "");
    at = tag.index + tag[0].length;
    const [, closing, name, attributes, empty] = tag;
    if (closing === "/") {
      assertEquals(open.pop()?.name, name);
      continue;
    }
    const element = {
      name: name!,
      attributes: new Map(
        [...attributes!.matchAll(/([A-Za-z-]+)="([^"]*)"/g)].map((m) => [m[1]!, decode(m[2]!)]),
      ),
      text: "",
    };
    all.push(element);
    if (empty !== "/") open.push(element);
  }
  assertEquals([open.length, xml.slice(at).trim()], [0, ""]);
  return all;
}

Deno.test("viridis: its ends and middle are those of the original, and it grows brighter", () => {
  const near = (actual: readonly number[], expected: readonly number[]) =>
    assert(actual.every((x, i) => Math.abs(x - expected[i]!) <= 6), `${actual} is not near ${expected}`);
  near(viridis(0), [68, 1, 84]);
  near(viridis(0.5), [33, 145, 140]);
  near(viridis(1), [253, 231, 37]);
  const light = ([r, g, b]: readonly [number, number, number]) => 0.2126 * r + 0.7152 * g + 0.0722 * b;
  const all = Array.from({ length: 101 }, (_, i) => light(viridis(i / 100)));
  assert(all.every((x, i) => i === 0 || x > all[i - 1]! - 0.8));
  assertEquals([viridis(-1), viridis(2)], [viridis(0), viridis(1)]);
  const linear = { most: 2, kind: "linear" } as const, log = { most: 2, kind: "log" } as const;
  assertEquals(colourOf(NaN, linear), NOT_A_NUMBER);
  assertEquals([colourOf(0, { ...linear, most: 0 }), colourOf(1, linear)], [viridis(0), viridis(0.5)]);
  assertEquals([0, 2e-6, 2e-2, 2].map((x) => colourOf(x, log)), [0, 0, 0.5, 1].map(viridis));
});

Deno.test("labels: what is not seen is written out, and widths are those of a terminal", () => {
  assertEquals(tokenLabel(" the", 1), "␣the");
  assertEquals(tokenLabel("\n\t\x07\x1b[31m", 1), "\\n\\t\\u{7}\\u{1b}[31m");
  assertEquals(tokenLabel("\u202e\u200d\\", 1), "\\u{202e}\\u{200d}\\\\");
  assertEquals(tokenLabel("\u0301", 1), "◌\u0301");
  assertEquals([tokenLabel("\ufffd", 130), tokenLabel("", 7)], ["#130", "#7"]);
  assertEquals([widthOf("世界"), widthOf("e\u0301"), widthOf("ab")], [4, 1, 2]);
  assertEquals([cut("世界地図", 5), cut("abc", 3)], ["世界…", "abc"]);
});

Deno.test("pooled: a cell shows the largest of several tokens, and the axes say which", () => {
  const map = triangle(["a", "b", "c", "d", "e"]);
  const small = pooled(map, 3, 3);
  assertEquals(small.rows, { labels: ["0…1", "2…3", "4"], positions: [0, 2, 4], block: 2 });
  assertEquals([...small.values], [1 / 5, 0, 0, 1 / 5, 3 / 5, 0, 1 / 5, 3 / 5, 4 / 5]);
  assertEquals([...small.hidden], [0, 1, 1, 0, 0, 1, 0, 0, 0]);
  assertEquals(pooled(map, 5, 5), map);
});

Deno.test("terminal: shades, escaped labels from top to bottom, hidden cells apart from zeros", () => {
  const text = heatmapsToText([triangle(["In", "世", "\\n"])], { width: 80, colours: "none" });
  assertEquals(text.split("\n"), [
    "a triangle",
    "     I   \\",
    "     n 世n",
    "0 In    · ·",
    "1 世   ▒▒ ·",
    "2 \\n   ▒▒██",
    "",
    "0   ░░▒▒▓▓██ 0.667   · hidden by the mask",
  ]);
});

Deno.test("terminal: colours are those of the scale, in both palettes, and end with the line", () => {
  const map = triangle(["a", "b"]);
  const full = heatmapsToText([map], { width: 80, colours: "24-bit" });
  assertStringIncludes(full, `\x1b[48;2;${viridis(0).join(";")}m  `);
  assertStringIncludes(full, `\x1b[48;2;${viridis(1).join(";")}m  \x1b[49m`);
  assertStringIncludes(
    heatmapsToText([map], { width: 80, colours: "256" }),
    `\x1b[48;5;${ansi256(viridis(1))}m  `,
  );
  for (const line of full.split("\n").filter((l) => l.includes("\x1b"))) {
    assert(line.includes("\x1b[49m"), line);
  }
});

Deno.test("terminal: no line is wider than asked, however long the text", () => {
  const long = triangle(Array.from({ length: 300 }, (_, i) => `word${i}`));
  for (const width of [20, 40, 97]) {
    for (const maps of [[long], [long, long, long]]) {
      const text = heatmapsToText(maps, { width, colours: "none", columns: 2 });
      for (const line of text.split("\n").filter((l) => !/hidden by|a cell is/.test(l))) {
        assert(widthOf(line) <= width, `${widthOf(line)} columns: ${line}`);
      }
      assertStringIncludes(text, "shows the largest of them");
    }
  }
});

Deno.test("terminal: NaN is no colour of the scale", () => {
  const map = { ...triangle(["a", "b"]), values: Float64Array.of(0, 0, NaN, 1) };
  assertStringIncludes(heatmapsToText([map], { width: 80, colours: "none" }), "1 b !!██");
});

Deno.test("pixels: every cell has the colour of its value, hidden ones are hatched, labels have ink", () => {
  const maps = [triangle(["In", "␣the", "世", "d"]), triangle(["a", "b"], "another")];
  const { width, height, data, layout } = heatmapsToPixels(maps, 2);
  assertEquals(data.length, 3 * width * height);
  const at = (x: number, y: number) => [...data.subarray(3 * (y * width + x), 3 * (y * width + x) + 3)];
  assertEquals(layout.panels.length, 2);
  for (const { map, x, y, cell } of layout.panels) {
    const n = map.columns.labels.length;
    map.values.forEach((value, i) => {
      const pixel = at(x + (i % n) * cell + 3, y + Math.floor(i / n) * cell + 3);
      if (map.hidden[i] === 1) assert(NO_VALUE.hidden.some((c) => `${c}` === `${pixel}`), `${pixel}`);
      // Both are on the scale of the larger one.
      else assertEquals(pixel, [...colourOf(value, { most: 3 / 4, kind: "linear" })]);
    });
    const left = Array.from({ length: cell }, (_, j) => at(x - 12 + j % 8, y + j)).flat();
    assert(left.some((c) => c < 100), "the first row has no label");
  }
});

Deno.test("pixels and SVG: large heatmaps are made smaller", () => {
  const long = triangle(Array.from({ length: 1200 }, (_, i) => `w${i}`));
  const { layout } = heatmapsToPixels([long]);
  assertEquals([layout.panels[0]!.map.rows.block, layout.panels[0]!.cell], [3, 2]);
  assertStringIncludes(heatmapsToSvg([long]), "a cell is 5 × 5 tokens and shows the largest of them");
});

Deno.test("SVG: is well-formed, holds every label, and each cell says its value", () => {
  const labels = ["In", "<b>&\"'", "世界", "\\n", "]]>"];
  const map = triangle(labels);
  const elements = parse(heatmapsToSvg([map]));
  const texts = elements.filter(({ name }) => name === "text").map(({ text }) => text);
  for (const label of labels) assertEquals(texts.filter((text) => text === label).length, 2, label);
  const cells = elements.filter(({ name, attributes }) =>
    name === "rect" && /^#/.test(attributes.get("fill") ?? "") && attributes.get("width") === "20"
  );
  const shown = [...map.values].filter((_, i) => map.hidden[i] === 0);
  assertEquals(
    cells.map(({ attributes }) => attributes.get("fill")),
    shown.map((v) => hex(colourOf(v, { most: 4 / 5, kind: "linear" }))),
  );
  const titles = elements.filter(({ name }) => name === "title").map(({ text }) => text);
  assertEquals(titles.slice(1, 3), ["0 In → 0 In: 0", "1 <b>&\"' → 0 In: 0"]);
  assert(elements.every(({ attributes }) => !attributes.has("href")), "it needs no other file");
});
