/**
 * The files of a model on a server, through a store.
 *
 * @module
 */
import { ModelFileError } from "../errors.ts";
import { warnOnce } from "../notice.ts";
import { openBeginning } from "./beginning.ts";
import { download, FileChanged } from "./download.ts";
import { checkFileName, MAX_CONFIG_BYTES, type ModelFiles, readJson } from "./files.ts";
import { type Access, eitherSignal, NetworkError } from "./http.ts";
import { inParallel } from "./parallel.ts";
import type { DownloadMeter } from "./progress.ts";
import { FileAbsent, probe, type RemoteFile, type Repository } from "./repository.ts";
import type { ByteSource, ReadOptions, SourceOptions } from "./source.ts";
import type { BlobStore, Place } from "./store.ts";

/** Versions of a file that may come up while it is fetched. */
const MAX_CHANGES = 3;

/** How long a server is waited for when the cache could do. */
const HASTE_MS = 10_000;

/** What {@linkcode RemoteFiles} is made of. */
export interface Remote {
  readonly repository: Repository;
  readonly store: BlobStore;
  readonly access: Access;
  readonly meter: DownloadMeter;
  /** Whether nothing may be asked of the server. */
  readonly local_files_only: boolean;
}

/** A file in the store. */
interface Stored {
  readonly kind: "stored";
  readonly place: Place;
  readonly size: number;
}

/** Where a file was found: in the store, on the server, or nowhere. */
type Located =
  | Stored
  | { readonly kind: "remote"; readonly place: Place; readonly file: RemoteFile }
  | { readonly kind: "absent"; readonly why: string };

/** Files of a hub's repository, or of a folder behind a URL. Each is fetched when it is first opened. */
export class RemoteFiles implements ModelFiles {
  readonly #remote: Remote;
  readonly #located = new Map<string, Located>();
  /** The version all files are read at, once an answer has named it. */
  #version: string | null;
  /** Whether the server has served a file: then its refusal of another is about that one. */
  #served = false;
  /** Whether the store has served a file: then a server that cannot be reached can be done without. */
  #fromStore = false;
  /** What came of the last attempt to reach the server, where it failed and the store stands in. */
  #silence: string | null = null;

  constructor(remote: Remote) {
    this.#remote = remote;
    this.#version = remote.repository.pinned;
  }

  describe(): string {
    return this.#remote.repository.name;
  }

  async has(name: string, options: ReadOptions = {}): Promise<boolean> {
    return (await this.#locate(name, options)).kind !== "absent";
  }

  async json(name: string, maxBytes: number = MAX_CONFIG_BYTES, options: ReadOptions = {}): Promise<unknown> {
    return await readJson(await this.#open(name, maxBytes, options), maxBytes, options);
  }

  async source(name: string, { beginning = false, ...options }: SourceOptions = {}): Promise<ByteSource> {
    const found = beginning ? await this.#locate(name, options) : null;
    if (found?.kind === "stored") return await this.#remote.store.open(found.place, options);
    if (found?.kind !== "remote") return await this.#open(name, null, options);
    return await openBeginning({
      repository: this.#remote.repository,
      file: found.file,
      access: this.#access(options),
      changed: () => void this.#located.delete(name),
    });
  }

  async missing(names: readonly string[], options: ReadOptions = {}): Promise<number> {
    let bytes = 0;
    await inParallel(names, options, async (name, each) => {
      const found = await this.#locate(name, each);
      if (found.kind === "remote") bytes += found.file.size ?? Infinity;
    });
    return bytes;
  }

  async prepare(names: readonly string[], options: ReadOptions = {}): Promise<void> {
    // All sizes first, so that the total is known before the first byte.
    await inParallel(names, options, async (name, each) => {
      const found = await this.#locate(name, each);
      if (found.kind !== "absent") this.#remote.meter.expect(name, sizeOf(found));
    });
    await inParallel(names, options, async (name, each) => void await this.#fetched(name, null, each));
  }

  async #open(name: string, most: number | null, options: ReadOptions): Promise<ByteSource> {
    return await this.#remote.store.open(await this.#fetched(name, most, options), options);
  }

  /** The place of a file that is in the store now. */
  async #fetched(name: string, most: number | null, options: ReadOptions): Promise<Place> {
    const { meter, store, repository } = this.#remote;
    for (let changes = 0;; changes++) {
      const found = await this.#locate(name, options);
      if (found.kind === "absent") throw new ModelFileError(found.why);
      const size = sizeOf(found);
      if (most !== null && size !== null && size > most) {
        throw new ModelFileError(
          `Cannot read ${this.describe()}/${name}: expected at most ${most} bytes, it has ${size}`,
        );
      }
      meter.expect(name, size);
      if (found.kind === "stored") {
        meter.arrived(name, found.size);
        return found.place;
      }
      const { file, place } = found;
      const blob = { id: file.blob, size: file.size, replace: file.unversioned };
      const access = this.#access(options);
      const task = {
        repository,
        file,
        access,
        most,
        arrived: (bytes: number) => meter.arrived(name, bytes),
      };
      try {
        const { signal } = access;
        await store.put(place, blob, (partial) => download(partial, task), signal ? { signal } : {});
      } catch (error) {
        this.#located.delete(name);
        if (error instanceof FileChanged && changes < MAX_CHANGES) continue;
        throw error;
      }
      await store.remember(place.folder, repository.ref(name), place.version);
      const stored = await store.size(place);
      if (stored === null) {
        throw new ModelFileError(`Cannot find ${name} in ${store.description}: it is gone`);
      }
      // Another may have fetched it.
      meter.arrived(name, stored);
      this.#located.set(name, { kind: "stored", place, size: stored });
      return place;
    }
  }

  async #locate(name: string, options: ReadOptions): Promise<Located> {
    checkFileName(name);
    options.signal?.throwIfAborted();
    const known = this.#located.get(name);
    if (known !== undefined) return known;
    const found = await this.#look(name, options);
    this.#located.set(name, found);
    return found;
  }

  /** Who asks for a file: with something to fall back on, for a shorter while. */
  #access(options: ReadOptions, fallback = false): Access {
    const { credentials, patience, signal } = this.#remote.access;
    const stall_ms = Math.min(patience.stall_ms, HASTE_MS);
    return {
      credentials,
      patience: fallback ? { ...patience, tries_to_reach: 1, stall_ms } : patience,
      signal: eitherSignal(options.signal, signal),
    };
  }

  #place(name: string, version: string): Place {
    return { folder: this.#remote.repository.folder, version, name };
  }

  async #stored(place: Place): Promise<Stored | null> {
    const size = await this.#remote.store.size(place);
    if (size === null) return null;
    this.#fromStore = true;
    return { kind: "stored", place, size };
  }

  /** What the store has of the version it saw last. */
  async #offline(name: string): Promise<Stored | null> {
    const { repository, store } = this.#remote;
    const version = this.#version ?? await store.recall(repository.folder, repository.ref(name));
    if (version === null) return null;
    const stored = await this.#stored(this.#place(name, version));
    if (stored !== null && repository.versioned && this.#isOffline()) this.#version ??= version;
    return stored;
  }

  #isOffline(): boolean {
    return this.#remote.local_files_only || this.#silence !== null;
  }

  async #look(name: string, options: ReadOptions): Promise<Located> {
    const { repository, store } = this.#remote;
    if (this.#version !== null) {
      const place = this.#place(name, this.#version);
      const stored = await this.#stored(place);
      if (stored !== null) return stored;
      if (await store.isAbsent(place)) {
        const why = `Cannot find ${name} in ${this.describe()}: version ${this.#version} does not have it`;
        return { kind: "absent", why };
      }
    }
    if (this.#isOffline()) {
      const why = this.#silence ?? "local_files_only, or HF_HUB_OFFLINE, forbids to ask for it";
      return await this.#offline(name) ?? {
        kind: "absent",
        why: `Cannot find ${name} of ${this.describe()} in ${store.description}, and ${why}`,
      };
    }
    let file: RemoteFile;
    const fallback = await this.#offline(name) !== null;
    try {
      file = await probe(repository, name, this.#version, this.#served, this.#access(options, fallback));
    } catch (error) {
      if (error instanceof FileAbsent) return await this.#absent(name, error);
      if (!(error instanceof NetworkError) || error.status !== null) throw error;
      // Of a model that was never reached the store is all there is. One that was must not lose a file by a mishap.
      if (!fallback && (this.#served || !this.#fromStore)) throw error;
      this.#silence = error.message;
      warnOnce(
        `offline:${this.describe()}`,
        `files of ${this.describe()} come from ${store.description}, as far as they are there: ${error.message}`,
      );
      return await this.#look(name, options);
    }
    this.#served = true;
    if (repository.versioned) this.#version ??= file.version;
    const place = this.#place(name, file.version);
    const stored = file.unversioned ? null : await this.#stored(place);
    if (stored === null || (file.size !== null && stored.size !== file.size)) {
      return { kind: "remote", place, file };
    }
    await store.remember(place.folder, repository.ref(name), place.version);
    return stored;
  }

  async #absent(name: string, error: FileAbsent): Promise<Located> {
    const { repository, store } = this.#remote;
    if (repository.versioned && error.version !== null) {
      this.#version ??= error.version;
      await store.markAbsent(this.#place(name, error.version));
    }
    return { kind: "absent", why: error.message };
  }
}

function sizeOf(found: Exclude<Located, { kind: "absent" }>): number | null {
  return found.kind === "stored" ? found.size : found.file.size;
}
