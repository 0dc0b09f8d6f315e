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
  answer?: (seen: Seen, usual: (asked?: Seen) => Response) => Response | Promise<Response>;
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
  return listen(async (seen) =>
    await (behaviour.answer?.(seen, (asked = seen) => usual(asked)) ?? usual(seen))
  );
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
  const valid = asked.get("if-range") === null || asked.get("if-range") === etag;
  const range = valid ? rangeOf(asked, bytes.length) : null;
  const { start, end } = range ?? { start: 0, end: bytes.length };
  if (range !== null && start >= bytes.length) {
    return new Response(null, { status: 416, headers: { "content-range": `bytes */${bytes.length}` } });
  }
  if (range !== null) headers.set("content-range", `bytes ${start}-${end - 1}/${bytes.length}`);
  headers.set("content-length", String(end - start));
  return new Response(method === "HEAD" ? null : bytes.slice(start, end), {
    status: range !== null ? 206 : 200,
    headers,
  });
}

/** The part of a file of `size` bytes that a request asks for; null for all of it. */
export function rangeOf(asked: Headers, size: number): { start: number; end: number } | null {
  const range = /^bytes=(\d+)-(\d*)$/.exec(asked.get("range") ?? "");
  if (range === null) return null;
  return { start: Number(range[1]), end: Math.min(size, range[2] === "" ? size : Number(range[2]) + 1) };
}

/** A safetensors file of one block of numbers, of which only the header exists. */
export interface Huge {
  readonly header: Uint8Array<ArrayBuffer>;
  readonly size: number;
}

/** The header for tensors of BF16 by name, with `notes` bytes of text in it, and as much data as it says. */
export function hugeFile(shapes: Readonly<Record<string, readonly number[]>>, notes = 0): Huge {
  let at = 0;
  const tensors = Object.entries(shapes).map(([name, shape]) => {
    const bytes = 2 * shape.reduce((a, b) => a * b, 1);
    return [name, { dtype: "BF16", shape, data_offsets: [at, at += bytes] }];
  });
  const __metadata__ = { notes: "x".repeat(notes) };
  const json = text(JSON.stringify({ __metadata__, ...Object.fromEntries(tensors) }));
  const header = new Uint8Array(8 + json.length);
  new DataView(header.buffer).setBigUint64(0, BigInt(json.length), true);
  header.set(json, 8);
  return { header, size: header.length + at };
}

/** Serves files larger than any memory beside others; `served` counts the bytes of them that went out. */
export async function serveHuge(
  huge: Readonly<Record<string, Huge>>,
  files: Files,
  behaviour: Behaviour & { ranges?: boolean } = {},
): Promise<Site & { readonly served: { bytes: number } }> {
  const served = { bytes: 0 };
  const heads = Object.fromEntries(Object.entries(huge).map(([name, { header }]) => [name, header]));
  const whole = (seen: Seen, usual: () => Response): Response => {
    const file = huge[seen.file];
    const described = usual();
    if (file === undefined || described.status >= 300) {
      if (file !== undefined) described.headers.set("x-linked-size", String(file.size));
      return described;
    }
    const { header, size } = file;
    const { headers } = described;
    headers.delete("content-range");
    if (headers.has("x-linked-size")) headers.set("x-linked-size", String(size));
    const range = behaviour.ranges === false ? null : rangeOf(seen.headers, size);
    const { start, end } = range ?? { start: 0, end: size };
    if (range !== null) headers.set("content-range", `bytes ${start}-${end - 1}/${size}`);
    headers.set("content-length", String(end - start));
    if (seen.method === "HEAD") return new Response(null, { headers });
    let at = start;
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        if (at >= end) return controller.close();
        const piece = new Uint8Array(Math.min(2 ** 16, end - at));
        piece.set(header.subarray(at, at + piece.length));
        controller.enqueue(piece);
        at += piece.length;
        served.bytes += piece.length;
      },
    });
    return new Response(body, { status: range === null ? 200 : 206, headers });
  };
  const { answer } = behaviour;
  const site = await serveModel({ ...files, ...heads }, {
    ...behaviour,
    answer: (seen, usual) => {
      // Without the range, which the small file that stands for the large one may not have.
      const all = { ...seen, headers: new Headers() };
      const good = () => whole(seen, () => usual(all));
      return answer?.(seen, good) ?? good();
    },
  });
  return Object.assign(site, { served });
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
