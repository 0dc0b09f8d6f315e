/**
 * One file from servers that cut, stall, lie about length and hash, ignore ranges, and change what they serve.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { ModelFileError } from "../../src/errors.ts";
import { openFiles, type OpenOptions } from "../../src/hub/open.ts";
import { readJson } from "../../src/hub/files.ts";
import {
  broken,
  HURRY,
  listenRaw,
  pattern,
  type Seen,
  send,
  serveModel,
  sha256,
  temporaryFolder,
  text,
} from "./remote_server.ts";

const NAME = "model.safetensors";
const SIZE = 100_000;
const bytes = pattern(SIZE);

/** All bytes of a file, through everything a model's loading goes through. */
async function load(model: string, options: OpenOptions, name = NAME): Promise<Uint8Array> {
  const files = await openFiles(model, { patience: HURRY, ...options });
  using source = await files.source(name, options.signal === undefined ? {} : { signal: options.signal });
  const into = new Uint8Array(source.size);
  await source.read(0, into);
  return into;
}

const rangeStart = ({ headers }: Seen): number =>
  Number(/^bytes=(\d+)-$/.exec(headers.get("range") ?? "bytes=0-")![1]);

/** The two kinds of servers, and the two kinds of stores. */
const WAYS = [
  { way: "hub, on disk", model: () => "org/name", disk: true },
  { way: "plain folder, on disk", model: (origin: string) => `${origin}/plain/`, disk: true },
  { way: "hub, in memory", model: () => "org/name", disk: false },
  { way: "plain folder, in memory", model: (origin: string) => `${origin}/plain`, disk: false },
];

for (const { way, model, disk } of WAYS) {
  Deno.test(`download (${way}): a connection cut at any offset is taken up there`, async () => {
    const offsets = [0, 1, 2, 7, 4095, 4096, 65_535, 65_536, 65_537, SIZE - 2, SIZE - 1];
    for (const offset of offsets) {
      await using folder = await temporaryFolder();
      let first = true;
      await using site = await serveModel({ [NAME]: bytes }, {
        answer(seen, usual) {
          if (seen.method !== "GET" || !first) return usual();
          first = false;
          const headers = new Headers(usual().headers);
          return new Response(broken(bytes.slice(0, offset), "cut"), { headers });
        },
      });
      const options = { cache_dir: disk ? folder.path : null, endpoint: site.origin };
      assertEquals(await load(model(site.origin), options), bytes, `cut at ${offset}`);
      const gets = site.seen.filter(({ method }) => method === "GET");
      assertEquals(gets.length, 2, `cut at ${offset}`);
      // What the connection still held when it broke may be lost; nothing is asked for twice that had arrived.
      assert(rangeStart(gets[1]!) <= offset);
    }
  });
}

/** Serves `bytes` over raw TCP, `most` bytes a connection, and counts what it wrote. */
function dripping(most: (start: number, get: number) => number) {
  let gets = 0;
  const starts: number[] = [];
  const site = listenRaw(async (head, connection) => {
    const start = Number(/^range: bytes=(\d+)-/im.exec(head)?.[1] ?? 0);
    const isHead = head.startsWith("HEAD");
    const status = start > 0 ? "206 Partial Content" : "200 OK";
    const range = start > 0 ? `content-range: bytes ${start}-${SIZE - 1}/${SIZE}\r\n` : "";
    await write(
      connection,
      text(
        `HTTP/1.1 ${status}\r\netag: "v"\r\n${range}content-length: ${
          SIZE - start
        }\r\nconnection: close\r\n\r\n`,
      ),
    );
    if (isHead) return;
    starts.push(start);
    const end = Math.min(SIZE, start + most(start, gets++));
    await write(connection, bytes.slice(start, end));
  });
  return { ...site, starts };
}

async function write(connection: Deno.TcpConn, data: Uint8Array): Promise<void> {
  for (let at = 0; at < data.length;) at += await connection.write(data.subarray(at));
}

Deno.test("download: a line that never holds long still brings everything, each byte once", async () => {
  for (const piece of [1_111, 9_999, 33_333, 50_000, 99_999]) {
    await using folder = await temporaryFolder();
    await using site = dripping(() => piece);
    assertEquals(await load(`${site.origin}/m`, { cache_dir: folder.path }), bytes);
    const expected = Array.from({ length: Math.ceil(SIZE / piece) }, (_, i) => i * piece);
    assertEquals(site.starts, expected, `pieces of ${piece}`);
  }
});

Deno.test("download: without progress the tries are bounded, and a later call goes on where they ended", async () => {
  await using folder = await temporaryFolder();
  let healthy = false;
  await using site = dripping((start) => healthy ? SIZE : start === 0 ? 12_345 : 0);
  const options = { cache_dir: folder.path };
  const error = await assertRejects(() => load(`${site.origin}/m`, options), ModelFileError);
  assertStringIncludes(error.message, `(tried ${HURRY.tries} times)`);
  assertStringIncludes(error.message, `${site.origin}/m/${NAME}`);
  assertEquals(site.starts, [0, ...new Array<number>(HURRY.tries - 1).fill(12_345)]);
  healthy = true;
  assertEquals(await load(`${site.origin}/m`, options), bytes);
  assertEquals(site.starts.at(-1), 12_345);
});

Deno.test("download: an abort in the middle keeps what has come, and the next call fetches the rest", async () => {
  for (const model of ["org/name", "plain"]) {
    await using folder = await temporaryFolder();
    let hang = true;
    await using site = await serveModel({ [NAME]: bytes }, {
      answer: (seen, usual) =>
        hang && seen.method === "GET"
          ? new Response(broken(bytes.slice(0, 40_000), "silent"), { headers: new Headers(usual().headers) })
          : usual(),
    });
    const where = model === "plain" ? `${site.origin}/plain` : model;
    const controller = new AbortController();
    const reason = new Error("enough");
    let at = 0;
    const options: OpenOptions = {
      cache_dir: folder.path,
      endpoint: site.origin,
      signal: controller.signal,
      progress_callback: ({ loaded }) => {
        if (loaded === 40_000) {
          at = performance.now();
          setTimeout(() => controller.abort(reason), 20);
        }
      },
    };
    assertEquals(await assertRejects(() => load(where, options)), reason);
    assert(performance.now() - at < 120, `an abort took ${performance.now() - at} ms`);
    hang = false;
    site.seen.length = 0;
    const again = { cache_dir: folder.path, endpoint: site.origin };
    assertEquals(await load(where, again), bytes);
    assertEquals(site.seen.filter(({ method }) => method === "GET").map(rangeStart), [40_000]);
  }
});

Deno.test("download: a silent server is given up after a while, and its bytes are kept", async () => {
  await using folder = await temporaryFolder();
  await using site = await serveModel({ [NAME]: bytes }, {
    answer: (seen, usual) =>
      seen.method === "GET" && !seen.headers.has("range")
        ? new Response(broken(bytes.slice(0, 1000), "silent"), { headers: new Headers(usual().headers) })
        : usual(),
  });
  const patience = { ...HURRY, stall_ms: 100 };
  assertEquals(await load(`${site.origin}/plain`, { cache_dir: folder.path, patience }), bytes);
  assertEquals(site.seen.map(rangeStart), [0, 0, 1000]);
});

Deno.test("download: a server that never answers is given up, or left at an abort", async () => {
  await using site = await serveModel({}, { answer: () => new Promise(() => {}) });
  const patience = { ...HURRY, stall_ms: 50 };
  const error = await assertRejects(
    () => load(`${site.origin}/plain`, { cache_dir: null, patience }),
    ModelFileError,
  );
  assertStringIncludes(error.message, "silent for 50 ms (tried 3 times)");
  const started = performance.now();
  const signal = AbortSignal.timeout(30);
  await assertRejects(() => load(`${site.origin}/plain`, { cache_dir: null, signal }), DOMException);
  assert(performance.now() - started < 130);
});

Deno.test("download: errors that pass are tried again, with the pause the server asks for and no longer", async () => {
  for (const status of [429, 500, 502, 503, 504]) {
    let left = 2;
    const times: number[] = [];
    await using site = await serveModel({ [NAME]: bytes }, {
      answer: (seen, usual) => {
        if (seen.method !== "GET") return usual();
        times.push(performance.now());
        return left-- > 0 ? new Response("busy", { status, headers: { "retry-after": "3600" } }) : usual();
      },
    });
    assertEquals(await load(`${site.origin}/plain`, { cache_dir: null }), bytes);
    assertEquals(times.length, 3);
    const wait = times[1]! - times[0]!;
    assert(wait >= HURRY.retry_after_ms - 5 && wait < 2000, `waited ${wait} ms`);
  }
});

Deno.test("download: an error that stays is an error with its status, after as many tries as were allowed", async () => {
  await using site = await serveModel({}, { answer: () => new Response("no", { status: 503 }) });
  const error = await assertRejects(
    () => load(`${site.origin}/plain?signature=SECRET`, { cache_dir: null }),
    ModelFileError,
  );
  assertStringIncludes(error.message, `${site.origin}/plain/${NAME} answered 503 (tried 3 times)`);
  assert(!error.message.includes("SECRET"));
  assertEquals(site.seen.length, 3);
  assertEquals(site.seen[0]!.url.search, "?signature=SECRET");
});

Deno.test("download: a server that ignores ranges starts over, and the result is whole", async () => {
  for (const model of ["org/name", "plain"]) {
    await using folder = await temporaryFolder();
    let first = true;
    await using site = await serveModel({ [NAME]: bytes }, {
      answer(seen, usual) {
        if (seen.method !== "GET") return usual();
        if (!first) {
          const plain = new Headers(seen.headers);
          plain.delete("range");
          return send(bytes, "GET", plain, new Headers(), usual().headers.get("etag")!);
        }
        first = false;
        return new Response(broken(bytes.slice(0, 30_000), "cut"), { headers: new Headers(usual().headers) });
      },
    });
    const where = model === "plain" ? `${site.origin}/plain` : model;
    assertEquals(await load(where, { cache_dir: folder.path, endpoint: site.origin }), bytes);
    assertEquals(site.seen.filter(({ method }) => method === "GET").length, 2);
  }
});

Deno.test("download: a wrong range in the answer is not glued on", async () => {
  await using folder = await temporaryFolder();
  let gets = 0;
  await using site = await serveModel({ [NAME]: bytes }, {
    answer(seen, usual) {
      if (seen.method !== "GET") return usual();
      if (++gets === 1) {
        return new Response(broken(bytes.slice(0, 30_000), "cut"), { headers: new Headers(usual().headers) });
      }
      if (gets > 2) return usual();
      const headers = new Headers(usual().headers);
      headers.set("content-range", `bytes 0-${SIZE - 1}/${SIZE}`);
      headers.set("content-length", String(SIZE));
      return new Response(bytes, { status: 206, headers });
    },
  });
  assertEquals(await load(`${site.origin}/plain`, { cache_dir: folder.path }), bytes);
});

Deno.test("download: a file that changes between two parts is not put together from both", async (t) => {
  const other = pattern(SIZE, 2);
  const rows: [string, boolean, boolean][] = [
    ["If-Range is honoured", true, true],
    ["If-Range is ignored", false, true],
    ["If-Range is honoured, and ranges come without an ETag", true, false],
  ];
  for (const [what, honest, named] of rows) {
    await t.step(what, async () => {
      await using folder = await temporaryFolder();
      let now = bytes;
      await using site = await serveModel({}, {
        answer({ method, headers }) {
          const etag = now === bytes ? '"one"' : '"two"';
          const asked = new Headers(headers);
          if (!honest) asked.delete("if-range");
          const whole = send(now, method, asked, new Headers(), etag);
          if (!named && whole.status === 206) whole.headers.delete("etag");
          if (method === "HEAD" || now === other) return whole;
          now = other;
          return new Response(broken(bytes.slice(0, 30_000), "cut"), { headers: new Headers(whole.headers) });
        },
      });
      assertEquals(await load(`${site.origin}/plain`, { cache_dir: folder.path }), other);
    });
  }
});

Deno.test("download: two files of one ETag are two files", async () => {
  await using folder = await temporaryFolder();
  const others = pattern(SIZE, 4);
  await using site = await serveModel({}, {
    answer: ({ method, headers, file }) =>
      send(file === NAME ? bytes : others, method, headers, new Headers(), '"time-and-length"'),
  });
  for (const cache_dir of [folder.path, null]) {
    assertEquals(await load(`${site.origin}/plain`, { cache_dir }), bytes);
    assertEquals(await load(`${site.origin}/plain`, { cache_dir }, "other.safetensors"), others);
  }
});

Deno.test("download: a file that changes all the time is an error", async () => {
  let version = 0;
  await using site = await serveModel({}, {
    answer: ({ method, headers }) => send(bytes, method, headers, new Headers(), `"${version++}"`),
  });
  await assertRejects(
    () => load(`${site.origin}/plain`, { cache_dir: null }),
    ModelFileError,
    "it changes while it is read",
  );
});

Deno.test("download: bytes of another hash are refused, and nothing of them is kept", async () => {
  await using folder = await temporaryFolder();
  const evil = bytes.slice();
  evil[50_000]! ^= 1;
  let honest = false;
  await using site = await serveModel({ [NAME]: bytes }, {
    answer: (seen, usual) =>
      seen.method === "GET" && !honest ? send(evil, "GET", seen.headers, new Headers(), '"x"') : usual(),
  });
  for (const cache_dir of [folder.path, null]) {
    honest = false;
    const options = { cache_dir, endpoint: site.origin };
    const error = await assertRejects(() => load("org/name", options), ModelFileError);
    assertStringIncludes(
      error.message,
      `its SHA-256 is ${await sha256(evil)}, expected ${await sha256(bytes)}`,
    );
    honest = true;
    site.seen.length = 0;
    assertEquals(await load("org/name", options), bytes);
    assertEquals(site.seen.map(rangeStart), [0, 0]);
  }
});

Deno.test("download: a bad beginning left by an earlier call is found out and fetched again", async () => {
  await using folder = await temporaryFolder();
  await using site = await serveModel({ [NAME]: bytes });
  const blobs = `${folder.path}/models--org--name/blobs`;
  await Deno.mkdir(blobs, { recursive: true });
  await Deno.writeFile(`${blobs}/${await sha256(bytes)}.incomplete`, pattern(60_000, 9));
  assertEquals(await load("org/name", { cache_dir: folder.path, endpoint: site.origin }), bytes);
  const gets = site.seen.filter(({ method }) => method === "GET");
  assertEquals(gets.map(rangeStart), [60_000, 0]);
  // Longer than the file: not even asked about.
  await Deno.remove(folder.path + "/models--org--name", { recursive: true });
  await Deno.mkdir(blobs, { recursive: true });
  await Deno.writeFile(`${blobs}/${await sha256(bytes)}.incomplete`, pattern(SIZE + 1, 9));
  site.seen.length = 0;
  assertEquals(await load("org/name", { cache_dir: folder.path, endpoint: site.origin }), bytes);
  assertEquals(site.seen.map(rangeStart), [0, 0]);
});

Deno.test("download: a beginning that is longer than the file is dropped, also where no hash is known", async () => {
  await using folder = await temporaryFolder();
  let first = true;
  await using site = await serveModel({ [NAME]: bytes }, {
    answer(seen, usual) {
      if (seen.method !== "GET" || !first) return usual();
      first = false;
      return new Response("no", { status: 418 });
    },
  });
  const options = { cache_dir: folder.path };
  await assertRejects(() => load(`${site.origin}/plain`, options), ModelFileError, "418");
  const blobs = `${folder.path}/urls/${await only(`${folder.path}/urls`)}/blobs`;
  await Deno.writeFile(`${blobs}/${await only(blobs)}`, pattern(SIZE + 1, 9));
  assertEquals(await load(`${site.origin}/plain`, options), bytes);
  assertEquals(site.seen.map(rangeStart), [0, 0, 0, 0]);
});

Deno.test("download: lengths that are not the announced ones", async (t) => {
  /** HEAD announces `said`, GET sends `sent`. */
  const rows: [string, number, number, RegExp][] = [
    ["more than announced", SIZE - 1, SIZE, /announces 99999 bytes and sends more/],
    ["less than announced", SIZE + 1, SIZE, /ended after 100000 of 100001 bytes/],
    ["nothing", SIZE, 0, /ended after 0 of 100000 bytes/],
  ];
  for (const [what, said, sent, says] of rows) {
    for (const disk of [true, false]) {
      await t.step(`${what}, ${disk ? "disk" : "memory"}`, async () => {
        await using folder = await temporaryFolder();
        await using site = await serveModel({}, {
          answer: ({ method }) =>
            method === "HEAD"
              ? new Response(null, { headers: { etag: '"a"', "content-length": String(said) } })
              : new Response(bytes.slice(0, sent), { headers: { etag: '"a"' } }),
        });
        const cache_dir = disk ? folder.path : null;
        const error = await assertRejects(() => load(`${site.origin}/plain`, { cache_dir }), ModelFileError);
        assert(says.test(error.message), error.message);
      });
    }
  }
});

Deno.test("download: compressed answers", async (t) => {
  const zip = async (plain: Uint8Array<ArrayBuffer>) =>
    new Uint8Array(
      await new Response(new Blob([plain]).stream().pipeThrough(new CompressionStream("gzip"))).arrayBuffer(),
    );
  /** Compresses whatever the client says. */
  const stubborn = (body: Uint8Array<ArrayBuffer>) => ({
    answer: ({ method }: Seen) =>
      new Response(method === "HEAD" ? null : body, {
        headers: { "content-encoding": "gzip", "content-length": String(body.length), etag: '"z"' },
      }),
  });
  await t.step("are decoded", async () => {
    await using folder = await temporaryFolder();
    await using site = await serveModel({}, stubborn(await zip(text('{"a":1}'))));
    for (const cache_dir of [folder.path, null]) {
      const files = await openFiles(`${site.origin}/plain`, { cache_dir, patience: HURRY });
      assertEquals(await files.json("config.json"), { a: 1 });
    }
  });
  await t.step("are asked for without compression", async () => {
    await using site = await serveModel({ [NAME]: bytes });
    assertEquals(await load(`${site.origin}/plain`, { cache_dir: null }), bytes);
    assertEquals(site.seen.map(({ headers }) => headers.get("accept-encoding")), ["identity", "identity"]);
  });
  await t.step("that unfold to more than is allowed are stopped", async () => {
    await using folder = await temporaryFolder();
    const bomb = await zip(new Uint8Array(80 * 2 ** 20));
    assert(bomb.length < 2 ** 20);
    await using site = await serveModel({}, stubborn(bomb));
    for (const cache_dir of [folder.path, null]) {
      const files = await openFiles(`${site.origin}/plain`, { cache_dir, patience: HURRY });
      await assertRejects(
        () => files.json("config.json"),
        ModelFileError,
        `expected at most ${16 * 2 ** 20} bytes, it sends more`,
      );
      await assertRejects(
        () => files.source(NAME),
        ModelFileError,
        `expected at most ${64 * 2 ** 20} bytes, it sends more`,
      );
    }
    for await (
      const { name, isFile } of Deno.readDir(
        `${folder.path}/urls/${(await only(`${folder.path}/urls`))}/blobs`,
      )
    ) {
      assert(isFile && name.endsWith(".incomplete"));
    }
  });
  await t.step("that unfold to more than was announced are stopped", async () => {
    const bomb = await zip(new Uint8Array(2 ** 20));
    await using site = await serveModel({}, {
      answer: ({ method }) =>
        method === "HEAD"
          ? new Response(null, { headers: { etag: '"z"', "content-length": "1000" } })
          : new Response(bomb, { headers: { "content-encoding": "gzip", etag: '"z"' } }),
    });
    await assertRejects(
      () => load(`${site.origin}/plain`, { cache_dir: null }),
      ModelFileError,
      "announces 1000 bytes and sends more",
    );
  });
});

async function only(folder: string): Promise<string> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(folder)) names.push(name);
  assertEquals(names.length, 1);
  return names[0]!;
}

Deno.test("download: a small file that announces to be large is refused before it is fetched", async () => {
  await using site = await serveModel({ "config.json": new Uint8Array(16 * 2 ** 20 + 1) });
  const files = await openFiles(`${site.origin}/plain`, { cache_dir: null, patience: HURRY });
  await assertRejects(
    () => files.json("config.json"),
    ModelFileError,
    "at most 16777216 bytes, it has 16777217",
  );
  assertEquals(site.log(), ["HEAD config.json"]);
});

Deno.test("download: a length nobody can hold is a typed error", async () => {
  await using site = await serveModel({}, {
    answer: () => new Response(null, { headers: { etag: '"a"', "content-length": String(2 ** 49) } }),
  });
  const error = await assertRejects(() => load(`${site.origin}/plain`, { cache_dir: null }));
  assert(error instanceof Error && error.name === "OutOfMemory", String(error));
});

Deno.test("download: servers without HEAD, without length, without ETag", async (t) => {
  await t.step("no HEAD", async () => {
    await using site = await serveModel({ [NAME]: bytes }, {
      answer: (seen, usual) => seen.method === "HEAD" ? new Response(null, { status: 405 }) : usual(),
    });
    for (const model of [`${site.origin}/plain`, "org/name"]) {
      assertEquals(await load(model, { cache_dir: null, endpoint: site.origin }), bytes);
    }
  });
  await t.step("no length", async () => {
    await using folder = await temporaryFolder();
    await using site = await serveModel({}, {
      answer: ({ method }) =>
        new Response(method === "HEAD" ? null : new Blob([bytes]).stream(), { headers: { etag: '"a"' } }),
    });
    for (const cache_dir of [folder.path, null]) {
      assertEquals(await load(`${site.origin}/plain`, { cache_dir }), bytes);
    }
  });
  await t.step("no ETag and no date: fetched each time", async () => {
    await using folder = await temporaryFolder();
    let now = bytes;
    await using site = await serveModel({}, {
      answer: ({ method }) =>
        new Response(method === "HEAD" ? null : now, { headers: { "content-length": String(now.length) } }),
    });
    const options = { cache_dir: folder.path };
    assertEquals(await load(`${site.origin}/plain`, options), bytes);
    now = pattern(SIZE, 3);
    assertEquals(await load(`${site.origin}/plain`, options), now);
    assertEquals(site.log().length, 4);
  });
  await t.step("no ETag and no date: a cut download starts over", async () => {
    let first = true;
    await using site = await serveModel({}, {
      answer({ method }) {
        const headers = { "content-length": String(SIZE) };
        if (method === "HEAD") return new Response(null, { headers });
        if (!first) return new Response(bytes, { headers });
        first = false;
        return new Response(broken(pattern(SIZE, 8).slice(0, 60_000), "cut"), { headers });
      },
    });
    assertEquals(await load(`${site.origin}/plain`, { cache_dir: null }), bytes);
    assertEquals(site.seen.map(({ headers }) => headers.get("range")), [null, null, null]);
  });
  await t.step("a date instead of an ETag", async () => {
    await using folder = await temporaryFolder();
    await using site = await serveModel({}, {
      answer: ({ method }) =>
        new Response(method === "HEAD" ? null : bytes, {
          headers: { "content-length": String(SIZE), "last-modified": "Mon, 01 Jan 2024 00:00:00 GMT" },
        }),
    });
    for (let i = 0; i < 2; i++) {
      assertEquals(await load(`${site.origin}/plain`, { cache_dir: folder.path }), bytes);
    }
    assertEquals(site.seen.map(({ method }) => method), ["HEAD", "GET", "HEAD"]);
  });
});

Deno.test("download: an error of the progress callback ends the loading and is not taken for one of the network", async () => {
  await using site = await serveModel({ [NAME]: bytes });
  const reason = new TypeError("mine");
  const progress_callback = ({ loaded }: { loaded: number }) => {
    if (loaded > 0) throw reason;
  };
  assertEquals(
    await assertRejects(() => load(`${site.origin}/plain`, { cache_dir: null, progress_callback })),
    reason,
  );
  assertEquals(site.seen.length, 2);
});

Deno.test("download: an empty file", async () => {
  await using folder = await temporaryFolder();
  await using site = await serveModel({ [NAME]: new Uint8Array() });
  for (const cache_dir of [folder.path, null]) {
    for (const model of [`${site.origin}/plain`, "org/name"]) {
      assertEquals(await load(model, { cache_dir, endpoint: site.origin }), new Uint8Array());
    }
  }
});

Deno.test("download: JSON that is not JSON says which file", async () => {
  await using folder = await temporaryFolder();
  await using site = await serveModel({ "config.json": text("<!doctype html>") });
  const files = await openFiles("org/name", {
    cache_dir: folder.path,
    endpoint: site.origin,
    patience: HURRY,
  });
  const error = await assertRejects(() => files.json("config.json"), ModelFileError, "as JSON");
  assertStringIncludes(error.message, "config.json");
  using source = await files.source("config.json");
  await assertRejects(() => readJson(source, 5, {}), ModelFileError, "at most 5 bytes");
});
