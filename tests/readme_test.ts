/**
 * The README tells the truth: its programs run as they stand, with the permission it names, and its table is the one
 * that is generated.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { generated, withGenerated } from "../scripts/support_table.ts";
import { deno, type Ended, pathOf, ROOT, temporaryFolder } from "./package/publishing.ts";

const readme = await Deno.readTextFile(pathOf("README.md"));

/** The fenced TypeScript blocks, by the heading they stand under. */
function programs(): { heading: string; code: string }[] {
  const found: { heading: string; code: string }[] = [];
  for (const section of readme.split(/^## /m).slice(1)) {
    const heading = section.slice(0, section.indexOf("\n"));
    for (const [, code] of section.matchAll(/^```ts\n([\s\S]*?)^```$/gm)) {
      found.push({ heading, code: code! });
    }
  }
  return found;
}

const MODEL = "./tests/models/demo";

/** Writes the programs to an empty folder, where the package's name means this checkout, and runs Deno there. */
async function elsewhere(args: (folder: string) => string[]): Promise<Ended> {
  await using folder = await temporaryFolder();
  const config = `${folder.path}/deno.json`;
  const { compilerOptions } = JSON.parse(await Deno.readTextFile(pathOf("deno.json"))) as Record<
    string,
    unknown
  >;
  const imports = { "jsr:@attune/attune": new URL("mod.ts", ROOT).href };
  await Deno.writeTextFile(config, JSON.stringify({ compilerOptions, imports }));
  for (const [i, { code }] of programs().entries()) await Deno.writeTextFile(`${folder.path}/${i}.ts`, code);
  const [command, ...rest] = args(folder.path);
  return await deno([command!, "--quiet", "--config", config, "--no-lock", ...rest], { cwd: ROOT });
}

for (const [i, { heading }] of programs().entries()) {
  Deno.test(`README, ${heading}: runs as written`, async () => {
    const { code, stdout, stderr } = await elsewhere((folder) => {
      return ["run", "--no-prompt", "--no-check", `--allow-read=${MODEL}`, `${folder}/${i}.ts`];
    });
    assertEquals(code, 0, `${stdout}\n${stderr}`);
    assert(stdout.trim() !== "", "the program printed nothing");
  });
}

Deno.test("README: its programs have no type errors", async () => {
  const { code, stderr } = await elsewhere((folder) => [
    "check",
    ...programs().map((_, i) => `${folder}/${i}.ts`),
  ]);
  assertEquals(code, 0, stderr);
});

Deno.test("README: its programs are found", () => {
  assertEquals(programs().length >= 6, true);
});

Deno.test("README: its own attention function is at most 30 lines", () => {
  const { code } = programs().find(({ heading }) => heading === "Your own attention")!;
  const body = /^const sigmoid_attention[\s\S]*?^};$/m.exec(code)![0];
  assert(body.split("\n").length <= 30);
});

Deno.test("README: the generated part is up to date (deno task readme writes it)", async () => {
  assertEquals(readme, withGenerated(readme, await generated()));
});

Deno.test("README: links lead to files", async () => {
  const links = [...readme.matchAll(/\]\((\.\/[^)#]+)\)/g)].map(([, path]) => path!);
  const missing: string[] = [];
  for (const path of links) {
    await Deno.stat(pathOf(path)).catch(() => missing.push(path));
  }
  assertEquals(missing, []);
});

Deno.test("README: every task it names exists, and every task says what it does", async () => {
  const { tasks } = JSON.parse(await Deno.readTextFile(pathOf("deno.json"))) as {
    tasks: Record<string, { description?: string }>;
  };
  const named = [...readme.matchAll(/\btask ([a-z:]+)/g)].map(([, name]) => name!);
  assertEquals(named.filter((name) => !(name in tasks)), []);
  assertEquals(Object.entries(tasks).filter(([, { description }]) => !description).map(([name]) => name), []);
});
