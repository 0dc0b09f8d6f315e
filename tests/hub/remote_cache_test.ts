/**
 * The cache on disk: the layout of huggingface_hub, what is fetched again and what is not, who waits for whom, and
 * what happens where nothing can be written.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { ModelFileError } from "../../src/errors.ts";
import { openFiles, type OpenOptions } from "../../src/hub/open.ts";
import {
  broken,
  COMMIT,
  type Files,
  hex,
  HURRY,
  pattern,
  serveModel,
  sha256,
  type Site,
  temporaryFolder,
  text,
} from "./remote_server.ts";
import { said } from "../support/quiet.ts";

const NAME = "model.safetensors";
const bytes = pattern(50_000);
const config = text('{"model_type":"llama"}');
const FILES: Files = { [NAME]: bytes, "config.json": config, "sub/part.json": text("[1]") };
const repository = "models--org--name";

async function open(model: string, options: OpenOptions) {
  return await openFiles(model, { patience: HURRY, ...options });
}

/** Reads the config and the weights, as a model's loading does. */
async function load(model: string, options: OpenOptions): Promise<Uint8Array> {
  const files = await open(model, options);
  assertEquals(await files.json("config.json"), { model_type: "llama" });
  assertEquals(await files.has("generation_config.json"), false);
  using source = await files.source(NAME);
  const into = new Uint8Array(source.size);
  await source.read(0, into);
  return into;
}

/** A server that stopped: connections are refused. */
async function goneServer(): Promise<string> {
  await using site = await serveModel({});
  return site.origin;
}

/** All files below a folder, links resolved to what they point to. */
async function tree(folder: string, below = ""): Promise<string[]> {
  const found: string[] = [];
  for await (const { name, isDirectory, isSymlink } of Deno.readDir(`${folder}${below}`)) {
    const path = `${below}/${name}`;
    if (isDirectory) found.push(...await tree(folder, path));
    else found.push(isSymlink ? `${path} -> ${await Deno.readLink(folder + path)}` : path);
  }
  return found.sort();
}

Deno.test("cache: its layout is that of huggingface_hub", async () => {
  await using folder = await temporaryFolder();
  await using site = await serveModel(FILES);
  const files = await open("org/name", { cache_dir: folder.path, endpoint: site.origin });
  await files.json("config.json");
  await files.json("sub/part.json");
  (await files.source(NAME)).close();
  assertEquals(await files.has("absent.json"), false);
  const sha1 = async (b: Uint8Array<ArrayBuffer>) => hex(await crypto.subtle.digest("SHA-1", b));
  const small = await sha1(config), part = await sha1(FILES["sub/part.json"]!), large = await sha256(bytes);
  assertEquals(
    await tree(folder.path),
    [
      ...[small, part, large].map((id) => `/.locks/${repository}/${id}.lock`),
      `/${repository}/.no_exist/${COMMIT}/absent.json`,
      ...[small, part, large].map((id) => `/${repository}/blobs/${id}`),
      `/${repository}/refs/main`,
      `/${repository}/snapshots/${COMMIT}/config.json -> ../../blobs/${small}`,
      `/${repository}/snapshots/${COMMIT}/${NAME} -> ../../blobs/${large}`,
      `/${repository}/snapshots/${COMMIT}/sub/part.json -> ../../../blobs/${part}`,
    ].sort(),
  );
  assertEquals(await Deno.readTextFile(`${folder.path}/${repository}/refs/main`), COMMIT);
});

Deno.test("cache: a snapshot that Python has downloaded is used", async () => {
  await using folder = await temporaryFolder();
  const root = `${folder.path}/${repository}`;
  const blob = await sha256(bytes);
  for (const path of ["blobs", "refs", `snapshots/${COMMIT}`]) {
    await Deno.mkdir(`${root}/${path}`, { recursive: true });
  }
  await Deno.writeFile(`${root}/blobs/${blob}`, bytes);
  await Deno.symlink(`../../blobs/${blob}`, `${root}/snapshots/${COMMIT}/${NAME}`);
  // Where links are not possible Python puts the file itself there.
  await Deno.writeFile(`${root}/snapshots/${COMMIT}/config.json`, config);
  await Deno.writeTextFile(`${root}/refs/main`, COMMIT);
  await using site = await serveModel(FILES);
  const options = { cache_dir: folder.path, endpoint: site.origin };
  assertEquals(await load("org/name", options), bytes);
  assertEquals(site.log(), ["HEAD config.json", "HEAD generation_config.json"]);
});

Deno.test("cache: what has not changed is not fetched again", async () => {
  await using folder = await temporaryFolder();
  let commit = COMMIT;
  await using site = await serveModel(FILES, { commit: () => commit });
  const options = { cache_dir: new URL(`file://${folder.path}`), endpoint: site.origin };
  const again = async (model: string) => {
    site.seen.length = 0;
    assertEquals(await load(model, options), bytes);
    return site.log();
  };
  await again("org/name");
  // One question tells that the commit is the same, and a commit does not change.
  assertEquals(await again("org/name"), ["HEAD config.json"]);
  // A new commit with the same bytes: asked about each, fetched none.
  commit = COMMIT.replace("0", "f");
  const asked = ["HEAD config.json", "HEAD generation_config.json", `HEAD ${NAME}`];
  assertEquals(await again("org/name"), asked);
  assertEquals(await Deno.readTextFile(`${folder.path}/${repository}/refs/main`), commit);
  await again(`${site.origin}/plain`);
  assertEquals(await again(`${site.origin}/plain/`), asked);
});

Deno.test("cache: what has changed is fetched again, and the rest is not", async () => {
  await using folder = await temporaryFolder();
  const serve = async (files: Files, commit: string) => await serveModel(files, { commit: () => commit });
  {
    await using site = await serve(FILES, COMMIT);
    await load("org/name", { cache_dir: folder.path, endpoint: site.origin });
  }
  const other = pattern(60_000, 5);
  await using site = await serve({ ...FILES, [NAME]: other }, COMMIT.replace("0", "f"));
  assertEquals(await load("org/name", { cache_dir: folder.path, endpoint: site.origin }), other);
  assertEquals(site.log().filter((line) => line.startsWith("GET")), [`GET ${NAME}`]);
  // The commit of before is still whole.
  const before = { cache_dir: folder.path, endpoint: site.origin, revision: COMMIT };
  assertEquals(await load("org/name", before), bytes);
});

Deno.test("cache: a commit that is cached needs no network at all", async () => {
  await using folder = await temporaryFolder();
  {
    await using site = await serveModel(FILES);
    await load("org/name", { cache_dir: folder.path, endpoint: site.origin });
  }
  const endpoint = await goneServer();
  const lines = await said(async () => {
    const options = { cache_dir: folder.path, endpoint, revision: COMMIT };
    assertEquals(await load("org/name", options), bytes);
  });
  assertEquals(lines.filter((line) => line.includes("come from")), []);
});

Deno.test("cache: files of one loading are of one commit, even while the branch moves on", async () => {
  await using folder = await temporaryFolder();
  let commit = COMMIT;
  await using site = await serveModel(FILES, {
    commit: () => commit,
    answer: (seen, usual) => {
      const wanted = seen.path.split("/")[4]!;
      const now = commit;
      if (/^[0-9a-f]{40}$/.test(wanted)) commit = wanted;
      const answer = usual();
      commit = now;
      return answer;
    },
  });
  const files = await open("org/name", { cache_dir: folder.path, endpoint: site.origin });
  await files.json("config.json");
  commit = COMMIT.replace("0", "f");
  (await files.source(NAME)).close();
  assertEquals(site.seen.at(-1)!.path, `/org/name/resolve/${COMMIT}/${NAME}`);
});

Deno.test("cache: without its server what is cached is used, and one line says so", async () => {
  await using folder = await temporaryFolder();
  let url = "";
  {
    await using site = await serveModel(FILES);
    url = `${site.origin}/plain`;
    await load("org/name", { cache_dir: folder.path, endpoint: site.origin });
    await load(url, { cache_dir: folder.path });
  }
  const endpoint = await goneServer();
  for (const model of ["org/name", url]) {
    const lines = await said(async () => {
      assertEquals(await load(model, { cache_dir: folder.path, endpoint }), bytes);
      const files = await open(model, { cache_dir: folder.path, endpoint });
      await files.json("config.json");
      const error = await assertRejects(() => files.json("sub/part.json"), ModelFileError);
      assertStringIncludes(error.message, "Cannot find sub/part.json");
      assertStringIncludes(error.message, "Cannot reach http://127.0.0.1");
    });
    const cached = lines.filter((line) => line.includes("come from the cache"));
    assertEquals(cached.length, 1);
    assertStringIncludes(cached[0]!, `files of ${model} come from the cache ${folder.path}`);
  }
  // A revision nobody has looked up is not known.
  await assertRejects(
    () => load("org/name", { cache_dir: folder.path, endpoint, revision: "v1" }),
    ModelFileError,
    "Cannot reach",
  );
});

Deno.test("cache: a server that goes away while a model is read is an error, not a model without a file", async () => {
  await using folder = await temporaryFolder();
  let gone = false;
  const site = await serveModel(FILES, {
    answer: (_, usual) => gone ? Promise.reject(new Error("gone")) : usual(),
  });
  try {
    const first = await open("org/name", { cache_dir: folder.path, endpoint: site.origin });
    await first.json("config.json");
    const files = await open("org/name", { cache_dir: folder.path, endpoint: site.origin });
    await files.json("config.json");
    await site[Symbol.asyncDispose]();
    gone = true;
    await assertRejects(() => files.has("generation_config.json"), ModelFileError, "Cannot reach");
    await assertRejects(() => files.source(NAME), ModelFileError, "Cannot reach");
  } finally {
    if (!gone) await site[Symbol.asyncDispose]();
  }
});

Deno.test("cache: a server that answers with an error is not overruled by the cache", async () => {
  await using folder = await temporaryFolder();
  let status = 0;
  await using site = await serveModel(FILES, {
    answer: (_, usual) => status === 0 ? usual() : new Response(null, { status }),
  });
  const options = { cache_dir: folder.path, endpoint: site.origin };
  await load("org/name", options);
  for (status of [401, 403, 404, 500]) {
    await assertRejects(() => load("org/name", options), ModelFileError, String(status));
  }
});

Deno.test("cache: local_files_only asks nobody and says what is missing", async () => {
  await using folder = await temporaryFolder();
  await using site = await serveModel(FILES);
  const options = { cache_dir: folder.path, endpoint: site.origin };
  for (const model of ["org/name", `${site.origin}/plain`]) {
    const local = { ...options, local_files_only: true };
    const missing = await assertRejects(() => load(model, local), ModelFileError);
    assertStringIncludes(missing.message, "Cannot find config.json");
    assertStringIncludes(missing.message, `in the cache ${folder.path}`);
    assertStringIncludes(missing.message, "local_files_only");
    assertEquals(site.seen.length, 0);
    await load(model, options);
    site.seen.length = 0;
    assertEquals(await load(model, local), bytes);
    assertEquals(site.seen.length, 0);
    await assertRejects(
      async () => (await open(model, local)).json("sub/part.json"),
      ModelFileError,
      "Cannot find sub/part.json",
    );
  }
});

Deno.test("cache: loads of the same model at once download each file once", async () => {
  for (const model of ["hub", "plain"]) {
    await using folder = await temporaryFolder();
    await using site = await serveModel(FILES);
    const options = { cache_dir: folder.path, endpoint: site.origin };
    const name = model === "hub" ? "org/name" : `${site.origin}/plain`;
    const all = await Promise.all(Array.from({ length: 5 }, () => load(name, options)));
    assertEquals(all, Array.from({ length: 5 }, () => bytes));
    assertEquals(site.log().filter((line) => line.startsWith("GET")).sort(), [
      "GET config.json",
      `GET ${NAME}`,
    ]);
  }
});

Deno.test("cache: who waits for another's download leaves at an abort, and takes over when that one fails", async () => {
  await using folder = await temporaryFolder();
  let hang = true;
  const started = Promise.withResolvers<void>();
  await using site = await serveModel(FILES, {
    answer(seen, usual) {
      if (!hang || seen.method !== "GET") return usual();
      started.resolve();
      return new Response(broken(bytes.slice(0, 20_000), "silent"), {
        headers: new Headers(usual().headers),
      });
    },
  });
  const read = async (signal: AbortSignal | undefined) => {
    const options = {
      cache_dir: folder.path,
      endpoint: site.origin,
      ...(signal === undefined ? {} : { signal }),
    };
    const files = await open("org/name", options);
    using source = await files.source(NAME, signal === undefined ? {} : { signal });
    const into = new Uint8Array(source.size);
    await source.read(0, into);
    return into;
  };
  const first = new AbortController(), second = new AbortController();
  const reason = new Error("enough");
  const downloading = assertRejects(() => read(first.signal));
  await started.promise;
  const waiting = assertRejects(() => read(second.signal));
  const patient = read(undefined);
  await new Promise((resolve) => setTimeout(resolve, 60));
  const at = performance.now();
  second.abort(reason);
  assertEquals(await waiting, reason);
  assert(performance.now() - at < 100, `left after ${performance.now() - at} ms`);
  hang = false;
  first.abort(reason);
  assertEquals(await downloading, reason);
  assertEquals(await patient, bytes);
  assertEquals(site.seen.at(-1)!.headers.get("range"), "bytes=20000-");
});

/** Runs a program with the modules of this checkout in a process of its own. */
async function elsewhere(
  code: string,
  flags: readonly string[],
): Promise<{ stdout: string; stderr: string }> {
  const open = new URL("../../src/hub/open.ts", import.meta.url).href;
  await using folder = await temporaryFolder();
  const file = `${folder.path}/program.ts`;
  await Deno.writeTextFile(file, `import { openFiles } from ${JSON.stringify(open)};\n${code}`);
  const config = new URL("../../deno.json", import.meta.url).pathname;
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--no-prompt", "--no-check", `--config=${config}`, "--no-lock", ...flags, file],
    env: { NO_COLOR: "1" },
  });
  const { stdout, stderr } = await command.output();
  return { stdout: new TextDecoder().decode(stdout).trim(), stderr: new TextDecoder().decode(stderr).trim() };
}

const program = (site: Site, folder: string | null) => `
const files = await openFiles("org/name", {
  cache_dir: ${JSON.stringify(folder)},
  endpoint: ${JSON.stringify(site.origin)},
});
try {
  using source = await files.source(${JSON.stringify(NAME)});
  console.log(source.size);
} catch (error) {
  console.log(error.name, error.message);
}
`;

Deno.test("cache: processes at once download a file once", async () => {
  await using folder = await temporaryFolder();
  const all = pattern(3_000_000);
  await using site = await serveModel({ [NAME]: all });
  const processes = Array.from({ length: 3 }, () => elsewhere(program(site, folder.path), ["-A"]));
  for (const { stdout, stderr } of await Promise.all(processes)) {
    assertEquals(stdout, "3000000", stderr);
  }
  assertEquals(site.log().filter((line) => line.startsWith("GET")), [`GET ${NAME}`]);
});

Deno.test("cache: a process that is killed leaves no lock, and its bytes are used", async () => {
  await using folder = await temporaryFolder();
  let hang = true;
  const partial = Promise.withResolvers<void>();
  await using site = await serveModel(FILES, {
    answer(seen, usual) {
      if (!hang || seen.method !== "GET") return usual();
      setTimeout(() => partial.resolve(), 300);
      return new Response(broken(bytes.slice(0, 20_000), "silent"), {
        headers: new Headers(usual().headers),
      });
    },
  });
  const open = new URL("../../src/hub/open.ts", import.meta.url).href;
  const code = program(site, folder.path);
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "eval",
      "--no-lock",
      "--no-check",
      `const { openFiles } = await import(${JSON.stringify(open)});${code}`,
    ],
    stdout: "null",
    stderr: "null",
  }).spawn();
  await partial.promise;
  child.kill("SIGKILL");
  await child.status;
  hang = false;
  const files = await openFiles("org/name", { cache_dir: folder.path, endpoint: site.origin });
  using source = await files.source(NAME);
  assertEquals(source.size, bytes.length);
  assertEquals(site.seen.at(-1)!.headers.get("range"), "bytes=20000-");
});

Deno.test("cache: a program with leave for its folders only keeps files there, without symbolic links", async () => {
  await using folder = await temporaryFolder();
  await using site = await serveModel(FILES);
  const flags = [
    `--allow-net=${new URL(site.origin).host}`,
    `--allow-read=${folder.path}`,
    `--allow-write=${folder.path}`,
  ];
  for (let i = 0; i < 2; i++) {
    const { stdout, stderr } = await elsewhere(program(site, folder.path), flags);
    assertEquals(stdout, String(bytes.length), stderr);
    assertStringIncludes(stderr, "cannot be seen without --allow-read=./org/name");
  }
  assertEquals(site.log(), [`HEAD ${NAME}`, `GET ${NAME}`, `HEAD ${NAME}`]);
  const links = (await tree(`${folder.path}/${repository}/snapshots`)).filter((path) => path.includes("->"));
  assertEquals(links, []);
  // A second name of the same bytes, not a copy.
  const { nlink } = await Deno.stat(`${folder.path}/${repository}/snapshots/${COMMIT}/${NAME}`);
  assertEquals(nlink, 2);
});

Deno.test("cache: what may not be written or found is explained", async () => {
  await using folder = await temporaryFolder();
  await using site = await serveModel(FILES);
  const net = `--allow-net=${new URL(site.origin).host}`;
  const rows: [string, string[], string][] = [
    ["no leave at all", [net], `grant --allow-read=${folder.path} --allow-write=${folder.path}`],
    ["leave to read only", [net, `--allow-read=${folder.path}`], `--allow-write=${folder.path}`],
    ["no network", [`--allow-read=${folder.path}`], "permission is missing, grant --allow-net=127.0.0.1:"],
  ];
  for (const [what, flags, says] of rows) {
    const { stdout } = await elsewhere(program(site, folder.path), flags);
    assertStringIncludes(stdout, "ModelFileError Cannot", what);
    assertStringIncludes(stdout, says, what);
  }
  const denied = await elsewhere(program(site, folder.path), [net]);
  assertStringIncludes(denied.stdout, "cache_dir: null");
  // In memory nothing is needed but the network.
  const memory = await elsewhere(program(site, null), [net]);
  assertEquals(memory.stdout, String(bytes.length));
  // Without leave to read the environment there is no home.
  const home = await elsewhere(
    `try { await openFiles("org/name"); } catch (error) { console.log(error.name, error.message); }`,
    [net],
  );
  assertStringIncludes(home.stdout, "ModelFileError Cannot find the folder for downloads");
  assertStringIncludes(home.stdout, "--allow-env=HF_HUB_CACHE,HF_HOME,XDG_CACHE_HOME,HOME");
});

Deno.test("cache: a complete cache serves a program that may only read it", async () => {
  await using folder = await temporaryFolder();
  await using site = await serveModel(FILES);
  await load("org/name", { cache_dir: folder.path, endpoint: site.origin });
  const flags = [`--allow-read=${folder.path}`];
  const online = await elsewhere(program(site, folder.path), [
    ...flags,
    `--allow-net=${new URL(site.origin).host}`,
  ]);
  assertEquals(online.stdout, String(bytes.length), online.stderr);
  // Nor does it need the network; that it is not asked is said.
  const offline = await elsewhere(program(site, folder.path), flags);
  assertEquals(offline.stdout, String(bytes.length), offline.stderr);
  assertStringIncludes(offline.stderr, "come from the cache");
});

Deno.test({
  name: "cache: a full disk is a typed error",
  ignore: Deno.build.os !== "linux",
  async fn() {
    await using folder = await temporaryFolder();
    await using site = await serveModel(FILES);
    const blobs = `${folder.path}/${repository}/blobs`;
    await Deno.mkdir(blobs, { recursive: true });
    // A device on which every write finds no space left.
    await Deno.symlink("/dev/full", `${blobs}/${await sha256(bytes)}.incomplete`);
    // In a process of its own: Deno lets only programs with every permission near devices.
    const { stdout } = await elsewhere(program(site, folder.path), ["-A"]);
    assertStringIncludes(stdout, "ModelFileError Cannot keep downloaded files");
    assertStringIncludes(stdout, "no space left");
    assertEquals((await tree(folder.path)).filter((path) => path.includes("snapshots")), []);
  },
});

Deno.test("cache: damage is repaired", async () => {
  await using folder = await temporaryFolder();
  await using site = await serveModel(FILES);
  const options = { cache_dir: folder.path, endpoint: site.origin };
  await load("org/name", options);
  const blob = `${folder.path}/${repository}/blobs/${await sha256(bytes)}`;
  const snapshot = `${folder.path}/${repository}/snapshots/${COMMIT}`;
  // A link to nothing.
  await Deno.remove(blob);
  assertEquals(await load("org/name", options), bytes);
  // A snapshot that has gone, its bytes not.
  await Deno.remove(snapshot, { recursive: true });
  site.seen.length = 0;
  assertEquals(await load("org/name", options), bytes);
  assertEquals(site.log().filter((line) => line.startsWith("GET")), []);
  // Bytes of another length than the server knows of.
  await Deno.remove(snapshot, { recursive: true });
  await Deno.truncate(blob, 10);
  assertEquals(await load("org/name", options), bytes);
});

Deno.test("cache: its default place is that of huggingface_hub", async () => {
  await using folder = await temporaryFolder();
  await using site = await serveModel(FILES);
  const rows: [Record<string, string>, string][] = [
    [{ HF_HUB_CACHE: `${folder.path}/a`, HF_HOME: `${folder.path}/no`, HOME: `${folder.path}/no` }, "a"],
    [
      { HF_HOME: `${folder.path}/b`, XDG_CACHE_HOME: `${folder.path}/no`, HOME: `${folder.path}/no` },
      "b/hub",
    ],
    [{ XDG_CACHE_HOME: `${folder.path}/c`, HOME: `${folder.path}/no` }, "c/huggingface/hub"],
    [{ HOME: `${folder.path}/d` }, "d/.cache/huggingface/hub"],
    [{ HF_HOME: "~/hf", HOME: `${folder.path}/e` }, "e/hf/hub"],
  ];
  const code = `
for (const name of ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME", "HF_ENDPOINT", "HF_TOKEN"]) Deno.env.delete(name);
for (const [name, value] of Object.entries(JSON.parse(Deno.args[0] ?? "{}"))) Deno.env.set(name, value);
`;
  for (const [variables, place] of rows) {
    const set = Object.entries({ ...variables, HF_ENDPOINT: site.origin })
      .map(([name, value]) => `Deno.env.set(${JSON.stringify(name)}, ${JSON.stringify(value)});`).join("\n");
    const { stdout, stderr } = await elsewhere(
      `${code}${set}\nconst files = await openFiles("org/name");\nconsole.log(await files.json("config.json"));`,
      ["-A"],
    );
    assertStringIncludes(stdout, "llama", stderr);
    assertEquals(await Deno.readTextFile(`${folder.path}/${place}/${repository}/refs/main`), COMMIT);
  }
  // Offline by the environment, as Python.
  site.seen.length = 0;
  for (const offline of ["1", "True"]) {
    const { stdout } = await elsewhere(
      `Deno.env.set("HF_HUB_OFFLINE", "${offline}");
      const files = await openFiles("org/name", { cache_dir: ${JSON.stringify(`${folder.path}/a`)} });
      console.log(await files.json("config.json"), await files.has("absent.json"));`,
      ["-A"],
    );
    assertStringIncludes(stdout, "llama");
  }
  assertEquals(site.seen.length, 0);
});
