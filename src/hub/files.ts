/**
 * The files of one model, by name.
 *
 * A local folder is one kind, files behind a URL or a hub id are another (`remote.ts`): everything above reads JSON
 * and byte sources by name and does not know from where.
 *
 * @module
 */
import { ModelFileError } from "../errors.ts";
import { releasingAfter } from "../release.ts";
import type { Weights } from "./safetensors.ts";
import {
  type ByteSource,
  explain,
  fileSource,
  type ReadOptions,
  showPath,
  type SourceOptions,
} from "./source.ts";

/** Largest `config.json` and similar small files. */
export const MAX_CONFIG_BYTES = 16 * 2 ** 20;
/** Largest tokenizer file and weight index. */
export const MAX_TOKENIZER_BYTES = 64 * 2 ** 20;

/** The files of one model. */
export interface ModelFiles {
  /** Whether a file of that name exists. */
  has(name: string, options?: ReadOptions): Promise<boolean>;
  /**
   * Reads and parses a JSON file. What it holds is unchecked.
   *
   * @throws {ModelFileError} when it is missing, larger than `maxBytes`, not UTF-8 or not JSON.
   */
  json(name: string, maxBytes?: number, options?: ReadOptions): Promise<unknown>;
  /**
   * Opens a file for random access. The caller closes it.
   *
   * @throws {ModelFileError} when it is missing or may not be read.
   */
  source(name: string, options?: SourceOptions): Promise<ByteSource>;
  /** How many bytes of files are still on a server: 0 where all are here, infinitely many where it does not say. */
  missing(names: readonly string[], options?: ReadOptions): Promise<number>;
  /** Fetches files that will be opened next, several at once, where they have to be fetched. */
  prepare(names: readonly string[], options?: ReadOptions): Promise<void>;
  /** What error messages call the whole, e.g. the folder's path. */
  describe(): string;
  /** Where weights are, if not in safetensors. */
  readonly weights?: WeightFiles;
}

/** Weights in files of one kind. */
export interface WeightFiles {
  /** Names of the files. */
  readonly names: readonly string[];
  /**
   * Opens them.
   *
   * @throws {ModelFileError} when anything about them is malformed
   */
  open(options: SourceOptions): Promise<Weights>;
}

/** Refuses a file name that could leave its folder, whatever the file system or server makes of it. */
export function checkFileName(name: string): void {
  const segments = name.split("/");
  const plain = segments.every((s) => /^[A-Za-z0-9_+=,@ .-]+$/.test(s) && s !== "." && s !== "..");
  if (!plain || name.length > 255 || segments.length > 8) {
    throw new ModelFileError(
      `Cannot open ${JSON.stringify(name.slice(0, 300))} as a file of a model: ` +
        `expected a relative name of letters, digits, "_+=,@ .-" and "/", without ".."`,
    );
  }
}

/**
 * Opens a local model folder, given as a path or as a `file:` URL.
 *
 * @throws {ModelFileError} when the folder is missing, is not a folder, or may not be read.
 *
 * @example
 * ```ts ignore
 * const files = await openFolder("./my-model");
 * const config = await files.json("config.json");
 * ```
 */
export async function openFolder(folder: string | URL, options: ReadOptions = {}): Promise<ModelFiles> {
  options.signal?.throwIfAborted();
  const path = folderPath(folder);
  const name = showPath(path);
  let info: Deno.FileInfo;
  try {
    info = await Deno.stat(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) {
      throw new ModelFileError(
        `Cannot find the model ${JSON.stringify(name)}: looked for a local folder of that path with ` +
          `config.json and model.safetensors`,
        { cause: error },
      );
    }
    throw explain(error, name);
  }
  if (!info.isDirectory) {
    throw new ModelFileError(`Cannot open ${name} as a model: expected a folder, it is a file`);
  }
  return new Folder(path, name);
}

function folderPath(folder: string | URL): string | URL {
  if (folder === "") throw new ModelFileError(`Cannot open a model folder: the path is empty`);
  if (typeof folder === "string" && !/^file:/i.test(folder)) return folder;
  const url = URL.canParse(folder) ? new URL(folder) : null;
  if (url?.protocol !== "file:" || url.host !== "") {
    throw new ModelFileError(
      `Cannot open ${showPath(folder)} as a model folder: expected a path or a file: URL without a host`,
    );
  }
  return url;
}

class Folder implements ModelFiles {
  readonly #path: string | URL;
  readonly #name: string;

  constructor(path: string | URL, name: string) {
    this.#path = path;
    this.#name = name.replace(/[/\\]+$/, "");
  }

  describe(): string {
    return this.#name;
  }

  #file(name: string): string | URL {
    checkFileName(name);
    if (this.#path instanceof URL) {
      const url = new URL(this.#path);
      url.pathname = `${url.pathname.replace(/\/+$/, "")}/${name}`;
      return url;
    }
    // The root folder is "/" itself.
    return `${this.#name}/${name}`;
  }

  async has(name: string, options: ReadOptions = {}): Promise<boolean> {
    options.signal?.throwIfAborted();
    const file = this.#file(name);
    try {
      return (await Deno.stat(file)).isFile;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return false;
      throw explain(error, showPath(file));
    }
  }

  async source(name: string, options: SourceOptions = {}): Promise<ByteSource> {
    const file = this.#file(name);
    if (await this.has(name, options)) return await fileSource(file, options);
    throw new ModelFileError(
      `Cannot find ${name} in ${this.#name}: the folder holds ${await listing(this.#path)}`,
    );
  }

  async json(name: string, maxBytes: number = MAX_CONFIG_BYTES, options: ReadOptions = {}): Promise<unknown> {
    return await readJson(await this.source(name, options), maxBytes, options);
  }

  missing(): Promise<number> {
    return Promise.resolve(0);
  }

  async prepare(): Promise<void> {}
}

/** Reads and parses JSON of at most `maxBytes`, and closes `source`. */
export async function readJson(source: ByteSource, maxBytes: number, options: ReadOptions): Promise<unknown> {
  return parseJson(await readText(source, maxBytes, options), source.name);
}

/** The first names in a folder, for an error message. */
async function listing(folder: string | URL): Promise<string> {
  const names: string[] = [];
  try {
    for await (const entry of Deno.readDir(folder)) {
      if (names.push(entry.name.slice(0, 80)) > 20) break;
    }
  } catch (error) {
    return `names that cannot be listed (${error instanceof Error ? error.name : "error"})`;
  }
  names.sort();
  if (names.length === 0) return "nothing";
  return names.length > 20 ? `${names.slice(0, 20).join(", ")}, …` : names.join(", ");
}

/** Reads UTF-8 of at most `maxBytes`, and closes `source`. */
export async function readText(source: ByteSource, maxBytes: number, options: ReadOptions): Promise<string> {
  const { name, size } = source;
  if (size > maxBytes) {
    source[Symbol.dispose]();
    throw new ModelFileError(`Cannot read ${name}: expected at most ${maxBytes} bytes, it has ${size}`);
  }
  const bytes = new Uint8Array(size);
  await releasingAfter(source, () => source.read(0, bytes, options));
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw new ModelFileError(`Cannot read ${name} as JSON: it is not UTF-8`, { cause: error });
  }
}

function parseJson(text: string, name: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const why = error instanceof Error ? error.message.slice(0, 200) : "unknown error";
    throw new ModelFileError(`Cannot read ${name} as JSON: ${why}`, { cause: error });
  }
}
