/**
 * What a page loads to use the library: the bundle of `mod.ts`, minified, with all it imports at once.
 *
 * @module
 */
import { assert } from "@std/assert";
import { bundle } from "../browser/site.ts";

/**
 * Most bytes, minified and then compressed with gzip. Two thirds of the former are WebAssembly in base64, of whose
 * kernels a page uses one of two builds.
 */
const LIMIT = { minified: 1_700_000, gzip: 550_000 };

/** Files that a page loads with `entry`: itself and what it imports statically, but not what it may import later. */
async function loaded(folder: string, entry: string): Promise<Map<string, Uint8Array<ArrayBuffer>>> {
  const files = new Map<string, Uint8Array<ArrayBuffer>>();
  const visit = async (name: string): Promise<void> => {
    if (files.has(name)) return;
    const bytes = await Deno.readFile(`${folder}/${name}`);
    files.set(name, bytes);
    const text = new TextDecoder().decode(bytes);
    for (const [, other] of text.matchAll(/(?:\bfrom|\bimport)\s*"\.\/([\w.-]+\.js)"/g)) await visit(other!);
  };
  await visit(entry);
  return files;
}

Deno.test("bundle: what a page loads stays below its limit", async () => {
  await using bundles = await bundle(["mod.ts"]);
  let minified = 0, gzip = 0;
  for (const bytes of (await loaded(bundles.path, "mod.js")).values()) {
    minified += bytes.length;
    const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"));
    gzip += (await new Response(stream).arrayBuffer()).byteLength;
  }
  console.log(`bundle: ${minified} bytes minified, ${gzip} with gzip`);
  assert(minified > 100_000, "the bundle holds the kernels");
  assert(minified <= LIMIT.minified, `${minified} bytes, at most ${LIMIT.minified}`);
  assert(gzip <= LIMIT.gzip, `${gzip} bytes with gzip, at most ${LIMIT.gzip}`);
});
