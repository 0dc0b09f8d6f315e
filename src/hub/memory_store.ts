/**
 * Downloaded files in memory: where there is no disk, or where nothing may be left on it.
 *
 * In a runtime without files that has the Cache API (browsers, some edge workers) files are kept there too, and found
 * by the next program of the same origin.
 *
 * @module
 */
import { ModelFileError, OutOfMemory } from "../errors.ts";
import { warnOnce } from "../notice.ts";
import { type ByteSource, bytesSource, type ReadOptions } from "./source.ts";
import type { Blob, BlobStore, Partial, Place } from "./store.ts";

/** Slices in which a file goes into the Cache API, so that it is not in memory twice. */
const SLICE_BYTES = 2 ** 20;

/** Files in memory, and in `cache` where one is given. */
export class MemoryStore implements BlobStore {
  readonly description: string;
  readonly #cache: Cache | null;
  readonly #files = new Map<string, Uint8Array>();

  constructor(cache: Cache | null = null) {
    this.#cache = cache;
    this.description = cache === null ? "memory" : "the Cache API";
  }

  async #find(key: string): Promise<Uint8Array | null> {
    const held = this.#files.get(key);
    if (held !== undefined) return held;
    const response = await this.#cache?.match(key);
    if (response === undefined) return null;
    const partial = new MemoryPartial(Number(response.headers.get("content-length")));
    for await (const chunk of response.body ?? []) await partial.append(chunk);
    const bytes = partial.bytes();
    this.#files.set(key, bytes);
    return bytes;
  }

  async size(place: Place): Promise<number | null> {
    return (await this.#find(key("snapshots", place)))?.length ?? null;
  }

  async open(place: Place, options: ReadOptions): Promise<ByteSource> {
    options.signal?.throwIfAborted();
    const bytes = await this.#find(key("snapshots", place));
    if (bytes === null) {
      throw new ModelFileError(`Cannot read ${place.name}: it is no longer in the Cache API`);
    }
    return bytesSource(bytes, place.name);
  }

  async put(
    place: Place,
    blob: Blob,
    fill: (partial: Partial) => Promise<void>,
    options: ReadOptions,
  ): Promise<void> {
    const partial = new MemoryPartial(blob.size);
    await fill(partial);
    options.signal?.throwIfAborted();
    await this.#keep(key("snapshots", place), partial.bytes());
  }

  async #keep(key: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    this.#files.set(key, bytes);
    let at = 0;
    const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
      pull(controller) {
        if (at >= bytes.length) return controller.close();
        controller.enqueue(bytes.slice(at, at += SLICE_BYTES));
      },
    });
    const headers = { "content-length": String(bytes.length) };
    try {
      await this.#cache?.put(key, new Response(body, { headers }));
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      warnOnce("cache-api", `downloaded files are not kept for the next time: ${why}`);
    }
  }

  async recall(folder: string, name: string): Promise<string | null> {
    const bytes = await this.#find(key("refs", { folder, version: "", name }));
    return bytes === null ? null : new TextDecoder().decode(bytes);
  }

  async remember(folder: string, name: string, version: string): Promise<void> {
    if (await this.recall(folder, name) === version) return;
    await this.#keep(key("refs", { folder, version: "", name }), new TextEncoder().encode(version));
  }

  async isAbsent(place: Place): Promise<boolean> {
    return await this.#find(key("absent", place)) !== null;
  }

  async markAbsent(place: Place): Promise<void> {
    await this.#keep(key("absent", place), new Uint8Array());
  }
}

/** The Cache API's keys are URLs; nobody is asked for this one. */
function key(kind: string, { folder, version, name }: Place): string {
  return `https://attune.invalid/${[kind, folder, version, name].map(encodeURIComponent).join("/")}`;
}

/** One buffer where the length is known, else what came. */
class MemoryPartial implements Partial {
  readonly #buffer: Uint8Array<ArrayBuffer> | null;
  #chunks: Uint8Array<ArrayBuffer>[] = [];
  #size = 0;

  constructor(size: number | null) {
    try {
      this.#buffer = size === null ? null : new Uint8Array(size);
    } catch (error) {
      throw new OutOfMemory(
        `Cannot keep a file of ${size} bytes in memory: pass a cache_dir, where there are files`,
        { cause: error },
      );
    }
  }

  get size(): number {
    return this.#size;
  }

  async *chunks(): AsyncGenerator<Uint8Array, void> {
    if (this.#buffer === null) yield* this.#chunks;
    else yield this.#buffer.subarray(0, this.#size);
  }

  append(chunk: Uint8Array): Promise<void> {
    if (this.#buffer === null) this.#chunks.push(chunk.slice());
    else this.#buffer.set(chunk, this.#size);
    this.#size += chunk.length;
    return Promise.resolve();
  }

  restart(): Promise<void> {
    this.#chunks = [];
    this.#size = 0;
    return Promise.resolve();
  }

  /** Everything, once it is there. */
  bytes(): Uint8Array<ArrayBuffer> {
    if (this.#buffer !== null) return this.#buffer.subarray(0, this.#size);
    const all = new Uint8Array(this.#size);
    let at = 0;
    for (const chunk of this.#chunks) {
      all.set(chunk, at);
      at += chunk.length;
    }
    return all;
  }
}
