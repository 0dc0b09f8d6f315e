/**
 * `deno task ok`: everything CI checks, in the same order; the first step that fails ends it.
 *
 * Names of steps as arguments run only those. With `--ci`, as `.ci/run` calls it, the tests are started by the very
 * command the README gives. What needs Rust is skipped, and said so, on a machine without it, unless
 * `REQUIRE_WASM_TOOLCHAIN=1`; what needs a GPU is skipped without an adapter, unless `REQUIRE_WEBGPU=1`; what needs
 * Chromium or Node 24 unless `REQUIRE_BROWSER=1` or `REQUIRE_NODE=1`.
 *
 * @module
 */
import { requireDeno } from "./deno_version.ts";
import { type Counts, countsLine, countTests, run } from "./process.ts";

requireDeno();

/** One thing to check. */
interface Step {
  readonly name: string;
  /** Commands, run one after the other. */
  readonly commands: readonly (readonly string[])[];
  /** Minutes after which a command is ended: a GPU driver may hang without ever coming back. */
  readonly minutes: number;
  /** What the machine must have, by command name. */
  readonly needs?: string;
  /** Whether it can do nothing without a GPU adapter, real or software. */
  readonly gpu?: true;
}

const deno = Deno.execPath();
const ci = Deno.args.includes("--ci");
const wanted = Deno.args.filter((arg) => !arg.startsWith("-"));

const crates = ["wasm/kernels/Cargo.toml", "wasm/host/Cargo.toml"];
const eachCrate = (...args: string[]): string[][] =>
  crates.map((manifest) => {
    const [subcommand, ...rest] = args;
    return ["cargo", subcommand!, "--manifest-path", manifest, ...rest];
  });

/** Rows that Dawn runs too: every form of mask, without the long search for counterexamples, and keys that are streamed. */
const DAWN_TESTS = ["tests/attention_kernels_test.ts", "tests/webgpu/split_test.ts"];
const DAWN_GROUPS = [
  ...[
    "additive mask",
    "all masks",
    "bidirectional",
    "bool mask",
    "causal",
    "fully masked",
    "left padding",
    "padding",
  ],
  ...[
    "position bias",
    "right padding",
    "right window",
    "window",
    "sinks",
    "softcap",
    "scaling",
    "grouped",
    "multi-query",
  ],
  ...[
    "a few queries",
    "cache with",
    "decode",
    "heads shared",
    "no keys",
    "no queries",
    "prefill",
    "value dimension",
  ],
  ...["bfloat", "float", "without lse"],
];
const DAWN_ROWS = `--filter=/^webgpu: attention ((eager|flash): (${
  DAWN_GROUPS.join("|")
})|flash, keys split: (grouped|bool|additive))/`;

const STEPS: readonly Step[] = [
  { name: "format", commands: [[deno, "fmt", "--check"]], minutes: 3 },
  { name: "lint", commands: [[deno, "lint"]], minutes: 3 },
  { name: "types", commands: [[deno, "check"]], minutes: 5 },
  {
    name: "docs",
    commands: [[deno, "doc", "--lint", "mod.ts", "testing.ts", "src/cli/main.ts"]],
    minutes: 3,
  },
  { name: "tests", commands: [testCommand()], minutes: 30 },
  {
    name: "dawn",
    commands: [[
      deno,
      "test",
      "-A",
      "--no-lock",
      "--preload=tests/dawn/substitute.ts",
      DAWN_ROWS,
      ...DAWN_TESTS,
    ]],
    minutes: 10,
    gpu: true,
  },
  {
    name: "browser",
    commands: [
      [deno, "test", "-A", "--no-lock", "tests/browser/chromium_run.ts", "tests/browser/node_run.ts"],
    ],
    minutes: 15,
  },
  { name: "fuzz", commands: [[deno, "task", "fuzz", "--seconds", ci ? "60" : "10"]], minutes: 5 },
  {
    name: "rust",
    commands: [
      ...eachCrate("fmt", "--check"),
      ...eachCrate("clippy", "--locked", "--all-targets", "--", "-D", "warnings"),
      ...eachCrate("test", "--locked"),
    ],
    minutes: 10,
    needs: "cargo",
  },
  { name: "wasm", commands: [["sh", "wasm/build.sh", "--check"]], minutes: 10, needs: "cargo" },
  { name: "wgsl", commands: [[deno, "run", "--allow-read", "kernels/expand.ts", "--check"]], minutes: 2 },
  { name: "publish", commands: [[deno, "publish", "--dry-run", "--allow-dirty"]], minutes: 5 },
  { name: "bench", commands: [[deno, "task", "bench:check"]], minutes: 10 },
];

/** The tests as a reader of the README starts them in CI, else as a task. */
function testCommand(): string[] {
  if (!ci) return [deno, "task", "test"];
  const lines = Deno.readTextFileSync(new URL("../README.md", import.meta.url)).split("\n");
  const line = lines.find((l) => /^npx -y deno@\S+ task test$/.test(l));
  if (line === undefined) throw new Error("README.md has no line that says how to run the tests");
  return ["sh", "-c", line];
}

/** Whether a command exists here. */
async function has(name: string): Promise<boolean> {
  try {
    const { success } = await new Deno.Command(name, { args: ["--version"], stdout: "null", stderr: "null" })
      .output();
    return success;
  } catch {
    return false;
  }
}

/** A command that ends with everything it started, where the system can do that. */
const canLimit = Deno.build.os !== "windows" && await has("timeout");
function limited(command: readonly string[], minutes: number): readonly string[] {
  return canLimit ? ["timeout", "-k", "10", `${minutes * 60}`, ...command] : command;
}

const unknown = wanted.filter((name) => !STEPS.some((step) => step.name === name));
if (unknown.length > 0) {
  console.error(`Unknown step ${unknown.join(", ")}: expected ${STEPS.map((s) => s.name).join(", ")}`);
  Deno.exit(1);
}

const total: Counts = { passed: 0, failed: 0, skipped: 0 };
const report: string[] = [];
let failure: string | undefined;

for (const { name, commands, minutes, needs, gpu } of STEPS) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  console.log(`\n== ${name}`);
  if (needs !== undefined && Deno.env.get("REQUIRE_WASM_TOOLCHAIN") !== "1" && !await has(needs)) {
    console.log(`skipped: there is no ${needs} here (REQUIRE_WASM_TOOLCHAIN=1 makes that a failure)`);
    report.push(`   skipped  ${name}: no ${needs}`);
    continue;
  }
  if (gpu && Deno.env.get("REQUIRE_WEBGPU") !== "1") {
    console.log(
      "skipped: a second WebGPU implementation is tried where REQUIRE_WEBGPU=1 says there is a driver",
    );
    report.push(`   skipped  ${name}: REQUIRE_WEBGPU is not set`);
    continue;
  }
  const started = performance.now();
  for (const command of commands) {
    const shown = command.map((word) => word === deno ? "deno" : word).join(" ");
    console.log(`$ ${shown}`);
    const { code, output } = await run(limited(command, minutes));
    const counts = countTests(output);
    for (const key of ["passed", "failed", "skipped"] as const) total[key] += counts[key];
    // A filter that fits no test passes: that is no check.
    const isEmpty = command[0] === deno && command[1] === "test" && counts.passed === 0;
    if (code === 0 && !isEmpty) continue;
    const why = code === 0
      ? "no test ran"
      : canLimit && (code === 124 || code === 137)
      ? `took longer than ${minutes} minutes`
      : `exit code ${code}`;
    failure = `step "${name}" failed (${why}): ${shown}`;
    break;
  }
  report.push(`${((performance.now() - started) / 1000).toFixed(1).padStart(8)} s  ${name}`);
  if (failure !== undefined) break;
}

console.log(`\n== ${failure === undefined ? "ok" : "FAILED"}`);
for (const line of report) console.log(line);
if (failure !== undefined) console.log(failure);
console.log(countsLine(total));
Deno.exit(failure === undefined ? 0 : 1);
