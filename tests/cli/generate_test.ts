import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { AutoModelForCausalLM, AutoTokenizer, liveBuffers } from "../../mod.ts";
import { serveModel, temporaryFolder } from "../hub/remote_server.ts";
import { deviceTest, testDevices } from "../support/devices.ts";
import { attune } from "./fake_io.ts";

const MODEL = "tests/models/demo";
const PROMPT = "In the beginning";

/** What `attune generate --json` printed. */
async function json(...args: string[]) {
  const { code, stdout } = await attune(["generate", MODEL, PROMPT, ...args, "--json"]);
  assertEquals(code, 0);
  return JSON.parse(stdout);
}

Deno.test("attune generate: writes the text as it comes, and nothing else on stdout", async () => {
  const pieces: string[] = [];
  const { code, stdout, stderr } = await attune(["generate", MODEL, PROMPT, "--max-new-tokens", "8"], {
    onWrite: (text) => pieces.push(text),
  });
  const tokenizer = await AutoTokenizer.from_pretrained(MODEL);
  await using model = await AutoModelForCausalLM.from_pretrained(MODEL);
  const { input_ids, attention_mask } = tokenizer(PROMPT);
  using ids = input_ids;
  using _ = attention_mask;
  using output = await model.generate({ input_ids: ids, max_new_tokens: 8 });
  const rows = await output.tolist() as number[][];
  assertEquals({ code, stderr }, { code: 0, stderr: "" });
  assertEquals(stdout, `${tokenizer.decode(rows[0]!.slice(ids.shape[1]))}\n`);
  assert(pieces.length > 4, `it came in ${pieces.length} pieces`);
});

Deno.test("attune generate: JSON says what computed each token; a swap changes the name and not the tokens", async () => {
  const plain = await json("--max-new-tokens", "6");
  const swapped = await json(
    ...["--max-new-tokens", "6", "--swap-at", "2=eager", "--swap-at", "4=flash_attention_2"],
  );
  assertEquals(swapped.token_ids, plain.token_ids);
  assertEquals(swapped.text, plain.text);
  assertEquals(plain.implementations, new Array(6).fill("sdpa"));
  assertEquals(swapped.implementations, [
    ...["sdpa", "sdpa"],
    ...["eager", "eager"],
    ...["flash_attention_2", "flash_attention_2"],
  ]);
  assertEquals([plain.prompt_tokens, plain.interrupted, plain.stats.new_tokens], [3, false, 6]);
  assertEquals(plain.times_ms.length, 6);
  assertEquals(liveBuffers(), 0);
});

Deno.test("attune generate: the names of swaps are checked before anything is written", async () => {
  const { code, stdout, stderr } = await attune(["generate", MODEL, PROMPT, "--swap-at", "2=nope", "--echo"]);
  assertEquals([code, stdout], [1, ""]);
  assertStringIncludes(stderr, 'Cannot use attn_implementation="nope": expected one of eager');
  const part = await attune(["generate", MODEL, PROMPT, "--swap-at", "2=vision_config=eager"]);
  assertEquals([part.code, part.stdout], [1, ""]);
  assertEquals(liveBuffers(), 0);
});

Deno.test("attune generate: a swap that is never reached is said", async () => {
  const run = (at: string) =>
    attune(["generate", MODEL, PROMPT, "--swap-at", `${at}=eager`, "--max-new-tokens", "3"]);
  assertEquals((await run("2")).stderr, "");
  for (const at of ["3", "20"]) {
    const { code, stderr } = await run(at);
    assertEquals(
      { code, stderr },
      {
        code: 0,
        stderr: `Nothing was computed with eager: --swap-at ${at}, and the text ended after 3 tokens\n`,
      },
    );
  }
});

Deno.test("attune generate: --stats goes to stderr", async () => {
  const args = ["generate", MODEL, PROMPT, "--max-new-tokens", "3", "--attn", "eager", "--stats"];
  const { stdout, stderr } = await attune(args);
  assertEquals(stdout.trimEnd().split("\n").length, 1);
  assertMatch(stderr, /3 tokens read at [\d.]+\/s · 3 written at [\d.]+\/s · [\d.]+ MiB, at most/);
  assertStringIncludes(stderr, "eager on wasm, 5.1 M parameters");
});

Deno.test("attune generate: the prompt comes from stdin when there is none, or -", async () => {
  const args = ["--max-new-tokens", "4", "--echo"];
  const given = await attune(["generate", MODEL, "And God\nsaid", ...args]);
  const stdin = ["And God", "said"];
  assertEquals((await attune(["generate", MODEL, "-", ...args], { stdin })).stdout, given.stdout);
  assertEquals((await attune(["generate", MODEL, ...args], { stdin })).stdout, given.stdout);
  assert(given.stdout.startsWith("And God\nsaid"));
});

Deno.test("attune generate: a seed repeats a sample", async () => {
  const sample = async (seed: string) =>
    (await json("--sample", "--temperature", "2", "--top-k", "0", "--seed", seed, "--max-new-tokens", "8"))
      .token_ids;
  assertEquals(await sample("7"), await sample("7"));
  assert((await sample("7")).join() !== (await sample("8")).join());
});

Deno.test("attune generate: every flag reaches generate, which knows the ranges", async () => {
  const refused = async (...flags: string[]) => {
    const { code, stderr } = await attune(["generate", MODEL, PROMPT, "--sample", ...flags]);
    return `${code} ${stderr}`;
  };
  assertStringIncludes(await refused("--temperature", "-1"), "1 Cannot generate with temperature -1");
  assertStringIncludes(await refused("--top-p", "2"), "1 Cannot generate with top_p 2");
  assertStringIncludes(
    await refused("--top-k", "x"),
    "2 error: option '--top-k <n>' argument 'x' is invalid",
  );
  assertStringIncludes(await refused("--min-p", "3"), "1 Cannot generate with min_p 3");
  assertStringIncludes(
    await refused("--repetition-penalty", "0"),
    "1 Cannot generate with repetition_penalty 0",
  );
  assertStringIncludes(await refused("--swap-at", "eager"), "2 error");
  assertStringIncludes(await refused("--swap-at", "2=eager", "--num-beams", "2"), "1 Cannot swap");
  assertStringIncludes(await refused("--attn", "nope"), "1 Cannot use attn_implementation");
  assertStringIncludes(await refused("--attn", "vision_config=eager"), "1 Cannot set attn_implementation");
  assertEquals(liveBuffers(), 0);
});

Deno.test("attune generate: it ends after a stop string, and not before the least number of tokens", async () => {
  const free = await json("--max-new-tokens", "10");
  const word = free.text.trim().split(" ").at(3);
  const stopped = await json("--max-new-tokens", "10", "--stop", word);
  assert(stopped.token_ids.length < 10);
  assertStringIncludes(stopped.text, word);
  assertEquals(stopped.token_ids, free.token_ids.slice(0, stopped.token_ids.length));
});

Deno.test("attune generate: several sequences are printed when all are there", async () => {
  const args = ["--num-beams", "2", "--num-return-sequences", "2", "--max-new-tokens", "4"];
  const { sequences } = await json(...args);
  assertEquals(sequences.length, 2);
  const { stdout } = await attune(["generate", MODEL, PROMPT, ...args]);
  assertEquals(stdout, `${sequences[0].text}\n---\n${sequences[1].text}\n`);
});

Deno.test("attune generate: Ctrl-C keeps what was written, and the code is 130", async () => {
  let pieces = 0;
  const { code, stdout, stderr } = await attune(
    ["generate", MODEL, PROMPT, "--max-new-tokens", "200", "--stats"],
    { onWrite: (_, io) => ++pieces === 3 && io.interrupt() },
  );
  const whole = await attune(["generate", MODEL, PROMPT, "--max-new-tokens", "8"]);
  assertEquals(code, 130);
  assert(stdout.endsWith("\n") && stdout.trim() !== "");
  assert(whole.stdout.startsWith(stdout.trimEnd()));
  assertMatch(stderr, /[34] written at/);
  assertEquals(liveBuffers(), 0);
});

Deno.test("attune generate: Ctrl-C before there is anything to keep", async () => {
  const { code, stdout } = await attune(["generate", MODEL], {
    stdin: ["And"],
    onStart: (io) => io.interrupt(),
  });
  assertEquals({ code, stdout }, { code: 130, stdout: "" });
});

Deno.test("attune generate: a module of the user's brings its own attention", async () => {
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  const mod = new URL("../../mod.ts", import.meta.url).href;
  await Deno.writeTextFile(
    file,
    `import { AttentionInterface, AttentionMaskInterface, eager_attention_forward, eager_mask } from "${mod}";\n` +
      `AttentionInterface.register("mine", eager_attention_forward);\nAttentionMaskInterface.register("mine", eager_mask);\n`,
  );
  try {
    const { implementations } = await json("--import", file, "--attn", "mine", "--max-new-tokens", "2");
    assertEquals(implementations, ["mine", "mine"]);
    const { code, stderr } = await attune(["generate", MODEL, PROMPT, "--import", "./no_such_module.ts"]);
    assertEquals(code, 1);
    assertStringIncludes(stderr, "Cannot import ./no_such_module.ts");
  } finally {
    await Deno.remove(file);
  }
});

Deno.test("attune generate: a bar on a terminal shows the loading and is gone afterwards; a pipe gets none", async () => {
  const args = ["generate", MODEL, PROMPT, "--max-new-tokens", "2"];
  const shown = await attune(args, { terminal: { stderr: true } });
  assertStringIncludes(shown.stderr, "█");
  assertMatch(shown.stderr, /100 % · 9\.8 of 9\.8 MiB/);
  // deno-lint-ignore no-control-regex
  assertMatch(shown.stderr, /\x1b\[1G\x1b\[2K$/);
  const piped = await attune(args, { terminal: { stdout: true, stdin: true } });
  assertEquals(piped.stderr, "");
  assertEquals(piped.stdout, shown.stdout);
});

Deno.test("attune generate: a model that is not there is code 1, and the message has no stack", async () => {
  const { code, stderr } = await attune(["generate", "no/such/model", "x"]);
  assertEquals(code, 1);
  assertStringIncludes(stderr, "Cannot find the model");
  assertEquals(stderr.includes("\n    at "), false);
  assertStringIncludes((await attune(["generate", "no/such/model", "x", "--debug"])).stderr, "\n    at ");
});

Deno.test("attune generate: a model of a hub or behind a URL is fetched once, into the folder that was named", async () => {
  const files: Record<string, Uint8Array<ArrayBuffer>> = {};
  for await (const { name } of Deno.readDir(MODEL)) files[name] = await Deno.readFile(`${MODEL}/${name}`);
  const local = await attune(["generate", MODEL, PROMPT, "--max-new-tokens", "4"]);
  await using site = await serveModel(files);
  for (const source of [["org/name", "--endpoint", site.origin], [`${site.origin}/plain`]]) {
    await using folder = await temporaryFolder();
    const from = [...source, "--cache-dir", folder.path];
    const flags = ["generate", from[0]!, PROMPT, "--max-new-tokens", "4", ...from.slice(1)];
    const fetched = await attune(flags, { terminal: { stderr: true } });
    assertEquals({ code: fetched.code, stdout: fetched.stdout }, { code: 0, stdout: local.stdout });
    assertStringIncludes(fetched.stderr, "█");
    const requests = site.seen.length;
    assertEquals((await attune([...flags, "--local-files-only"])).stdout, local.stdout);
    assertEquals((await attune(["inspect", ...from, "--local-files-only"])).code, 0);
    assertEquals(site.seen.length, requests);
  }
  const { code, stderr } = await attune(["generate", `${site.origin}/plain`, PROMPT, "--revision", "v1"]);
  assertEquals(code, 1);
  assertStringIncludes(stderr, "a URL has none");
});

for (const on of (await testDevices()).filter(({ name }) => name === "webgpu")) {
  deviceTest(on, "attune generate and chat: the same tokens as on the CPU", async () => {
    const cpu = await json("--max-new-tokens", "4");
    const gpu = await json("--max-new-tokens", "4", "--device", "webgpu");
    assertEquals([gpu.device, gpu.token_ids], ["webgpu", cpu.token_ids]);
    const { stdout } = await attune(["chat", MODEL, "--plain", "--max-new-tokens", "4", "--json"], {
      stdin: ["And", "/undo", "/device webgpu", "And", "/attn"],
    });
    const [first, , moved, second, report] = stdout.trimEnd().split("\n").map((line) => JSON.parse(line));
    assertEquals(second.token_ids, first.token_ids);
    assertEquals([moved.device, report.layers[0].device], ["webgpu", "webgpu"]);
  });
}

Deno.test("attune generate: guesses ahead give the same tokens and are counted", async () => {
  const plain = await json("--max-new-tokens", "8");
  assertEquals(plain.drafts, undefined);
  const assisted = await json("--max-new-tokens", "8", "--assistant", MODEL, "--num-assistant-tokens", "3");
  assertEquals(assisted.token_ids, plain.token_ids);
  assertEquals(assisted.drafts, { proposed: 5, accepted: 5, forwards: 3 });
  const looked = await json("--max-new-tokens", "8", "--prompt-lookup", "4");
  assertEquals(looked.token_ids, plain.token_ids);
  const { stderr, code } = await attune([
    ...["generate", MODEL, PROMPT, "--max-new-tokens", "8", "--assistant", MODEL, "--stats"],
  ]);
  assertEquals(code, 0);
  assertMatch(stderr, /\d+ of \d+ guessed tokens accepted, \d+ forwards/);
  const both = await attune(["generate", MODEL, PROMPT, "--assistant", MODEL, "--prompt-lookup", "4"]);
  assertEquals(both.code, 1);
  assertStringIncludes(both.stderr, "expected one of them");
  assertEquals(liveBuffers(), 0);
});
