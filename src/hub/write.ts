/**
 * Writing files so that there are never halves of them: under temporary names first, renamed when all are whole.
 *
 * @module
 */
import { InvalidArgument, ModelFileError } from "../errors.ts";
import { hasFileSystem, showPath } from "./source.ts";

/** Options of writing. */
export interface WriteOptions {
  /** Rejects with the signal's reason before the next write starts; nothing of the file stays. */
  readonly signal?: AbortSignal;
}

/** What a file is written from: text, or its bytes in order. A chunk may be reused once the next one is asked for. */
export type Content = string | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

/** A file that is written under another name, until it is kept. */
class PendingFile {
  #path: string | null;

  private constructor(readonly target: string, temporary: string) {
    this.#path = temporary;
  }

  /** Writes all of `content` beside `target`. On an error nothing of it stays. */
  static async write(target: string, content: Content, options: WriteOptions): Promise<PendingFile> {
    options.signal?.throwIfAborted();
    // Asked before anything is written: the renaming must not fail half-way.
    if ((await statOf(target))?.isDirectory) {
      throw new ModelFileError(`Cannot write ${target}: a folder has that name`);
    }
    const temporary = `${target}.${crypto.randomUUID().slice(0, 8)}.part`;
    const pending = new PendingFile(target, temporary);
    try {
      using file = await Deno.open(temporary, { write: true, createNew: true });
      const chunks = typeof content === "string" ? [new TextEncoder().encode(content)] : content;
      for await (const chunk of chunks) {
        for (let at = 0; at < chunk.byteLength;) {
          options.signal?.throwIfAborted();
          at += await file.write(chunk.subarray(at));
        }
      }
    } catch (error) {
      await pending.drop();
      throw explainWriting(error, target);
    }
    return pending;
  }

  async keep(): Promise<void> {
    try {
      await Deno.rename(this.#path!, this.target);
    } catch (error) {
      throw explainWriting(error, this.target);
    }
    this.#path = null;
  }

  async drop(): Promise<void> {
    if (this.#path === null) return;
    // What led here matters more than a temporary file that cannot be removed, or was never made.
    await Deno.remove(this.#path).catch(() => {});
    this.#path = null;
  }
}

/**
 * Writes one file, which appears under its name when it is whole.
 *
 * @throws {ModelFileError} when it may not or cannot be written, saying which permission is missing
 * @throws the signal's reason when aborted
 */
export async function writeFile(
  path: string | URL,
  content: Content,
  options: WriteOptions = {},
): Promise<void> {
  const pending = await PendingFile.write(pathOf(path), content, options);
  try {
    await pending.keep();
  } catch (error) {
    await pending.drop();
    throw error;
  }
}

/** Writes files into one folder, which appear together when all of them are whole. */
export class FolderWriter implements AsyncDisposable {
  readonly #pending: PendingFile[] = [];
  /** Whether the folder is there for these files only. */
  #made: boolean;

  private constructor(readonly folder: string, readonly options: WriteOptions, made: boolean) {
    this.#made = made;
  }

  /**
   * Makes the folder where it is missing.
   *
   * @throws {ModelFileError} when it may not be made, or is a file
   */
  static async open(folder: string | URL, options: WriteOptions = {}): Promise<FolderWriter> {
    const path = pathOf(folder);
    options.signal?.throwIfAborted();
    const made = await statOf(path) === null;
    try {
      await Deno.mkdir(path, { recursive: true });
    } catch (error) {
      if (error instanceof Deno.errors.AlreadyExists || error instanceof Deno.errors.NotADirectory) {
        throw new ModelFileError(`Cannot write into ${path}: expected a folder, it is a file`, {
          cause: error,
        });
      }
      throw explainWriting(error, path);
    }
    return new FolderWriter(path.replace(/(?<=.)[/\\]+$/, ""), options, made);
  }

  /** Writes a file under a temporary name. @throws {ModelFileError} */
  async write(name: string, content: Content): Promise<void> {
    this.#pending.push(await PendingFile.write(`${this.folder}/${name}`, content, this.options));
  }

  /**
   * Gives the files their names, in the order they were written, then removes files of the folder that `stale` says
   * are not part of what is there now.
   *
   * @throws {ModelFileError}
   */
  async commit(stale: (name: string) => boolean = () => false): Promise<void> {
    this.options.signal?.throwIfAborted();
    const written = new Set(this.#pending.map(({ target }) => target));
    this.#made = false;
    for (let file; (file = this.#pending[0]) !== undefined; this.#pending.shift()) await file.keep();
    try {
      for await (const { name, isDirectory } of Deno.readDir(this.folder)) {
        const path = `${this.folder}/${name}`;
        if (!isDirectory && stale(name) && !written.has(path)) await Deno.remove(path);
      }
    } catch (error) {
      throw explainWriting(error, this.folder);
    }
  }

  /** Removes what was not committed. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const file of this.#pending.splice(0)) await file.drop();
    // Only where it is empty: something else may have been put there since.
    if (this.#made) await Deno.remove(this.folder).catch(() => {});
  }
}

/** Writes files into a folder, all or none, and removes those that `stale` names; see {@linkcode FolderWriter}. */
export async function writeFolder(
  folder: string | URL,
  files: Readonly<Record<string, Content>>,
  stale: readonly string[] = [],
): Promise<void> {
  await using writer = await FolderWriter.open(folder);
  for (const [name, content] of Object.entries(files)) await writer.write(name, content);
  await writer.commit((name) => stale.includes(name));
}

/** A path, or the path of a `file:` URL. */
function pathOf(path: string | URL): string {
  if (!hasFileSystem()) {
    throw new ModelFileError(`Cannot write ${showPath(path)}: this runtime has no file system`);
  }
  if (path === "") throw new InvalidArgument("Cannot write: the path is empty");
  if (typeof path === "string" && !/^[a-z]{2,}:\/\//i.test(path)) return path;
  const url = URL.canParse(path) ? new URL(path) : null;
  if (url?.protocol !== "file:" || url.host !== "") {
    throw new InvalidArgument(
      `Cannot write ${showPath(path)}: expected a path or a file: URL without a host`,
    );
  }
  const plain = decodeURIComponent(url.pathname);
  return Deno.build.os === "windows" ? plain.replace(/^\//, "") : plain;
}

async function statOf(path: string): Promise<Deno.FileInfo | null> {
  try {
    return await Deno.stat(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw explainWriting(error, path);
  }
}

/** Turns an error of the file system into one that says what to do. Other errors pass unchanged. */
function explainWriting(error: unknown, name: string): unknown {
  if (error instanceof Deno.errors.NotCapable) {
    const kind = /--allow-(read|write)/.exec(error.message)?.[1] ?? "write";
    return new ModelFileError(`Cannot write ${name}: permission is missing, grant --allow-${kind}=${name}`, {
      cause: error,
    });
  }
  if (error instanceof Deno.errors.PermissionDenied) {
    return new ModelFileError(`Cannot write ${name}: the system denies access to it`, { cause: error });
  }
  if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) {
    return new ModelFileError(`Cannot write ${name}: its folder does not exist`, { cause: error });
  }
  if (error instanceof Error && /^(ENOSPC|No space|EROFS|EDQUOT)|os error (28|30|122)/.test(error.message)) {
    return new ModelFileError(`Cannot write ${name}: ${error.message}`, { cause: error });
  }
  return error;
}
