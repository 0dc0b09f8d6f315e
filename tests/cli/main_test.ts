import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { VERSION } from "../../src/cli/main.ts";
import { deviceTest, testDevices } from "../support/devices.ts";
import { attune } from "./fake_io.ts";

const ROOT = new URL("../../", import.meta.url);
const MAIN = decodeURIComponent(new URL("src/cli/main.ts", ROOT).pathname);
const MODEL = "tests/models/demo";
const PROMPT = "In the beginning";

/** The command line as a process. */
function start(args: readonly string[], stdin: "null" | "piped" = "null"): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", MAIN, ...args],
    cwd: ROOT,
    stdin,
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** What came of a process. */
async function ended(child: Deno.ChildProcess) {
  const { code, stdout, stderr } = await child.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

/** A module of a user's, as examples call it. */
const OWN_ATTENTION = `
import { AttentionInterface, AttentionMaskInterface, eager_attention_forward, eager_mask } from "${new URL(
  "mod.ts",
  ROOT,
)}";
AttentionInterface.register("mine", eager_attention_forward);
AttentionMaskInterface.register("mine", eager_mask);
`;

/** The names of all commands. */
async function commands(): Promise<string[]> {
  const { stdout } = await attune(["--help"]);
  const listed = stdout.slice(stdout.indexOf("Commands:"));
  return [...listed.matchAll(/^ {2}(\w+)/gm)].map(([, name]) => name!).filter((name) => name !== "help");
}

Deno.test("attune: the version is the package's", async () => {
  const { version } = JSON.parse(await Deno.readTextFile(new URL("deno.json", ROOT)));
  assertEquals([VERSION, (await attune(["--version"])).stdout], [version, `${version}\n`]);
});

Deno.test("attune: programs that import the library load nothing of its command line", async () => {
  const info = async (entry: string) => {
    const args = ["info", "--json", entry];
    const { stdout } = await new Deno.Command(Deno.execPath(), { args, cwd: ROOT }).output();
    return JSON.stringify(JSON.parse(new TextDecoder().decode(stdout)).modules);
  };
  const [library, cli] = [await info("mod.ts"), await info("src/cli/main.ts")];
  for (const name of ["/src/cli/", "commander", "cli-progress", "fast-png"]) {
    assertEquals({ name, library: library.includes(name), cli: cli.includes(name) }, {
      ...{ name, library: false, cli: true },
    });
  }
});

Deno.test("attune: every command explains itself, with examples and --json", async () => {
  const names = await commands();
  for (const name of ["generate", "chat", "inspect", "support", "mask"]) assert(names.includes(name), name);
  for (const name of names) {
    const { code, stdout } = await attune([name, "--help"]);
    assertEquals(code, 0);
    for (const part of ["Usage: attune ", "--json", "Examples:", "deno task attune"]) {
      assertStringIncludes(stdout, part, name);
    }
  }
});

Deno.test("attune: wrong usage is code 2 and said on stderr", async () => {
  for (
    const args of [[], ["nothing"], ["generate"], ["generate", MODEL, PROMPT, "--nope"], ["mask", "--q", "x"]]
  ) {
    const { code, stdout, stderr } = await attune(args);
    assertEquals({ args, code, stdout }, { args, code: 2, stdout: "" });
    assertMatch(stderr, /error|Usage/);
  }
});

Deno.test("attune: colours are for terminals, and --no-color turns them off", async () => {
  const run = (args: string[], color: boolean, stderr: boolean) =>
    attune(["chat", MODEL, "--max-new-tokens", "2", ...args], {
      stdin: ["And"],
      color,
      terminal: { stderr },
    });
  // deno-lint-ignore no-control-regex
  const dimmed = /\x1b\[2m\d+ tokens read/;
  assertMatch((await run([], true, true)).stderr, dimmed);
  for (
    const said of [
      await run([], true, false),
      await run([], false, true),
      await run(["--no-color"], true, true),
    ]
  ) {
    assertEquals(dimmed.test(said.stderr), false);
  }
});

Deno.test("attune as a process: text on stdout, JSON that parses, and exit codes", async () => {
  const [text, json, missing, wrong] = await Promise.all([
    ended(start(["generate", MODEL, PROMPT, "--max-new-tokens", "4"])),
    ended(start(["generate", MODEL, PROMPT, "--max-new-tokens", "4", "--json"])),
    ended(start(["generate", "./no/such/model", PROMPT])),
    ended(start(["generate", MODEL, PROMPT, "--top-k", "many"])),
  ]);
  // No bar and no colours in a pipe.
  assertEquals([text.code, text.stderr], [0, ""]);
  assertEquals([json.code, json.stderr, `${JSON.parse(json.stdout).text}\n`], [0, "", text.stdout]);
  assertEquals([missing.code, missing.stdout, wrong.code, wrong.stdout], [1, "", 2, ""]);
  assertStringIncludes(missing.stderr, "Cannot find");
});

Deno.test("attune as a process: Ctrl-C ends it with 130, and what was written stays", async () => {
  const child = start(["generate", MODEL, PROMPT, "--max-new-tokens", "400"]);
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let text = (await reader.read()).value ?? "";
  child.kill("SIGINT");
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    text += value;
  }
  const { code } = await child.status;
  await child.stderr.cancel();
  assertEquals(code, 130);
  assert(text.trim() !== "" && text.endsWith("\n"));
  const whole = await attune(["generate", MODEL, PROMPT, "--max-new-tokens", "400"]);
  assert(text.length < whole.stdout.length && whole.stdout.startsWith(text.trimEnd()));
});

Deno.test("attune as a process: a reader that goes ends it quietly", async () => {
  const child = start(["generate", MODEL, PROMPT, "--max-new-tokens", "400"]);
  const reader = child.stdout.getReader();
  await reader.read();
  await reader.cancel();
  const [{ code }, said] = await Promise.all([child.status, new Response(child.stderr).text()]);
  assertEquals([code, said], [141, ""]);
});

Deno.test("attune as a process: a chat is a script of lines", async () => {
  const child = start(["chat", MODEL, "--plain", "--max-new-tokens", "3", "--json"], "piped");
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode("And\r\n/swap eager\nGod ✓"));
  await writer.close();
  const { code, stdout, stderr } = await ended(child);
  const events = stdout.trimEnd().split("\n").map((line) => JSON.parse(line));
  assertEquals({ code, stderr, types: events.map(({ type }) => type) }, {
    ...{ code: 0, stderr: "", types: ["answer", "swap", "answer"] },
  });
});

/** The examples of all help texts and of the README. */
async function examples(): Promise<string[]> {
  const readme = await Deno.readTextFile(new URL("README.md", ROOT));
  const found = [...readme.matchAll(/^deno task attune .*$/gm)].map(([line]) => line);
  for (const name of await commands()) {
    const { stdout } = await attune([name, "--help"]);
    const lines = stdout.slice(stdout.indexOf("Examples:")).split("\n").slice(1);
    found.push(...lines.map((line) => line.trim()).filter((line) => line !== ""));
  }
  return found;
}

for (const on of await testDevices()) {
  deviceTest(on, "attune: the examples of the help texts and of the README run as they stand", async () => {
    // In a folder where the repository's files are, and where what they write is of no account.
    const folder = await Deno.makeTempDir();
    try {
      await Deno.symlink(new URL("tests", ROOT), `${folder}/tests`);
      await Deno.writeTextFile(`${folder}/my_attention.ts`, OWN_ATTENTION);
      const bin = `deno() { shift 2; "${Deno.execPath()}" run -A --no-check "${MAIN}" "$@"; }`;
      const mine = (await examples()).filter((line) => line.includes("webgpu") === (on.name === "webgpu"));
      assert(mine.length >= (on.name === "webgpu" ? 1 : 10), `${mine.length} examples were found`);
      for (const example of mine) {
        const { code, stderr } = await new Deno.Command("sh", {
          args: ["-c", `${bin}\n${example}`],
          cwd: folder,
          stdin: "null",
        }).output();
        const said = code === 0 ? "" : new TextDecoder().decode(stderr);
        assertEquals({ example, code, said }, { example, code: 0, said: "" });
      }
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}
