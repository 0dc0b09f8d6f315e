import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { AutoTokenizer, InvalidArgument, liveBuffers } from "../../mod.ts";
import { Conversation } from "../../src/cli/conversation.ts";
import type { Tokenizer } from "../../src/text/tokenizer.ts";
import { temporaryFolder } from "../hub/remote_server.ts";
import { attune, type FakeOptions } from "./fake_io.ts";

const MODEL = "tests/models/demo";
const SHORT = ["--max-new-tokens", "6"];

/** A chat whose stdin is a script. */
async function chat(lines: readonly string[], args: readonly string[] = [], options: FakeOptions = {}) {
  return await attune(["chat", MODEL, ...SHORT, ...args], { stdin: lines, ...options });
}

/** What a chat said, a JSON object a line. */
async function said(lines: readonly string[], ...args: string[]) {
  const { code, stdout, stderr } = await chat(lines, [...args, "--json"]);
  const events = stdout.trimEnd().split("\n").map((line) => JSON.parse(line));
  // A script of which a line failed has failed.
  const failed = events.some(({ type }) => type === "error");
  assertEquals({ code, stderr }, { code: failed ? 1 : 0, stderr: "" });
  return events;
}

Deno.test("attune chat: a script goes on after a line that fails, and its exit code is 1; at a terminal it is 0", async () => {
  for (const wrong of ["/swap nope", "/set temperature=-1\nAnd"]) {
    const lines = [...wrong.split("\n"), "/set temperature=", "God"];
    const script = await chat(lines, ["--sample", "--seed", "1"]);
    assertEquals([script.code, script.stdout.trimEnd().split("\n").length], [1, 1]);
    assertStringIncludes(script.stderr, "Cannot ");
  }
  const { code, stderr } = await chat(["/swap nope"], [], { terminal: { stdin: true } });
  assertEquals(code, 0);
  assertStringIncludes(stderr, "Cannot use attn_implementation");
});

Deno.test("attune chat: options of several sequences are none of its options", async () => {
  const help = (await attune(["chat", "--help"])).stdout;
  const several = ["--num-beams", "--num-return-sequences", "--length-penalty"];
  for (const flag of several) {
    assert(!help.includes(flag), flag);
    assertStringIncludes((await attune(["generate", "--help"])).stdout, flag);
    assertEquals((await chat(["And"], [flag, "2"])).code, 2);
  }
  const [refused] = await said(["/set num_beams=2"], "--plain");
  assertStringIncludes(refused.message, "expected <name>=<value> with one of max_new_tokens");
});

Deno.test("attune chat: answers are on stdout, all else on stderr; that there is no template is said once", async () => {
  const { code, stdout, stderr } = await chat(["In the beginning", "", "And God said"]);
  assertEquals([code, stdout.trimEnd().split("\n").length], [0, 2]);
  assertEquals(stderr.split("no chat template").length, 2);
  assertEquals(stderr.split("tokens read at").length, 3);
  assertEquals((await chat(["In the beginning"], ["--plain"])).stderr.includes("no chat template"), false);
  assertEquals(liveBuffers(), 0);
});

Deno.test("attune chat: an answer reads all turns before it", async () => {
  const lines = await said(["In the beginning", "And God said"], "--plain");
  const [first, second] = lines;
  const { stdout } = await attune([
    ...["generate", MODEL, `In the beginning\n${first.text}\nAnd God said\n`],
    ...[...SHORT, "--json"],
  ]);
  assertEquals(second.token_ids, JSON.parse(stdout).token_ids);
  assertEquals([lines.length, first.type, first.stopped], [2, "answer", false]);
});

Deno.test("attune chat: what the turns have in common with those before is not computed again", async () => {
  const turns = await said([
    "In the beginning",
    "And God said",
    "/undo",
    "/swap eager",
    "And he",
    "/reset",
    "And",
  ], "--plain");
  const stats = turns.filter(({ type }) => type === "answer").map((a) => a.stats);
  const shared = stats[0].prompt_tokens + stats[0].new_tokens;
  // The last token of an answer was never an input; a line break and "And" are in both questions.
  assertEquals(stats.map((s) => s.reused_tokens), [0, shared - 1, shared + 2, 0]);
  assertEquals(stats[3].prompt_tokens, 2);
  const { stderr } = await chat(["In the beginning", "And God said"]);
  assertStringIncludes(stderr, `${shared - 1} tokens reused · `);
});

Deno.test("attune chat: a swap between answers keeps the tokens", async () => {
  const plain = await said(["In the beginning", "And God said"], "--plain");
  const swapped = await said(
    ["In the beginning", "/swap eager", "And God said", "/attn", "/stats"],
    "--plain",
  );
  const answers = swapped.filter(({ type }) => type === "answer");
  assertEquals(answers.map((a) => a.token_ids), plain.map((a) => a.token_ids));
  assertEquals(answers.map((a) => a.implementations[0]), ["sdpa", "eager"]);
  assertEquals(swapped[1], { type: "swap", from: "sdpa", to: "eager", from_next: "answer" });
  assertEquals([swapped[3].type, swapped[3].layers.length, swapped[3].layers[0].implementation], [
    ...["attn", 6, "eager"],
  ]);
  assertEquals([swapped[4].type, swapped[4].turns, swapped[4].stats.new_tokens], ["stats", 4, 6]);
});

Deno.test("attune chat: a swap typed while an answer is written takes effect at the next token", async () => {
  const plain = await chat(["In the beginning"], ["--max-new-tokens", "24"]);
  const third = Promise.withResolvers<void>();
  let pieces = 0;
  const { code, stdout, stderr } = await attune(["chat", MODEL, "--max-new-tokens", "24"], {
    terminal: { stdin: true },
    stdin: (async function* () {
      yield "In the beginning";
      await third.promise;
      yield "/swap nope";
      yield "/swap flash_attention_2";
      yield "/set seed=1";
    })(),
    onWrite: () => ++pieces === 3 && third.resolve(),
  });
  assertEquals([code, stdout], [0, plain.stdout]);
  assertStringIncludes(stderr, 'Cannot use attn_implementation="nope"');
  assertStringIncludes(stderr, "attention: sdpa → flash_attention_2, from the next token on");
  // The answer had both, and what is no command of that kind waited for its end.
  assertStringIncludes(stderr, "24 written");
  assert(stderr.indexOf("sdpa → flash_attention_2\n") < stderr.indexOf("seed=1"));
});

Deno.test("attune chat: Ctrl-C stops the answer and not the chat; at the prompt it ends it", async () => {
  let pieces = 0;
  const stopped = Promise.withResolvers<void>();
  const { code, stdout, stderr } = await attune(["chat", MODEL, "--max-new-tokens", "300"], {
    stdin: (async function* () {
      yield "In the beginning";
      yield "/set max_new_tokens=3";
      yield "And God said";
      yield "/stats";
      stopped.resolve();
      await new Promise(() => {});
    })(),
    onWrite: (_, io) => ++pieces === 3 && io.interrupt(),
    onStart: (io) => void stopped.promise.then(() => setTimeout(() => io.interrupt(), 20)),
  });
  assertEquals([code, stdout.trimEnd().split("\n").length], [130, 2]);
  assertStringIncludes(stderr, "(stopped)");
  assertStringIncludes(stderr, "3 written at");
  assertStringIncludes(stderr, "4 turns");
  assertEquals(liveBuffers(), 0);
});

Deno.test("attune chat: what is wrong with a line is said, and the chat goes on", async () => {
  const lines = [
    ...["/nothing", "/swap", "/attn now", "/set colour=red", "/set temperature=warm"],
    ...["/device moon", "/load no/such/file", "/undo", "/help", "And"],
  ];
  const events = await said(lines, "--plain");
  const errors = events.filter(({ type }) => type === "error").map(({ message }) => message);
  const expected = [
    ...["Cannot do /nothing: expected one of /swap, /device", "expected /swap <name>", "expected /attn"],
    ...["expected <name>=<value> with one of max_new_tokens", "expected a number"],
    ...['Cannot move the model to "moon"', "No such file", "Cannot undo"],
  ];
  assertEquals(errors.length, expected.length);
  errors.forEach((message, i) => assertStringIncludes(message, expected[i]!));
  assertEquals(events.slice(-2).map(({ type }) => type), ["help", "answer"]);
});

Deno.test("attune chat: /set, /undo, /reset and /system change what the next answer reads", async () => {
  const [first] = await said(["And God said"], "--plain");
  const again = await said(
    ["In the beginning", "/undo", "And God said", "/reset", "And God said"],
    "--plain",
  );
  for (const { token_ids } of again.filter(({ type }) => type === "answer").slice(1)) {
    assertEquals(token_ids, first.token_ids);
  }
  const system = await said(
    ["/system In the beginning", "And God said", "/reset", "/system", "And God said"],
    "--plain",
  );
  const [with_system, without] = system.filter(({ type }) => type === "answer");
  assertEquals(with_system.stats.prompt_tokens > without.stats.prompt_tokens, true);
  assertEquals(without.token_ids, first.token_ids);
  const set = await said(
    ["/set max-new-tokens=2", "And God said", "/set max_new_tokens=", "/set"],
    "--plain",
  );
  assertEquals([set[1].token_ids, set.at(-1).options], [first.token_ids.slice(0, 2), {}]);
});

Deno.test("attune chat: a saved conversation goes on where it was", async () => {
  const folder = await Deno.makeTempDir();
  const file = `${folder}/turns.json`;
  try {
    const whole = await said(["In the beginning", `/save ${file}`, "And God said"], "--plain");
    assertEquals(JSON.parse(await Deno.readTextFile(file)), [
      { role: "user", content: "In the beginning" },
      { role: "assistant", content: whole[0].text },
    ]);
    const later = await said([`/load ${file}`, "And God said"], "--plain");
    assertEquals(later.at(-1).token_ids, whole.at(-1).token_ids);
    await Deno.writeTextFile(file, '[{"role": "robot", "content": "x"}]');
    const [refused] = await said([`/load ${file}`], "--plain");
    assertStringIncludes(refused.message, "item 0 is something else");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("attune chat: /exit leaves, // begins a text with a slash", async () => {
  const events = await said(["//And", "/exit", "never"], "--plain");
  assertEquals(events.map(({ type }) => type), ["answer"]);
});

/** A tokenizer of code points, with a template or without. */
function tokenizer(chat_template: string | null): Tokenizer {
  return {
    chat_template,
    apply_chat_template: (
      messages: { role: string; content: string }[],
      options: Record<string, unknown>,
    ) => {
      const { add_generation_prompt, tokenize = true } = options;
      const text = messages.map((m) => `<${m.role}>${m.content}`).join("") +
        (add_generation_prompt ? "<assistant>" : "");
      return tokenize ? { input_ids: text } : text;
    },
    encode: (text: string, { add_special_tokens = true } = {}) => [
      ...(add_special_tokens ? [1] : []),
      ...[...text].map((c) => c.codePointAt(0)!),
    ],
  } as unknown as Tokenizer;
}

Deno.test("attune chat: a model with a template gets its conversations in it", async () => {
  await using folder = await temporaryFolder();
  for (const name of ["config.json", "model.safetensors", "tokenizer.json"]) {
    await Deno.symlink(new URL(`../../${MODEL}/${name}`, import.meta.url), `${folder.path}/${name}`);
  }
  const chat_template = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}" +
    "{% if add_generation_prompt %}[assistant]{% endif %}";
  const config = { ...JSON.parse(await Deno.readTextFile(`${MODEL}/tokenizer_config.json`)), chat_template };
  await Deno.writeTextFile(`${folder.path}/tokenizer_config.json`, JSON.stringify(config));
  const { code, stdout, stderr } = await attune(
    ["chat", folder.path, ...SHORT, "--system", "Amen", "--json"],
    {
      stdin: ["And", "God"],
    },
  );
  assertEquals({ code, stderr }, { code: 0, stderr: "" });
  const [first, second, ...rest] = stdout.trimEnd().split("\n").map((line) => JSON.parse(line));
  const { encode, decode } = await AutoTokenizer.from_pretrained(MODEL);
  const prompt = `<s>[system] Amen\n[user] And\n[assistant] ${first.text}\n[user] God\n[assistant]`;
  const { prompt_tokens, reused_tokens } = second.stats;
  assertEquals([prompt_tokens + reused_tokens, rest], [encode(prompt).length, []]);
  assertEquals(decode(encode(prompt)), prompt);
});

Deno.test("a conversation uses the model's template, unless it has none or is to be plain", () => {
  const text = (template: string | null, plain: boolean) => {
    const conversation = new Conversation(tokenizer(template), plain);
    conversation.add("user", "a");
    conversation.setSystem("s");
    return conversation.tokens().map((id) => String.fromCodePoint(id)).join("");
  };
  assertEquals(text("{{ … }}", false), "<system>s<user>a<assistant>");
  assertEquals(text("{{ … }}", true), "\x01s\na\n");
  assertEquals(text(null, false), "\x01s\na\n");
});

Deno.test("a conversation that cannot be loaded stays as it was", async () => {
  const conversation = new Conversation(tokenizer(null), false);
  conversation.add("user", "a");
  const file = await Deno.makeTempFile();
  try {
    for (const text of ["", "{}", "[1]", '[{"role": "user"}]', '[{"role": "__proto__", "content": ""}]']) {
      await Deno.writeTextFile(file, text);
      await assertRejects(() => conversation.load(file), InvalidArgument, "as a conversation");
    }
  } finally {
    await Deno.remove(file);
  }
  assertEquals(conversation.messages, [{ role: "user", content: "a" }]);
});
