/**
 * The benches' entry: `deno task bench`, `deno task bench:check`.
 *
 * @module
 */
import { Argument, Command } from "npm:commander@14.0.3";
import { configure } from "../mod.ts";
import { benchAttention } from "./attention.ts";
import { benchGenerate } from "./generate.ts";
import { judge } from "./goals.ts";
import { benchLinear } from "./linear.ts";
import { benchMasks } from "./masks.ts";
import { loadOnnxRuntimeWeb } from "./peers/onnxruntime_web.ts";
import { makeProbe } from "./probe.ts";
import {
  type BenchContext,
  describeMachine,
  type Machine,
  machineText,
  type Section,
  sectionText,
  significant,
} from "./report.ts";
import { benchStart } from "./start.ts";
import { EFFORT, interleave } from "./timing.ts";
import { benchWebgpu } from "./webgpu.ts";

const BENCHES = {
  linear: benchLinear,
  attention: benchAttention,
  masks: benchMasks,
  generate: benchGenerate,
  start: benchStart,
  webgpu: benchWebgpu,
} as const;
type Name = keyof typeof BENCHES;

/** A run as it is stored. */
interface Results {
  readonly depth: BenchContext["depth"];
  readonly machine: Machine;
  readonly probes: { readonly "P128 GFLOP/s": number; readonly "BW GB/s": number };
  readonly sections: readonly Section[];
}

/** One line on a terminal that is overwritten and cleared; nothing where the output goes to a file. */
function progressLine(): (text: string) => void {
  if (!Deno.stderr.isTerminal()) return () => {};
  const encoder = new TextEncoder();
  return (text) => {
    Deno.stderr.writeSync(encoder.encode(`\r\x1b[K${text.slice(0, 100)}`));
  };
}

function markdown({ depth, machine, probes, sections }: Results): string {
  return [
    "# Bench results",
    `A ${depth} run of \`deno task bench\`. What the figures mean: [NOTES.md](../NOTES.md).`,
    machineText(machine),
    `- probes: P128 ${significant(probes["P128 GFLOP/s"])} GFLOP/s, BW ${
      significant(probes["BW GB/s"])
    } GB/s`,
    ...sections.map(sectionText),
  ].join("\n\n").replaceAll(/\n{3,}/g, "\n\n").replace(" after\n\n- probes", " after\n- probes");
}

interface Options {
  readonly quick?: boolean;
  readonly check?: boolean;
  readonly peers: boolean;
  readonly json?: string;
  readonly markdown?: boolean;
  readonly save?: string;
}

async function run(names: readonly Name[], options: Options): Promise<void> {
  const depth = options.check ? "check" : options.quick ? "quick" : "full";
  const benches = names.length === 0 ? Object.keys(BENCHES) as Name[] : names;
  const load_before = Deno.loadavg();
  await configure({ threads: 1 });
  const peer = options.peers ? await loadOnnxRuntimeWeb() : null;
  const facts = await describeMachine(peer);
  const progress = progressLine();
  progress("probing");
  const probe = makeProbe(depth === "check" ? 1 : 256);
  const context: BenchContext = {
    depth,
    effort: EFFORT[depth === "full" ? "full" : "quick"],
    peer,
    probe,
    progress,
  };
  const sections: Section[] = [];
  for (const name of benches) {
    // Closes the idle default engine: V8 counts the whole reservation of every engine as memory to be collected,
    // and from 8 GiB on it does little else (NOTES.md).
    await configure({});
    const section = await BENCHES[name]({ ...context, progress: (text) => progress(`${name}: ${text}`) });
    progress("");
    sections.push(section);
    if (!options.markdown && !options.check) console.log(`${sectionText(section)}\n`);
  }
  if (options.check) {
    const compared = sections.reduce((n, s) => n + s.rows.length, 0);
    console.log(
      `Compared ${compared} outputs of ${benches.join(", ")}: all agree${
        peer === null ? ", without the peer" : ""
      }.`,
    );
  }
  const goals = judge(sections);
  if (goals !== null && depth !== "check") {
    sections.push(goals);
    if (!options.markdown) console.log(sectionText(goals));
  }
  const probed = await interleave(
    [{ name: "peak", run: () => probe.peak() }, { name: "sweep", run: () => probe.sweep() }],
    EFFORT.quick,
  );
  const results: Results = {
    depth,
    machine: { ...facts, load_before, load_after: Deno.loadavg() },
    probes: {
      "P128 GFLOP/s": probe.flops / probed.get("peak")!.cpu / 1e6,
      "BW GB/s": probe.bytes / probed.get("sweep")!.cpu / 1e6,
    },
    sections,
  };
  if (options.markdown) console.log(markdown(results));
  else if (!options.check) console.log(`\n${machineText(results.machine)}`);
  if (options.json !== undefined) {
    await Deno.writeTextFile(options.json, `${JSON.stringify(results, null, 2)}\n`);
  }
  // A full run of everything is the one that is committed.
  const save = options.save ?? (depth === "full" && names.length === 0 ? "latest" : undefined);
  if (save === undefined) return;
  const folder = new URL("results/", import.meta.url);
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(new URL(`${save}.json`, folder), `${JSON.stringify(results, null, 2)}\n`);
  await Deno.writeTextFile(new URL(`${save}.md`, folder), `${markdown(results).trimEnd()}\n`);
}

const program = new Command("bench")
  .description(
    "Compares every output first, then times it beside the machine's own peak and onnxruntime-web.",
  )
  .addArgument(new Argument("[benches...]", "which; default: all").choices(Object.keys(BENCHES)))
  .option("--quick", "fewer shapes and rounds")
  .option("--check", "compare only, time nothing")
  .option("--no-peers", "run without onnxruntime-web, which is required otherwise")
  .option("--json <file>", "also write the results as JSON")
  .option("--markdown", "print the whole report as Markdown at the end")
  .option("--save <name>", "write bench/results/<name>.json and .md (a full run of everything writes latest)")
  .action(run);

await program.parseAsync(Deno.args, { from: "user" });
