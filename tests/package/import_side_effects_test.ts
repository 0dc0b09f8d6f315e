/**
 * Nothing happens at import: no permission is asked for, no GPU, WASM module or worker is opened.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { deno, ROOT, temporaryFolder } from "./publishing.ts";

/** Counts what an import opens, by standing in for the constructors. */
const probe = (entry: string) => `
const opened = {};
const count = (name) => opened[name] = (opened[name] ?? 0) + 1;
const watched = (Original, name) =>
  class extends Original {
    constructor(...args) {
      count(name);
      super(...args);
    }
  };
for (const name of ["Module", "Instance", "Memory", "Table"]) WebAssembly[name] = watched(WebAssembly[name], name);
for (const name of ["compile", "compileStreaming", "instantiate", "instantiateStreaming"]) {
  const original = WebAssembly[name];
  WebAssembly[name] = (...args) => (count(name), original(...args));
}
globalThis.Worker = watched(Worker, "Worker");
globalThis.WebSocket = watched(WebSocket, "WebSocket");
for (const name of ["fetch", "setTimeout", "setInterval", "setImmediate"]) {
  const original = globalThis[name];
  globalThis[name] = (...args) => (count(name), original(...args));
}
if (navigator.gpu) {
  const original = GPU.prototype.requestAdapter;
  GPU.prototype.requestAdapter = function (...args) {
    count("requestAdapter");
    return original.apply(this, args);
  };
}
const names = Object.keys(await import(${JSON.stringify(entry)}));
// A turn of the event loop, in case something was put off.
await new Promise((resolve) => queueMicrotask(resolve));
console.log(JSON.stringify({ opened, exports: names.length > 0 }));
`;

/** Imports a module in a process of its own and tells what that opened. */
async function imported(entry: string): Promise<unknown> {
  await using folder = await temporaryFolder();
  const file = `${folder.path}/probe.js`;
  await Deno.writeTextFile(file, probe(entry));
  // No --allow flag at all: asking for anything would fail, since nobody can answer.
  const args = ["run", "--no-prompt", "--no-check", file];
  const { code, stdout, stderr } = await deno(args, { cwd: folder.path });
  assertEquals({ code, stderr: code === 0 ? "" : stderr }, { code: 0, stderr: "" });
  return JSON.parse(stdout);
}

for (const entry of ["mod.ts", "testing.ts", "src/cli/main.ts"]) {
  Deno.test(`importing ${entry} opens nothing and needs no permission`, async () => {
    assertEquals(await imported(new URL(entry, ROOT).href), { opened: {}, exports: true });
  });
}

Deno.test("the probe sees what an import opens", async () => {
  const code = "new WebAssembly.Memory({ initial: 1 }); setTimeout(() => {}); export const x = 1;";
  assertEquals(await imported(`data:text/javascript,${encodeURIComponent(code)}`), {
    opened: { Memory: 1, setTimeout: 1 },
    exports: true,
  });
});
