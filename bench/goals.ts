/**
 * What this project wants to reach, as ratios within one run, and where a run stands.
 *
 * @module
 */
import type { Row, Section } from "./report.ts";

type Rows = readonly Row[];

/** A goal: the ratio, what it must be and what we aim at. */
interface Goal {
  readonly name: string;
  /** Null where this run did not measure it. */
  readonly measured: (rows: Rows) => number | null;
  readonly must: number;
  readonly aim: number;
  /** Whether smaller is better. */
  readonly ceiling?: boolean;
}

/** The value in `column` of the row with this case (or figure) and implementation. */
function at(rows: Rows, name: string, implementation: string, column: string): number | null {
  const row = rows.find((r) => (r["case"] ?? r["figure"]) === name && r["implementation"] === implementation);
  const value = row?.[column];
  return typeof value === "number" ? value : null;
}

function quotient(a: number | null, b: number | null): number | null {
  return a === null || b === null ? null : a / b;
}

const FLASH = "flash_attention_2";
const cell = (name: string, implementation: string, column: string) => (rows: Rows) =>
  at(rows, name, implementation, column);
const timeRatio = (a: string, b: string) => (rows: Rows) =>
  quotient(at(rows, a, FLASH, "cpu ms"), at(rows, b, FLASH, "cpu ms"));

/** Our speed in a case beside a peer's: the best of its operations, by processor time. */
const beside = (name: string, peer: string) => (rows: Rows) => {
  const theirs = rows.filter((r) => r["case"] === name && String(r["implementation"]).startsWith(peer))
    .map((r) => r["cpu ms"]).filter((x) => typeof x === "number");
  return theirs.length === 0 ? null : quotient(Math.min(...theirs), at(rows, name, FLASH, "cpu ms"));
};

/** Our generation beside wllama's, with weights of one kind: the shape of SmolLM2-135M. */
const besideWllama = (figure: string, weights: string) => (rows: Rows) => {
  const value = rows.find((r) =>
    String(r["model"]).startsWith("SmolLM2") && r["implementation"] === "attune" &&
    r["weights"] === weights &&
    String(r["figure"]).startsWith(figure)
  )?.["× wllama"];
  return typeof value === "number" ? value : null;
};

/** The smallest value in a column over the cases that are named so. */
const least = (column: string, ...names: readonly string[]) => (rows: Rows) => {
  const values = rows.filter((r) => names.some((name) => String(r["case"] ?? "").startsWith(name)))
    .map((r) => r[column]).filter((x) => typeof x === "number");
  return values.length === 0 ? null : Math.min(...values);
};

/** The peak of our model of the shape of Llama-3.2-1B in bfloat16, in parts of what it has to hold. */
const peakOf1B = (rows: Rows): number | null => {
  const row = rows.find((r) =>
    String(r["model"]).endsWith("1 B") && r["implementation"] === "attune" && r["weights"] === "bfloat16"
  );
  const value = row?.["peak / (weights + cache)"];
  return typeof value === "number" ? value : null;
};

/** The first value there is in a column. */
const only = (column: string) => (rows: Rows) =>
  rows.map((r) => r[column]).find((x) => typeof x === "number") ?? null;

/** The largest share of a forward that building a mask took, over the rows that fit. */
const worstShare = (fits: (row: Row) => boolean) => (rows: Rows) => {
  const shares = rows.filter(fits).map((r) => r["mask / forward"]).filter((x) => typeof x === "number");
  return shares.length === 0 ? null : Math.max(...shares);
};
/** Speed-up on two threads divided by what two threads of the machine can do. */
const SCALING = "ours / probes";

/** How much sooner than a peer's the first token of a fresh process comes. */
const startBeside = (peer: string) => (rows: Rows) => quotient(start(rows, peer), start(rows, "attune"));
const start = (rows: Rows, implementation: string): number | null => {
  const value = rows.find((r) => r["implementation"] === implementation && "first token ms" in r)
    ?.["first token ms"];
  return typeof value === "number" ? value : null;
};
const byUser = (row: Row) => String(row["case"]).endsWith("user's predicate");

const DECODE = "decode over 32768, 32/8, D 128 (256 MiB)";
const DECODE_HALF = "decode over 32768, 32/8, D 128, bfloat16 (128 MiB)";
const DECODE_INT8 = "decode over 32768, 32/8, D 128, int8 (66 MiB)";
const GEMM = "GEMM 1024×1024×1024";
const GEMV = "GEMV 1×8192×16384 (72 MiB in int4)";

const GOALS: readonly Goal[] = [
  {
    name: "GEMM 512³ / P128",
    measured: cell("GEMM 512×512×512", "linear float32", "of P128"),
    must: 0.75,
    aim: 0.85,
  },
  {
    name: "GEMM 1024³ / P128",
    measured: cell("GEMM 1024×1024×1024", "linear float32", "of P128"),
    must: 0.75,
    aim: 0.85,
  },
  {
    name: "flash, S 4096, D 64, full / P128",
    measured: cell("prefill 4096, D 64, full", FLASH, "of P128"),
    must: 0.65,
    aim: 0.72,
  },
  {
    name: "flash, S 4096, D 128, full / P128",
    measured: cell("prefill 4096, D 128, full", FLASH, "of P128"),
    must: 0.70,
    aim: 0.76,
  },
  {
    name: "causal time / full time, S 4096",
    measured: timeRatio("prefill 4096, D 64, causal", "prefill 4096, D 64, full"),
    must: 0.56,
    aim: 0.53,
    ceiling: true,
  },
  {
    name: "window 512 time / causal time, S 4096",
    measured: timeRatio("prefill 4096, D 64, window 512", "prefill 4096, D 64, causal"),
    must: 0.28,
    aim: 0.25,
    ceiling: true,
  },
  {
    name: "sdpa / the best backend it can be forced to, worst",
    measured: (rows) => {
      const ratios = rows.map((r) => r["sdpa / forced"]).filter((x) => typeof x === "number");
      return ratios.length === 0 ? null : Math.max(...ratios);
    },
    must: 1.1,
    aim: 1.1,
    ceiling: true,
  },
  {
    name: "block mask, 90 % empty, time / full time, S 4096",
    measured: (rows) =>
      quotient(
        at(rows, "prefill 4096, D 64, a tenth of the blocks", "flex_attention", "cpu ms"),
        at(rows, "prefill 4096, D 64, full", FLASH, "cpu ms"),
      ),
    must: 0.14,
    aim: 0.11,
    ceiling: true,
  },
  {
    name: "flash × onnxruntime-web, S 512, full",
    measured: beside("prefill 512, D 64, full", "onnxruntime-web"),
    must: 1.8,
    aim: 2.2,
  },
  {
    name: "flash × onnxruntime-web, S 2048, causal",
    measured: beside("prefill 2048, D 64, causal", "onnxruntime-web"),
    must: 3,
    aim: 4,
  },
  {
    name: "flash × PyTorch held to AVX2, S 512, full",
    measured: beside("prefill 512, D 64, full", "torch AVX2"),
    must: 0.45,
    aim: 0.6,
  },
  {
    name: "flash × PyTorch held to AVX2, S 512, causal",
    measured: beside("prefill 512, D 64, causal", "torch AVX2"),
    must: 0.8,
    aim: 1,
  },
  {
    name: "decode, 256 MiB of keys and values / BW",
    measured: cell(DECODE, FLASH, "of BW"),
    must: 0.80,
    aim: 0.92,
  },
  {
    name: "decode speed, bfloat16 / float32 cache",
    measured: (rows) => quotient(at(rows, DECODE, FLASH, "cpu ms"), at(rows, DECODE_HALF, FLASH, "cpu ms")),
    must: 1.7,
    aim: 1.9,
  },
  {
    name: "decode speed, int8 / float32 cache",
    measured: (rows) => quotient(at(rows, DECODE, FLASH, "cpu ms"), at(rows, DECODE_INT8, FLASH, "cpu ms")),
    must: 2.4,
    aim: 3,
  },
  ...(["int8", "int4"] as const).map((format): Goal => ({
    name: `GEMV 1×8192×16384, ${format} / BW`,
    measured: cell(GEMV, `linear ${format}`, "of BW"),
    must: 0.75,
    aim: 0.9,
  })),
  {
    name: "GEMM 1024³ speed, int8 / float32 (the aim is for processors with VNNI)",
    measured: (rows) =>
      quotient(at(rows, GEMM, "linear float32", "cpu ms"), at(rows, GEMM, "linear int8", "cpu ms")),
    must: 1.7,
    aim: 3,
  },
  ...(["bfloat16", "int8", "int4"] as const).flatMap((weights) =>
    (["prefill", "decode"] as const).map((figure): Goal => ({
      name: `${figure} × wllama, 135 M, ${weights}`,
      measured: besideWllama(figure, weights),
      must: 1.5,
      aim: 2.5,
    }))
  ),
  {
    name: "built-in mask / forward, worst",
    measured: worstShare((row) => !byUser(row)),
    must: 0.01,
    aim: 0.001,
    ceiling: true,
  },
  {
    name: "user's predicate / forward, S 4096, worst",
    measured: worstShare((row) => byUser(row) && String(row["case"]).startsWith("4096")),
    must: 0.1,
    aim: 0.03,
    ceiling: true,
  },
  {
    name: "GEMM on 2 threads: speed-up / that of two probes, worst",
    measured: least(SCALING, "GEMM"),
    must: 0.93,
    aim: 0.97,
  },
  {
    name: "flash on 2 threads: speed-up / that of two probes, worst",
    measured: least(SCALING, "prefill 1024", "prefill 4096"),
    must: 0.93,
    aim: 0.97,
  },
  {
    name: "prefill of the demo model on 2 threads: speed-up / that of two probes",
    measured: least(SCALING, "demo model, prefill"),
    must: 0.93,
    aim: 0.97,
  },
  {
    name: "a token of the demo model: speed-up on 2 threads",
    measured: least("speed-up", "demo model, a token"),
    must: 0.98,
    aim: 1,
  },
  {
    name: "workspace of flash attention, S 4096 and 16384: MiB a thread",
    measured: only("workspace MiB a thread"),
    must: 1,
    aim: 1,
    ceiling: true,
  },
  {
    name: "kernel builds: largest, KiB gzip",
    measured: only("largest build, KiB gzip"),
    must: 120,
    aim: 120,
    ceiling: true,
  },
  {
    name: "all released modules: KiB gzip",
    measured: only("all modules, KiB gzip"),
    must: 600,
    aim: 600,
    ceiling: true,
  },
  {
    name: "start: compile + instantiate ms",
    measured: only("compile + instantiate ms"),
    must: 8,
    aim: 3,
    ceiling: true,
  },
  {
    name: "start: first token × onnxruntime-web",
    measured: startBeside("onnxruntime-web"),
    must: 2,
    aim: 4,
  },
  { name: "start: first token × wllama", measured: startBeside("wllama"), must: 2, aim: 4 },
  {
    name: "1 B in bfloat16: peak memory / (weights + cache)",
    measured: peakOf1B,
    must: 1.1,
    aim: 1.02,
    ceiling: true,
  },
];

/** Where the sections stand; null when none of the goals was measured. */
export function judge(sections: readonly Section[]): Section | null {
  const all = sections.filter(({ threads = 1 }) => threads === 1).flatMap((s) => s.rows);
  const rows = GOALS.flatMap(({ name, measured, must, aim, ceiling = false }): Row[] => {
    const value = measured(all);
    if (value === null) return [];
    const reaches = (goal: number) => ceiling ? value <= goal : value >= goal;
    const short = (goal: number) => `${(Math.abs(value / goal - 1) * 100).toFixed(0)} %`;
    const verdict = reaches(aim)
      ? "aim reached"
      : reaches(must)
      ? `met (${short(aim)} from the aim)`
      : `missed by ${short(must)}`;
    return [{
      goal: name,
      measured: value,
      must: `${ceiling ? "≤" : "≥"} ${must}`,
      aim: `${aim}`,
      verdict,
    }];
  });
  return rows.length === 0 ? null : {
    title: "Goals",
    rows,
    notes: [
      "Ratios within one run: of the least processor times; beside wllama and on two threads of the least wall times.",
    ],
  };
}
