/**
 * What a name is taken for: a folder, a URL, or a hub's id; and what is refused before anything is asked.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { InvalidArgument, ModelFileError } from "../../src/errors.ts";
import { isHubId } from "../../src/hub/hub_repository.ts";
import { openFiles, type OpenOptions } from "../../src/hub/open.ts";
import { HURRY, serveModel, temporaryFolder, text } from "./remote_server.ts";
import { said } from "../support/quiet.ts";

const FILES = { "config.json": text('{"from":"server"}') };

async function config(model: string | URL, options: OpenOptions = {}): Promise<unknown> {
  const files = await openFiles(model, { cache_dir: null, patience: HURRY, ...options });
  return await files.json("config.json");
}

/** Makes a folder with a config the working directory of `work`. */
async function inside(names: readonly string[], work: () => Promise<void>): Promise<void> {
  await using folder = await temporaryFolder();
  for (const name of names) {
    await Deno.mkdir(`${folder.path}/${name}`, { recursive: true });
    await Deno.writeTextFile(`${folder.path}/${name}/config.json`, '{"from":"folder"}');
  }
  const before = Deno.cwd();
  try {
    Deno.chdir(folder.path);
    await work();
  } finally {
    Deno.chdir(before);
  }
}

Deno.test("open: a folder wins over a hub's id, and one line says which was taken", async () => {
  await using site = await serveModel({ ...FILES });
  const endpoint = site.origin;
  // Names of this test alone: a line is written once for a folder.
  await inside(["once/name", "once-name"], async () => {
    for (const name of ["once/name", "once-name"]) {
      const lines = await said(async () => {
        for (let i = 0; i < 3; i++) assertEquals(await config(name, { endpoint }), { from: "folder" });
      });
      assertEquals(lines, [`[attune] "${name}" is taken as the local folder ./${name}`]);
    }
    assertEquals(site.seen.length, 0);
  });
  await inside([], async () => {
    const lines = await said(async () => {
      for (let i = 0; i < 3; i++) assertEquals(await config("org/name", { endpoint }), { from: "server" });
    });
    assertEquals(lines, [
      `[attune] "org/name" is taken as a model of ${endpoint}: there is no folder ./org/name`,
    ]);
  });
});

Deno.test("open: what can only be a path, or only a URL, is taken without a word", async () => {
  await using site = await serveModel({ ...FILES });
  await inside(["org/name", "a/b/c", "with space"], async () => {
    const folder = Deno.cwd();
    const lines = await said(async () => {
      const paths = [
        "./org/name",
        "../" + folder.split("/").at(-1) + "/org/name",
        `${folder}/org/name`,
        "a/b/c",
      ];
      for (
        const path of [
          ...paths,
          "with space",
          `file://${folder}/org/name`,
          new URL(`file://${folder}/org/name/`),
        ]
      ) {
        assertEquals(await config(path, { endpoint: site.origin }), { from: "folder" });
      }
      for (
        const url of [`${site.origin}/plain`, `${site.origin}/plain/`, new URL(`${site.origin}/plain/#x`)]
      ) {
        assertEquals(await config(url), { from: "server" });
      }
      assertEquals(await config(`${site.origin}/plain`.toUpperCase().replace("PLAIN", "plain")), {
        from: "server",
      });
    });
    assertEquals(lines, []);
    for (const path of ["./none", "a/b/none", "/none", "with spice"]) {
      await assertRejects(() => config(path), ModelFileError, "looked for a local folder of that path");
    }
  });
});

Deno.test("open: the grammar of ids is the hub's", () => {
  const good = ["foo", "foo/bar", "123", "Foo-BAR_foo.bar123", "a", "a/b", "_x/y_", "x".repeat(96)];
  const bad = [
    "",
    "datasets/foo/bar",
    ".repo_id",
    "foo--bar",
    "foo.git",
    "org/.x",
    "org/x-",
    "-x",
    "a..b",
    "a/../b",
    "a//b",
    "/a",
    "a/",
    "a b",
    "a\\b",
    "a\n",
    "ä",
    "a%2e",
    "a:b",
    "a@b",
    "x".repeat(97),
  ];
  assertEquals(good.filter((id) => !isHubId(id)), []);
  assertEquals(bad.filter((id) => isHubId(id)), []);
});

Deno.test("open: revisions are branches, tags and commits, and cannot lead elsewhere", async () => {
  await using site = await serveModel({ ...FILES });
  const endpoint = site.origin;
  for (const revision of ["main", "v1"]) {
    assertEquals(await config("org/name", { endpoint, revision }), { from: "server" });
  }
  // A slash stays within its part of the path.
  const files = await openFiles("org/name", {
    cache_dir: null,
    endpoint,
    revision: "refs/pr/1",
    patience: HURRY,
  });
  await assertRejects(() => files.json("config.json"), ModelFileError, "there is no revision refs/pr/1");
  assertEquals(site.seen.at(-1)!.path, "/org/name/resolve/refs%2Fpr%2F1/config.json");
  site.seen.length = 0;
  const bad = [
    "",
    "..",
    "../..",
    "a/../b",
    "a b",
    "a//b",
    "/a",
    "a/",
    "a\\b",
    "-x",
    "a?b",
    "a#b",
    "x.lock",
    "a/.b",
    "a%2f",
  ];
  for (const revision of [...bad, "x".repeat(300)]) {
    await assertRejects(() => config("org/name", { endpoint, revision }), InvalidArgument, "revision");
  }
  await assertRejects(
    () => config(`${endpoint}/plain`, { revision: "main" }),
    InvalidArgument,
    "a URL has none",
  );
  assertEquals(site.seen.length, 0);
});

Deno.test("open: names and options that make no sense are refused, secrets unsaid", async () => {
  const rows: [unknown, Record<string, unknown>, string][] = [
    ["ftp://host/model", {}, "from ftp:"],
    ["hf://org/name", {}, "from hf:"],
    ["http://", {}, "it is not a URL"],
    ["https://user:SECRET@host/model", {}, "user name or password"],
    [new URL("ftp://host/model"), {}, "from ftp:"],
    [17, {}, "found number"],
    ["org/name", { endpoint: "nowhere" }, "endpoint"],
    ["org/name", { endpoint: "ftp://host" }, "endpoint"],
    ["org/name", { endpoint: "https://user:SECRET@host" }, "endpoint"],
    ["org/name", { token: 5 }, "token"],
    ["org/name", { token: "SECRET\r\nx: y" }, "token"],
    ["org/name", { revision: 5 }, "revision"],
    ["org/name", { cache_dir: "" }, "cache_dir"],
    ["org/name", { cache_dir: new URL("https://host/") }, "cache_dir"],
    ["org/name", { local_files_only: "yes" }, "local_files_only"],
    ["org/name", { progress_callback: 1 }, "progress_callback"],
  ];
  for (const [model, options, says] of rows) {
    const error = await assertRejects(() => config(model as string, options as OpenOptions), InvalidArgument);
    assertStringIncludes(error.message, says);
    assert(!error.message.includes("SECRET"), error.message);
  }
});

Deno.test("open: an aborted signal is honoured before anything is asked", async () => {
  await using site = await serveModel({ ...FILES });
  const reason = new Error("enough");
  const signal = AbortSignal.abort(reason);
  for (const model of ["org/name", `${site.origin}/plain`, "./x"]) {
    assertEquals(await assertRejects(() => config(model, { signal, endpoint: site.origin })), reason);
  }
  assertEquals(site.seen.length, 0);
});

Deno.test("open: names of files cannot leave the model", async () => {
  await using site = await serveModel({ ...FILES });
  const names = [
    "../config.json",
    "/etc/passwd",
    "a\\b",
    "%2e%2e/x",
    "file:///etc/passwd",
    "http://x/y",
    "",
    "..",
    "x?y",
  ];
  for (const model of ["org/name", `${site.origin}/plain`]) {
    const files = await openFiles(model, { cache_dir: null, endpoint: site.origin, patience: HURRY });
    for (const name of names) {
      await assertRejects(() => files.has(name), ModelFileError, "as a file of a model");
      await assertRejects(() => files.source(name), ModelFileError, "as a file of a model");
      await assertRejects(() => files.prepare([name]), ModelFileError, "as a file of a model");
    }
  }
  assertEquals(site.seen.length, 0);
});

Deno.test("open: the environment chooses the hub, an option overrides it", async () => {
  await using one = await serveModel({ ...FILES });
  await using two = await serveModel({ ...FILES });
  const before = Deno.env.get("HF_ENDPOINT");
  try {
    Deno.env.set("HF_ENDPOINT", one.origin + "/");
    await config("org/name");
    assertEquals([one.seen.length, two.seen.length], [2, 0]);
    await config("org/name", { endpoint: new URL(two.origin) });
    assertEquals([one.seen.length, two.seen.length], [2, 2]);
  } finally {
    if (before === undefined) Deno.env.delete("HF_ENDPOINT");
    else Deno.env.set("HF_ENDPOINT", before);
  }
});
