/**
 * What this project wants to reach, as ratios within one run, and where a run stands.
 *
 * @module
 */
import type { Row, Section } from "./report.ts";

type Rows = readonly Row[];

/** A goal: the ratio, what it must be and what would be excellent. */
interface Goal {
  readonly name: string;
  /** Null where this run did not measure it. */
  readonly measured: (rows: Rows) => number | null;
  readonly must: number;
  readonly excellent: number;
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

/** The largest share of a forward that building a mask took, over the rows that fit. */
const worstShare = (fits: (row: Row) => boolean) => (rows: Rows) => {
  const shares = rows.filter(fits).map((r) => r["mask / forward"]).filter((x) => typeof x === "number");
  return shares.length === 0 ? null : Math.max(...shares);
};
const byUser = (row: Row) => String(row["case"]).endsWith("user's predicate");

const DECODE = "decode over 32768, 32/8, D 128 (256 MiB)";
const DECODE_HALF = "decode over 32768, 32/8, D 128, bfloat16 (128 MiB)";

const GOALS: readonly Goal[] = [
  {
    name: "GEMM 512³ / P128",
    measured: cell("GEMM 512×512×512", "linear float32", "of P128"),
    must: 0.75,
    excellent: 0.85,
  },
  {
    name: "GEMM 1024³ / P128",
    measured: cell("GEMM 1024×1024×1024", "linear float32", "of P128"),
    must: 0.75,
    excellent: 0.85,
  },
  {
    name: "flash, S 4096, D 64, full / P128",
    measured: cell("prefill 4096, D 64, full", FLASH, "of P128"),
    must: 0.65,
    excellent: 0.72,
  },
  {
    name: "flash, S 4096, D 128, full / P128",
    measured: cell("prefill 4096, D 128, full", FLASH, "of P128"),
    must: 0.70,
    excellent: 0.76,
  },
  {
    name: "causal time / full time, S 4096",
    measured: timeRatio("prefill 4096, D 64, causal", "prefill 4096, D 64, full"),
    must: 0.56,
    excellent: 0.53,
    ceiling: true,
  },
  {
    name: "window 512 time / causal time, S 4096",
    measured: timeRatio("prefill 4096, D 64, window 512", "prefill 4096, D 64, causal"),
    must: 0.28,
    excellent: 0.25,
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
    excellent: 0.11,
    ceiling: true,
  },
  {
    name: "flash × onnxruntime-web, S 512, full",
    measured: beside("prefill 512, D 64, full", "onnxruntime-web"),
    must: 1.8,
    excellent: 2.2,
  },
  {
    name: "flash × onnxruntime-web, S 2048, causal",
    measured: beside("prefill 2048, D 64, causal", "onnxruntime-web"),
    must: 3,
    excellent: 4,
  },
  {
    name: "flash × PyTorch held to AVX2, S 512, full",
    measured: beside("prefill 512, D 64, full", "torch AVX2"),
    must: 0.45,
    excellent: 0.6,
  },
  {
    name: "flash × PyTorch held to AVX2, S 512, causal",
    measured: beside("prefill 512, D 64, causal", "torch AVX2"),
    must: 0.8,
    excellent: 1,
  },
  {
    name: "decode, 256 MiB of keys and values / BW",
    measured: cell(DECODE, FLASH, "of BW"),
    must: 0.80,
    excellent: 0.92,
  },
  {
    name: "decode speed, bfloat16 / float32 cache",
    measured: (rows) => quotient(at(rows, DECODE, FLASH, "cpu ms"), at(rows, DECODE_HALF, FLASH, "cpu ms")),
    must: 1.7,
    excellent: 1.9,
  },
  ...(["bfloat16", "int8", "int4"] as const).flatMap((weights) =>
    (["prefill", "decode"] as const).map((figure): Goal => ({
      name: `${figure} × wllama, 135 M, ${weights}`,
      measured: besideWllama(figure, weights),
      must: 1.5,
      excellent: 2.5,
    }))
  ),
  {
    name: "built-in mask / forward, worst",
    measured: worstShare((row) => !byUser(row)),
    must: 0.01,
    excellent: 0.001,
    ceiling: true,
  },
  {
    name: "user's predicate / forward, S 4096, worst",
    measured: worstShare((row) => byUser(row) && String(row["case"]).startsWith("4096")),
    must: 0.1,
    excellent: 0.03,
    ceiling: true,
  },
  {
    name: "start: module KiB",
    measured: (rows) => rows.map((r) => r["module KiB"]).find((x) => typeof x === "number") ?? null,
    must: 300,
    excellent: 120,
    ceiling: true,
  },
  {
    name: "start: compile + instantiate ms",
    measured: (rows) =>
      rows.map((r) => r["compile + instantiate ms"]).find((x) => typeof x === "number") ?? null,
    must: 8,
    excellent: 3,
    ceiling: true,
  },
  {
    name: "1 B in bfloat16: peak memory / (weights + cache)",
    measured: (rows) =>
      rows.map((r) => r["peak / (weights + cache)"]).find((x) => typeof x === "number") ?? null,
    must: 1.1,
    excellent: 1.02,
    ceiling: true,
  },
];

/** Where the sections stand; null when none of the goals was measured. */
export function judge(sections: readonly Section[]): Section | null {
  const all = sections.filter(({ threads = 1 }) => threads === 1).flatMap((s) => s.rows);
  const rows = GOALS.flatMap(({ name, measured, must, excellent, ceiling = false }): Row[] => {
    const value = measured(all);
    if (value === null) return [];
    const reaches = (goal: number) => ceiling ? value <= goal : value >= goal;
    const shortfall = Math.abs(value / must - 1) * 100;
    const verdict = reaches(excellent)
      ? "excellent"
      : reaches(must)
      ? "met"
      : `missed by ${shortfall.toFixed(0)} %`;
    return [{
      goal: name,
      measured: value,
      must: `${ceiling ? "≤" : "≥"} ${must}`,
      excellent: `${excellent}`,
      verdict,
    }];
  });
  return rows.length === 0 ? null : {
    title: "Goals",
    rows,
    notes: ["Ratios within one run: of the least processor times, beside wllama of the least wall times."],
  };
}
