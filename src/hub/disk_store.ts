/**
 * Downloaded files on disk, in the layout of huggingface_hub: what Python has downloaded is used here, and the other
 * way round.
 *
 * ```text
 * <cache>/models--org--name/blobs/<etag>                     the bytes; <etag>.incomplete while they arrive
 * <cache>/models--org--name/snapshots/<commit>/<file>        a link to them
 * <cache>/models--org--name/refs/<revision>                  the commit a branch or tag was seen at
 * <cache>/models--org--name/.no_exist/<commit>/<file>        a file that commit does not have
 * <cache>/.locks/models--org--name/<etag>.lock               held by who downloads
 * <cache>/urls/<host>--<hash>/…                              the same for a folder behind a URL
 * ```
 *
 * @module
 */
import { ModelFileError } from "../errors.ts";
import { pause } from "./http.ts";
import { type ByteSource, fileSource, type ReadOptions } from "./source.ts";
import type { Blob, BlobStore, Partial, Place } from "./store.ts";

/** Between two looks at a lock that another holds. */
const LOCK_POLL_MS = 50;
/** Bytes read at once to hash what an earlier try has left. */
const READ_BYTES = 2 ** 20;

/** Files below one cache folder, which is made when something is stored. */
export class DiskStore implements BlobStore {
  readonly description: string;
  readonly #root: string;

  constructor(root: string) {
    this.#root = root.length > 1 ? root.replace(/[/\\]+$/, "") : root;
    this.description = `the cache ${this.#root}`;
  }

  #pointer({ folder, version, name }: Place): string {
    return `${this.#root}/${folder}/snapshots/${version}/${name}`;
  }

  async size(place: Place): Promise<number | null> {
    return await this.#size(this.#pointer(place));
  }

  async #size(path: string): Promise<number | null> {
    try {
      const { isFile, size } = await Deno.stat(path);
      return isFile ? size : null;
    } catch (error) {
      if (isMissing(error)) return null;
      throw this.#explain(error, path);
    }
  }

  async open(place: Place, options: ReadOptions): Promise<ByteSource> {
    const path = this.#pointer(place);
    return await fileSource(path, options, `${place.name} (in the cache as ${path})`);
  }

  async put(
    place: Place,
    blob: Blob,
    fill: (partial: Partial) => Promise<void>,
    options: ReadOptions,
  ): Promise<void> {
    const path = `${this.#root}/${place.folder}/blobs/${blob.id}`;
    const pointer = this.#pointer(place);
    const lock = `${this.#root}/.locks/${place.folder}/${blob.id}.lock`;
    try {
      for (const file of [path, pointer, lock]) await Deno.mkdir(parent(file), { recursive: true });
      using _held = await hold(lock, options);
      const there = await this.#size(path);
      if (there === null || blob.replace || (blob.size !== null && there !== blob.size)) {
        // Another may have finished while this one waited for the lock; where links fail it may even have moved it.
        if (!blob.replace && (blob.size ?? NaN) === await this.#size(pointer)) return;
        await complete(path, blob.replace, fill);
      }
      await link(path, pointer);
    } catch (error) {
      throw this.#explain(error, path);
    }
  }

  async recall(folder: string, name: string): Promise<string | null> {
    const path = `${this.#root}/${folder}/refs/${name}`;
    try {
      return (await Deno.readTextFile(path)).trim();
    } catch (error) {
      if (isMissing(error)) return null;
      throw this.#explain(error, path);
    }
  }

  async remember(folder: string, name: string, version: string): Promise<void> {
    if (await this.recall(folder, name) === version) return;
    await this.#note(`${this.#root}/${folder}/refs/${name}`, version);
  }

  async isAbsent({ folder, version, name }: Place): Promise<boolean> {
    return await this.#size(`${this.#root}/${folder}/.no_exist/${version}/${name}`) !== null;
  }

  async markAbsent({ folder, version, name }: Place): Promise<void> {
    await this.#note(`${this.#root}/${folder}/.no_exist/${version}/${name}`, "");
  }

  /** Writes a small file at once. A cache that may only be read does its work without: a note saves a request. */
  async #note(path: string, text: string): Promise<void> {
    const temporary = `${path}.${crypto.randomUUID().slice(0, 8)}.tmp`;
    try {
      await Deno.mkdir(parent(path), { recursive: true });
      await Deno.writeTextFile(temporary, text);
      await Deno.rename(temporary, path);
    } catch {
      await Deno.remove(temporary).catch(() => {});
    }
  }

  /** Turns an error of the file system into one that says what to do. Others pass unchanged. */
  #explain(error: unknown, path: string): unknown {
    const cannot = `Cannot keep downloaded files in ${this.description}`;
    const or = "pass another cache_dir, or cache_dir: null to keep files in memory";
    if (error instanceof Deno.errors.NotCapable) {
      return new ModelFileError(
        `${cannot}: permission is missing, grant --allow-read=${this.#root} --allow-write=${this.#root}, or ${or}`,
        { cause: error },
      );
    }
    if (error instanceof Deno.errors.PermissionDenied || codeOf(error) === "EROFS") {
      return new ModelFileError(`${cannot}: the system denies access to ${path}; ${or}`, { cause: error });
    }
    if (codeOf(error) === "ENOSPC" || codeOf(error) === "EDQUOT" || codeOf(error) === "EFBIG") {
      return new ModelFileError(
        `${cannot}: there is no space left for ${path}; what has arrived stays there, so that a later try goes on; ${or}`,
        { cause: error },
      );
    }
    if (error instanceof Error && codeOf(error) !== undefined) {
      return new ModelFileError(`${cannot}: ${error.message.slice(0, 300)} (${path}); ${or}`, {
        cause: error,
      });
    }
    return error;
  }
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}

function isMissing(error: unknown): boolean {
  return error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory;
}

function parent(path: string): string {
  return path.slice(0, path.lastIndexOf("/"));
}

/** Takes a lock of the system, which ends with the process, and which huggingface_hub takes too. */
async function hold(path: string, { signal }: ReadOptions): Promise<Disposable> {
  const file = await Deno.open(path, { create: true, write: true });
  try {
    while (!await file.tryLock(true)) await pause(LOCK_POLL_MS, signal);
    signal?.throwIfAborted();
  } catch (error) {
    file.close();
    throw error;
  }
  return { [Symbol.dispose]: () => file.close() };
}

/** Completes `<path>.incomplete` and gives it its name, on disk before anybody can see it. */
async function complete(
  path: string,
  replace: boolean,
  fill: (partial: Partial) => Promise<void>,
): Promise<void> {
  const incomplete = `${path}.incomplete`;
  {
    using file = await Deno.open(incomplete, { create: true, read: true, write: true, truncate: replace });
    await fill(new DiskPartial(file, (await file.stat()).size));
    await file.sync();
  }
  await Deno.rename(incomplete, path);
}

class DiskPartial implements Partial {
  readonly #file: Deno.FsFile;
  #size: number;

  constructor(file: Deno.FsFile, size: number) {
    this.#file = file;
    this.#size = size;
  }

  get size(): number {
    return this.#size;
  }

  async *chunks(): AsyncGenerator<Uint8Array, void> {
    const buffer = new Uint8Array(READ_BYTES);
    await this.#file.seek(0, Deno.SeekMode.Start);
    for (let at = 0; at < this.#size;) {
      const n = await this.#file.read(buffer.subarray(0, Math.min(READ_BYTES, this.#size - at)));
      if (n === null) break;
      at += n;
      yield buffer.subarray(0, n);
    }
  }

  async append(chunk: Uint8Array): Promise<void> {
    await this.#file.seek(this.#size, Deno.SeekMode.Start);
    for (let at = 0; at < chunk.length;) {
      const n = await this.#file.write(chunk.subarray(at));
      at += n;
      this.#size += n;
    }
  }

  async restart(): Promise<void> {
    await this.#file.truncate(0);
    this.#size = 0;
  }
}

/**
 * Makes `pointer` stand for `blob`: by a relative link, which survives moving the cache; where links are not possible
 * by a second name of the file, else by a copy. Deno lets only programs with unscoped leave to read and write make
 * symbolic links, and is not asked for it here.
 */
async function link(blob: string, pointer: string): Promise<void> {
  // Made beside its place and moved there: another process may be reading what is there now.
  const temporary = `${pointer}.${crypto.randomUUID().slice(0, 8)}.tmp`;
  const ways: (() => Promise<void>)[] = [
    () => Deno.link(blob, temporary),
    () => Deno.copyFile(blob, temporary),
  ];
  const unscoped = await Promise.all(
    (["read", "write"] as const).map((name) => Deno.permissions.query({ name })),
  );
  if (unscoped.every(({ state }) => state === "granted")) {
    ways.unshift(() => Deno.symlink(relative(pointer, blob), temporary));
  }
  for (const [i, way] of ways.entries()) {
    try {
      await way();
      break;
    } catch (error) {
      if (i === ways.length - 1) throw error;
    }
  }
  await Deno.rename(temporary, pointer);
}

/** The relative way from a file to another, both below one folder. */
function relative(from: string, to: string): string {
  const a = from.split("/");
  const b = to.split("/");
  while (a.length > 1 && b.length > 1 && a[0] === b[0]) a.shift(), b.shift();
  return [...a.slice(1).map(() => ".."), ...b].join("/");
}
