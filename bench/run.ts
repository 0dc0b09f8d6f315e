/**
 * The benches' entry: `deno task bench`, `deno task bench:check`.
 *
 * @module
 */
import { Argument, Command } from "npm:commander@14.0.3";
import { configure } from "../mod.ts";
import { benchAccuracy } from "./accuracy.ts";
import { benchAttention } from "./attention.ts";
import { writeCharts } from "./charts.ts";
import { benchChoice } from "./choice.ts";
import { benchGenerate } from "./generate.ts";
import { judge } from "./goals.ts";
import { benchLarge } from "./large.ts";
import { benchLlama } from "./llama.ts";
import { benchLinear } from "./linear.ts";
import { benchMasks } from "./masks.ts";
import { openPeers } from "./peers/open.ts";
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
import { benchQuality } from "./quality.ts";
import { benchStart } from "./start.ts";
import { benchThreads } from "./threads.ts";
import { EFFORT, interleave } from "./timing.ts";
import { benchWebgpu } from "./webgpu.ts";

/** A bench, by the name it has on the command line. */
interface Bench {
  readonly run: (context: BenchContext) => Promise<Section>;
  /** Also runs on two threads, in a process of its own. */
  readonly threaded?: true;
  /** Only runs by name: it takes minutes for one figure. */
  readonly byName?: true;
}

/** All there are, in the order in which they run. One more is a row more. */
const BENCHES: Readonly<Record<string, Bench>> = {
  linear: { run: benchLinear, threaded: true },
  attention: { run: benchAttention, threaded: true },
  choice: { run: benchChoice },
  masks: { run: benchMasks },
  generate: { run: benchGenerate },
  llama: { run: benchLlama, threaded: true },
  threads: { run: benchThreads },
  quality: { run: benchQuality },
  start: { run: benchStart },
  accuracy: { run: benchAccuracy },
  webgpu: { run: benchWebgpu },
  "135m": { run: benchLarge("135M"), byName: true },
  "1b": { run: benchLarge("1B"), byName: true },
  // One format of it, which takes a minute or two beside a good quarter of an hour.
  "1b-bfloat16": { run: benchLarge("1B", "bfloat16"), byName: true },
  "1b-int8": { run: benchLarge("1B", "int8"), byName: true },
  "1b-int4": { run: benchLarge("1B", "int4"), byName: true },
};

/** What a run without names runs. */
const DEFAULT = Object.keys(BENCHES).filter((name) => BENCHES[name]!.byName === undefined);

/** A run as it is stored. */
interface Results {
  readonly depth: BenchContext["depth"];
  readonly machine: Machine;
  readonly probes: { readonly "P128 GFLOP/s": number; readonly "BW GB/s": number };
  readonly sections: readonly Section[];
}

/** The exit status that says: so many threads are not available here. */
const NO_THREADS = 3;

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
  readonly natives: boolean;
  readonly threads: string;
  readonly json?: string;
  readonly markdown?: boolean;
  readonly save?: string;
}

/** Sets the threads of this process. Where the library has not so many, the process ends. */
async function setThreads(threads: number): Promise<void> {
  try {
    await configure({ threads });
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error));
    Deno.exit(NO_THREADS);
  }
}

/** The same on two threads, in a process of its own: an engine's threads are settled before its first use. */
async function runThreaded(names: readonly string[], options: Options): Promise<readonly Section[] | string> {
  const file = await Deno.makeTempFile({ suffix: ".json" });
  try {
    const flags = [
      ...["--threads", "2", "--json", file],
      ...(options.quick ? ["--quick"] : []),
      ...(options.peers ? [] : ["--no-peers"]),
      ...(options.natives ? [] : ["--no-natives"]),
    ];
    const script = new URL(import.meta.url).href;
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--quiet", "--no-lock", script, ...names, ...flags],
      stdout: "null",
      stderr: "piped",
    }).output();
    const said = new TextDecoder().decode(stderr).trim();
    if (code === NO_THREADS) return said;
    if (code !== 0) throw new Error(`The run on 2 threads failed: ${said}`);
    const { sections }: Results = JSON.parse(await Deno.readTextFile(file));
    return sections.filter((section) => section.threads === 2);
  } finally {
    await Deno.remove(file);
  }
}

async function run(names: readonly string[], options: Options): Promise<void> {
  const depth = options.check ? "check" : options.quick ? "quick" : "full";
  const benches = names.length === 0 ? DEFAULT : names;
  const load_before = Deno.loadavg();
  const threads = Number(options.threads);
  await setThreads(threads);
  const natives = options.peers && options.natives && depth !== "check";
  const peers = await openPeers({ threads, peers: options.peers, natives });
  for (const reason of peers.missing) console.error(reason);
  const facts = await describeMachine(threads, peers);
  const progress = progressLine();
  progress("probing");
  const probe = makeProbe(depth === "check" ? 1 : 256);
  const context: BenchContext = {
    depth,
    effort: EFFORT[depth === "full" ? "full" : "quick"],
    threads,
    clock: threads === 1 ? "cpu" : "wall",
    peers,
    probe,
    progress,
  };
  const sections: Section[] = [];
  const show = (section: Section) => {
    sections.push(section);
    if (!options.markdown && !options.check) console.log(`${sectionText(section)}\n`);
  };
  for (const name of benches) {
    // Closes the idle default engine: V8 counts the whole reservation of every engine as memory to be collected,
    // and from 8 GiB on it does little else (NOTES.md).
    await configure({});
    const began = performance.now();
    const found = await BENCHES[name]!.run({ ...context, progress: (text) => progress(`${name}: ${text}`) });
    progress("");
    const title = threads === 1 ? found.title : `${found.title}, ${threads} threads`;
    const notes = [...found.notes, ...peers.missing];
    show({ ...found, title, notes, threads, seconds: Math.round((performance.now() - began) / 1000) });
  }
  if (options.check) {
    const compared = sections.reduce((n, s) => n + s.rows.length, 0);
    const alone = options.peers ? "" : ", without the peers";
    console.log(`Compared ${compared} outputs of ${benches.join(", ")}: all agree${alone}.`);
  } else if (threads === 1) {
    progress("on 2 threads");
    const threaded = benches.filter((name) => BENCHES[name]!.threaded);
    const found = threaded.length === 0 ? [] : await runThreaded(threaded, options);
    progress("");
    if (typeof found === "string") console.log(`2 threads are not available: ${found}\n`);
    else found.forEach(show);
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
  await peers.close();
  if (options.markdown) console.log(markdown(results));
  else if (!options.check) console.log(`\n${machineText(results.machine)}`);
  if (options.json !== undefined) {
    await Deno.writeTextFile(options.json, `${JSON.stringify(results, null, 2)}\n`);
  }
  // A full run of everything is the one that is committed.
  const save = options.save ?? (depth === "full" && names.length === 0 ? "latest" : undefined);
  if (save !== undefined) {
    const folder = new URL("results/", import.meta.url);
    await Deno.mkdir(folder, { recursive: true });
    await Deno.writeTextFile(new URL(`${save}.json`, folder), `${JSON.stringify(results, null, 2)}\n`);
    await Deno.writeTextFile(new URL(`${save}.md`, folder), `${markdown(results).trimEnd()}\n`);
    await writeCharts(results, new URL(save, folder));
  }
  // The peers' idle workers would keep the process alive.
  Deno.exit(0);
}

const program = new Command("bench")
  .description(
    "Compares every output first, then times it beside the machine's own peak and its peers.",
  )
  .addArgument(
    new Argument("[benches...]", "which; default: all but those of 135m and 1b").choices(
      Object.keys(BENCHES),
    ),
  )
  .option("--quick", "fewer shapes and rounds")
  .option("--check", "compare only, time nothing")
  .option("--no-peers", "run without the peers, which are required otherwise")
  .option("--no-natives", "run without the peers that are machine code")
  .option("--threads <n>", "threads, for us and the peers; from 2 on wall time counts", "1")
  .option("--json <file>", "also write the results as JSON")
  .option("--markdown", "print the whole report as Markdown at the end")
  .option("--save <name>", "write bench/results/<name>.json and .md (a full run of everything writes latest)")
  .action(run);

await program.parseAsync(Deno.args, { from: "user" });
