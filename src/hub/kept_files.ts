/**
 * Files that are remembered as they were read, to be written again.
 *
 * @module
 */
import { type ModelFiles, readJson } from "./files.ts";
import type { ByteSource, ReadOptions, SourceOptions } from "./source.ts";

/** The files of a model, and the bytes of those that were read as a whole. */
export class KeptFiles implements ModelFiles {
  /** Bytes by name. */
  readonly contents: Map<string, Uint8Array> = new Map();
  readonly #files: ModelFiles;

  /** Reads from `files`. */
  constructor(files: ModelFiles) {
    this.#files = files;
  }

  has(name: string, options?: ReadOptions): Promise<boolean> {
    return this.#files.has(name, options);
  }

  missing(names: readonly string[], options?: ReadOptions): Promise<number> {
    return this.#files.missing(names, options);
  }

  prepare(names: readonly string[], options?: ReadOptions): Promise<void> {
    return this.#files.prepare(names, options);
  }

  async json(name: string, maxBytes: number, options: ReadOptions = {}): Promise<unknown> {
    return await readJson(await this.source(name, options), maxBytes, options);
  }

  async source(name: string, options?: SourceOptions): Promise<ByteSource> {
    const source = await this.#files.source(name, options);
    return {
      name: source.name,
      size: source.size,
      read: async (offset, into, options) => {
        await source.read(offset, into, options);
        if (offset === 0 && into.byteLength === source.size) this.contents.set(name, into);
      },
      close: () => source.close(),
      [Symbol.dispose]: () => source.close(),
    };
  }

  describe(): string {
    return this.#files.describe();
  }
}
