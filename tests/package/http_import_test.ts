/**
 * The release works where no checkout is: its files come from a web server, the program runs in another folder, and
 * it may read the model and nothing else.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { deno, type Ended, pathOf, publishedFiles, temporaryFolder } from "./publishing.ts";

const MODEL = pathOf("tests/models/demo");
const TYPES: Readonly<Record<string, string>> = {
  ts: "application/typescript",
  js: "text/javascript",
  json: "application/json",
  md: "text/markdown",
  wasm: "application/wasm",
};

const program = (origin: string) => `
import { AutoModelForCausalLM, AutoTokenizer, liveBuffers } from "${origin}/mod.ts";
const folder = ${JSON.stringify(MODEL)};
const tokenizer = await AutoTokenizer.from_pretrained(folder);
{
  await using model = await AutoModelForCausalLM.from_pretrained(folder);
  const { input_ids, attention_mask } = tokenizer("In the beginning");
  using prompt = input_ids;
  using padding = attention_mask;
  using tokens = await model.generate({ input_ids: prompt, attention_mask: padding, max_new_tokens: 4 });
  console.log("new tokens:", tokens.shape[1]! - prompt.shape[1]!);
}
console.log("buffers left:", liveBuffers());
`;

/** Serves the release and one program, whose text may name the server. */
function serve(
  files: ReadonlyMap<string, Uint8Array<ArrayBuffer>>,
): { origin: string; host: string } & AsyncDisposable {
  let origin = "";
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request) => {
    const path = new URL(request.url).pathname.slice(1);
    if (path === "program/main.ts") {
      return new Response(program(origin), { headers: { "content-type": TYPES["ts"]! } });
    }
    const body = files.get(path);
    if (body === undefined) return new Response("not in the release", { status: 404 });
    const type = TYPES[path.slice(path.lastIndexOf(".") + 1)] ?? "text/plain";
    return new Response(body, { headers: { "content-type": type } });
  });
  const host = `127.0.0.1:${server.addr.port}`;
  origin = `http://${host}`;
  return { origin, host, [Symbol.asyncDispose]: () => server.shutdown() };
}

const files = new Map<string, Uint8Array<ArrayBuffer>>();
for (const { path } of await publishedFiles()) files.set(path, await Deno.readFile(pathOf(path)));

/** Starts a program in an empty folder, with the flags a user would give. */
async function start(
  build: (site: { origin: string; host: string }, folder: string) => Promise<string[]> | string[],
): Promise<Ended> {
  await using site = serve(files);
  await using folder = await temporaryFolder();
  const args = await build(site, folder.path);
  return await deno([
    "run",
    "--quiet",
    "--no-config",
    "--no-lock",
    `--reload=${site.origin}`,
    "--no-prompt",
    ...args,
  ], {
    cwd: folder.path,
  });
}

const expected = { code: 0, stdout: "new tokens: 4\nbuffers left: 0\n" };
const seen = ({ code, stdout, stderr }: Ended) => code === 0 ? { code, stdout } : { code, stdout, stderr };

Deno.test("release over http: a program from the same host reads the model and nothing else", async () => {
  const ended = await start(({ origin, host }) => [
    `--allow-net=${host}`,
    `--allow-read=${MODEL}`,
    `${origin}/program/main.ts`,
  ]);
  assertEquals(seen(ended), expected);
});

Deno.test("release over http: a local program that may import from the host", async () => {
  const ended = await start(async ({ origin, host }, folder) => {
    await Deno.writeTextFile(`${folder}/main.ts`, program(origin));
    return [`--allow-import=${host}`, `--allow-read=${MODEL}`, "main.ts"];
  });
  assertEquals(seen(ended), expected);
});

Deno.test("release over http: without leave to read the model the error says so", async () => {
  const ended = await start(({ origin, host }) => [`--allow-net=${host}`, `${origin}/program/main.ts`]);
  assertEquals(ended.code, 1);
  assertEquals(ended.stderr.includes("--allow-read"), true, ended.stderr);
});
