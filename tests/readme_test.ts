/**
 * The README tells the truth: its programs run as they stand, with the permission it names, and its table is the one
 * that is generated.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { generated, withGenerated } from "../scripts/support_table.ts";
import { deno, pathOf, ROOT, temporaryFolder } from "./package/publishing.ts";

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

for (const { heading, code } of programs()) {
  Deno.test(`README, ${heading}: runs as written`, async () => {
    await using folder = await temporaryFolder();
    const map = { imports: { "jsr:@attune/attune": new URL("mod.ts", ROOT).href } };
    await Deno.writeTextFile(`${folder.path}/deno.json`, JSON.stringify(map));
    await Deno.writeTextFile(`${folder.path}/main.ts`, code);
    const args = ["--quiet", "--config", `${folder.path}/deno.json`, "--no-lock", "--no-prompt"];
    const ended = await deno(["run", "--check", ...args, `--allow-read=${MODEL}`, `${folder.path}/main.ts`], {
      cwd: ROOT,
    });
    assertEquals(ended.code, 0, `${ended.stdout}\n${ended.stderr}`);
    assert(ended.stdout.trim() !== "", "the program printed nothing");
  });
}

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
