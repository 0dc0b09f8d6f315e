/**
 * Redirects, tokens and error statuses: who gets the token, where a redirect may lead, what errors say and keep to
 * themselves.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { InvalidArgument, ModelFileError } from "../../src/errors.ts";
import { NetworkError, PATIENCE, persist, retryAfter, showUrl } from "../../src/hub/http.ts";
import { openFiles, type OpenOptions } from "../../src/hub/open.ts";
import {
  COMMIT,
  HURRY,
  listen,
  pattern,
  send,
  serveModel,
  type Site,
  temporaryFolder,
  text,
} from "./remote_server.ts";

const NAME = "model.safetensors";
const bytes = pattern(10_000);
const files = { [NAME]: bytes, "config.json": text('{"a":1}') };
const TOKEN = "hf_SECRETtoken";

async function read(model: string, options: OpenOptions = {}, name = NAME): Promise<Uint8Array> {
  const opened = await openFiles(model, { cache_dir: null, patience: HURRY, ...options });
  using source = await opened.source(name);
  const into = new Uint8Array(source.size);
  await source.read(0, into);
  return into;
}

const tokens = (site: Site) => site.seen.map(({ headers }) => headers.get("authorization"));

/** The error of a loading, which never tells a secret. */
async function refused(model: string, options: OpenOptions = {}, name = "config.json"): Promise<string> {
  const error = await assertRejects(() => read(model, { token: TOKEN, ...options }, name), ModelFileError);
  const all = [error.message, error.stack, String(error.cause), Deno.inspect(error)].join("\n");
  assert(!all.includes("SECRET"), `a secret is in: ${all}`);
  return error.message;
}

Deno.test("token: it goes to the hub and not to where the hub's redirects lead", async () => {
  await using cdn = await serveModel(files);
  await using hub = await serveModel(files, { cdn: () => cdn.origin });
  assertEquals(await read("org/name", { endpoint: hub.origin, token: TOKEN }), bytes);
  assertEquals(hub.log(), [`HEAD ${NAME}`, `GET ${NAME}`]);
  assertEquals(tokens(hub), [`Bearer ${TOKEN}`, `Bearer ${TOKEN}`]);
  // The hub's answer says all about the file: the other host is only asked for the bytes.
  assertEquals(cdn.log(), [`GET ${NAME}`]);
  assertEquals(cdn.seen[0]!.headers.has("authorization"), false);
  assertEquals(cdn.seen[0]!.url.search, "?signature=SECRET");
});

Deno.test("token: it stays away once a chain of redirects has left, even when the chain comes back", async () => {
  let home = "";
  await using other = listen(() => Response.redirect(`${home}/plain/${NAME}`, 302));
  await using site = await serveModel(files, {
    answer: (seen, usual) =>
      seen.path.startsWith("/m/") ? Response.redirect(`${other.origin}/x`, 302) : usual(),
  });
  home = site.origin;
  assertEquals(await read(`${site.origin}/m`, { token: TOKEN }), bytes);
  const asked = site.seen.map(({ path, headers }) => [path.split("/")[1], headers.get("authorization")]);
  const once = [["m", `Bearer ${TOKEN}`], ["plain", null]];
  assertEquals(asked, [...once, ...once]);
});

Deno.test("token: a redirect within the hub keeps it", async () => {
  await using site = await serveModel(files, {
    answer: (seen, usual) =>
      seen.path.startsWith("/old/name/")
        ? new Response(null, { status: 307, headers: { location: seen.path.replace("/old/", "/org/") } })
        : usual(),
  });
  assertEquals(await read("old/name", { endpoint: site.origin, token: TOKEN }), bytes);
  assertEquals(new Set(tokens(site)), new Set([`Bearer ${TOKEN}`]));
});

Deno.test("token: none is sent unless given, and null overrides the environment", async () => {
  await using site = await serveModel(files);
  const before = Deno.env.get("HF_TOKEN");
  try {
    Deno.env.set("HF_TOKEN", ` ${TOKEN}\n`);
    await read("org/name", { endpoint: site.origin });
    assertEquals(tokens(site).at(-1), `Bearer ${TOKEN}`);
    await read("org/name", { endpoint: site.origin, token: null });
    assertEquals(tokens(site).at(-1), null);
    // The hub's token is nobody else's business.
    await read(`${site.origin}/plain`);
    assertEquals(tokens(site).at(-1), null);
    Deno.env.delete("HF_TOKEN");
    await read("org/name", { endpoint: site.origin });
    assertEquals(tokens(site).at(-1), null);
  } finally {
    if (before === undefined) Deno.env.delete("HF_TOKEN");
    else Deno.env.set("HF_TOKEN", before);
  }
  for (const token of ["with space", "line\r\nx: y", "", "ü"]) {
    const error = await assertRejects(
      () => read("org/name", { endpoint: site.origin, token }),
      InvalidArgument,
    );
    assert(token === "" || !error.message.includes(token));
  }
});

Deno.test("redirects: at most ten, only http and https, never out of https", async (t) => {
  let to: (n: number) => string = () => "";
  await using site = listen(({ url, method, headers }) => {
    const n = Number(url.searchParams.get("n") ?? 0);
    const location = to(n);
    return location === ""
      ? send(bytes, method, headers)
      : new Response(null, { status: 302, headers: { location } });
  });
  const model = `${site.origin}/m`;
  await t.step("ten", async () => {
    to = (n) => n < 10 ? `?n=${n + 1}` : "";
    assertEquals(await read(model), bytes);
  });
  await t.step("eleven", async () => {
    to = (n) => n < 11 ? `?n=${n + 1}` : "";
    assertStringIncludes(await refused(model), "more than 10 redirects");
  });
  await t.step("a circle", async () => {
    to = () => "?n=1";
    site.seen.length = 0;
    assertStringIncludes(await refused(model), "more than 10 redirects");
    assertEquals(site.seen.length, 11);
  });
  const rows: [string, string][] = [
    ["file:///etc/passwd", "it leads to file:"],
    ["data:text/plain,x", "it leads to data:"],
    ["ftp://127.0.0.1/x", "it leads to ftp:"],
    ["javascript:alert(1)", "it leads to javascript:"],
    ["http://", "not a URL"],
    ["http://user:SECRET@127.0.0.1/x", "credentials in it"],
    ["http://SECRET@127.0.0.1/x", "credentials in it"],
  ];
  for (const [location, says] of rows) {
    await t.step(location, async () => {
      to = () => location;
      assertStringIncludes(await refused(model), says);
    });
  }
});

Deno.test({
  name: "redirects: https is not left",
  async fn() {
    // No certificate is needed to see that: fetch is stood in for, below what is tested.
    const original = globalThis.fetch;
    const asked: string[] = [];
    try {
      globalThis.fetch = (input) => {
        asked.push(String(input));
        return Promise.resolve(
          new Response(null, { status: 302, headers: { location: "http://127.0.0.1/x?signature=SECRET" } }),
        );
      };
      assertStringIncludes(await refused("https://127.0.0.1/m"), "it leaves https for http://127.0.0.1/x");
      assertEquals(asked, ["https://127.0.0.1/m/config.json"]);
    } finally {
      globalThis.fetch = original;
    }
  },
});

Deno.test("errors: each status says what it means for whom", async (t) => {
  const rows: [string, number, Record<string, string>, string[], string[]][] = [
    [
      "gated",
      403,
      { "x-error-code": "GatedRepo" },
      ["granted by its owner", "pass token", "HF_TOKEN", "403"],
      [
        "access is denied",
      ],
    ],
    ["gated, without a token", 401, { "x-error-code": "GatedRepo" }, ["granted by its owner", "401"], [
      "pass token",
    ]],
    [
      "private or missing",
      401,
      {},
      ["no such repository, or it is private", "pass token", "no local folder"],
      [
        "pass token",
      ],
    ],
    ["missing", 404, { "x-error-code": "RepoNotFound" }, [
      "no local folder of that name",
      "no such repository",
    ], [
      "Cannot find config.json",
    ]],
    ["no revision", 404, { "x-error-code": "RevisionNotFound" }, ["no revision main"], []],
    ["no file", 404, { "x-error-code": "EntryNotFound", "x-repo-commit": COMMIT }, [
      "Cannot find config.json in org/name at revision main",
    ], []],
    ["no idea", 404, {}, ["no such repository, no revision main, or no such file in it"], ["answered 404"]],
    ["teapot", 418, {}, ["answered 418"], ["answered 418"]],
  ];
  for (const [what, status, headers, hub, plain] of rows) {
    await t.step(what, async () => {
      await using site = listen(() => new Response("SECRET reason", { status, headers }));
      const message = await refused("org/name", { endpoint: site.origin });
      for (const part of [...hub, `${site.origin}/org/name/resolve/main/config.json answered ${status}`]) {
        assertStringIncludes(message, part);
      }
      const other = await refused(`${site.origin}/m?signature=SECRET`);
      for (const part of [...plain, `${site.origin}/m/config.json answered ${status}`]) {
        assertStringIncludes(other, part);
      }
      // None of these goes away by asking again.
      assertEquals(site.seen.length, 2);
    });
  }
});

Deno.test("errors: a file that may be missing is missing only when the server says so of the file", async () => {
  const answers = (status: number, headers: Record<string, string> = {}) =>
    listen(({ url }) =>
      url.pathname.endsWith("config.json")
        ? send(text("{}"), "GET", new Headers(), new Headers({ "x-repo-commit": COMMIT }))
        : new Response(null, { status, headers })
    );
  const has = async (site: Site, model: string) => {
    const opened = await openFiles(model, { cache_dir: null, endpoint: site.origin, patience: HURRY });
    return await opened.has(NAME);
  };
  {
    await using site = answers(404);
    assertEquals([await has(site, "org/name"), await has(site, `${site.origin}/m`)], [false, false]);
  }
  {
    await using site = answers(404, { "x-error-code": "RepoNotFound" });
    await assertRejects(() => has(site, "org/name"), ModelFileError, "no such repository");
  }
  for (const status of [401, 403, 500]) {
    await using site = answers(status);
    await assertRejects(() => has(site, "org/name"), ModelFileError, String(status));
    await assertRejects(() => has(site, `${site.origin}/m`), ModelFileError, String(status));
  }
  {
    // Buckets that cannot be listed say 403 for 404; that others are served tells it apart.
    await using site = answers(403);
    const opened = await openFiles(`${site.origin}/m`, { cache_dir: null, patience: HURRY });
    await opened.json("config.json");
    assertEquals(await opened.has(NAME), false);
    await assertRejects(() => opened.source(NAME), ModelFileError, "answered 403");
  }
});

Deno.test("errors: a server that is no hub is told apart", async () => {
  await using site = await serveModel(files, {
    answer: (seen) => send(text("{}"), seen.method, seen.headers),
  });
  assertStringIncludes(await refused("org/name", { endpoint: site.origin }), "this is no hub");
});

Deno.test("errors: a host that cannot be reached is named", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const origin = `http://127.0.0.1:${listener.addr.port}`;
  listener.close();
  const message = await refused(`${origin}/m?signature=SECRET`);
  assertStringIncludes(message, `Cannot reach ${origin}/m/config.json: `);
  assertStringIncludes(message, "(tried 3 times)");
});

Deno.test({
  name: "errors: a missing permission is explained, and not tried again",
  permissions: { net: false, read: true },
  async fn() {
    const message = await refused("http://127.0.0.1:4321/m?signature=SECRET");
    assertStringIncludes(message, "permission is missing, grant --allow-net=127.0.0.1:4321");
    assert(!message.includes("tried"));
  },
});

Deno.test("errors: the etag or commit of a server is not a way into the file system", async () => {
  await using folder = await temporaryFolder();
  const evil = "../../../../evil";
  for (const header of ["etag", "x-linked-etag", "x-repo-commit"]) {
    await using site = listen(({ method, headers }) => {
      const given = new Headers({ "x-repo-commit": COMMIT });
      const answer = send(bytes, method, headers, given);
      answer.headers.set(header, header === "x-repo-commit" ? evil : `"${evil}"`);
      return answer;
    });
    const options = { endpoint: site.origin, cache_dir: `${folder.path}/a/b/c/cache` };
    if (header === "x-repo-commit") {
      await assertRejects(() => read("org/name", options), ModelFileError, "no hub");
    } else assertEquals(await read("org/name", options), bytes);
  }
  const outside: string[] = [];
  for (const inner of ["", "/a", "/a/b", "/a/b/c"]) {
    for await (const { name } of Deno.readDir(folder.path + inner)) outside.push(name);
  }
  assertEquals(outside, ["a", "b", "c", "cache"]);
});

Deno.test("retries: pauses grow, are counted from the last progress, and Retry-After is read in both forms", async () => {
  assertEquals(retryAfter(new Headers()), null);
  assertEquals(retryAfter(new Headers({ "retry-after": "7" })), 7000);
  assertEquals(retryAfter(new Headers({ "retry-after": "soon" })), null);
  const now = Date.parse("2026-01-01T00:00:00Z");
  assertEquals(retryAfter(new Headers({ "retry-after": "Thu, 01 Jan 2026 00:00:05 GMT" }), now), 5000);
  assertEquals(retryAfter(new Headers({ "retry-after": "Wed, 31 Dec 2025 00:00:00 GMT" }), now), 0);
  const access = { credentials: null, signal: undefined, patience: { ...HURRY, tries_to_reach: 4 } };
  let calls = 0;
  const failing = () => {
    calls++;
    return Promise.reject(new NetworkError("no"));
  };
  await assertRejects(() => persist(access, failing), NetworkError, "no (tried 4 times)");
  assertEquals(calls, 4);
  calls = 0;
  await assertRejects(() => persist(access, failing, () => calls === 3), NetworkError);
  assertEquals(calls, 3 + 3);
  calls = 0;
  const busy = () => {
    calls++;
    return Promise.reject(new NetworkError("busy", { status: 503 }));
  };
  await assertRejects(() => persist(access, busy), NetworkError, "busy (tried 3 times)");
  assertEquals(calls, HURRY.tries);
  calls = 0;
  const lasting = () => {
    calls++;
    return Promise.reject(new NetworkError("no", { transient: false }));
  };
  await assertRejects(() => persist(access, lasting), NetworkError);
  assertEquals(calls, 1);
  const reason = new Error("enough");
  const started = performance.now();
  const patience = { ...PATIENCE, backoff_ms: 60_000 };
  const controller = new AbortController();
  setTimeout(() => controller.abort(reason), 10);
  const waiting = persist({ credentials: null, signal: controller.signal, patience }, failing);
  assertEquals(await assertRejects(() => waiting), reason);
  assert(performance.now() - started < 1000);
});

Deno.test("messages: a URL is shown without what may be a secret", () => {
  assertEquals(showUrl(new URL("https://u:p@h.example:8080/a/b?sig=x#y")), "https://h.example:8080/a/b");
});
