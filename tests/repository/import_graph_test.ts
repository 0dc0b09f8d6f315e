/**
 * Layers point one way: no file imports from a layer above its own. And no file has a name that says nothing.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { filesBelow, stemOf, textOf, withoutComments } from "./sources.ts";

/**
 * The layers, top to bottom. A path that ends in `/` is a room, one that ends in `*` a prefix. Files of one layer may
 * import each other; a new room takes its place here.
 */
const LAYERS: readonly (readonly string[])[] = [
  ["mod.ts", "testing.ts"],
  ["src/cli/", "src/server/", "src/testing/"],
  ["src/from_*", "src/auto_*", "src/load_parameters.ts", "src/support.ts"],
  ["src/inspect/"], // looks at models from outside
  ["src/text/"], // streamers feed on generation
  ["src/models/", "src/generation/"], // `model.generate` is a method, and generation drives a model
  ["src/vision/", "src/quantize/steps.ts", "src/quantize/widen.ts"],
  ["src/layers/"],
  ["src/packages/"],
  ["src/attention/", "src/masks/", "src/cache/"],
  // What quantised weights are in files, readers of files have to know.
  ["src/draw/", "src/config*", "src/hub/", "src/gguf/", "src/quantize/stored.ts"],
  ["src/ops/"],
  ["src/tensor*", "src/host_data.ts", "src/storage.ts", "src/shape.ts", "src/scope.ts", "src/settings.ts"],
  ["src/devices/"],
  [
    "src/registry.ts",
    "src/notice.ts",
    "src/release.ts",
    "src/random.ts",
    "src/async_context.ts",
    "src/dtype.ts",
    "src/errors.ts",
  ],
  ["wasm/built/", "kernels/"],
];

const NAMES_THAT_SAY_NOTHING = /^(utils?|common|helpers?|misc|shared|stuff|lib)$/;

/** Index of the layer a file belongs to, or −1. */
function layerOf(path: string): number {
  return LAYERS.findIndex((layer) =>
    layer.some((room) =>
      room.endsWith("/")
        ? path.startsWith(room)
        : room.endsWith("*")
        ? path.startsWith(room.slice(0, -1))
        : path === room
    )
  );
}

/** The specifiers a module imports or re-exports, static and dynamic, types included. */
function importsOf(path: string): string[] {
  const code = withoutComments(textOf(path));
  const pattern = /\b(?:import|export)\s[^;"'`]*?\bfrom\s*"([^"]+)"|\bimport\s*\(?\s*"([^"]+)"/g;
  return [...code.matchAll(pattern)].map((m) => (m[1] ?? m[2])!);
}

/** The repository path a relative specifier leads to. */
function resolve(from: string, specifier: string): string {
  return new URL(specifier, `file:///${from}`).pathname.slice(1);
}

const modules = filesBelow("", [".ts"]).filter((p) =>
  p === "mod.ts" || p === "testing.ts" || p.startsWith("src/")
);

Deno.test("layers: every module has its place", () => {
  assertEquals(modules.filter((path) => layerOf(path) === -1), []);
});

Deno.test("layers: no module imports from a layer above", () => {
  const upward: string[] = [];
  for (const path of modules) {
    for (const specifier of importsOf(path).filter((s) => s.startsWith("."))) {
      const target = resolve(path, specifier);
      if (layerOf(target) === -1) upward.push(`${path} imports ${target}, which is in no layer`);
      else if (layerOf(target) < layerOf(path)) upward.push(`${path} imports ${target}`);
    }
  }
  assertEquals(upward, []);
});

Deno.test("layers: every relative import leads to a file", () => {
  const missing: string[] = [];
  for (const path of modules) {
    for (const specifier of importsOf(path).filter((s) => s.startsWith("."))) {
      const target = resolve(path, specifier);
      try {
        textOf(target);
      } catch {
        missing.push(`${path} imports ${target}`);
      }
    }
  }
  assertEquals(missing, []);
});

Deno.test("imports: sources use relative, npm: and node: specifiers only", () => {
  const bare: string[] = [];
  for (const path of modules) {
    for (const specifier of importsOf(path)) {
      if (!/^(\.\.?\/|npm:|node:)/.test(specifier)) bare.push(`${path} imports ${specifier}`);
    }
  }
  assertEquals(bare, []);
});

Deno.test("names: no file or folder has a name that says nothing", () => {
  const folders = ["src", "kernels", "wasm/kernels/src", "wasm/host/src", "tests", "bench"];
  const all = folders.flatMap((folder) => filesBelow(folder));
  const vague = all.filter((path) =>
    path.split("/").slice(0, -1).some((part) => NAMES_THAT_SAY_NOTHING.test(part)) ||
    (NAMES_THAT_SAY_NOTHING.test(stemOf(path)) && !path.endsWith("/lib.rs")) // the name Cargo gives a crate's root
  );
  assertEquals(vague, []);
});

Deno.test("the import reader sees every form of import", () => {
  // Its own imports are the fixture: one bare, one relative over one line.
  assertEquals(importsOf("tests/repository/import_graph_test.ts").slice(0, 2), [
    "@std/assert",
    "./sources.ts",
  ]);
});
