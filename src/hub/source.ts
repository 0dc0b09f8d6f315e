/**
 * Random access to the bytes of one model file, wherever it lies.
 *
 * A remote file becomes one more implementation of {@linkcode ByteSource}; readers know nothing else.
 *
 * @module
 */
import { ModelFileError } from "../errors.ts";

/** Whether this runtime has files. Browsers and edge workers have none. */
export function hasFileSystem(): boolean {
  return typeof Deno !== "undefined";
}

/** What a read may be given. */
export interface ReadOptions {
  /** Rejects with the signal's reason before the next read starts. */
  readonly signal?: AbortSignal;
}

/** How a file is opened. */
export interface SourceOptions extends ReadOptions {
  /**
   * Whether only the first bytes will be read, a header: then no more is fetched of a file that is on a server and not
   * yet here. Default: all of it is, and checked, before it is open.
   */
  readonly beginning?: boolean;
}

/** Bytes of known length that can be read at any offset. */
export interface ByteSource extends Disposable {
  /** What error messages call it: a path or URL. */
  readonly name: string;
  /** Length in bytes. */
  readonly size: number;
  /**
   * Fills `into` with the bytes at `offset`.
   *
   * @throws {ModelFileError} when the source ends before `into` is full.
   */
  read(offset: number, into: Uint8Array, options?: ReadOptions): Promise<void>;
  /** Gives the file handle back. Reading afterwards is an error. */
  close(): void;
}

/** Refuses a range that does not lie inside the source. */
function checkRange(source: ByteSource, offset: number, length: number): void {
  if (!Number.isSafeInteger(offset) || offset < 0 || offset + length > source.size) {
    throw new ModelFileError(
      `Cannot read ${length} bytes at ${offset} of ${source.name}: the file has ${source.size} bytes`,
    );
  }
}

/** A {@linkcode ByteSource} over bytes in memory. The bytes are not copied. */
export function bytesSource(bytes: Uint8Array, name = "<bytes>"): ByteSource {
  let closed = false;
  const source: ByteSource = {
    name,
    size: bytes.byteLength,
    read(offset, into, options = {}) {
      return new Promise((resolve) => {
        options.signal?.throwIfAborted();
        if (closed) throw new ModelFileError(`Cannot read ${name}: it is closed`);
        checkRange(source, offset, into.byteLength);
        into.set(bytes.subarray(offset, offset + into.byteLength));
        resolve();
      });
    },
    close() {
      closed = true;
    },
    [Symbol.dispose]() {
      closed = true;
    },
  };
  return source;
}

/**
 * Opens a local file. `name` is what error messages call it, its path unless told otherwise.
 *
 * @throws {ModelFileError} when it is missing, not a regular file, or may not be read.
 */
export async function fileSource(
  path: string | URL,
  options: ReadOptions = {},
  name: string = showPath(path),
): Promise<ByteSource> {
  options.signal?.throwIfAborted();
  let file: Deno.FsFile;
  let info: Deno.FileInfo;
  try {
    // Asked before opening: opening a pipe would wait for a writer for ever.
    info = await Deno.stat(path);
    if (!info.isFile) throw new ModelFileError(`Cannot read ${name}: it is not a regular file`);
    file = await Deno.open(path, { read: true });
  } catch (error) {
    throw explain(error, name);
  }
  return new FileSource(name, info.size, file);
}

class FileSource implements ByteSource {
  #file: Deno.FsFile | null;
  /** Seek and read are two steps on one cursor, so reads wait for each other. */
  #last: Promise<void> = Promise.resolve();

  constructor(readonly name: string, readonly size: number, file: Deno.FsFile) {
    this.#file = file;
  }

  read(offset: number, into: Uint8Array, options: ReadOptions = {}): Promise<void> {
    const done = this.#last.then(() => this.#read(offset, into, options));
    // A failed read must not fail the next one.
    this.#last = done.catch(() => {});
    return done;
  }

  async #read(offset: number, into: Uint8Array, { signal }: ReadOptions): Promise<void> {
    signal?.throwIfAborted();
    checkRange(this, offset, into.byteLength);
    await this.#open().seek(offset, Deno.SeekMode.Start);
    for (let at = 0; at < into.byteLength;) {
      signal?.throwIfAborted();
      const n = await this.#open().read(into.subarray(at));
      if (n === null) {
        throw new ModelFileError(
          `Cannot read ${this.name} to its end: expected ${this.size} bytes, it now ends at ${offset + at}`,
        );
      }
      at += n;
    }
  }

  #open(): Deno.FsFile {
    if (this.#file === null) throw new ModelFileError(`Cannot read ${this.name}: it is closed`);
    return this.#file;
  }

  close(): void {
    this.#file?.close();
    this.#file = null;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** A path or URL as error messages show it. */
export function showPath(path: string | URL): string {
  return path instanceof URL ? path.href : path;
}

/** Turns an error of the file system into one that says what to do. Other errors pass unchanged. */
export function explain(error: unknown, name: string): unknown {
  if (error instanceof Deno.errors.NotCapable) {
    return new ModelFileError(`Cannot read ${name}: permission is missing, grant --allow-read=${name}`, {
      cause: error,
    });
  }
  if (error instanceof Deno.errors.PermissionDenied) {
    return new ModelFileError(`Cannot read ${name}: the system denies access to it`, { cause: error });
  }
  if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) {
    return new ModelFileError(`Cannot read ${name}: it does not exist`, { cause: error });
  }
  return error;
}
