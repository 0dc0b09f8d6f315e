/**
 * `deno task test`: every test, the examples in the documentation included.
 *
 * Arguments go to `deno test`: a path, `--filter=…`, `--shuffle=<seed>` to repeat an order. `--gpu` runs the tests
 * whose name has "webgpu" and fails where there is no adapter, where otherwise they are skipped and counted.
 *
 * @module
 */
import { requireDeno } from "./deno_version.ts";
import { countsLine, countTests, run } from "./process.ts";

requireDeno();

// Everything a test may do, and nothing else: no network but this machine. Dawn, the second WebGPU implementation, is
// a native library: it is taken along where nothing of WebGPU may be skipped.
const PERMISSIONS = [
  "--no-prompt",
  "--allow-read",
  "--allow-write",
  "--allow-env",
  "--allow-sys",
  "--allow-run",
  "--allow-net=127.0.0.1",
  // It is loaded by a computed name, so that its 130 MB are not in the lock file, which is fetched whole.
  ...(Deno.env.get("REQUIRE_WEBGPU") === "1" ? ["--allow-ffi", "--no-lock"] : []),
];

const gpu = Deno.args.includes("--gpu");
const args = Deno.args.filter((arg) => arg !== "--gpu");
const seed = Math.floor(Math.random() * 2 ** 31);
const shuffle = args.some((arg) => arg.startsWith("--shuffle")) ? [] : [`--shuffle=${seed}`];
const started = performance.now();

const command = [
  Deno.execPath(),
  "test",
  "--doc",
  "--sanitize-ops",
  "--sanitize-resources",
  ...shuffle,
  ...PERMISSIONS,
  ...(gpu ? ["--filter=/webgpu/i"] : []),
  // Run by tests/readme_test.ts, with the permissions a user needs and no more.
  ...(args.some((arg) => !arg.startsWith("-")) ? [] : ["--ignore=README.md,ARCHITECTURE.md"]),
  ...args,
];
const { code, output } = await run(command, gpu ? { REQUIRE_WEBGPU: "1" } : {});

const reasons = new Map<string, number>();
for (const [, count, reason] of output.matchAll(/^(\d+) tests? skipped because (.*)$/gm)) {
  reasons.set(reason!, (reasons.get(reason!) ?? 0) + Number(count));
}
for (const [reason, count] of reasons) console.log(`skipped: ${count} tests, because ${reason}`);
const seconds = ((performance.now() - started) / 1000).toFixed(0);
console.log(`in ${seconds} s${shuffle.length > 0 ? `; this order again: deno task test ${shuffle}` : ""}`);
console.log(countsLine(countTests(output)));
Deno.exit(code);
