import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { ModelFileError } from "../../src/errors.ts";
import { checkFileName, type ModelFiles, openFolder } from "../../src/hub/files.ts";
import { writeSafetensors } from "../../src/hub/safetensors_write.ts";
import { bytesSource, fileSource } from "../../src/hub/source.ts";
import { openWeights } from "../../src/hub/weights.ts";

const llama = new URL("../golden/models/llama/", import.meta.url);

/** Files in memory: what a URL or hub reader will look like to the layers above. */
function memoryFiles(content: Record<string, Uint8Array | string>): ModelFiles {
  const find = (name: string) => {
    checkFileName(name);
    const found = content[name];
    return typeof found === "string" ? new TextEncoder().encode(found) : found;
  };
  return {
    describe: () => "memory",
    prepare: () => Promise.resolve(),
    missing: () => Promise.resolve(0),
    has: (name) => Promise.resolve(find(name) !== undefined),
    json: (name) => Promise.resolve(JSON.parse(new TextDecoder().decode(find(name)))),
    source: (name) => {
      const bytes = find(name);
      return bytes === undefined
        ? Promise.reject(new ModelFileError(`Cannot find ${name}`))
        : Promise.resolve(bytesSource(bytes, name));
    },
  };
}

const floats = (...values: number[]) =>
  ({ dtype: "float32", shape: [values.length], data: new Float32Array(values) }) as const;

Deno.test("files: a folder by path, by URL object and by file: string", async () => {
  for (const folder of [llama, llama.href, decodeURIComponent(llama.pathname)]) {
    const files = await openFolder(folder);
    assert(await files.has("config.json"));
    assert(!await files.has("tokenizer.json"));
    const config = await files.json("config.json");
    assert(typeof config === "object" && config !== null && "model_type" in config);
    assertEquals(config.model_type, "llama");
    assertStringIncludes(files.describe(), "golden/models/llama");
  }
});

Deno.test("files: what is missing is named, with what was looked for and what is there", async () => {
  await assertRejects(
    () => openFolder("./no-such-model"),
    ModelFileError,
    `looked for a local folder of that path with config.json and model.safetensors`,
  );
  await assertRejects(() => openFolder(""), ModelFileError, "empty");
  await assertRejects(() => openFolder("file://host/x"), ModelFileError, "without a host");
  await assertRejects(() => openFolder(new URL("https://example.com/m")), ModelFileError, "file: URL");
  await assertRejects(() => openFolder(new URL("config.json", llama)), ModelFileError, "expected a folder");
  const files = await openFolder(llama);
  await assertRejects(
    () => files.json("nothing.json"),
    ModelFileError,
    "holds config.json, expected.safetensors",
  );
});

Deno.test("files: JSON is bounded and must be JSON", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/broken.json`, `{"a": NaN}`);
    await Deno.writeFile(`${folder}/latin.json`, Uint8Array.of(0x22, 0xe9, 0x22));
    await Deno.writeTextFile(`${folder}/deep.json`, "[".repeat(200_000) + "]".repeat(200_000));
    await Deno.mkdir(`${folder}/config.json`);
    const files = await openFolder(folder + "/");
    await assertRejects(() => files.json("broken.json"), ModelFileError, "as JSON");
    await assertRejects(() => files.json("latin.json"), ModelFileError, "not UTF-8");
    await assertRejects(() => files.json("broken.json", 5), ModelFileError, "at most 5 bytes, it has 10");
    await assertRejects(() => files.json("config.json"), ModelFileError, "Cannot find config.json");
    assert(Array.isArray(await files.json("deep.json")));
    await assertRejects(
      () => openWeights(files),
      ModelFileError,
      "looked for model.safetensors and model.saf",
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("files: names that could leave the folder are refused", async () => {
  const files = await openFolder(llama);
  const names = [
    "../llama/config.json",
    "/etc/passwd",
    "a/../../b",
    "./config.json",
    "a//b",
    "a\\b",
    "..\\b",
    "%2e%2e/config.json",
    "file:///etc/passwd",
    "http://169.254.169.254/x",
    "",
    ".",
    "..",
    "a\0b",
    "x".repeat(300),
    "config.json?x",
    "config.json#x",
  ];
  for (const name of names) {
    await assertRejects(() => files.has(name), ModelFileError, "as a file of a model");
    await assertRejects(() => files.source(name), ModelFileError, "as a file of a model");
  }
});

Deno.test({
  name: "files: a missing permission is explained",
  permissions: { read: false },
  async fn() {
    await assertRejects(() => openFolder("/somewhere"), ModelFileError, "grant --allow-read=/somewhere");
    await assertRejects(() => fileSource("/some/file"), ModelFileError, "grant --allow-read=/some/file");
  },
});

Deno.test("source: reads at any offset, also concurrently, and refuses ranges outside", async () => {
  const path = new URL("model.safetensors", llama);
  const whole = await Deno.readFile(path);
  for (const source of [await fileSource(path), bytesSource(whole)]) {
    using opened = source;
    assertEquals(opened.size, whole.length);
    const offsets = [50_000, 0, whole.length - 100, 7, 33_333];
    const parts = await Promise.all(offsets.map(async (offset) => {
      const into = new Uint8Array(100);
      await opened.read(offset, into);
      return into;
    }));
    parts.forEach((part, i) => assertEquals(part, whole.slice(offsets[i]!, offsets[i]! + 100)));
    await assertRejects(
      () => opened.read(whole.length - 1, new Uint8Array(2)),
      ModelFileError,
      "the file has",
    );
    await assertRejects(() => opened.read(-1, new Uint8Array(2)), ModelFileError, "the file has");
    await assertRejects(
      () => opened.read(0, new Uint8Array(2), { signal: AbortSignal.abort() }),
      DOMException,
    );
    // A refused read leaves the source usable.
    await opened.read(0, new Uint8Array(8));
    opened.close();
    await assertRejects(() => opened.read(0, new Uint8Array(2)), ModelFileError, "closed");
  }
  await assertRejects(() => fileSource(new URL("../", llama)), ModelFileError, "not a regular file");
});

Deno.test("source: a file that shrinks while it is read is an error", async () => {
  const path = await Deno.makeTempFile();
  try {
    await Deno.writeFile(path, new Uint8Array(100));
    using source = await fileSource(path);
    await Deno.truncate(path, 50);
    await assertRejects(() => source.read(0, new Uint8Array(100)), ModelFileError, "it now ends at 50");
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("weights: shards behave as one file", async () => {
  const index = {
    metadata: {},
    weight_map: { a: "s-1.safetensors", b: "s-2.safetensors", c: "s-1.safetensors" },
  };
  using weights = await openWeights(memoryFiles({
    "model.safetensors.index.json": JSON.stringify(index),
    "s-1.safetensors": writeSafetensors({ a: floats(1, 2), c: floats(3) }),
    "s-2.safetensors": writeSafetensors({ b: floats(4, 5, 6) }),
  }));
  assertEquals([...weights.tensors.keys()], ["a", "c", "b"]);
  const got: Record<string, number[]> = {};
  await weights.stream(null, (chunk, _at, { name }) => {
    got[name] = [...new Float32Array(chunk.slice().buffer)];
  });
  assertEquals(got, { a: [1, 2], c: [3], b: [4, 5, 6] });
  await assertRejects(() => weights.stream("d", () => {}), ModelFileError, "among the 3 tensors");
});

Deno.test("weights: a hostile or broken index is refused", async (t) => {
  const shard = writeSafetensors({ a: floats(1) });
  const names = [
    "../s.safetensors",
    "/s.safetensors",
    "file:s.safetensors",
    "http://169.254.169.254/s.safetensors",
    "..\\s.safetensors",
    "%2e%2e%2fs.safetensors",
    "sub/s.safetensors",
    ".safetensors",
    "s.bin",
    "s.safetensors\n",
  ];
  const rows: [string, unknown, string][] = [
    ...names.map((name): [string, unknown, string] => [name, { weight_map: { a: name } }, "a plain name"]),
    ["not an object", [], "weight_map"],
    ["no map", {}, "weight_map"],
    ["empty map", { weight_map: {} }, "empty"],
    ["a number", { weight_map: { a: 1 } }, "a plain name"],
    [
      "missing shard",
      { weight_map: { a: "s.safetensors", b: "t.safetensors" } },
      "Cannot find t.safetensors",
    ],
    ["missing tensor", { weight_map: { a: "s.safetensors", b: "s.safetensors" } }, "does not hold it"],
    [
      "tensor in two shards",
      { weight_map: { a: "s.safetensors", x: "u.safetensors" } },
      "puts it into s.safetensors",
    ],
    ["unlisted tensor", { weight_map: { x: "u.safetensors" } }, "does not list it"],
    [
      "too many shards",
      {
        weight_map: Object.fromEntries(Array.from({ length: 600 }, (_, i) => [`t${i}`, `s${i}.safetensors`])),
      },
      "at most 512 shards",
    ],
  ];
  for (const [what, index, says] of rows) {
    await t.step(what, async () => {
      const files = memoryFiles({
        "model.safetensors.index.json": JSON.stringify(index),
        "s.safetensors": shard,
        "u.safetensors": writeSafetensors({ a: floats(1), x: floats(2) }),
      });
      await assertRejects(() => openWeights(files), ModelFileError, says);
    });
  }
});
