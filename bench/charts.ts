/**
 * The results as pictures: kernels beside their peers, generation beside llama.cpp, and the goals.
 *
 * @module
 */
import { type Bar, barChart, type Chart, type Group } from "./bar_chart.ts";
import type { Machine, Row, Section } from "./report.ts";

/** What charts are drawn of. */
interface Drawn {
  readonly machine: Machine;
  readonly sections: readonly Section[];
}

/** Colours that those who confuse some can tell apart; natives are grey. */
const COLOURS = {
  "attune": "#0072b2",
  "attune, bfloat16": "#56b4e9",
  "onnxruntime-web": "#e69f00",
  "jax-js": "#009e73",
  "tfjs-wasm": "#cc79a7",
  "wllama": "#d55e00",
  "onnxruntime-node (native)": "#b0b0b0",
  "torch AVX2 (native)": "#808080",
  "torch (native)": "#505050",
  "node-llama-cpp (native)": "#808080",
} as const;
type Kind = keyof typeof COLOURS;

/** Whose row this is; null for rows that a chart leaves out. */
function kindOf(implementation: string): Kind | null {
  if (["linear float32", "flash_attention_2", "attune"].includes(implementation)) return "attune";
  if (implementation === "linear bfloat16") return "attune, bfloat16";
  const native = implementation.endsWith("(native)");
  const kinds = Object.keys(COLOURS) as Kind[];
  return kinds.filter((k) => k.endsWith("(native)") === native).findLast((kind) =>
    implementation.startsWith(kind.replace(" (native)", "")) &&
    (kind !== "torch (native)" || !implementation.startsWith("torch AVX2"))
  ) ?? null;
}

/** Bars of the rows that have `column`, grouped by `label`; of several of one kind the best counts. */
function groupsOf(rows: readonly Row[], column: string, label: (row: Row) => string): Group[] {
  const groups = new Map<string, Map<Kind, Bar>>();
  for (const row of rows) {
    const kind = kindOf(String(row["implementation"]));
    const value = row[column];
    if (kind === null || typeof value !== "number") continue;
    const bars = groups.get(label(row)) ?? new Map<Kind, Bar>();
    groups.set(label(row), bars);
    if (value > (bars.get(kind)?.value ?? 0)) bars.set(kind, { kind, value });
  }
  return [...groups].map(([label, bars]) => ({ label, bars: [...bars.values()] }));
}

const where = ({ cpu, deno, v8, kernels }: Machine, threads: number) =>
  `${cpu}; Deno ${deno}, V8 ${v8}; ${kernels}; ${threads} thread${threads === 1 ? "" : "s"} each.`;

function kernels({ machine, sections }: Drawn, threads: number): Chart {
  const rowsOf = (title: string) =>
    sections.find((s) => (s.threads ?? 1) === threads && s.title.startsWith(title))?.rows ?? [];
  const groups = (title: string) => groupsOf(rowsOf(title), "× peer", (row) => String(row["case"]));
  const time = threads === 1 ? "processor" : "wall";
  return {
    title: `Kernels: speed relative to the fastest WebAssembly peer${
      threads === 1 ? "" : `, ${threads} threads`
    }`,
    about: [
      `The fastest WebAssembly peer's least ${time} time of a case, divided by each contestant's: that peer is 1×, twice as fast is 2×. Logarithmic.`,
      "Every output was compared with float64 first. Grey: machine code with vectors two or four times as wide, for comparison.",
      where(machine, threads),
    ],
    less: "slower",
    more: "faster",
    colours: COLOURS,
    parts: [
      { heading: "Products of matrices, float32", groups: groups("Linear") },
      { heading: "Attention, float32", groups: groups("Attention") },
    ],
  };
}

const PAIRS: Readonly<Record<string, string>> = {
  float32: "float32 | F32",
  F32: "float32 | F32",
  bfloat16: "bfloat16 | F16",
  int8: "int8 | Q8_0",
  int4: "int4 | Q4_0",
  F16: "bfloat16 | F16",
  Q8_0: "int8 | Q8_0",
  Q4_0: "int4 | Q4_0",
};

function generation({ machine, sections }: Drawn): Chart {
  const rows = sections.find((s) => s.title === "Generation beside llama.cpp")?.rows ?? [];
  const parts = [...new Set(rows.map((row) => String(row["model"])))].map((model) => {
    const mine = rows.filter((row) => row["model"] === model);
    const label = (row: Row) => `${row["figure"]}, ${PAIRS[String(row["weights"])] ?? row["weights"]}`;
    // Formats that only the others have say nothing here.
    const groups = groupsOf(mine, "× wllama", label).filter((g) => g.bars.some((b) => b.kind === "attune"));
    return { heading: `${model} parameters`, groups };
  });
  return {
    title: "Generation: tokens per second relative to wllama",
    about: [
      "wllama is llama.cpp as WebAssembly. Its least wall time of a token, divided by each contestant's: wllama is 1×. Logarithmic.",
      "The same weights, in our type | in the GGUF type beside it. Log-probabilities and greedy tokens were compared first.",
      where(machine, 1),
    ],
    less: "slower",
    more: "faster",
    colours: COLOURS,
    parts,
  };
}

const VERDICTS = { "aim": "#009e73", "met": "#56b4e9", "missed": "#d55e00" } as const;

function goals({ machine, sections }: Drawn): Chart {
  const rows = sections.find((s) => s.title === "Goals")?.rows ?? [];
  const groups = rows.map((row): Group => {
    const must = String(row["must"]);
    const [goal, aim] = [Number(must.slice(2)), Number(row["aim"])];
    const reached = (value: number) => must.startsWith("≤") ? goal / value : value / goal;
    const measured = Number(row["measured"]);
    const verdict = String(row["verdict"]).split(" ")[0]!;
    const said = `${Number(measured.toPrecision(3))} (goal ${must})`;
    return {
      label: String(row["goal"]),
      bars: [{ kind: verdict, value: reached(measured), said, mark: reached(aim) }],
    };
  });
  return {
    title: "Goals: how far each is reached",
    about: [
      "What was measured in shares of the goal (of its reciprocal where less is better): 1× is the goal, the dashed mark is the aim. Logarithmic.",
      where(machine, 1),
    ],
    less: "missed",
    more: "reached",
    colours: VERDICTS,
    parts: [{ heading: "Ratios within one run", groups }],
  };
}

/** Pixels for a unit of the drawing. */
const ZOOM = 1.5;

interface Resvg {
  initWasm(bytes: Uint8Array): Promise<void>;
  Resvg: new (svg: string, options: object) => { render(): { asPng(): Uint8Array } };
}

/** Rasterises drawings. Not literals in the imports, as for the peers: only this needs them. */
async function rasteriser(): Promise<(svg: string) => Uint8Array> {
  const RESVG = "npm:@resvg/resvg-wasm@2.6.2";
  const FONT = "npm:dejavu-fonts-ttf@2.37.3";
  const file = (specifier: string) => Deno.readFile(new URL(import.meta.resolve(specifier)));
  const { initWasm, Resvg } = await import(RESVG) as Resvg;
  // Only what was imported lies on the disk; fonts have nothing else to import.
  await import(`${FONT}/package.json`, { with: { type: "json" } });
  await initWasm(await file(`${RESVG}/index_bg.wasm`));
  const fontBuffers = [
    await file(`${FONT}/ttf/DejaVuSans.ttf`),
    await file(`${FONT}/ttf/DejaVuSans-Bold.ttf`),
  ];
  const font = { fontBuffers, defaultFontFamily: "DejaVu Sans" };
  return (svg) => new Resvg(svg, { font, fitTo: { mode: "zoom", value: ZOOM } }).render().asPng();
}

/** Writes the charts that have bars, as SVG and PNG, to `${base}-NAME.svg` and `.png`. Returns their names. */
export async function writeCharts(drawn: Drawn, base: URL): Promise<string[]> {
  const charts = {
    "kernels": kernels(drawn, 1),
    "kernels-2-threads": kernels(drawn, 2),
    "generation": generation(drawn),
    "goals": goals(drawn),
  };
  const render = await rasteriser();
  const written: string[] = [];
  for (const [name, chart] of Object.entries(charts)) {
    if (chart.parts.every(({ groups }) => groups.length === 0)) continue;
    const svg = barChart(chart);
    await Deno.writeTextFile(new URL(`${base.href}-${name}.svg`), svg);
    await Deno.writeFile(new URL(`${base.href}-${name}.png`), render(svg));
    written.push(name);
  }
  return written;
}

// Draws a stored run again: deno run --no-lock -A bench/charts.ts bench/results/latest.json
if (import.meta.main) {
  const path = Deno.args[0] ?? "bench/results/latest.json";
  const base = new URL(path.replace(/\.json$/, ""), `file://${Deno.cwd()}/`);
  console.log((await writeCharts(JSON.parse(await Deno.readTextFile(path)), base)).join(", "));
}
