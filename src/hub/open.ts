/**
 * From what a user calls a model to its files: a local folder, a URL, or a hub's id.
 *
 * @module
 */
import { InvalidArgument, ModelFileError } from "../errors.ts";
import { warnOnce } from "../notice.ts";
import { DiskStore } from "./disk_store.ts";
import { type ModelFiles, openFolder } from "./files.ts";
import { HubRepository, isHubId } from "./hub_repository.ts";
import { PATIENCE, type Patience, showUrl } from "./http.ts";
import { MemoryStore } from "./memory_store.ts";
import { DownloadMeter, type LoadProgress } from "./progress.ts";
import { RemoteFiles } from "./remote.ts";
import type { Repository } from "./repository.ts";
import { hasFileSystem, type ReadOptions } from "./source.ts";
import type { BlobStore } from "./store.ts";
import { UrlFolder } from "./url_folder.ts";

/** Where model files come from, for all loaders. Local folders need none of it. */
export interface HubOptions {
  /** Branch, tag or commit of a hub's repository; default `"main"`. A commit that is cached needs no network. */
  readonly revision?: string;
  /**
   * Sent to the hub, or to the host of the URL that is loaded, and to no other. Default for a hub: `HF_TOKEN`, where
   * the program may read it. `null` sends none.
   */
  readonly token?: string | null;
  /**
   * Where downloads are kept; default: the folder of huggingface_hub (`HF_HUB_CACHE`, else `HF_HOME/hub`, else
   * `~/.cache/huggingface/hub`), in its layout. `null` keeps them in memory.
   */
  readonly cache_dir?: string | URL | null;
  /**
   * Takes files from the cache and asks no server; default: false, for a hub `HF_HUB_OFFLINE`, where the program may
   * read it.
   */
  readonly local_files_only?: boolean;
  /** The hub; default: `HF_ENDPOINT`, where the program may read it, else `https://huggingface.co`. */
  readonly endpoint?: string | URL;
  /**
   * A GGUF file of the model, which configuration, tokenizer and weights are read from. Default: the file itself, where
   * a path or URL is named that ends in `.gguf`.
   */
  readonly gguf_file?: string;
  /** Called while files arrive and weights are read. */
  readonly progress_callback?: (event: LoadProgress) => void;
  /** Aborts the loading. */
  readonly signal?: AbortSignal;
}

/** The names of {@linkcode HubOptions}. */
export const HUB_OPTIONS: readonly (keyof HubOptions)[] = [
  "revision",
  "token",
  "cache_dir",
  "local_files_only",
  "endpoint",
  "gguf_file",
  "progress_callback",
  "signal",
];

/** What {@linkcode openFiles} is given beside what users give. */
export interface OpenOptions extends HubOptions {
  /** Where progress is counted; default: one over `progress_callback`. */
  readonly meter?: DownloadMeter;
  /** For tests, which are in a hurry. */
  readonly patience?: Partial<Patience>;
}

/**
 * Opens the files of a model: an existing folder, `http(s)://…` of a folder, or `name` or `org/name` on a hub. A folder
 * wins over an id of the same name, and a line on the console says once which was taken.
 *
 * @throws {InvalidArgument} when an option is malformed or the name can be none of the three
 * @throws {ModelFileError} when a folder is missing, or no place for downloads can be found
 *
 * @example
 * ```ts ignore
 * const files = await openFiles("org/name", { revision: "v1" });
 * const config = await files.json("config.json");
 * ```
 */
export async function openFiles(model: string | URL, options: OpenOptions = {}): Promise<ModelFiles> {
  checkOptions(options);
  if (typeof model !== "string" && !(model instanceof URL)) {
    throw new InvalidArgument(`Cannot load a model: expected a folder, URL or hub id, found ${typeof model}`);
  }
  const { gguf_file, ...rest } = options;
  const named = gguf_file === undefined ? ggufIn(model) : { folder: model, file: gguf_file };
  if (named === null) return await openModel(model, rest);
  const files = await openModel(named.folder, rest);
  // A room of its own, which pages that need none do not load.
  const { GgufFiles } = await import("../gguf/files.ts");
  return new GgufFiles(files, named.file);
}

/** The folder and the file, where a GGUF file itself is named. */
function ggufIn(model: string | URL): { folder: string | URL; file: string } | null {
  const url = urlOf(model);
  const path = url?.pathname ?? String(model);
  if (!/\.gguf$/i.test(path)) return null;
  const at = Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")) + 1;
  const [folder, file] = [path.slice(0, at), path.slice(at)];
  if (url === null) {
    // Never a hub's id, which a folder's name could be taken for.
    return { folder: /^(?:[/\\.]|[A-Za-z]:)/.test(folder) ? folder : `./${folder}`, file };
  }
  const parent = new URL(url);
  parent.pathname = folder;
  return { folder: parent, file: file.replaceAll("%20", " ") };
}

/** What is named as a URL. */
function urlOf(model: string | URL): URL | null {
  if (model instanceof URL) return model;
  return /^(?:file:|[a-z][a-z\d+.-]+:\/\/)/i.test(model) ? asUrl(model) : null;
}

async function openModel(model: string | URL, options: OpenOptions): Promise<ModelFiles> {
  const read: ReadOptions = options.signal === undefined ? {} : { signal: options.signal };
  read.signal?.throwIfAborted();
  const url = urlOf(model);
  if (url?.protocol === "http:" || url?.protocol === "https:") {
    if (options.revision !== undefined) {
      throw new InvalidArgument(`Cannot load ${showUrl(url)} at a revision: a URL has none`);
    }
    const credentials = typeof options.token === "string"
      ? { origin: url.origin, token: options.token }
      : null;
    return remote(await UrlFolder.at(url), credentials, options);
  }
  if (url !== null && url.protocol !== "file:") {
    throw new InvalidArgument(
      `Cannot load a model from ${url.protocol}: expected a folder, an http, https or file URL, or a hub id`,
    );
  }
  const id = typeof model === "string" && isHubId(model) ? model : null;
  if (!hasFileSystem() && id === null) {
    throw new ModelFileError(`Cannot open ${String(model)}: here are no files, pass a URL or a hub id`);
  }
  if (id === null) return await openFolder(model, read);
  const { folder, why } = await lookForFolder(id);
  if (folder) {
    warnOnce(`folder:${id}`, `${JSON.stringify(id)} is taken as the local folder ./${id}`);
    return await openFolder(id, read);
  }
  const endpoint = endpointOf(options.endpoint ?? granted("HF_ENDPOINT") ?? "https://huggingface.co");
  const repository = new HubRepository(endpoint, id, options.revision ?? "main");
  warnOnce(
    `hub:${repository.where}:${id}`,
    `${JSON.stringify(id)} is taken as a model of ${repository.where}${why}`,
  );
  const token = options.token === undefined ? granted("HF_TOKEN")?.trim() || null : options.token;
  checkToken(token);
  const offline = /^(?:1|on|yes|true)$/i.test(granted("HF_HUB_OFFLINE") ?? "");
  const credentials = token === null ? null : { origin: endpoint.origin, token };
  return remote(repository, credentials, { local_files_only: offline, ...options });
}

async function remote(
  repository: Repository,
  credentials: { origin: string; token: string } | null,
  options: OpenOptions,
): Promise<ModelFiles> {
  const { local_files_only = false, meter = new DownloadMeter(options.progress_callback) } = options;
  const patience = { ...PATIENCE, ...options.patience };
  const store = await storeOf(options.cache_dir);
  return new RemoteFiles({
    repository,
    store,
    access: { credentials, patience, signal: options.signal },
    meter,
    local_files_only,
  });
}

/** Whether a folder of that name exists, asking for no permission. */
async function lookForFolder(id: string): Promise<{ folder: boolean; why: string }> {
  if (!hasFileSystem()) return { folder: false, why: "" };
  const { state } = await Deno.permissions.query({ name: "read", path: id });
  if (state !== "granted") {
    return {
      folder: false,
      why: `: whether ./${id} is a folder cannot be seen without --allow-read=./${id}`,
    };
  }
  const found = await Deno.stat(id).catch(() => null);
  return { folder: found?.isDirectory === true, why: `: there is no folder ./${id}` };
}

/** Where downloads go. */
async function storeOf(cache_dir: string | URL | null | undefined): Promise<BlobStore> {
  if (!hasFileSystem()) {
    return new MemoryStore(
      cache_dir === null || !("caches" in globalThis) ? null : await caches.open("attune"),
    );
  }
  if (cache_dir === null) return new MemoryStore();
  if (cache_dir instanceof URL) {
    const path = decodeURIComponent(cache_dir.pathname);
    // "/C:/folder" is how a URL has a drive of Windows.
    return new DiskStore(/^\/[A-Za-z]:/.test(path) ? path.slice(1) : path);
  }
  return new DiskStore(home(cache_dir ?? defaultCache()));
}

/** The folder huggingface_hub takes, as far as the environment may be read. */
function defaultCache(): string {
  const whole = granted("HF_HUB_CACHE");
  if (whole !== undefined) return whole;
  const hf = granted("HF_HOME");
  if (hf !== undefined) return `${hf}/hub`;
  const caches = granted("XDG_CACHE_HOME");
  if (caches !== undefined) return `${caches}/huggingface/hub`;
  return "~/.cache/huggingface/hub";
}

/** A path with `~` written out. */
function home(path: string): string {
  if (!/^~(?=$|[/\\])/.test(path)) return path;
  const folder = granted("HOME") ?? granted("USERPROFILE");
  if (folder !== undefined) return folder + path.slice(1);
  throw new ModelFileError(
    `Cannot find the folder for downloads, ${path}: grant --allow-env=HF_HUB_CACHE,HF_HOME,XDG_CACHE_HOME,HOME, or ` +
      `pass cache_dir: a folder, or null to keep files in memory`,
  );
}

/** A variable of the environment that may be read without asking, if it is set. */
function granted(variable: string): string | undefined {
  if (!hasFileSystem()) return undefined;
  if (Deno.permissions.querySync({ name: "env", variable }).state !== "granted") return undefined;
  return Deno.env.get(variable) || undefined;
}

function asUrl(text: string): URL {
  if (URL.canParse(text)) return new URL(text);
  throw new InvalidArgument(
    `Cannot load a model from ${text.split(/[?#]/)[0]!.slice(0, 200)}: it is not a URL`,
  );
}

function endpointOf(endpoint: string | URL): URL {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : null;
  const plain = url !== null && /^https?:$/.test(url.protocol) && url.username === "" && url.password === "";
  if (plain) return url;
  throw new InvalidArgument(
    `Cannot use the hub's endpoint: expected an http or https URL without credentials in it`,
  );
}

function checkToken(token: string | null): void {
  if (token !== null && !/^[\x21-\x7e]+$/.test(token)) {
    throw new InvalidArgument("Cannot use the token: expected printable ASCII without spaces");
  }
}

function checkOptions(options: OpenOptions): void {
  const { revision, token = null, cache_dir = null, local_files_only = false, gguf_file, progress_callback } =
    options;
  const wrong = (name: string, expected: string) =>
    new InvalidArgument(`Cannot load a model with this ${name}: expected ${expected}`);
  if (revision !== undefined && typeof revision !== "string") throw wrong("revision", "a string");
  if (gguf_file !== undefined && typeof gguf_file !== "string") throw wrong("gguf_file", "a file name");
  if (token !== null && typeof token !== "string") throw wrong("token", "a string or null");
  checkToken(token);
  const folder = cache_dir instanceof URL ? cache_dir.protocol === "file:" : typeof cache_dir === "string";
  if (cache_dir !== null && (!folder || cache_dir === "")) {
    throw wrong("cache_dir", "a folder, a file: URL, or null to keep files in memory");
  }
  if (typeof local_files_only !== "boolean") throw wrong("local_files_only", "true or false");
  if (progress_callback !== undefined && typeof progress_callback !== "function") {
    throw wrong("progress_callback", "a function");
  }
}

/** The options among `options` that {@linkcode openFiles} takes. */
export function hubOptions(options: HubOptions): HubOptions {
  return Object.fromEntries(
    HUB_OPTIONS.filter((key) => options[key] !== undefined).map((key) => [key, options[key]]),
  );
}
