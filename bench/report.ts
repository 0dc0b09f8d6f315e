/**
 * What a bench reports, and how it is printed: plain tables for people, JSON for machines.
 *
 * @module
 */
import { cpus } from "node:os";
import { device } from "../mod.ts";
import type { Peers } from "./peers/open.ts";
import type { Probe } from "./probe.ts";
import type { Clock, Effort } from "./timing.ts";

/** One line of a table: values by column. */
export type Row = Readonly<Record<string, string | number | null>>;

/** One table. */
export interface Section {
  readonly title: string;
  readonly rows: readonly Row[];
  /** What a reader must know to read the figures right. */
  readonly notes: readonly string[];
  /** Threads it was measured on; default 1. */
  readonly threads?: number;
  /** What measuring it took. */
  readonly seconds?: number;
}

/** Where the figures come from. */
export interface Machine {
  readonly cpu: string;
  readonly logical_cpus: number;
  readonly os: string;
  readonly deno: string;
  readonly v8: string;
  readonly kernels: string;
  readonly threads: number;
  /** Peers of kernels, as each says what it is. */
  readonly peers: readonly string[];
  /** Averages over 1, 5 and 15 minutes, before the run and after it. */
  readonly load_before: readonly number[];
  readonly load_after: readonly number[];
}

/** What every bench is given. */
export interface BenchContext {
  readonly depth: "check" | "quick" | "full";
  readonly effort: Effort;
  readonly threads: number;
  /** Which time rates and ratios are made of. */
  readonly clock: Clock;
  readonly peers: Peers;
  readonly probe: Probe;
  /** Shows a line of progress where there is a terminal. */
  progress(text: string): void;
}

/** Facts of this machine and process. */
export async function describeMachine(
  threads: number,
  { kernels }: Peers,
): Promise<Omit<Machine, "load_before" | "load_after">> {
  return {
    cpu: cpus()[0]?.model ?? "unknown",
    logical_cpus: navigator.hardwareConcurrency,
    os: `${Deno.build.os} ${Deno.build.arch}`,
    deno: Deno.version.deno,
    v8: Deno.version.v8,
    kernels: (await device("wasm")).description,
    threads,
    peers: kernels.map((peer) => peer.description),
  };
}

/** Three significant digits, without an exponent. */
export function significant(x: number): string {
  if (!Number.isFinite(x)) return "–";
  if (Number.isInteger(x)) return String(x);
  if (Math.abs(x) < 1e-3) return x.toExponential(1);
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(x))));
  return x.toFixed(Math.min(digits, 5));
}

const cell = (value: string | number | null | undefined) =>
  value === null || value === undefined ? "–" : typeof value === "number" ? significant(value) : value;

/** The columns of a table, in the order in which rows first name them. */
function columnsOf(rows: readonly Row[]): string[] {
  return [...new Set(rows.flatMap((row) => Object.keys(row)))];
}

/** A Markdown table, padded so that it also reads well as text. */
export function table(rows: readonly Row[]): string {
  const columns = columnsOf(rows);
  const lines = [columns, ...rows.map((row) => columns.map((c) => cell(row[c])))];
  const widths = columns.map((_, i) => Math.max(3, ...lines.map((line) => line[i]!.length)));
  const numeric = columns.map((c) => rows.every((row) => typeof (row[c] ?? 0) === "number"));
  const draw = (line: readonly string[]) =>
    `| ${
      line.map((text, i) => numeric[i] ? text.padStart(widths[i]!) : text.padEnd(widths[i]!)).join(" | ")
    } |`;
  const rule = `| ${
    widths.map((w, i) => numeric[i] ? `${"-".repeat(w - 1)}:` : "-".repeat(w)).join(" | ")
  } |`;
  return [draw(lines[0]!), rule, ...lines.slice(1).map(draw)].join("\n");
}

/** A section as Markdown. */
export function sectionText(section: Section): string {
  const notes = section.notes.map((n) => `- ${n}`).join("\n");
  return `## ${section.title}\n\n${table(section.rows)}\n${notes === "" ? "" : `\n${notes}\n`}`;
}

/** Facts as a Markdown list. */
export function machineText(machine: Machine): string {
  const load = (l: readonly number[]) => l.map((x) => x.toFixed(2)).join(" ");
  return [
    `- CPU: ${machine.cpu}, ${machine.logical_cpus} logical CPUs, ${machine.os}`,
    `- Deno ${machine.deno}, V8 ${machine.v8}, default flags`,
    `- kernels: ${machine.kernels}, ${machine.threads} thread${machine.threads === 1 ? "" : "s"}`,
    `- peers: ${machine.peers.length === 0 ? "none" : machine.peers.join("; ")}`,
    `- load average: ${load(machine.load_before)} before, ${load(machine.load_after)} after`,
  ].join("\n");
}
