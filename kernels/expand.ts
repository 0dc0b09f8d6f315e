/**
 * The expand step: embeds `kernels/*.wgsl` into `src/devices/webgpu/shaders.ts`, a module every runtime can import.
 *
 * ```sh
 * deno run --allow-read --allow-write kernels/expand.ts           # writes the module
 * deno run --allow-read kernels/expand.ts --check                 # fails when it is not byte for byte up to date
 * ```
 *
 * Plain comments, indentation and blank lines go; directives stay, because a variant's constants (head dimension,
 * element types, mask forms) are known only at run time. Every stem is specialised with its default constants
 * here, so a broken directive fails the build and not a user.
 *
 * @module
 */
import { defaults, specialise } from "../src/devices/webgpu/template.ts";

const FOLDER = new URL("./", import.meta.url);
const MODULE = new URL("../src/devices/webgpu/shaders.ts", import.meta.url);

/** A function whose body every variant replaces. */
const REPLACED = /^(fn [^{]*\{).*(\} \/\/#(?:load4?|store|bits) .*)$/;

/** Directives that stand after code they do not read spaces of. */
const AFTER_CODE = /^(.*[;}]) (\/\/#(?:scalars|storage|load).*)$/;

/** Code without spaces, and with the short names of vectors. */
function dense(code: string): string {
  return code.replace(/ ?([=*+\/,:;%&|<>{}]) ?/g, "$1").replace(/\bif \(/g, "if(").replace(
    /\) (?=[@v])/g,
    ")",
  )
    .replace(/\bvec([234])<([fiu])32>/g, "vec$1$2");
}

/** One line as it is embedded: without comments, and without spaces where no directive reads them. */
function shrinkLine(raw: string): string {
  const line = raw.trim().replace(/^\/\/\| /, "").replace(/\s*\/\/(?!#).*$/, "").replace(REPLACED, "$1$2");
  const [, code, directive] = AFTER_CODE.exec(line) ?? [];
  if (directive !== undefined) return `${dense(code!)} ${directive}`;
  return line.includes("//#") ? line : dense(line);
}

/** One kernel's text as it is embedded. */
export function shrink(source: string): string {
  return source.split("\n").map(shrinkLine).filter((line) => line !== "").join("\n");
}

/** Text of the whole module. */
export async function expand(folder: URL = FOLDER): Promise<string> {
  const stems: string[] = [];
  for await (const entry of Deno.readDir(folder)) {
    if (entry.isFile && entry.name.endsWith(".wgsl")) stems.push(entry.name.slice(0, -5));
  }
  let text =
    "// Written by kernels/expand.ts from kernels/*.wgsl: change those, then run it. Length: all kernels are here.\n\n" +
    "/** Text of every kernel by stem, with the directives of kernels/README.md. */\nexport const SHADERS = {\n";
  for (const stem of stems.sort()) {
    const source = shrink(await Deno.readTextFile(new URL(`${stem}.wgsl`, folder)));
    if (/[`\\]|\$\{/.test(source)) {
      throw new SyntaxError(`${stem}.wgsl: backquotes and backslashes do not embed`);
    }
    specialise(source, defaults(source));
    text += `  ${stem}: \`\n${source}\n\`,\n`;
  }
  return text + "} as const;\n\n/** Name of a kernel. */\nexport type Stem = keyof typeof SHADERS;\n";
}

if (import.meta.main) {
  const text = await expand();
  if (Deno.args.includes("--check")) {
    if (await Deno.readTextFile(MODULE).catch(() => "") !== text) {
      console.error("src/devices/webgpu/shaders.ts does not match kernels/*.wgsl: run kernels/expand.ts");
      Deno.exit(1);
    }
  } else await Deno.writeTextFile(MODULE, text);
}
