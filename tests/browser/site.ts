/**
 * The library as a site serves it: bundled, minified, under a strict policy, with a model beside it.
 *
 * @module
 */
import { run } from "../../scripts/process.ts";

const ROOT = new URL("../../", import.meta.url);

/** Code and data of this site only, WebAssembly but no evaluated text, workers from blobs for threads. */
export const POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; " +
  "worker-src 'self' blob:";

const TYPES: Readonly<Record<string, string>> = {
  html: "text/html; charset=utf-8",
  js: "text/javascript",
  json: "application/json",
};

/** A folder with the bundles of entry points, removed when disposed. */
export interface Bundles extends AsyncDisposable {
  readonly path: string;
}

/** Bundles modules as a user would; what they share becomes a file of its own. Minified unless told otherwise. */
export async function bundle(
  entries: readonly string[],
  { minified = true }: { minified?: boolean } = {},
): Promise<Bundles> {
  const path = await Deno.makeTempDir({ prefix: "attune-bundle-" });
  const options = ["--quiet", "--no-lock", "--platform", "browser", "--code-splitting"];
  if (minified) options.push("--minify");
  const names = entries.map((entry) => new URL(entry, ROOT).pathname);
  const { code } = await run([Deno.execPath(), "bundle", ...options, "--outdir", path, ...names]);
  if (code !== 0) throw new Error(`deno bundle ${entries.join(" ")} failed`);
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

/** A running server. */
export interface Site extends AsyncDisposable {
  readonly origin: string;
  /** Paths that were asked for, with the method; may be emptied. */
  readonly seen: string[];
}

/**
 * Serves `pages` by path, bundles below `/attune/` and the demo model below `/model/`. With `isolated` pages may share
 * memory with workers.
 */
export function serve(
  bundles: Bundles,
  options: { isolated?: boolean; pages?: Readonly<Record<string, string>> } = {},
): Site {
  const { isolated = true, pages = {} } = options;
  const seen: string[] = [];
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    const path = new URL(request.url).pathname;
    seen.push(`${request.method} ${path}`);
    const headers = new Headers({
      "content-type": TYPES[path.slice(path.lastIndexOf(".") + 1)] ?? "application/octet-stream",
      "content-security-policy": POLICY,
    });
    if (isolated) {
      headers.set("cross-origin-opener-policy", "same-origin");
      headers.set("cross-origin-embedder-policy", "require-corp");
    }
    const page = pages[path];
    if (page !== undefined) return new Response(page, { headers });
    const [, folder, name = ""] = /^\/(attune|model)\/((?:[\w-]+[./])*\w+)$/.exec(path) ?? [];
    const place = folder === "attune"
      ? `${bundles.path}/${name}`
      : new URL(`tests/models/demo/${name}`, ROOT);
    const body = folder === undefined ? null : await Deno.readFile(place).catch(() => null);
    if (body === null) return new Response("not here", { status: 404 });
    headers.set("etag", `"${name}-${body.length}"`);
    headers.set("content-length", String(body.length));
    return new Response(request.method === "HEAD" ? null : body, { headers });
  });
  return {
    origin: `http://127.0.0.1:${server.addr.port}`,
    seen,
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}
