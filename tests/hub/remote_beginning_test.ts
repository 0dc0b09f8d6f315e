/**
 * Headers of weights without the weights: what is asked, how much is sent, and what happens with servers that know no
 * ranges, break off, or have another version meanwhile; and that a model which is too large is refused before its
 * weights are fetched.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { AutoModelForCausalLM, liveBuffers, ModelFileError, OutOfMemory } from "../../mod.ts";
import { FIRST_BYTES, NotInParts } from "../../src/hub/beginning.ts";
import { openFiles, type OpenOptions } from "../../src/hub/open.ts";
import { openWeights } from "../../src/hub/weights.ts";
import {
  broken,
  type Files,
  hugeFile,
  HURRY,
  rangeOf,
  type Seen,
  serveHuge,
  serveModel,
  type Site,
  temporaryFolder,
  text,
} from "./remote_server.ts";

const NAME = "model.safetensors";
const INDEX = "model.safetensors.index.json";
const SHARDS = [1, 2, 3].map((i) => `model-0000${i}-of-00003.safetensors`);
/** 16 GiB, with a header that fits into the first part, and with one that does not. */
const SHAPE = [2 ** 21, 4096];
const SHORT = hugeFile({ "model.embed_tokens.weight": SHAPE });
const LONG = hugeFile({ "model.embed_tokens.weight": SHAPE }, 300_000);
const CONFIG = {
  ...{ model_type: "llama", vocab_size: 2 ** 21, hidden_size: 4096, intermediate_size: 64 },
  ...{ num_hidden_layers: 1, num_attention_heads: 32, tie_word_embeddings: true },
};
const config: Files = { "config.json": text(JSON.stringify(CONFIG)) };
const sharded: Files = {
  ...config,
  [INDEX]: text(JSON.stringify({ weight_map: Object.fromEntries(SHARDS.map((name, i) => [`t${i}`, name])) })),
};
const shards = Object.fromEntries(SHARDS.map((name, i) => [name, hugeFile({ [`t${i}`]: SHAPE })]));

const WAYS = [
  { way: "hub", model: () => "org/name" },
  { way: "URL", model: (origin: string) => `${origin}/plain` },
];

/** The names, shapes and length of what a server has, without its data. */
async function look(site: Site, model: (origin: string) => string, options: OpenOptions = {}) {
  const files = await openFiles(model(site.origin), {
    patience: HURRY,
    cache_dir: null,
    endpoint: site.origin,
    ...options,
  });
  using weights = await openWeights(files, { headers_only: true });
  return [...weights.tensors.values()].map(({ name, shape }) => [name, shape]);
}

const expected = [["model.embed_tokens.weight", SHAPE]];
const gets = (site: Site) => site.seen.filter(({ method }) => method === "GET");
/** The ranges that were asked for of weights. */
const ranges = (site: Site) =>
  gets(site).filter(({ file }) => file.endsWith(".safetensors")).map(({ headers }) => headers.get("range"));
const first = `bytes=0-${FIRST_BYTES - 1}`;
const second = `bytes=${FIRST_BYTES}-${LONG.header.length - 1}`;

for (const { way, model } of WAYS) {
  Deno.test(`headers (${way}): one request where the header is in the first part, two where not`, async () => {
    await using short = await serveHuge({ [NAME]: SHORT }, config);
    assertEquals(await look(short, model), expected);
    assertEquals(short.log(), [`HEAD ${NAME}`, `GET ${NAME}`]);
    assertEquals([ranges(short), short.served.bytes], [[first], FIRST_BYTES]);

    await using long = await serveHuge({ [NAME]: LONG }, config);
    assertEquals(await look(long, model), expected);
    assertEquals([ranges(long), long.served.bytes], [[first, second], LONG.header.length]);
    // A hub's commit does not change; of a plain folder's file the second part must be of the first's version.
    const condition = gets(long)[1]!.headers.get("if-range");
    assert(way === "hub" || condition?.startsWith('"') === true, String(condition));
  });

  Deno.test(`headers (${way}): of shards, several at once, in the order of the index`, async () => {
    await using site = await serveHuge(shards, sharded);
    assertEquals(await look(site, model), SHARDS.map((_, i) => [`t${i}`, SHAPE]));
    assertEquals(ranges(site), [first, first, first]);
    assertEquals(site.served.bytes, 3 * FIRST_BYTES);
  });

  Deno.test(`headers (${way}): a server that ignores ranges is listened to no longer than needed`, async () => {
    for (const huge of [SHORT, LONG]) {
      await using site = await serveHuge({ [NAME]: huge }, config, { ranges: false });
      assertEquals(await look(site, model), expected);
      assertEquals(ranges(site).length, huge === SHORT ? 1 : 2);
      // What lies in the sockets' buffers when the connection is closed was sent too.
      assert(site.served.bytes < 2 ** 26, `${site.served.bytes} bytes of ${huge.size} were sent`);
    }
  });

  Deno.test(`headers (${way}): a connection that is cut is taken up there, by both kinds of servers`, async () => {
    for (const knows of [true, false]) {
      let cut = 0;
      await using site = await serveHuge({ [NAME]: LONG }, config, {
        ranges: knows,
        answer(seen, usual) {
          const range = rangeOf(seen.headers, LONG.size);
          const good = usual();
          if (seen.method !== "GET" || seen.file !== NAME || cut++ % 2 === 1) return good;
          const start = knows ? range!.start : 0;
          return new Response(broken(LONG.header.slice(start, range!.start + 1000), "cut"), {
            status: good.status,
            headers: good.headers,
          });
        },
      });
      assertEquals(await look(site, model), expected);
      const again = [
        `bytes=1000-${FIRST_BYTES - 1}`,
        `bytes=${FIRST_BYTES + 1000}-${LONG.header.length - 1}`,
      ];
      const starts = ranges(site).map((range) => Number(/\d+/.exec(range!)![0]));
      assertEquals(starts, [...starts].sort((a, b) => a - b));
      assert(
        starts.length === 4 && starts.every((at) => [0, 1000, FIRST_BYTES, FIRST_BYTES + 1000].includes(at)),
      );
      assertEquals([ranges(site)[1], ranges(site)[3]], again);
    }
  });

  Deno.test(`headers (${way}): a server that always fails is tried as often as is said`, async () => {
    await using site = await serveHuge({ [NAME]: SHORT }, config, {
      answer: (seen, usual) => seen.method === "GET" ? new Response(null, { status: 503 }) : usual(),
    });
    await assertRejects(() => look(site, model), ModelFileError, `tried ${HURRY.tries} times`);
    assertEquals(gets(site).length, HURRY.tries);
  });

  Deno.test(`headers (${way}): parts of two versions are refused`, async () => {
    /** Another version of the file from the `nth` request for its bytes on. */
    const swapped = async (nth: number, status: (seen: Seen) => number | null) => {
      let asked = 0;
      await using site = await serveHuge({ [NAME]: LONG }, config, {
        answer(seen, usual) {
          const good = usual();
          if (seen.method !== "GET" || seen.file !== NAME || ++asked < nth) return good;
          good.headers.set("etag", '"other"');
          return new Response(good.body, { status: status(seen) ?? good.status, headers: good.headers });
        },
      });
      await assertRejects(() => look(site, model), ModelFileError, "it changes while it is read");
      assertEquals(asked, nth);
      assert(site.served.bytes < 2 ** 22);
    };
    for (const status of [() => null, () => 200]) {
      await swapped(2, status);
      if (way === "URL") await swapped(1, status);
    }
    // The same name of the version, and another length.
    await using site = await serveHuge({ [NAME]: LONG }, config, {
      answer(seen, usual) {
        const good = usual();
        const range = good.headers.get("content-range");
        if (range?.startsWith(`bytes ${FIRST_BYTES}-`)) good.headers.set("content-range", `${range}0`);
        return seen.method === "HEAD" ? good : new Response(good.body, good);
      },
    });
    await assertRejects(() => look(site, model), ModelFileError, "it changes while it is read");
  });

  Deno.test(`headers (${way}): what is cached is not asked for, and local_files_only asks nobody`, async () => {
    await using folder = await temporaryFolder();
    await using site = await serveModel({
      ...config,
      [NAME]: await Deno.readFile("tests/models/demo/" + NAME),
    });
    const options = { cache_dir: folder.path };
    const local = { ...options, local_files_only: true };
    await assertRejects(() => look(site, model, local), ModelFileError, "Cannot find");
    assertEquals(site.seen.length, 0);
    const before = await look(site, model, options);
    assertEquals(ranges(site), [first]);
    // The header alone is no file in the cache.
    await assertRejects(() => look(site, model, local), ModelFileError, "Cannot find");
    const files = await openFiles(model(site.origin), { ...options, endpoint: site.origin, patience: HURRY });
    (await openWeights(files))[Symbol.dispose]();
    site.seen.length = 0;
    assertEquals(await look(site, model, options), before);
    assertEquals(site.log(), [`HEAD ${NAME}`]);
    assertEquals(await look(site, model, local), before);
    assertEquals(site.seen.length, 1);
  });
}

Deno.test("headers: the token goes to the hub and not to where its redirect leads", async () => {
  await using cdn = await serveHuge({ [NAME]: SHORT }, {});
  await using site = await serveHuge({ [NAME]: SHORT }, config, { cdn: () => cdn.origin });
  assertEquals(await look(site, () => "org/name", { token: "hf_secret" }), expected);
  assert(site.seen.every(({ headers }) => headers.get("authorization") === "Bearer hf_secret"));
  assertEquals(cdn.seen.map(({ method, headers }) => [method, headers.get("authorization")]), [[
    "GET",
    null,
  ]]);
  assertEquals([site.served.bytes, cdn.served.bytes], [0, FIRST_BYTES]);
});

Deno.test("headers: an abort ends the request with its reason", async () => {
  const controller = new AbortController();
  const reason = new Error("enough");
  await using site = await serveHuge({ [NAME]: SHORT }, config, {
    answer(seen, usual) {
      const good = usual();
      if (seen.method !== "GET") return good;
      setTimeout(() => controller.abort(reason), 20);
      return new Response(broken(SHORT.header.slice(0, 5), "silent"), good);
    },
  });
  assertEquals(
    await assertRejects(() => look(site, (origin) => `${origin}/plain`, { signal: controller.signal })),
    reason,
  );
});

/** Answers for weights without some headers, or with others. */
function altered(drop: readonly string[], set: Readonly<Record<string, string>> = {}, only?: string) {
  return ({ method, file }: Seen, usual: () => Response): Response => {
    const good = usual();
    if (file !== NAME || (only !== undefined && method !== only)) return good;
    const headers = new Headers(good.headers);
    for (const name of drop) headers.delete(name);
    for (const [name, value] of Object.entries(set)) headers.set(name, value);
    return new Response(good.body, { status: good.status, headers });
  };
}

const plain = (origin: string) => `${origin}/plain`;

Deno.test("headers: without a name of the version one part is taken, and no second", async () => {
  await using one = await serveHuge({ [NAME]: SHORT }, config, { answer: altered(["etag"]) });
  assertEquals(await look(one, plain), expected);
  await using two = await serveHuge({ [NAME]: LONG }, config, { answer: altered(["etag"]) });
  await assertRejects(() => look(two, plain), NotInParts, "nothing to tell versions by");
  assertEquals(ranges(two), [first]);
  // What was cut is asked for from the beginning.
  let cut = true;
  await using site = await serveHuge({ [NAME]: SHORT }, config, {
    answer(seen, usual) {
      const good = altered(["etag"])(seen, usual);
      if (seen.method !== "GET" || !cut) return good;
      cut = false;
      return new Response(broken(SHORT.header.slice(0, 50), "cut"), good);
    },
  });
  assertEquals(await look(site, plain), expected);
  assertEquals(ranges(site), [first, first]);
});

Deno.test("headers: the length is learned from the first part where it is not told before", async () => {
  for (const ranged of [true, false]) {
    await using site = await serveHuge({ [NAME]: SHORT }, config, {
      ranges: ranged,
      answer: altered([], { "content-length": "0" }, "HEAD"),
    });
    assertEquals(await look(site, plain), expected);
    assertEquals(ranges(site), [first]);
  }
});

Deno.test("headers: what cannot be taken as a part is refused, with its reason", async () => {
  const refused = (status: number) => ({ method }: Seen, usual: () => Response) =>
    method === "HEAD" ? usual() : new Response(null, { status });
  const rows: [string, (seen: Seen, usual: () => Response) => Response, string][] = [
    ["no range at all", altered(["content-range"], {}, "GET"), "it sends the range null"],
    [
      "another range",
      altered([], { "content-range": `bytes 8-99/${SHORT.size}` }, "GET"),
      "it sends the range bytes 8-99",
    ],
    ["encoded", altered([], { "content-encoding": "x-none" }, "GET"), "it encodes the file"],
    ["not satisfiable", refused(416), "it answered 416"],
    ["a bad request", refused(400), "it answered 400"],
    [
      "no length",
      (seen, usual) => {
        const length = altered(["content-length"], {}, "HEAD");
        return altered([], { "content-range": `bytes 0-${FIRST_BYTES - 1}/*` }, "GET")(
          seen,
          () => length(seen, usual),
        );
      },
      "it does not tell the file's length",
    ],
  ];
  for (const [what, answer, says] of rows) {
    await using site = await serveHuge({ [NAME]: SHORT }, config, { answer });
    const error = await assertRejects(() => look(site, plain), NotInParts, says, what);
    assertStringIncludes(
      error.message,
      `Cannot read the beginning of ${NAME} from ${site.origin}/plain/${NAME}`,
    );
    assertEquals(ranges(site).length, 1, what);
  }
});

Deno.test("headers: the data is not read from there, nor what a hostile length promises", async () => {
  await using site = await serveHuge({ [NAME]: SHORT }, config);
  const files = await openFiles(plain(site.origin), { cache_dir: null, patience: HURRY });
  using source = await files.source(NAME, { beginning: true });
  assertEquals([source.size, gets(site).length], [SHORT.size, 0]);
  for (const offset of [2 ** 30, SHORT.size - 8]) {
    await assertRejects(() => source.read(offset, new Uint8Array(8)), ModelFileError, "only its beginning");
  }
  for (const offset of [-1, 0.5, SHORT.size]) {
    await assertRejects(() => source.read(offset, new Uint8Array(8)), ModelFileError, "the file has");
  }
  assertEquals(gets(site).length, 0);
  const into = new Uint8Array(8);
  await Promise.all([source.read(0, into), source.read(8, new Uint8Array(100))]);
  assertEquals([into, ranges(site)], [SHORT.header.slice(0, 8), [first]]);
  source.close();
  await assertRejects(() => source.read(0, into), ModelFileError, "it is closed");

  const header = SHORT.header.slice();
  new DataView(header.buffer).setBigUint64(0, 2n ** 33n, true);
  await using liar = await serveHuge({ [NAME]: { header, size: SHORT.size } }, config);
  await assertRejects(
    () => look(liar, plain),
    ModelFileError,
    "expected a header of at most 100000000 bytes",
  );
  assertEquals(liar.served.bytes, FIRST_BYTES);
});

for (const { way, model } of WAYS) {
  for (const form of ["one file", "shards"]) {
    const [huge, files] = form === "shards" ? [shards, sharded] : [{ [NAME]: SHORT }, config];
    const names = Object.keys(huge);
    Deno.test(`from_pretrained (${way}, ${form}): a model that is too large is refused before its weights come`, async () => {
      for (const knows of [true, false]) {
        await using folder = await temporaryFolder();
        await using site = await serveHuge(huge, files, { ranges: knows });
        const options = { cache_dir: folder.path, endpoint: site.origin };
        const error = await assertRejects(
          () => AutoModelForCausalLM.from_pretrained(model(site.origin), options),
          OutOfMemory,
        );
        assertStringIncludes(error.message, "its weights take");
        assertEquals(ranges(site), names.map(() => first));
        if (knows) assertEquals(site.served.bytes, names.length * FIRST_BYTES);
        else assert(site.served.bytes < 2 ** 26, `${site.served.bytes} bytes were sent`);
        assertEquals(liveBuffers(), 0);
      }
    });
  }
}

/** The demo, with a tensor beside its weights that nobody reads, of `padding` bytes. */
async function padded(padding: number): Promise<Files> {
  const files: Record<string, Uint8Array<ArrayBuffer>> = {};
  for (const name of ["config.json", "generation_config.json"]) {
    files[name] = await Deno.readFile(`tests/models/demo/${name}`);
  }
  const whole = await Deno.readFile(`tests/models/demo/${NAME}`);
  const length = Number(new DataView(whole.buffer).getBigUint64(0, true));
  const data = whole.subarray(8 + length);
  const header = JSON.parse(new TextDecoder().decode(whole.subarray(8, 8 + length)));
  const end = data.length + padding;
  header["padding"] = { dtype: "U8", shape: [padding], data_offsets: [data.length, end] };
  const json = text(JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.length + end);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  bytes.set(data, 8 + json.length);
  return { ...files, [NAME]: bytes };
}

for (const { way, model } of WAYS) {
  Deno.test(`from_pretrained (${way}): a large model that fits costs one request more, and none when it is cached`, async () => {
    const files = await padded(64 * 2 ** 20);
    await using folder = await temporaryFolder();
    await using site = await serveModel(files);
    const options = { cache_dir: folder.path, endpoint: site.origin };
    const load = async () => {
      site.seen.length = 0;
      await using loaded = await AutoModelForCausalLM.from_pretrained(model(site.origin), options);
      assertEquals(loaded.config["model_type"], "llama");
      return ranges(site);
    };
    assertEquals(await load(), [first, null]);
    assertEquals(await load(), []);
    assertEquals(gets(site), []);
  });

  Deno.test(`from_pretrained (${way}): a small model is fetched without asking before`, async () => {
    await using site = await serveModel(await padded(0));
    const options = { cache_dir: null, endpoint: site.origin };
    await using _loaded = await AutoModelForCausalLM.from_pretrained(model(site.origin), options);
    assertEquals(ranges(site), [null]);
  });
}

Deno.test("from_pretrained: a server that shows no parts is planned for when the weights are there", async () => {
  const files = await padded(64 * 2 ** 20);
  for (const drop of [["content-length"], ["etag"]]) {
    await using folder = await temporaryFolder();
    const refuse = drop[0] === "etag";
    await using site = await serveModel(files, {
      answer: (seen, usual) => {
        if (refuse && seen.headers.has("range")) return new Response(null, { status: 416 });
        return altered(drop)(seen, () => usual(refuse ? seen : { ...seen, headers: new Headers() }));
      },
    });
    await using loaded = await AutoModelForCausalLM.from_pretrained(plain(site.origin), {
      cache_dir: folder.path,
    });
    assert(loaded.num_parameters > 0);
    assertEquals(ranges(site), [first, null]);
  }
});

Deno.test("from_pretrained: a file that becomes another between its parts is planned for when it is there", async () => {
  const files = await padded(64 * 2 ** 20);
  let version = 0;
  await using site = await serveModel(files, {
    answer: (seen, usual) => {
      if (seen.headers.has("range")) version++;
      return altered([], { etag: `"v${version}"` })(seen, usual);
    },
  });
  await using loaded = await AutoModelForCausalLM.from_pretrained(plain(site.origin), { cache_dir: null });
  assert(loaded.num_parameters > 0);
  // What was known of it is asked for again.
  assertEquals(site.log().slice(-4), [`HEAD ${NAME}`, `GET ${NAME}`, `HEAD ${NAME}`, `GET ${NAME}`]);
});
