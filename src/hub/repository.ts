/**
 * A model on a server: what is asked about its files, and what answers mean.
 *
 * A hub's repository and a folder behind a URL are the two kinds.
 *
 * @module
 */
import { type Access, isTransient, NetworkError, persist, type Reply, request, retryAfter } from "./http.ts";

/** A file as its server describes it before it is fetched. */
export interface RemoteFile {
  readonly name: string;
  /** Where to fetch these very bytes. */
  readonly url: URL;
  /** The version of the model it belongs to: a commit, or one of its own. */
  readonly version: string;
  /** What tells its bytes from others in the same folder of a store. */
  readonly blob: string;
  /** Whether the server gives nothing to tell versions of the file by. */
  readonly unversioned: boolean;
  /** Length, or null when the server does not say. */
  readonly size: number | null;
  /** SHA-256 of the bytes in hexadecimal, where the server knows it. */
  readonly sha256: string | null;
  /** What the bytes will carry too, by {@linkcode tagOf}, or null where they come from elsewhere. */
  readonly tag: string | null;
  /** What If-Range takes: a strong ETag or a date. */
  readonly validator: string | null;
}

/** One model on a server. */
export interface Repository {
  /** What messages call it. */
  readonly name: string;
  /** Where messages say it is. */
  readonly where: string;
  /** Its folder in a store. */
  readonly folder: string;
  /** The version that was asked for, where that is one that cannot change. */
  readonly pinned: string | null;
  /** Whether all files have one version. */
  readonly versioned: boolean;
  /** Under what the store notes the version that was last seen of a file. */
  ref(name: string): string;
  /** Where a file is, in a version if one is given. */
  url(name: string, version: string | null): URL;
  /** Reads the answer for a file. */
  describe(name: string, reply: Reply): Promise<RemoteFile>;
  /** The error for an answer that is none. `served` tells whether others of its files were served. */
  refuse(name: string, reply: Reply, served: boolean): NetworkError;
}

/** The server has the model, as far as it tells, and not that file. */
export class FileAbsent extends NetworkError {
  constructor(message: string, status: number, readonly version: string | null) {
    super(message, { status, transient: false });
  }
}

/** Header of the answer, or of the first redirect that has it. */
export function header({ hops, response }: Reply, name: string): string | null {
  for (const headers of [...hops, response.headers]) {
    const value = headers.get(name);
    if (value !== null) return value;
  }
  return null;
}

/** An ETag without its quotes and weakness. */
export function opaque(etag: string | null): string | null {
  const text = etag?.replace(/^W\//, "").replace(/^"(.*)"$/, "$1") ?? "";
  return text === "" ? null : text;
}

/** What tells versions of a file from each other: its ETag, else its date. */
export function tagOf(headers: Headers): string | null {
  return opaque(headers.get("etag")) ?? headers.get("last-modified");
}

/** A header that is a length, if it is one. */
export function length(text: string | null): number | null {
  return text !== null && /^\d{1,15}$/.test(text) ? Number(text) : null;
}

/** The part of a file that an answer says it is: where it begins, and how long the file is where that is said. */
export function contentRange(headers: Headers): { start: number; total: number | null } | null {
  const range = /^bytes (\d{1,15})-\d{1,15}\/(\d{1,15}|\*)$/.exec(headers.get("content-range") ?? "");
  return range === null ? null : { start: Number(range[1]), total: length(range[2]!) };
}

/** What any server says of a file. */
export function described({ response }: Reply) {
  const { headers } = response;
  const etag = headers.get("etag");
  const encoded = headers.has("content-encoding");
  // Of an encoded body the length and the ranges are those of the code. A redirect has a length of its own.
  const said = encoded || !response.ok ? null : length(headers.get("content-length"));
  // Some servers give every HEAD the length 0. An empty file is found to be empty when it is fetched.
  const size = said === 0 ? null : said;
  const strong = etag !== null && !etag.startsWith("W/") ? etag : null;
  const validator = encoded ? null : strong ?? headers.get("last-modified");
  return { tag: tagOf(headers), size, validator };
}

/** The error for a status that says nothing about the file. */
export function statusError(message: string, { response: { status, headers } }: Reply): NetworkError {
  return new NetworkError(message, {
    status,
    transient: isTransient(status),
    retry_after: retryAfter(headers),
  });
}

/**
 * Asks a server about a file without fetching it.
 *
 * @throws {NetworkError} when it cannot be reached or does not have it
 */
export async function probe(
  repository: Repository,
  name: string,
  version: string | null,
  served: boolean,
  access: Access,
): Promise<RemoteFile> {
  const url = repository.url(name, version);
  // Asked for as it is: of a compressed answer the length would be another.
  const headers = { "accept-encoding": "identity" };
  const enough = (headers: Headers) => headers.has("x-linked-etag");
  return await persist(access, async () => {
    let reply = await request(url, { method: "HEAD", headers, enough }, access);
    await reply.cancel();
    if (reply.response.status === 405 || reply.response.status === 501) {
      reply = await request(url, { method: "GET", headers, enough }, access);
      await reply.cancel();
    }
    const { status, ok } = reply.response;
    if (ok || (status >= 300 && status < 400)) return await repository.describe(name, reply);
    throw repository.refuse(name, reply, served);
  });
}
