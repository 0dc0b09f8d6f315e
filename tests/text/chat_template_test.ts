/**
 * Chat templates against what Transformers writes, and what is refused.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { AttuneError, AutoTokenizer, type ChatMessage, InvalidArgument, ModelFileError } from "../../mod.ts";
import { chatTokenizer, HELLO, written } from "./chat.ts";

interface Recorded {
  readonly name: string;
  readonly messages: readonly ChatMessage[];
  readonly options: Record<string, unknown>;
  readonly text?: string;
  readonly error?: string;
}

const recording: { templates: Record<string, string>; rows: Recorded[] } = JSON.parse(
  await Deno.readTextFile(new URL("../golden/chat.json", import.meta.url)),
);

for (const [i, { name, messages, options, text, error }] of recording.rows.entries()) {
  Deno.test(`chat template ${name}, conversation ${i}: as Transformers writes it`, () => {
    const write = () => written(recording.templates[name]!, options, messages);
    if (text !== undefined) assertEquals(write(), text);
    else assertThrows(write, InvalidArgument, error!.slice(0, 60));
  });
}

Deno.test("apply_chat_template tokenizes without adding special tokens of its own", async () => {
  const tokenizer = chatTokenizer(
    "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}",
  );
  const { input_ids, attention_mask } = tokenizer.apply_chat_template(HELLO);
  assertEquals(tokenizer.batch_decode(input_ids), ["<s>Hello</s>"]);
  assertEquals(input_ids.shape, [1, 7]);
  assertEquals(await attention_mask.tolist(), [[1, 1, 1, 1, 1, 1, 1]]);
  const talks = [HELLO, [{ role: "user", content: "Hi" }]];
  assertEquals(tokenizer.apply_chat_template(talks, { tokenize: false }), ["<s>Hello</s>", "<s>Hi</s>"]);
  const batch = tokenizer.apply_chat_template(talks, { padding: true, padding_side: "left" });
  assertEquals(tokenizer.batch_decode(batch.input_ids), ["<s>Hello</s>", "<pad><pad><pad><s>Hi</s>"]);
  assertThrows(() => tokenizer.apply_chat_template(talks), InvalidArgument, "padding: true");
});

Deno.test("the template is chosen by name, and tool_use where tools are given", () => {
  const named = { default: "D", tool_use: "T", rag: "R" };
  const write = (template: string | Record<string, string> | null, options: Record<string, unknown> = {}) =>
    chatTokenizer(template).apply_chat_template(HELLO, { ...options, tokenize: false });
  assertEquals(write(named), "D");
  assertEquals(write(named, { tools: [] }), "T");
  assertEquals(write(named, { chat_template: "rag" }), "R");
  assertEquals(write(named, { chat_template: "{{ 1 + 1 }}" }), "2");
  assertEquals(write("X", { chat_template: "Y" }), "Y");
  assertEquals(write({ default: "D" }, { tools: [] }), "D");
  assertThrows(() => write({ rag: "R" }), InvalidArgument, `none is called "default"`);
  assertThrows(() => write(null), InvalidArgument, "the tokenizer has none");
  assertEquals(chatTokenizer(named).chat_template, named);
});

Deno.test("templates are read from the files Transformers reads", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const write = (name: string, value: unknown) =>
      Deno.writeTextFile(`${folder}/${name}`, typeof value === "string" ? value : JSON.stringify(value));
    const load = async () => (await AutoTokenizer.from_pretrained(folder)).chat_template;
    await Deno.copyFile("tests/models/demo/tokenizer.json", `${folder}/tokenizer.json`);
    assertEquals(await load(), null);
    await write("chat_template.json", { chat_template: "json" });
    assertEquals(await load(), "json");
    await write("tokenizer_config.json", { chat_template: [{ name: "default", template: "d" }] });
    assertEquals(await load(), { default: "d" });
    await write("tokenizer_config.json", { chat_template: "config" });
    assertEquals(await load(), "config");
    await write("chat_template.jinja", "{{ 'jinja' }}");
    assertEquals(await load(), "{{ 'jinja' }}");
    for (const bad of [1, {}, [], [{ name: "x" }], ["x"], true]) {
      await write("tokenizer_config.json", { chat_template: bad });
      await Deno.remove(`${folder}/chat_template.jinja`).catch(() => {});
      await assertRejects(load, ModelFileError, "expected a text or a list");
    }
    await Deno.writeFile(`${folder}/chat_template.jinja`, new Uint8Array([0xff, 0xfe]));
    await assertRejects(load, ModelFileError, "UTF-8");
    await write("chat_template.jinja", "x".repeat(2 ** 20 + 1));
    await assertRejects(load, ModelFileError, "at most");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("messages and options that are none are refused", () => {
  const deep: unknown[] = [];
  let at = deep;
  for (let i = 0; i < 100; i++) at.push(at = []);
  const cycle: ChatMessage = { role: "user" };
  cycle["self"] = cycle;
  const rows: [messages: unknown, options: unknown, words: string][] = [
    [undefined, {}, "a list of at least one"],
    [[], {}, "a list of at least one"],
    [{}, {}, "a list of at least one"],
    ["hi", {}, "a list of at least one"],
    [[1], {}, "messages[0]"],
    [[null], {}, "messages[0]"],
    [[{}], {}, "messages[0].role"],
    [[{ role: 7 }], {}, "messages[0].role"],
    [[{ role: "user", content: deep }], {}, "nested deeper"],
    [[cycle], {}, "nested deeper"],
    [[{ role: "user", content: () => 1 }], {}, "messages[0].content is a function"],
    [[{ role: "user", content: 1n }], {}, "bigint"],
    [HELLO, { tools: [1] }, "tools"],
    [HELLO, { tools: "x" }, "tools"],
    [HELLO, { documents: [[]] }, "documents"],
    [HELLO, { chat_template: 7 }, "chat_template"],
    [HELLO, { add_generation_prompt: "yes" }, "add_generation_prompt"],
    [HELLO, { continue_final_message: 1 }, "continue_final_message"],
    [HELLO, { continue_final_message: true, add_generation_prompt: true }, "both"],
    [[{ role: "user" }], { continue_final_message: true }, "expected a text"],
    [HELLO, { continue_final_message: "thoughts" }, "does not read it"],
    [HELLO, { variable: Symbol("x") }, "symbol"],
  ];
  for (const [messages, options, words] of rows) {
    const tokenizer = chatTokenizer("{{ messages[0].content }}");
    const apply = () => Reflect.apply(tokenizer.apply_chat_template, tokenizer, [messages, options]);
    assertThrows(apply, InvalidArgument, words);
    assertEquals(tokenizer.apply_chat_template(HELLO, { tokenize: false }), "Hello");
  }
});

Deno.test("what JavaScript objects carry is out of a template's reach", () => {
  const polluted: ChatMessage[] = JSON.parse(
    `[{ "role": "user", "content": "x", "__proto__": { "admin": "yes" } }]`,
  );
  assertEquals(written("{{ messages[0].admin }}|{{ messages[0]['__proto__'].admin }}", {}, polluted), "|yes");
  for (const name of ["__proto__", "constructor", "toString", "__class__", "prototype", "hasOwnProperty"]) {
    for (const  of of["messages", "messages[0]", "messages[0].content", "bos_token", "range", "1", "true"]) {
      assertEquals(
        written(`{{ ${of}.${name} is defined }}{{ ${of}['${name}'] is defined }}`),
        "FalseFalse",
        `${of}.${name}`,
      );
    }
    assertEquals(written(`{{ ${name} is defined }}`), "False");
  }
  assertEquals(written("{{ x }}", { x: new Uint8Array(3) }), "<Uint8Array>");
  assertEquals(Object.hasOwn(Object.prototype, "admin"), false);
});

/** Templates that would take hours or gigabytes, and the word their error has. */
const HOSTILE: Readonly<Record<string, string>> = {
  "nested loops":
    "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}{% endfor %}{% endfor %}{% endfor %}",
  "a long range": "{{ range(10**9)|length }}",
  "a range of fractions": "{{ range(0, 1, 0.0000001) }}",
  "a range without step": "{{ range(0, 10, 0) }}",
  "doubling a text":
    `{% set n = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}`,
  "doubling with ~":
    `{% set n = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}`,
  "doubling by capture":
    `{% set n = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}{% endfor %}{{ n.x }}`,
  "doubling a list":
    `{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}`,
  "a list of itself twice":
    `{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}`,
  "… as JSON":
    `{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x|tojson }}`,
  "… as text":
    `{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x|string|length }}`,
  "… joined":
    `{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x|join }}`,
  "… compared":
    `{% set n = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.x == n.y }}`,
  "… compared with a text":
    `{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x + 'a' }}`,
  "a namespace in itself": `{% set n = namespace() %}{% set n.x = n %}{{ n }}`,
  "a namespace in itself as JSON": `{% set n = namespace() %}{% set n.x = n %}{{ n|tojson }}`,
  "a macro that calls itself": `{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}`,
  "a macro that calls itself twice":
    `{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}`,
  "two macros in turn":
    `{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}`,
  "call blocks in themselves":
    `{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}`,
  "a wide indent": `{{ [1]|tojson(indent=500000000) }}`,
  "a wide indent of text": `{{ 'a\nb'|indent(500000000) }}`,
  "a negative indent": `{{ 'a\nb'|indent(-1) }}`,
  "wide separators":
    `{% set s = 'x' %}{% set n = namespace(x='aaaaaaaa') %}{% for i in range(14) %}{% set n.x = n.x + n.x %}{% endfor %}{{ range(10000)|join(n.x) }}`,
  "wide JSON separators":
    `{% set n = namespace(x='aaaaaaaa') %}{% for i in range(14) %}{% set n.x = n.x + n.x %}{% endfor %}{{ range(10000)|list|tojson(separators=(n.x, n.x)) }}`,
  "replacing by much":
    `{% set n = namespace(x='aaaaaaaa') %}{% for i in range(14) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x.replace('a', n.x) }}`,
  "replacing by much, by filter":
    `{% set n = namespace(x='aaaaaaaa') %}{% for i in range(14) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x|replace('', n.x) }}`,
  "replacing by much, by a kept method":
    `{% set n = namespace(x='aaaaaaaa') %}{% for i in range(14) %}{% set n.x = n.x + n.x %}{% endfor %}{% set f = n.x.replace %}{{ f('a', n.x) }}`,
  "replacing by much, in a call block":
    `{% set n = namespace(x='aaaaaaaa') %}{% for i in range(14) %}{% set n.x = n.x + n.x %}{% endfor %}{% call n.x.replace('a', n.x) %}{% endcall %}`,
  "replacing by much, with a star":
    `{% set n = namespace(x='aaaaaaaa') %}{% for i in range(14) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x.replace(*['a', n.x]) }}`,
  "keeping many copies":
    `{% set n = namespace(x='aaaaaaaa', l=[]) %}{% for i in range(14) %}{% set n.x = n.x + n.x %}{% endfor %}{% for i in range(10000) %}{% set n.l = n.l + [(n.x ~ i)|upper] %}{% endfor %}`,
  "keeping many methods":
    `{% set n = namespace(l=[]) %}{% for i in range(100000) %}{% set n.l = [n.l, ('a' ~ i).strip] %}{% endfor %}`,
  "keeping many mappings":
    `{% set n = namespace(l=[]) %}{% for i in range(100000) %}{% set n.l = [n.l, {}, {}, {}, namespace()] %}{% endfor %}`,
  "keeping many lists of characters":
    `{% set n = namespace(x='aaaaaaaa', l=[]) %}{% for i in range(14) %}{% set n.x = n.x + n.x %}{% endfor %}{% for i in range(1000) %}{% set n.l = [n.l, n.x.split('a')] %}{% endfor %}`,
  "slicing again and again":
    `{% set n = namespace(x='aaaaaaaa') %}{% for i in range(14) %}{% set n.x = n.x + n.x %}{% endfor %}{% for i in range(10000) %}{{ n.x[::-1]|length }}{% endfor %}`,
  "sorting again and again":
    `{% set l = range(20000)|list %}{% for i in range(1000) %}{% set m = l|sort(reverse=true) %}{% endfor %}`,
  "searching the long way":
    `{% set n = namespace(x='aaaaaaaa') %}{% for i in range(14) %}{% set n.x = n.x + n.x %}{% endfor %}{% for i in range(1000) %}{% set m = ('b' ~ n.x[:60000]) in n.x %}{% endfor %}`,
  "many unknown names":
    "{% for i in range(100000) %}{{ nobody }}{{ knows }}{{ these }}{{ names }}{% endfor %}",
  "many interrupted loops":
    "{% for i in range(100000) %}{% for j in [1] %}{% break %}{% endfor %}{% endfor %}",
  "many dates": "{% for i in range(100000) %}{{ strftime_now('%B %b %A %a %Y') }}{% endfor %}",
  "a huge output": "{% for i in range(30000) %}{{ 'a text that is long enough to count' }}{% endfor %}",
  "deep parentheses": `{{ ${"(".repeat(20000)}1${")".repeat(20000)} }}`,
  "deep lists": `{{ ${"[".repeat(20000)}1${"]".repeat(20000)} }}`,
  "a long sum": `{{ 1${"+1".repeat(30000)} }}`,
  "a long denial": `{{ ${"not ".repeat(30000)} 1 }}`,
  "a long chain": `{{ a${".b".repeat(30000)} }}`,
  "a long chain of filters": `{{ a${"|safe".repeat(20000)} }}`,
  "deep blocks": "{% if true %}".repeat(5000) + "{% endif %}".repeat(5000),
  "a long template": "x".repeat(2 ** 17 + 1),
  "much white space": " ".repeat(2 ** 17 - 10),
  "much white space in a tag": `{%${" ".repeat(1000)}generation${" ".repeat(1000)}x %}`,
  "an open tag": "{{ 1",
  "an open block": "{% if true %}",
  "an open comment": "{# ",
  "an open string": "{{ 'a }}",
  "an unknown statement": "{% include 'x' %}",
  "an unknown extension": "{% extends 'x' %}",
  "an unknown filter": "{{ 'a'|nonesuch }}",
  "a call of a number": "{{ 1() }}",
  "a loop over nothing": "{% for a in b %}{% endfor %}",
  "a break outside of a loop": "{% break %}",
  "a name that is taken": "{{ x }}",
  "an attribute of none": "{{ none.x.y }}",
};

for (const [name, template] of Object.entries(HOSTILE)) {
  Deno.test(`a chat template with ${name} is a typed error, soon and small`, () => {
    const options = name === "a name that is taken" ? { namespace: 1 } : {};
    const tokenizer = chatTokenizer(template);
    const before = Deno.memoryUsage();
    const started = performance.now();
    const error = assertThrows(
      () => tokenizer.apply_chat_template(HELLO, { ...options, tokenize: false }),
      AttuneError,
    );
    const took = performance.now() - started;
    const after = Deno.memoryUsage();
    assert(took < 1000, `took ${Math.round(took)} ms: ${error.message}`);
    const grown = Math.max(after.heapUsed - before.heapUsed, 0);
    assert(grown < 64 * 2 ** 20, `grew by ${Math.round(grown / 2 ** 20)} MiB: ${error.message}`);
    assertStringIncludes(error.message, "chat template");
    assert(error.message.length < 400, error.message);
    assertEquals(tokenizer.apply_chat_template(HELLO, { chat_template: "{{ 1 }}", tokenize: false }), "1");
  });
}

Deno.test("long conversations fit the budget of real templates", () => {
  const turns = Array.from({ length: 1000 }, (_, i): ChatMessage => ({
    role: i % 2 === 0 ? "user" : "assistant",
    content: `Turn ${i}. `.repeat(40),
  }));
  for (const name of ["llama3", "chatml", "gemma", "mistral", "parts"]) {
    assertStringIncludes(written(recording.templates[name]!, {}, turns), "Turn 999");
  }
  const long = [{ role: "user", content: "word ".repeat(400_000) }];
  for (const name of ["llama3", "chatml", "gemma", "mistral", "parts"]) {
    assert(written(recording.templates[name]!, {}, long).length > 1_999_000);
  }
});

Deno.test("dates are written in English, as C does", () => {
  const now = new Date();
  assertEquals(
    written("{{ strftime_now('%Y-%m-%d %% %q') }}"),
    `${now.getFullYear()}-${String(now.getMonth() + 1).padStart(2, "0")}-${
      String(now.getDate()).padStart(2, "0")
    } % %q`,
  );
  const month = written("{{ strftime_now('%B') }}");
  assert(
    "January February March April May June July August September October November December".includes(month),
  );
});
