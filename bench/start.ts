/**
 * Start: what a fresh process needs until the first token of the demo model, ours and the peer's in turn.
 *
 * @module
 */
import { DEMO } from "./generate.ts";
import { decoderGraph } from "./peers/llama_onnx.ts";
import type { BenchContext, Row, Section } from "./report.ts";
import type { Start } from "./start_child.ts";
import { median } from "./timing.ts";

/** Starts a child and reads what it reports. */
async function child(args: readonly string[]): Promise<Start> {
  const script = new URL("start_child.ts", import.meta.url).href;
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", "--no-lock", script, ...args],
    stderr: "inherit",
  });
  const { success, stdout } = await command.output();
  if (!success) throw new Error(`bench/start_child.ts ${args[0]} failed`);
  return JSON.parse(new TextDecoder().decode(stdout));
}

const best = (starts: readonly Start[], key: keyof Start) => Math.min(...starts.map((s) => s[key]));

/** Runs the bench. */
export async function benchStart(context: BenchContext): Promise<Section> {
  const folder = DEMO.href;
  const rounds = { check: 1, quick: 3, full: 9 }[context.depth];
  const starts = { ours: [] as Start[], peer: [] as Start[] };
  const file = context.peers.onnx === null ? null : await Deno.makeTempFile({ suffix: ".onnx" });
  try {
    if (file !== null) await Deno.writeFile(file, decoderGraph(DEMO));
    // The first start of each also transpiles and fills the page cache: it is not counted.
    for (let round = context.depth === "check" ? 1 : 0; round <= rounds; round++) {
      context.progress(`start: round ${round}/${rounds}`);
      const found = [
        ["ours", await child(["attune", folder])],
        ...(file === null ? [] : [["peer", await child(["onnxruntime-web", folder, file])] as const]),
      ] as const;
      if (round > 0) { for (const [who, start] of found) starts[who].push(start); }
    }
  } finally {
    if (file !== null) await Deno.remove(file);
  }
  const tokens = new Set([...starts.ours, ...starts.peer].map((s) => s.token));
  if (tokens.size !== 1) throw new Error(`The first tokens differ: ${[...tokens]}`);
  const row = (implementation: string, all: readonly Start[]): Row => ({
    implementation,
    "module KiB": all[0]!.module_bytes / 1024,
    "compile + instantiate ms": best(all, "compile_ms"),
    "imported ms": best(all, "imported_ms"),
    "model loaded ms": best(all, "loaded_ms"),
    "first token ms": best(all, "first_token_ms"),
    "first token cpu ms": best(all, "cpu_ms"),
    "first token ms (median)": median(all.map((s) => s.first_token_ms)),
    processes: all.length,
  });
  const rows = [row("attune", starts.ours)];
  if (context.peers.onnx !== null) rows.push(row(context.peers.onnx.name, starts.peer));
  return {
    title: "Start",
    rows,
    notes: [
      "Fresh processes in turn, best of them; times count from the start of the process, file caches warm, and the first tokens are equal.",
      "Both read local files: ours the bfloat16 checkpoint with its config, the peer an encoded float32 graph of the same decoder.",
      "A prompt of 16 tokens; tokenizers are not part of it.",
    ],
  };
}
