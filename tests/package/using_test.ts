/**
 * A minifier may put the value of a `using` where it is used and drop its disposal (src/release.ts says when): in a
 * bundle that lost one, tensors and files are never released.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { type Node, parse } from "npm:acorn@8.15.0";
import { bundle } from "../browser/site.ts";

const ENTRIES = ["mod.ts", "testing.ts", "src/cli/main.ts"];

/** A node of the syntax tree with all its fields. */
type Fields = Node & Readonly<Record<string, unknown>>;

/** Calls `visit` with each node below `node`. */
function walk(node: unknown, visit: (node: Fields) => void): void {
  if (typeof node !== "object" || node === null) return;
  if ("type" in node) visit(node as Fields);
  for (const child of Object.values(node)) walk(child, visit);
}

/** What a `using` makes, without the names that a minifier changes: methods and counts of arguments. */
function shapeOf(node: unknown): string {
  const { type, ...rest } = node as Fields;
  switch (type) {
    case "AwaitExpression":
      return `await ${shapeOf(rest["argument"])}`;
    case "CallExpression":
    case "NewExpression":
      return `${shapeOf(rest["callee"])}(${"_".repeat((rest["arguments"] as unknown[]).length)})`;
    case "MemberExpression": {
      const property = rest["property"] as Fields;
      const name = property.type === "Identifier" && rest["computed"] === false ? property["name"] : "…";
      return `${shapeOf(rest["object"])}.${name}`;
    }
    default:
      return type;
  }
}

/** What each `using` of the bundles of {@linkcode ENTRIES} makes, in order of text. */
async function usings(minified: boolean): Promise<string[]> {
  await using bundles = await bundle(ENTRIES, { minified });
  const found: string[] = [];
  const visit = async (folder: string): Promise<void> => {
    for await (const { name, isDirectory } of Deno.readDir(folder)) {
      const path = `${folder}/${name}`;
      if (isDirectory) await visit(path);
      else if (name.endsWith(".js")) {
        walk(
          parse(await Deno.readTextFile(path), { ecmaVersion: "latest", sourceType: "module" }),
          (node) => {
            if (node.type !== "VariableDeclaration" || !String(node["kind"]).endsWith("using")) return;
            for (const { init } of node["declarations"] as Fields[]) found.push(shapeOf(init));
          },
        );
      }
    }
  };
  await visit(bundles.path);
  return found.sort();
}

Deno.test("bundle: the minifier drops no disposal", async () => {
  const [plain, minified] = [await usings(false), await usings(true)];
  assert(plain.length > 50, `${plain.length} in the bundle`);
  assertEquals(minified, plain);
});
