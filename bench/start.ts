/**
 * Start: what a fresh process needs until the first token of the demo model, ours and the peers' in turn.
 *
 * @module
 */
import { SCRATCH_BYTES } from "../src/devices/wasm/command.ts";
import { WasmEngine } from "../src/devices/wasm/engine.ts";
import { DEMO } from "./generate.ts";
import { openCheckpoint } from "./checkpoint.ts";
import { writeLlamaGguf } from "./peers/llama_gguf.ts";
import { decoderGraph } from "./peers/llama_onnx.ts";
import { flashCall, placeFloats } from "./raw.ts";
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

const best = (starts: readonly Start[], key: keyof Start) => {
  const values = starts.map((s) => s[key]).filter((x) => x !== null);
  return values.length === 0 ? null : Math.min(...values);
};

/** Sizes of the modules of a release, as the manifest beside them says. */
async function moduleSizes(): Promise<Row> {
  const { modules }: { modules: Record<string, { gzip: number }> } = JSON.parse(
    await Deno.readTextFile(new URL("../wasm/built/manifest.json", import.meta.url)),
  );
  // What inspects files serves the command line and the tests, and is not released.
  const released = Object.entries(modules).filter(([name]) => name !== "attune_inspect");
  const sizes = released.map(([, { gzip }]) => gzip / 1024);
  return {
    "largest build, KiB gzip": Math.max(...sizes),
    "all modules, KiB gzip": sizes.reduce((a, b) => a + b, 0),
  };
}

/** The bytes that flash attention takes beyond its operands on one thread, in MiB: the larger of two lengths. */
function workspace(): number {
  const beyond = [4096, 16384].map((S) => {
    const engine = new WasmEngine({ threads: 1 });
    const shape = { name: "", depth: "full", B: 1, H: 2, Hkv: 2, Q: S, K: S, D: 64 } as const;
    const place = () => placeFloats(engine, [1, 2, S, 64]);
    const [query, key, value] = [place(), place(), place()];
    const out = placeFloats(engine, [1, S, 2, 64]);
    const operands = engine.peak;
    // Memory is taken when work is recorded: it need not run.
    engine.kernels.attention(flashCall(shape, { query, key, value, out }));
    engine.close();
    return engine.peak - operands + SCRATCH_BYTES;
  });
  return Math.max(...beyond) / 2 ** 20;
}

/** Runs the bench. */
export async function benchStart(context: BenchContext): Promise<Section> {
  const rounds = { check: 1, quick: 3, full: 9 }[context.depth];
  const folder = await Deno.makeTempDir({ prefix: "start_" });
  const children: Record<string, string[]> = { attune: ["attune", DEMO.href] };
  const { onnx, llama } = context.peers;
  const starts: Record<string, Start[]> = {};
  try {
    if (onnx !== null) {
      const file = `${folder}/model.onnx`;
      await Deno.writeFile(file, decoderGraph(DEMO));
      children[onnx.name] = [onnx.name, DEMO.href, file];
    }
    if (llama.some(({ name }) => name === "wllama")) {
      const file = `${folder}/model.gguf`;
      using checkpoint = openCheckpoint(DEMO);
      writeLlamaGguf(file, checkpoint, "F32", "texts");
      children["wllama"] = ["wllama", DEMO.href, file];
    }
    // The first start of each also transpiles and fills the page cache: it is not counted.
    for (let round = context.depth === "check" ? 1 : 0; round <= rounds; round++) {
      for (const [name, args] of Object.entries(children)) {
        context.progress(`start: round ${round}/${rounds}: ${name}`);
        const start = await child(args);
        if (round > 0) (starts[name] ??= []).push(start);
      }
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  const tokens = new Set(Object.values(starts).flat().map((s) => s.token));
  if (tokens.size !== 1) throw new Error(`The first tokens differ: ${[...tokens]}`);
  const rows = Object.entries(starts).map(([implementation, all]): Row => ({
    implementation,
    "module KiB": all[0]!.module_bytes / 1024,
    "compile + instantiate ms": best(all, "compile_ms"),
    "imported ms": best(all, "imported_ms"),
    "model loaded ms": best(all, "loaded_ms"),
    "first token ms": best(all, "first_token_ms"),
    "first token cpu ms": best(all, "cpu_ms"),
    "first token ms (median)": median(all.map((s) => s.first_token_ms)),
    processes: all.length,
  }));
  const sizes = await moduleSizes();
  rows.push({ implementation: "attune", ...sizes, "workspace MiB a thread": workspace() });
  return {
    title: "Start",
    rows,
    notes: [
      "Fresh processes in turn, best of them; times count from the start of the process, file caches warm, and the first tokens are equal.",
      "All read local files: ours the bfloat16 checkpoint with its config, ONNX Runtime an encoded float32 graph of the same decoder, wllama a float32 GGUF file; wllama compiles in a worker, where it cannot be timed alone.",
      "Workspace: what flash attention of 4096 and of 16384 tokens takes beyond its operands, the thread's scratch memory included; stacks of 64 KiB are not.",
      "A prompt of 16 tokens; tokenizers are not part of it.",
    ],
  };
}
