/**
 * One GGUF file as the files of a model: its metadata is their JSON, its tensors are their weights.
 *
 * @module
 */
import { ModelFileError } from "../errors.ts";
import { MAX_CONFIG_BYTES, type ModelFiles, readJson } from "../hub/files.ts";
import type { Weights } from "../hub/safetensors.ts";
import { type ByteSource, bytesSource, type ReadOptions, type SourceOptions } from "../hub/source.ts";
import { releasingAfter } from "../release.ts";
import { type Gguf, readGguf } from "./header.ts";
import { configOf, headDim, Metadata, placeOf, ROPE_FACTORS } from "./llama.ts";
import { type TokenizerFiles, tokenizerFiles } from "./tokenizer.ts";
import { GgufWeights } from "./weights.ts";

/** Bytes from the beginning within which a tensor is read without fetching the whole file. */
const NEAR = 2 ** 24;

/** The files a GGUF file stands for. */
const NAMES: readonly string[] = ["config.json", "tokenizer.json", "tokenizer_config.json"];

/** A GGUF file among the files of a model. */
export class GgufFiles implements ModelFiles {
  readonly weights: NonNullable<ModelFiles["weights"]>;
  readonly #files: ModelFiles;
  readonly #name: string;
  #header: Promise<Gguf> | null = null;
  #tokenizer: TokenizerFiles | null = null;

  /** Reads `name` among `files`. */
  constructor(files: ModelFiles, name: string) {
    this.#files = files;
    this.#name = name;
    this.weights = { names: [name], open: (options) => this.#open(options) };
  }

  describe(): string {
    return `${this.#files.describe()}/${this.#name}`;
  }

  has(name: string): Promise<boolean> {
    return Promise.resolve(NAMES.includes(name));
  }

  async json(name: string, maxBytes: number = MAX_CONFIG_BYTES, options: ReadOptions = {}): Promise<unknown> {
    return await readJson(await this.source(name, options), maxBytes, options);
  }

  async source(name: string, options: SourceOptions = {}): Promise<ByteSource> {
    if (name === this.#name) return await this.#files.source(name, options);
    if (!NAMES.includes(name)) {
      throw new ModelFileError(
        `Cannot find ${name} in ${this.describe()}: it stands for ${NAMES.join(", ")}`,
      );
    }
    const { signal } = options;
    const read = signal === undefined ? {} : { signal };
    using file = await this.#beginning(read);
    const header = await this.#read(file, read);
    const fields = name === "config.json"
      ? configOf(header, await this.#factors(header, file, read), this.describe())
      : (this.#tokenizer ??= await tokenizerFiles(header, file, read))[name as keyof TokenizerFiles];
    const text = new TextEncoder().encode(JSON.stringify(fields));
    return bytesSource(text, `${this.describe()}/${name}`);
  }

  missing(names: readonly string[], options?: ReadOptions): Promise<number> {
    return this.#files.missing(names, options);
  }

  prepare(names: readonly string[], options?: ReadOptions): Promise<void> {
    return this.#files.prepare(names, options);
  }

  /** The file, of which no more is fetched than is read where that can be had. */
  async #beginning(read: ReadOptions): Promise<ByteSource> {
    return await this.#files.source(this.#name, { ...read, beginning: true });
  }

  /** The header, read once. */
  #read(source: ByteSource, read: ReadOptions): Promise<Gguf> {
    this.#header ??= readGguf(source, read).catch((error) => {
      this.#header = null;
      throw error;
    });
    return this.#header;
  }

  /** The factors of the rotation's frequencies, if there are any. */
  async #factors(header: Gguf, file: ByteSource, read: ReadOptions): Promise<Float32Array | null> {
    const tensor = header.tensors.get(ROPE_FACTORS);
    if (tensor === undefined) return null;
    const { type, shape, offset, bytes } = tensor;
    if (type.name !== "F32" || shape.length !== 1 || bytes > 2 ** 16) {
      throw new ModelFileError(
        `Cannot read ${ROPE_FACTORS} of ${this.describe()}: expected a short list of F32, found ${type.name} [${shape}]`,
      );
    }
    const into = new Uint8Array(bytes);
    const whole = offset + bytes > NEAR ? await this.#files.source(this.#name, read) : null;
    await releasingAfter(whole, () => (whole ?? file).read(offset, into, read));
    return new Float32Array(into.buffer);
  }

  async #open({ beginning = false, ...read }: SourceOptions): Promise<Weights> {
    const source = beginning ? await this.#beginning(read) : await this.#files.source(this.#name, read);
    try {
      const header = await this.#read(source, read);
      const head_dim = headDim(new Metadata(header.metadata, this.describe()));
      return new GgufWeights(source, header, (name) => placeOf(name, head_dim));
    } catch (error) {
      source.close();
      throw error;
    }
  }
}
