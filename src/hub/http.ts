/**
 * Requests to servers that may lie, stall, or send one elsewhere.
 *
 * Redirects are followed here, one by one: a token goes to the origin it was given for and never further, and a
 * redirect cannot leave HTTPS or lead to something that is not HTTP. Messages show URLs without their query, which may
 * hold a signature.
 *
 * @module
 */
import { ModelFileError } from "../errors.ts";

/** How long and how often the network is tried. */
export interface Patience {
  /** Tries without a byte in between. */
  readonly tries: number;
  /** The same while no answer comes at all. */
  readonly tries_to_reach: number;
  /** Wait before the second try; it doubles with each. */
  readonly backoff_ms: number;
  /** Longest silence of a server, before its headers and within its body. */
  readonly stall_ms: number;
  /** Longest wait a server may ask for by Retry-After. */
  readonly retry_after_ms: number;
}

/** What users get; tests are in more of a hurry. */
export const PATIENCE: Patience = {
  tries: 5,
  tries_to_reach: 5,
  backoff_ms: 500,
  stall_ms: 30_000,
  retry_after_ms: 60_000,
};

/** Who asks, and how patiently. */
export interface Access {
  /** Sent to the origin it belongs to. */
  readonly credentials: { readonly origin: string; readonly token: string } | null;
  readonly patience: Patience;
  readonly signal: AbortSignal | undefined;
}

const MAX_REDIRECTS = 10;

/** A server could not be reached, went silent, or answered with an error status. */
export class NetworkError extends ModelFileError {
  /** The status, or null where no answer came. */
  readonly status: number | null;
  /** Whether another try may help. */
  readonly transient: boolean;
  /** The wait the server asked for, in milliseconds. */
  readonly retry_after: number | null;

  constructor(
    message: string,
    { status = null, transient = true, retry_after = null }: {
      status?: number | null;
      transient?: boolean;
      retry_after?: number | null;
    } = {},
  ) {
    super(message);
    this.status = status;
    this.transient = transient;
    this.retry_after = retry_after;
  }
}

/** A URL as messages show it: neither its query, which may be a signature, nor credentials. */
export function showUrl(url: URL): string {
  const text = url.origin + url.pathname;
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}

/** The last response of a chain of redirects. */
export interface Reply {
  readonly response: Response;
  /** Where it came from. */
  readonly url: URL;
  /** Headers of the redirects on the way. */
  readonly hops: readonly Headers[];
  /** The body in chunks as they come. */
  chunks(): AsyncGenerator<Uint8Array<ArrayBuffer>, void>;
  /** Gives the connection back. */
  cancel(): Promise<void>;
}

/** What {@linkcode request} sends. */
export interface Request {
  readonly method: "GET" | "HEAD";
  readonly headers?: Readonly<Record<string, string>>;
  /** Whether a redirect to another origin, with these headers, is answer enough. */
  readonly enough?: (headers: Headers) => boolean;
}

/**
 * One request and the redirects it meets.
 *
 * @throws {NetworkError} when no answer comes. An error status is an answer.
 */
export async function request(from: URL, asked: Request, access: Access): Promise<Reply> {
  const hops: Headers[] = [];
  const { credentials } = access;
  // Once another origin was met the token is not sent again, even if the chain leads back.
  let trusted = true;
  for (let url = from;;) {
    trusted &&= url.origin === from.origin;
    const headers = new Headers(asked.headers);
    if (trusted && credentials?.origin === url.origin) {
      headers.set("authorization", `Bearer ${credentials.token}`);
    }
    const reply = await send(url, { method: asked.method, headers, redirect: "manual" }, hops, access);
    if (reply.response.type === "opaqueredirect") {
      // A browser hides where a redirect leads: it follows by itself, without the token.
      return await send(url, { method: asked.method, headers: { ...asked.headers } }, hops, access);
    }
    const location = reply.response.headers.get("location");
    if (![301, 302, 303, 307, 308].includes(reply.response.status) || location === null) return reply;
    const next = target(url, location);
    if (next.origin !== url.origin && asked.enough?.(reply.response.headers) === true) return reply;
    await reply.cancel();
    if (hops.push(reply.response.headers) > MAX_REDIRECTS) {
      throw new NetworkError(`Cannot fetch ${showUrl(from)}: more than ${MAX_REDIRECTS} redirects`, {
        status: reply.response.status,
        transient: false,
      });
    }
    url = next;
  }
}

/** Where a redirect leads, if one may go there. */
function target(from: URL, location: string): URL {
  const refuse = (why: string) =>
    new NetworkError(`Cannot follow the redirect of ${showUrl(from)}: ${why}`, {
      status: 302,
      transient: false,
    });
  if (!URL.canParse(location, from)) throw refuse("it leads to something that is not a URL");
  const next = new URL(location, from);
  if (next.protocol !== "https:" && next.protocol !== "http:") {
    throw refuse(`expected an http or https URL, it leads to ${next.protocol}`);
  }
  if (from.protocol === "https:" && next.protocol === "http:") {
    throw refuse(`it leaves https for ${showUrl(next)}`);
  }
  if (next.username !== "" || next.password !== "") throw refuse("it leads to a URL with credentials in it");
  return next;
}

async function send(url: URL, init: RequestInit, hops: readonly Headers[], access: Access): Promise<Reply> {
  const { signal, patience: { stall_ms } } = access;
  signal?.throwIfAborted();
  const stop = new AbortController();
  const silent = () => stop.abort(new NetworkError(`${showUrl(url)} was silent for ${stall_ms} ms`));
  const both = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]);
  /** Waits for the server, but not for ever. */
  const patiently = async <T>(work: () => Promise<T>, doing: string): Promise<T> => {
    const timer = setTimeout(silent, stall_ms);
    try {
      return await work();
    } catch (error) {
      signal?.throwIfAborted();
      if (stop.signal.aborted) {
        throw new NetworkError(`Cannot ${doing} ${showUrl(url)}: the server was silent for ${stall_ms} ms`);
      }
      throw failure(error, doing, url);
    } finally {
      clearTimeout(timer);
    }
  };
  const response = await patiently(() => fetch(url, { ...init, signal: both }), "reach");
  const cancel = async () => {
    // An error of a body nobody reads is nobody's error.
    await response.body?.cancel().catch(() => {});
  };
  const chunks = async function* () {
    if (response.body === null) return;
    const reader = response.body.getReader();
    try {
      for (;;) {
        const { done, value } = await patiently(() => reader.read(), "read");
        if (done) return;
        yield value;
      }
    } finally {
      await reader.cancel().catch(() => {});
    }
  };
  return { response, url, hops, chunks, cancel };
}

/** An error of `fetch`, without the URL it quotes, query and all. */
function failure(error: unknown, doing: string, url: URL): NetworkError {
  const said = error instanceof Error ? error : new Error(String(error));
  const what = said.cause instanceof Error ? said.cause.message : said.message;
  if (said.name === "NotCapable") {
    const port = url.port === "" ? "" : `:${url.port}`;
    return new NetworkError(
      `Cannot ${doing} ${showUrl(url)}: permission is missing, grant --allow-net=${url.hostname}${port}`,
      { transient: false },
    );
  }
  const why = what.replaceAll(/\s*(?:for url )?\(?\bhttps?:\/\/[^\s)]*\)?/g, "").slice(0, 300);
  return new NetworkError(`Cannot ${doing} ${showUrl(url)}: ${why}`);
}

/** A signal that aborts when the first of two does. */
export function eitherSignal(
  a: AbortSignal | undefined,
  b: AbortSignal | undefined,
): AbortSignal | undefined {
  return a === undefined || b === undefined || a === b ? a ?? b : AbortSignal.any([a, b]);
}

/** Statuses that may be gone a moment later. */
export function isTransient(status: number): boolean {
  return [408, 425, 429, 500, 502, 503, 504].includes(status);
}

/** What Retry-After asks for, in milliseconds: seconds, or a date. */
export function retryAfter(headers: Headers, now: number = Date.now()): number | null {
  const value = headers.get("retry-after");
  if (value === null) return null;
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - now;
  return Number.isFinite(ms) ? Math.max(0, ms) : null;
}

/**
 * Tries until it works, with growing pauses, while errors are transient.
 *
 * @param advanced tells whether the last try achieved something, after which the count starts again
 */
export async function persist<T>(
  { patience, signal }: Access,
  attempt: () => Promise<T>,
  advanced: () => boolean = () => false,
): Promise<T> {
  for (let tries = 1;; tries++) {
    try {
      return await attempt();
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof NetworkError) || !error.transient) throw error;
      if (advanced()) tries = 1;
      if (tries >= (error.status === null ? patience.tries_to_reach : patience.tries)) {
        throw new NetworkError(`${error.message} (tried ${tries} times)`, {
          status: error.status,
          transient: false,
        });
      }
      const wait = patience.backoff_ms * 2 ** (tries - 1) * (0.75 + Math.random() / 2);
      await pause(Math.max(wait, Math.min(error.retry_after ?? 0, patience.retry_after_ms)), signal);
    }
  }
}

/** Waits, unless aborted. */
export function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) return reject(signal.reason);
    const stop = () => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
