/**
 * `deno task fuzz`: mutates valid files and looks for readers that throw anything but a typed error, hang, or eat
 * memory. Every case is made from the seed and its number alone, so a finding can be repeated.
 *
 * @module
 */
import { Command, InvalidArgumentError } from "npm:commander@14.0.3";
import { caseOf, type Finding, type Job } from "./fuzz/worker.ts";
import { TARGETS } from "./fuzz/targets.ts";

/** A case that takes longer will not come back. */
const HANG_MS = 10_000;
/** Findings after which a run ends. */
const MOST_FINDINGS = 20;

function integer(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new InvalidArgumentError("expected an integer from 0.");
  }
  return value;
}

const program = new Command("fuzz")
  .description("Reads mutated files; anything but success or a typed error is a finding.")
  .option("--seconds <n>", "how long to look", integer, 60)
  .option("--seed <n>", "where the random numbers begin; default: the time", integer, Date.now() % 2 ** 31)
  .option("--target <name>", `one of ${Object.keys(TARGETS).join(", ")}; default: all in turn`)
  .option("--case <n>", "repeat one case of that seed", integer)
  .option("--out <folder>", "where findings are saved", "fuzz-findings")
  .parse(["deno", "fuzz", ...Deno.args]);
const options: { seconds: number; seed: number; target?: string; case?: number; out: string } = program
  .opts();

if (options.target !== undefined && !Object.hasOwn(TARGETS, options.target)) {
  program.error(`Cannot fuzz ${options.target}: expected one of ${Object.keys(TARGETS).join(", ")}`);
}
const targets = options.target === undefined ? Object.keys(TARGETS) : [options.target];
const { seed } = options;
const until_ms = Date.now() + 1000 * options.seconds;
const progress = new SharedArrayBuffer(12);
const counts = new Int32Array(progress);
const findings: Finding[] = [];

async function report(finding: Finding): Promise<void> {
  findings.push(finding);
  const { target, random } = caseOf(targets, seed, finding.case);
  await Deno.mkdir(options.out, { recursive: true });
  const path = `${options.out}/${target}-${seed}-${finding.case}`;
  await Deno.writeFile(path, TARGETS[target]!.make(random).bytes);
  const only = options.target === undefined ? "" : ` --target ${target}`;
  console.log(`\nFinding in ${target}: ${finding.why}`);
  console.log(`  input: ${path}`);
  console.log(`  again: deno task fuzz --seed ${seed} --case ${finding.case}${only}`);
}

/** Runs a worker from case `from` on; returns the case after the last. */
async function round(from: number, folder: string): Promise<number> {
  const to = options.case === undefined ? Infinity : from + 1;
  const worker = new Worker(new URL("./fuzz/worker.ts", import.meta.url), { type: "module" });
  Atomics.store(counts, 0, from - 1);
  const reports: Promise<void>[] = [];
  const ended = new Promise<void>((resolve, reject) => {
    worker.onmessage = ({ data }: MessageEvent<Finding | "done">) => {
      if (data === "done") resolve();
      else reports.push(report(data));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new Error(event.message));
    };
  });
  const job: Job = { targets, seed, from, to, until_ms, folder, progress };
  worker.postMessage(job);
  let timer: ReturnType<typeof setInterval> | undefined;
  const hung = new Promise<string>((resolve) => {
    let last = from - 1, since = Date.now();
    timer = setInterval(() => {
      const now = Atomics.load(counts, 0);
      if (now !== last) [last, since] = [now, Date.now()];
      // Starting takes a while as well.
      else if (Date.now() - since > HANG_MS * (now < from ? 6 : 1)) {
        resolve(`it takes longer than ${HANG_MS} ms`);
      } else if (findings.length >= MOST_FINDINGS) resolve("");
    }, 250);
  });
  const why = await Promise.race([ended, hung]).catch((error) => `the worker died: ${error.message}`);
  clearInterval(timer);
  worker.terminate();
  const at = Atomics.load(counts, 0);
  if (typeof why === "string" && why !== "") {
    await report({ case: at, target: caseOf(targets, seed, Math.max(at, 0)).target, why });
  }
  await Promise.all(reports);
  return typeof why === "string" ? at + 1 : Infinity;
}

const folder = await Deno.makeTempDir();
try {
  console.log(`fuzzing ${targets.join(", ")} with seed ${seed}`);
  let from = options.case ?? 0;
  while (Date.now() < until_ms && findings.length < MOST_FINDINGS && Number.isFinite(from)) {
    from = await round(from, folder);
    if (options.case !== undefined) break;
  }
} finally {
  await Deno.remove(folder, { recursive: true });
}
const [, refused, accepted] = counts;
console.log(`${refused} refused, ${accepted} accepted, ${findings.length} findings`);
Deno.exit(findings.length === 0 ? 0 : 1);
