/**
 * Servers of model files for the tests of loading: a hub and a plain folder, well-behaved unless told otherwise.
 *
 * @module
 */

/** The commit a served hub is at. */
export const COMMIT = "0123456789abcdef0123456789abcdef01234567";

/** For tests nobody waits. */
export const HURRY = { tries: 3, tries_to_reach: 3, backoff_ms: 1, stall_ms: 5000, retry_after_ms: 100 };

/** A request as the server saw it. */
export interface Seen {
  readonly method: string;
  readonly path: string;
  /** File of the model it is for. */
  readonly file: string;
  readonly url: URL;
  readonly headers: Headers;
}

/** A running server. */
export interface Site extends AsyncDisposable {
  readonly origin: string;
  /** All requests, in order; may be emptied. */
  readonly seen: Seen[];
  /** What was fetched, e.g. `GET config.json`. */
  log(): string[];
}

/** Bytes by name. */
export type Files = Readonly<Record<string, Uint8Array<ArrayBuffer>>>;

/** How a server differs from a good one. */
export interface Behaviour {
  /** Answers instead of the server, or lets it answer by `usual`. */
  answer?: (seen: Seen, usual: () => Response) => Response | Promise<Response>;
  /** Large files of the hub come from here, as at the real one. */
  cdn?: () => string;
  /** Replaces the commit. */
  commit?: () => string;
}

export function hex(bytes: ArrayBuffer): string {
  return [...new Uint8Array(bytes)].map((x) => x.toString(16).padStart(2, "0")).join("");
}

export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return hex(await crypto.subtle.digest("SHA-256", bytes));
}

/** Serves `files` as the hub's repository `org/name` and as the plain folder `/plain/`. */
export async function serveModel(files: Files, behaviour: Behaviour = {}): Promise<Site> {
  const hashes = new Map<string, { sha1: string; sha256: string }>();
  for (const [name, bytes] of Object.entries(files)) {
    hashes.set(name, { sha1: hex(await crypto.subtle.digest("SHA-1", bytes)), sha256: await sha256(bytes) });
  }
  const usual = ({ method, path, file, headers: asked, url }: Seen): Response => {
    const hub = path.startsWith("/org/name/resolve/");
    const commit = behaviour.commit?.() ?? COMMIT;
    const headers = new Headers(hub ? { "x-repo-commit": commit } : {});
    if (!hub && !path.startsWith("/plain/") && !path.startsWith("/cdn/")) {
      return new Response("no such repository", { status: 404, headers: { "x-error-code": "RepoNotFound" } });
    }
    if (hub && !["main", "v1", commit].includes(decodeURIComponent(path.split("/")[4]!))) {
      return new Response("no such revision", {
        status: 404,
        headers: { "x-error-code": "RevisionNotFound" },
      });
    }
    const bytes = files[file];
    if (bytes === undefined) {
      if (hub) headers.set("x-error-code", "EntryNotFound");
      return new Response("not found", { status: 404, headers });
    }
    const { sha1, sha256 } = hashes.get(file)!;
    const large = hub && file.endsWith(".safetensors");
    if (large) {
      headers.set("x-linked-etag", `"${sha256}"`);
      headers.set("x-linked-size", String(bytes.length));
      if (behaviour.cdn !== undefined) {
        headers.set("location", `${behaviour.cdn()}/cdn/${file}?signature=SECRET`);
        return new Response("elsewhere", { status: 302, headers });
      }
    }
    const etag = url.pathname.startsWith("/cdn/") ? `"multipart-${bytes.length}"` : `"${sha1}"`;
    return send(bytes, method, asked, headers, etag);
  };
  return listen(async (seen) => await (behaviour.answer?.(seen, () => usual(seen)) ?? usual(seen)));
}

/** Bytes with ranges, as a good server sends them. */
export function send(
  bytes: Uint8Array<ArrayBuffer>,
  method: string,
  asked: Headers,
  headers: Headers = new Headers(),
  etag = '"etag"',
): Response {
  headers.set("etag", etag);
  headers.set("accept-ranges", "bytes");
  const range = /^bytes=(\d+)-$/.exec(asked.get("range") ?? "");
  const valid = asked.get("if-range") === null || asked.get("if-range") === etag;
  const start = range !== null && valid ? Number(range[1]) : 0;
  if (start > 0 && start >= bytes.length) {
    return new Response(null, { status: 416, headers: { "content-range": `bytes */${bytes.length}` } });
  }
  if (start > 0) headers.set("content-range", `bytes ${start}-${bytes.length - 1}/${bytes.length}`);
  headers.set("content-length", String(bytes.length - start));
  return new Response(method === "HEAD" ? null : bytes.slice(start), {
    status: start > 0 ? 206 : 200,
    headers,
  });
}

/** A body that stops after `bytes`, silently or with a cut connection. */
export function broken(bytes: Uint8Array<ArrayBuffer>, how: "cut" | "silent"): ReadableStream<Uint8Array> {
  let sent = false;
  return new ReadableStream({
    async pull(controller) {
      if (!sent && bytes.length > 0) controller.enqueue(bytes);
      else if (how === "cut") controller.error(new Error("cut"));
      else await new Promise(() => {});
      sent = true;
    },
  });
}

/** A server on this machine that notes what it is asked. */
export function listen(handle: (seen: Seen) => Response | Promise<Response>): Site {
  const seen: Seen[] = [];
  const stop = new AbortController();
  const server = Deno.serve(
    {
      hostname: "127.0.0.1",
      port: 0,
      signal: stop.signal,
      onListen() {},
      onError: () => new Response(null, { status: 500 }),
    },
    async (request) => {
      const url = new URL(request.url);
      const file = /^\/(?:org\/name\/resolve\/[^/]+|plain|cdn)\/(.*)$/.exec(url.pathname)?.[1] ?? "";
      const entry = { method: request.method, path: url.pathname, file, url, headers: request.headers };
      seen.push(entry);
      return await handle(entry);
    },
  );
  return {
    origin: `http://127.0.0.1:${server.addr.port}`,
    seen,
    log: () => seen.map(({ method, file }) => `${method} ${file}`),
    async [Symbol.asyncDispose]() {
      // Some of its bodies never end, so it is not waited for.
      stop.abort();
      await server.finished;
    },
  };
}

/** A server that speaks raw TCP: `answer` is given the head of a request and writes what it likes, then closes. */
export function listenRaw(
  answer: (head: string, connection: Deno.TcpConn) => Promise<void>,
): { origin: string; heads: string[] } & AsyncDisposable {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const heads: string[] = [];
  const open = new Set<Deno.TcpConn>();
  const serving: Promise<void>[] = [];
  const serve = async (connection: Deno.TcpConn) => {
    open.add(connection);
    const buffer = new Uint8Array(4096);
    let head = "";
    try {
      while (!head.includes("\r\n\r\n")) {
        const n = await connection.read(buffer);
        if (n === null) return;
        head += new TextDecoder().decode(buffer.subarray(0, n));
      }
      heads.push(head);
      await answer(head, connection);
    } catch {
      // The client has gone.
    } finally {
      open.delete(connection);
      try {
        connection.close();
      } catch {
        // Closed already.
      }
    }
  };
  const accepting = (async () => {
    for await (const connection of listener) serving.push(serve(connection));
  })();
  return {
    origin: `http://127.0.0.1:${listener.addr.port}`,
    heads,
    async [Symbol.asyncDispose]() {
      listener.close();
      for (const connection of open) connection.close();
      await Promise.all([accepting, ...serving]);
    },
  };
}

/** A folder that goes when the test ends. */
export async function temporaryFolder(): Promise<{ path: string } & AsyncDisposable> {
  const path = await Deno.makeTempDir({ prefix: "attune-hub-" });
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

/** Bytes of any length that differ from place to place. */
export function pattern(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  let x = seed;
  for (let i = 0; i < length; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) | 0;
    bytes[i] = x >>> 24;
  }
  return bytes;
}

export const text = (value: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(value);
