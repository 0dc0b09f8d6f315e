/**
 * Whole models from servers: the same tokens as from the folder, in one file and in shards, with progress, and with
 * hostile indices.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { AutoConfig, AutoModelForCausalLM, AutoTokenizer, liveBuffers, ModelFileError } from "../../mod.ts";
import { openFiles, type OpenOptions } from "../../src/hub/open.ts";
import type { LoadProgress } from "../../src/hub/progress.ts";
import { openSafetensors } from "../../src/hub/safetensors.ts";
import { writeSafetensors } from "../../src/hub/safetensors_write.ts";
import { bytesSource } from "../../src/hub/source.ts";
import { openWeights } from "../../src/hub/weights.ts";
import { type Files, HURRY, serveModel, type Site, temporaryFolder, text } from "./remote_server.ts";

const demo = new URL("../models/demo/", import.meta.url);
const PROMPT = "In the beginning";
const INDEX = "model.safetensors.index.json";

/** The demo's files, and the same with its weights in three shards. */
async function demoFiles(): Promise<{ single: Files; sharded: Files }> {
  const single: Record<string, Uint8Array<ArrayBuffer>> = {};
  for (
    const name of [
      "config.json",
      "generation_config.json",
      "tokenizer.json",
      "tokenizer_config.json",
      "model.safetensors",
    ]
  ) {
    single[name] = await Deno.readFile(new URL(name, demo));
  }
  const { "model.safetensors": whole, ...sharded } = single;
  using file = await openSafetensors(bytesSource(whole!));
  const names = [...file.tensors.keys()];
  const weight_map: Record<string, string> = {};
  for (let shard = 1; shard <= 3; shard++) {
    const part = names.filter((_, i) => i % 3 === shard - 1);
    const name = `model-0000${shard}-of-00003.safetensors`;
    const header: Record<string, unknown> = {};
    const data: Uint8Array[] = [];
    let at = 0;
    for (const tensor of part) {
      const { stored, shape, offset, bytes } = file.tensors.get(tensor)!;
      header[tensor] = { dtype: stored, shape, data_offsets: [at, at += bytes] };
      data.push(whole!.subarray(offset, offset + bytes));
      weight_map[tensor] = name;
    }
    const json = text(JSON.stringify(header));
    const bytes = new Uint8Array(8 + json.length + at);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
    bytes.set(json, 8);
    let to = 8 + json.length;
    for (const chunk of data) bytes.set(chunk, to), to += chunk.length;
    sharded[name] = bytes;
  }
  sharded[INDEX] = text(JSON.stringify({ metadata: { total_size: 1 }, weight_map }));
  return { single, sharded };
}

const { single, sharded } = await demoFiles();

/** Loads tokenizer and model, and generates. */
async function generate(model: string | URL, options: Record<string, unknown> = {}): Promise<number[]> {
  const tokenizer = await AutoTokenizer.from_pretrained(model, options);
  await using loaded = await AutoModelForCausalLM.from_pretrained(model, options);
  const { input_ids, attention_mask } = tokenizer(PROMPT);
  using prompt = input_ids;
  using _mask = attention_mask;
  using tokens = await loaded.generate({ input_ids: prompt, max_new_tokens: 8 });
  return ((await tokens.tolist()) as number[][])[0]!;
}

const expected = await generate(demo);

for (const [form, files] of [["one file", single], ["shards", sharded]] as const) {
  for (const disk of [true, false]) {
    Deno.test(`model: from a hub and from a URL, ${form}, ${disk ? "on disk" : "in memory"}: the folder's tokens`, async () => {
      await using folder = await temporaryFolder();
      await using cdn = await serveModel(files);
      await using site = await serveModel(files, { cdn: () => cdn.origin });
      const options = { cache_dir: disk ? folder.path : null };
      assertEquals(
        await generate("org/name", { ...options, endpoint: site.origin, revision: "v1" }),
        expected,
      );
      assertEquals(await generate(`${site.origin}/plain/`, options), expected);
      assertEquals(await generate(new URL(`${site.origin}/plain`), options), expected);
      assertEquals(liveBuffers(), 0);
      if (!disk) return;
      site.seen.length = 0;
      const again = { ...options, endpoint: site.origin, revision: "v1", local_files_only: true };
      assertEquals(await generate("org/name", again), expected);
      assertEquals(site.seen.length, 0);
    });
  }
}

Deno.test("config and tokenizer: from a hub, with the same options", async () => {
  await using site = await serveModel(single);
  const seen: LoadProgress[] = [];
  const options = {
    endpoint: site.origin,
    cache_dir: null,
    progress_callback: (e: LoadProgress) => void seen.push(e),
  };
  const config = await AutoConfig.from_pretrained("org/name", { ...options, attn_implementation: "eager" });
  assertEquals([config["model_type"], config._attn_implementation], ["llama", "eager"]);
  assertEquals(seen.at(-1)!.status, "done");
  checkProgress(seen);
  seen.length = 0;
  const tokenizer = await AutoTokenizer.from_pretrained("org/name", options);
  assert(tokenizer.encode(PROMPT).length > 0);
  assertEquals(new Set(seen.map(({ file }) => file)), new Set(["tokenizer.json", "tokenizer_config.json"]));
  checkProgress(seen);
  for (const loader of [AutoConfig, AutoTokenizer, AutoModelForCausalLM]) {
    const misspelt = { cachedir: "x" } as Record<string, unknown>;
    await assertRejects(() => loader.from_pretrained("org/name", misspelt), Error, "cachedir");
  }
});

/** One stream of events: nothing falls, nothing passes its total, and the end is the end. */
function checkProgress(seen: readonly LoadProgress[]): void {
  for (const [i, event] of seen.entries()) {
    assert(event.loaded <= event.total, JSON.stringify(event));
    if (i === 0) continue;
    assert(event.loaded >= seen[i - 1]!.loaded && event.total >= seen[i - 1]!.total, JSON.stringify(event));
  }
  const last = seen.at(-1)!;
  assertEquals([last.status, last.loaded], ["done", last.total]);
  assertEquals(seen.filter(({ status }) => status === "done").length, 1);
}

Deno.test("progress: over all files, also when they come from the cache", async () => {
  for (const files of [single, sharded]) {
    await using folder = await temporaryFolder();
    await using site = await serveModel(files);
    const weights = Object.keys(files).filter((name) => name.endsWith(".safetensors"));
    const loaded = ["config.json", ...weights, ...(files === sharded ? [INDEX] : [])];
    for (const round of ["fetched", "cached"]) {
      const seen: LoadProgress[] = [];
      await using _model = await AutoModelForCausalLM.from_pretrained("org/name", {
        endpoint: site.origin,
        cache_dir: folder.path,
        progress_callback: (event) => void seen.push(event),
      });
      checkProgress(seen);
      const downloads = seen.filter(({ status }) => status === "download");
      for (const name of loaded) assert(downloads.some(({ file }) => file === name), `${round}: ${name}`);
      const size = (names: string[]) => names.reduce((n, name) => n + files[name]!.length, 0);
      const whole = downloads.at(-1)!;
      assert(whole.loaded === whole.total && whole.total >= size(loaded), JSON.stringify(whole));
      // The total is known before the first byte of the weights, for all shards.
      const first = downloads.find(({ file }) => weights.includes(file))!;
      assert(first.total >= size(weights), JSON.stringify(first));
      const into = seen.filter(({ status }) => status === "progress");
      assert(into.length > 0 && into.every(({ loaded }) => loaded > whole.loaded));
    }
  }
});

Deno.test("model: an abort while shards arrive ends all downloads and leaves nothing behind", async () => {
  await using folder = await temporaryFolder();
  await using site = await serveModel(sharded);
  const controller = new AbortController();
  const reason = new Error("enough");
  const loading = AutoModelForCausalLM.from_pretrained("org/name", {
    endpoint: site.origin,
    cache_dir: folder.path,
    signal: controller.signal,
    progress_callback: ({ file, loaded }) => {
      if (file.startsWith("model-") && loaded > 1_000_000) controller.abort(reason);
    },
  });
  assertEquals(await assertRejects(() => loading), reason);
  assertEquals(liveBuffers(), 0);
  assertEquals(await generate("org/name", { endpoint: site.origin, cache_dir: folder.path }), expected);
});

Deno.test("model: a missing model says where it was looked for", async () => {
  await using site = await serveModel(single);
  const error = await assertRejects(
    () => AutoModelForCausalLM.from_pretrained("no/such", { endpoint: site.origin, cache_dir: null }),
    ModelFileError,
  );
  assertStringIncludes(error.message, "there is no local folder of that name");
  assertStringIncludes(error.message, `${site.origin} has no such repository`);
});

const floats = (...values: number[]) =>
  ({ dtype: "float32", shape: [values.length], data: new Float32Array(values) }) as const;

Deno.test("index: hostile and broken ones are refused, and only honest names are asked for", async (t) => {
  const shard = (tensors: Parameters<typeof writeSafetensors>[0]) => writeSafetensors(tensors).slice();
  const names = [
    "../s.safetensors",
    "../../other/name/resolve/main/s.safetensors",
    "/s.safetensors",
    "//host/s.safetensors",
    "file:///etc/s.safetensors",
    "http://169.254.169.254/s.safetensors",
    "https://host/s.safetensors",
    "..\\s.safetensors",
    "C:\\s.safetensors",
    "%2e%2e%2fs.safetensors",
    "%2e%2e/s.safetensors",
    "..%2fs.safetensors",
    "sub/s.safetensors",
    "s.safetensors?x",
    "s.safetensors#x",
    "s\0.safetensors",
    "s.safetensors\n",
    " s.safetensors",
    ".s.safetensors",
    "s.bin",
    "",
    "__proto__",
    "s".repeat(300) + ".safetensors",
  ];
  const many = Object.fromEntries(Array.from({ length: 600 }, (_, i) => [`t${i}`, `s${i}.safetensors`]));
  const rows: [string, string, string][] = [
    ...names.map((name): [string, string, string] => [
      JSON.stringify(name).slice(0, 60),
      JSON.stringify({ weight_map: { a: "s.safetensors", b: name } }),
      "a plain name",
    ]),
    ["not JSON", "{", "as JSON"],
    ["a list", "[]", "weight_map"],
    ["null", "null", "weight_map"],
    ["no map", "{}", "weight_map"],
    ["a list as map", '{"weight_map":[]}', "weight_map"],
    ["an empty map", '{"weight_map":{}}', "empty"],
    ["a number as shard", '{"weight_map":{"a":1}}', "a plain name"],
    ["an object as shard", '{"weight_map":{"a":{}}}', "a plain name"],
    ["too many shards", JSON.stringify({ weight_map: many }), "at most 512 shards"],
    [
      "a missing shard",
      '{"weight_map":{"a":"s.safetensors","b":"none.safetensors"}}',
      "Cannot find none.safetensors",
    ],
    ["a swapped shard", '{"weight_map":{"a":"t.safetensors","b":"s.safetensors"}}', "puts it into"],
    [
      "a tensor in two shards",
      '{"weight_map":{"a":"s.safetensors","x":"u.safetensors"}}',
      "puts it into s.safetensors",
    ],
    ["an unlisted tensor", '{"weight_map":{"x":"u.safetensors"}}', "does not list it"],
    ["a missing tensor", '{"weight_map":{"a":"s.safetensors","y":"s.safetensors"}}', "does not hold it"],
    ["a shard that is none", '{"weight_map":{"a":"text.safetensors"}}', "as safetensors"],
    ["__proto__ as tensor", '{"weight_map":{"__proto__":"s.safetensors"}}', ""],
  ];
  const files = {
    "s.safetensors": shard({ a: floats(1) }),
    "t.safetensors": shard({ b: floats(2) }),
    "u.safetensors": shard({ a: floats(1), x: floats(2) }),
    "text.safetensors": text("<!doctype html>"),
  };
  const honest = new Set([...Object.keys(files), INDEX, "model.safetensors", "none.safetensors"]);
  const check = async (site: Site, model: string, options: OpenOptions, says: string) => {
    const opened = await openFiles(model, { patience: HURRY, ...options });
    await assertRejects(() => openWeights(opened), ModelFileError, says);
    assertEquals(site.seen.filter(({ file }) => !honest.has(file)).map(({ path }) => path), []);
  };
  for (const [what, index, says] of rows) {
    await t.step(what, async () => {
      await using folder = await temporaryFolder();
      await using site = await serveModel({ ...files, [INDEX]: text(index) });
      await check(site, "org/name", { cache_dir: folder.path, endpoint: site.origin }, says);
      await check(site, `${site.origin}/plain`, { cache_dir: null }, says);
      for await (const { name } of Deno.readDir(folder.path)) {
        assert([".locks", "models--org--name"].includes(name));
      }
    });
  }
});

/** Runs a program with this checkout's modules in a process of its own. */
async function elsewhere(code: string): Promise<string> {
  await using folder = await temporaryFolder();
  const file = `${folder.path}/program.js`;
  await Deno.writeTextFile(file, code);
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--quiet",
      "-A",
      "--no-check",
      `--config=${new URL("../../deno.json", import.meta.url).pathname}`,
      "--no-lock",
      file,
    ],
    env: { NO_COLOR: "1" },
  }).output();
  const said = new TextDecoder().decode(stdout).trim();
  return said === "" ? new TextDecoder().decode(stderr) : said;
}

Deno.test({
  name: "memory: a large file goes through in pieces",
  ignore: Deno.build.os !== "linux",
  async fn() {
    const MIB = 2 ** 20;
    const size = 192 * MIB;
    await using folder = await temporaryFolder();
    const piece = new Uint8Array(MIB);
    const body = () => {
      let sent = 0;
      return new ReadableStream<Uint8Array>({
        pull(controller) {
          controller.enqueue(piece.slice());
          if ((sent += MIB) === size) controller.close();
        },
      });
    };
    await using site = await serveModel({}, {
      answer: ({ method }) =>
        new Response(method === "HEAD" ? null : body(), {
          headers: { etag: '"a"', "content-length": String(size) },
        }),
    });
    const open = new URL("../../src/hub/open.ts", import.meta.url).href;
    const peak = `Number(/VmHWM:\\s+(\\d+)/.exec(Deno.readTextFileSync("/proc/self/status"))[1]) / 1024`;
    const said = await elsewhere(`
      const { openFiles } = await import(${JSON.stringify(open)});
      const files = await openFiles(${JSON.stringify(`${site.origin}/m`)}, { cache_dir: ${
      JSON.stringify(folder.path)
    } });
      await fetch(${JSON.stringify(site.origin)}, { method: "HEAD" });
      const before = ${peak};
      using source = await files.source("model.safetensors");
      console.log(JSON.stringify({ size: source.size, mib: ${peak} - before }));
    `);
    const { size: got, mib } = JSON.parse(said) as { size: number; mib: number };
    assertEquals(got, size);
    assert(mib < 96, `the peak grew by ${mib} MiB`);
  },
});

Deno.test("without files: a model is loaded into memory, and kept by the Cache API", async () => {
  await using site = await serveModel(single);
  const mod = new URL("../../mod.ts", import.meta.url).href;
  // What a browser lacks is taken away before the library is loaded; the Cache API stays. The runtime's own modules,
  // which want it, are loaded before.
  const program = (keep: boolean) => `
    globalThis.process?.getBuiltinModule?.("node:async_hooks");
    delete globalThis.Deno;
    await caches.delete("attune");
    ${keep ? "" : "delete globalThis.caches;"}
    const { AutoTokenizer, AutoModelForCausalLM } = await import(${JSON.stringify(mod)});
    const options = { endpoint: ${JSON.stringify(site.origin)} };
    const tokenizer = await AutoTokenizer.from_pretrained("org/name", options);
    for (let i = 0; i < 2; i++) {
      await using model = await AutoModelForCausalLM.from_pretrained("org/name", options);
      const { input_ids } = tokenizer(${JSON.stringify(PROMPT)});
      console.log(JSON.stringify((await (await model.generate({ input_ids, max_new_tokens: 8 })).tolist())[0]));
    }
    try {
      await AutoTokenizer.from_pretrained("./folder");
    } catch (error) {
      console.log(error.name, error.message);
    }
    await globalThis.caches?.delete("attune");
  `;
  for (const keep of [true, false]) {
    site.seen.length = 0;
    const lines = (await elsewhere(program(keep))).split("\n");
    assertEquals(lines.slice(0, 2), [JSON.stringify(expected), JSON.stringify(expected)], lines.join("\n"));
    assertStringIncludes(lines[2]!, "ModelFileError Cannot open ./folder: here are no files");
    const fetched = site.log().filter((line) => line === "GET model.safetensors").length;
    assertEquals(fetched, keep ? 1 : 2);
  }
});
