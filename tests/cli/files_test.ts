import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { InvalidArgument, liveBuffers } from "../../mod.ts";
import { linesOf } from "../../src/cli/io.ts";
import { checkOutputs, writeOutput } from "../../src/cli/output.ts";
import { attune } from "./fake_io.ts";

const MODEL = "tests/models/demo";

Deno.test("attune: a file that cannot be written is refused before the work starts", async () => {
  // The other things that are wrong come after it: nothing was loaded or drawn.
  for (
    const args of [
      ["mask", "--impl", "nope", "--png"],
      ["attention", "no/such/model", "And", "--png"],
      ["attention", "no/such/model", "And", "--svg"],
      ["bisect", "no/such/model", "--png"],
    ]
  ) {
    const { code, stdout, stderr } = await attune([...args, "/nonexistent/x.png"]);
    assertEquals({ args, code, stdout, stderr }, {
      ...{ args, code: 1, stdout: "" },
      stderr: "Cannot write /nonexistent/x.png: expected a folder that exists, there is no /nonexistent\n",
    });
  }
  const { code, stderr } = await attune(["chat", MODEL], { stdin: ["/save /nonexistent/x.json"] });
  assertEquals(code, 1);
  assertStringIncludes(stderr, "Cannot write /nonexistent/x.json");
  assertEquals(liveBuffers(), 0);
});

Deno.test("outputs: a check changes nothing, and says what is in the way", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const [old, fresh] = [`${folder}/old.txt`, `${folder}/new.txt`];
    await Deno.writeTextFile(old, "as it was");
    await checkOutputs(old, undefined, fresh);
    assertEquals(await Deno.readTextFile(old), "as it was");
    assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), ["old.txt"]);
    await assertRejects(() => checkOutputs(folder), InvalidArgument, "expected a file, it is a folder");
    await assertRejects(() => checkOutputs(`${old}/x`), InvalidArgument, "old.txt is none");
    await assertRejects(() => checkOutputs(""), InvalidArgument, "Cannot write a file without a name");
    await assertRejects(() => writeOutput(folder, "text"), InvalidArgument, `Cannot write ${folder}`);
    await writeOutput(fresh, "text");
    assertEquals(await Deno.readTextFile(fresh), "text");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("attune: an empty prompt has one message, wherever it comes from", async () => {
  for (
    const args of [
      ...["generate", "attention"].flatMap((name) => [[name, MODEL, ""], [name, MODEL], [name, MODEL, "-"]]),
      ["bisect", MODEL, "--prompt", ""],
    ]
  ) {
    const { code, stdout, stderr } = await attune(args);
    assertEquals({ args, code, stdout, stderr }, {
      ...{ args, code: 1, stdout: "" },
      stderr: "Cannot use an empty prompt: expected some text\n",
    });
  }
});

/** The lines of bytes that come `size` at a time. */
async function lines(bytes: Uint8Array, size: number): Promise<string[]> {
  let at = 0;
  const stream = {
    read(into: Uint8Array) {
      const part = bytes.subarray(at, at += Math.min(size, into.length));
      into.set(part);
      return Promise.resolve(part.length === 0 ? null : part.length);
    },
  };
  return await Array.fromAsync(linesOf(stream));
}

Deno.test("stdin: lines are UTF-8 however they come in, and what is not is an error", async () => {
  const text = "\ufeffAnd ✓\r\n\n世界\n\ufeffend";
  const bytes = new TextEncoder().encode(text);
  for (const size of [1, 2, 3, 100]) {
    assertEquals(await lines(bytes, size), ["And ✓", "", "世界", "\ufeffend"]);
    assertEquals(await lines(new TextEncoder().encode("a\n"), size), ["a"]);
    for (const wrong of [[97, 10, 0xff, 98, 10, 99], [97, 10, 0xe2, 0x9c]]) {
      await assertRejects(
        () => lines(Uint8Array.from(wrong), size),
        InvalidArgument,
        "Cannot read stdin: expected UTF-8, line 2 is something else",
      );
    }
  }
});

Deno.test("attune as a process: stdin that is no UTF-8 is code 1, and nothing is written", async () => {
  const main = new URL("../../src/cli/main.ts", import.meta.url);
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", main.href, "generate", MODEL],
    ...{ stdin: "piped", stdout: "piped", stderr: "piped" },
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(Uint8Array.of(65, 0xff, 66));
  await writer.close();
  const { code, stdout, stderr } = await child.output();
  assertEquals([code, stdout.length], [1, 0]);
  assertEquals(
    new TextDecoder().decode(stderr),
    "Cannot read stdin: expected UTF-8, line 1 is something else\n",
  );
});
