/**
 * A release holds what a program needs to run, its documentation, and nothing else.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { filesBelow } from "../repository/sources.ts";
import { deno, publishedFiles, ROOT } from "./publishing.ts";

const MIB = 2 ** 20;
const DOCUMENTS = ["ARCHITECTURE.md", "LICENSE", "README.md", "deno.json"];

const published = await publishedFiles();
const paths = published.map(({ path }) => path);

/** Modules of the repository that `entries` reach, dynamic imports included. */
async function reachable(entries: readonly string[]): Promise<Set<string>> {
  const found = new Set<string>();
  for (const entry of entries) {
    if (found.has(entry)) continue;
    const { stdout } = await deno(["info", "--json", entry], { cwd: ROOT });
    const { modules } = JSON.parse(stdout) as { modules: { specifier: string; error?: string }[] };
    for (const { specifier, error } of modules) {
      assert(error === undefined, `${entry} reaches ${specifier}: ${error}`);
      if (specifier.startsWith(ROOT.href)) found.add(specifier.slice(ROOT.href.length));
    }
  }
  return found;
}

Deno.test("release: every module the entry points reach is in it", async () => {
  const needed = [...await reachable(["mod.ts", "testing.ts", "src/cli/main.ts"])];
  assertEquals(needed.filter((path) => !paths.includes(path)).sort(), []);
});

/** Sources that stay out, and why. */
const HELD_BACK: Readonly<Record<string, string>> = {
  "src/hub/inspect_wasm.ts":
    "it vets kernel packages, which cannot be loaded yet, and weighs half a megabyte",
};

Deno.test("release: all of src, the entry points and the documents are in it", () => {
  const wanted = [...filesBelow("src", [".ts"]), "mod.ts", "testing.ts", ...DOCUMENTS];
  assertEquals(wanted.filter((path) => !paths.includes(path)), Object.keys(HELD_BACK));
});

Deno.test("release: built modules that no source imports stay out", async () => {
  const used = await reachable(["mod.ts", ...filesBelow("src", [".ts"])]);
  const types = (path: string) => path.replace(/\.d\.ts$/, ".js"); // the types of a built script go where it goes
  const idle = paths.filter((p) => p.startsWith("wasm/") && !used.has(p) && !used.has(types(p)));
  assertEquals(idle, []);
});

Deno.test("release: no models, tests, benches, demos, scripts or kernel sources", () => {
  const allowed = [/^src\/.+\.ts$/, /^wasm\/built\/[^/]+\.(ts|js)$/, /^(mod|testing)\.ts$/];
  const others = paths.filter((path) =>
    !DOCUMENTS.includes(path) && !allowed.some((form) => form.test(path))
  );
  assertEquals(others, []);
  assertEquals(paths.filter((path) => /_test\.ts$/.test(path)), []);
});

Deno.test("release: at most 2.75 MiB, no file of 4 MiB", () => {
  const total = published.reduce((n, { bytes }) => n + bytes, 0);
  assert(total <= 2.75 * MIB, `the release has ${total} bytes, at most ${2.75 * MIB} are allowed`);
  assertEquals(published.filter(({ bytes }) => bytes >= 4 * MIB), []);
});
