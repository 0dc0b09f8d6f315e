/**
 * The files of the repository, for the tests that look at its shape.
 *
 * @module
 */

const root = new URL("../../", import.meta.url);
const SKIPPED = new Set(["target", "node_modules", "coverage", ".git", "models", "golden"]);

/** Paths of the files below a folder of the repository (all of it by default), with `/`, relative to its root. */
export function filesBelow(folder = "", extensions: readonly string[] = [""]): string[] {
  const found: string[] = [];
  const url = new URL(folder === "" ? "./" : `${folder}/`, root);
  let entries: Deno.DirEntry[];
  try {
    entries = [...Deno.readDirSync(url)];
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
  for (const entry of entries) {
    const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
    const skipped = SKIPPED.has(entry.name) && !path.startsWith("src/");
    if (entry.isDirectory && !skipped) found.push(...filesBelow(path, extensions));
    if (entry.isFile && extensions.some((e) => entry.name.endsWith(e))) found.push(path);
  }
  return found.sort();
}

/** The text of a file. */
export function textOf(path: string): string {
  return Deno.readTextFileSync(new URL(path, root));
}

/** A file name without folder and extension. */
export function stemOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1).replace(/\..*$/, "");
}

/** TypeScript without its comments, so that an example in a comment is not taken for code. */
export function withoutComments(code: string): string {
  return code.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|\s)\/\/.*$/gm, "$1");
}
