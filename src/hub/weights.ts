/**
 * The weights of a model, in one safetensors file or in shards with an index.
 *
 * @module
 */
import { ModelFileError } from "../errors.ts";
import { NotInParts } from "./beginning.ts";
import { FileChanged } from "./download.ts";
import { MAX_TOKENIZER_BYTES, type ModelFiles, type WeightFiles } from "./files.ts";
import { inParallel } from "./parallel.ts";
import {
  type ChunkSink,
  loadable,
  type LoadableTensor,
  openSafetensors,
  type SafetensorsFile,
  type StoredTensor,
  type StreamOptions,
  type Weights,
} from "./safetensors.ts";
import type { ReadOptions, SourceOptions } from "./source.ts";

/** Weights in one file. */
export const SINGLE = "model.safetensors";
/** Which of several files has which weight. */
export const INDEX = "model.safetensors.index.json";
/** File handles are few; the largest published models have a few hundred shards. */
export const MAX_SHARDS = 512;
/** The largest published models have some hundred thousand tensors. */
const MAX_TENSORS = 2 ** 18;

/**
 * Fewer bytes than this are fetched without asking before whether they are wanted: that takes a request for each file,
 * and they are soon there.
 */
const WORTH_ASKING = 64 * 2 ** 20;

/** Options of {@linkcode openWeights}. */
export interface WeightsOptions extends ReadOptions {
  /** Whether the tensors will only be looked at: then no more than headers is fetched, and `stream` may refuse. */
  readonly headers_only?: boolean;
  /**
   * Looks at the tensors, and throws to refuse them: before their bytes are fetched, where headers can be had alone,
   * and when they are there.
   */
  readonly accept?: (weights: Weights) => void;
}

/**
 * Opens a model's weights: those of another kind of file that `files` know, else `model.safetensors`, else the shards
 * that `model.safetensors.index.json` lists.
 *
 * @throws {ModelFileError} when neither exists or anything about them is malformed, or a server does not give headers
 *   alone where only those are wanted.
 */
export async function openWeights(files: ModelFiles, options: WeightsOptions = {}): Promise<Weights> {
  const { headers_only = false, accept, ...read } = options;
  const { names, open } = files.weights ?? await findSafetensors(files, read);
  if (headers_only) return await open({ ...read, beginning: true });
  if (accept !== undefined && await files.missing(names, read) >= WORTH_ASKING) {
    try {
      using headers = await open({ ...read, beginning: true });
      accept(headers);
    } catch (error) {
      // They are accepted, or not, when they are there.
      if (!(error instanceof NotInParts) && !(error instanceof FileChanged)) throw error;
    }
  }
  if (names.length > 1) await files.prepare(names, read);
  const weights = await open(read);
  try {
    accept?.(weights);
    return weights;
  } catch (error) {
    weights.close();
    throw error;
  }
}

/** Which shard has which tensor; null where there is one file. */
type Index = ReadonlyMap<string, string> | null;

function namesIn(index: Index): string[] {
  return index === null ? [SINGLE] : [...new Set(index.values())];
}

/** The safetensors files among `files`. */
async function findSafetensors(files: ModelFiles, options: ReadOptions): Promise<WeightFiles> {
  const index = await findIndex(files, options);
  return { names: namesIn(index), open: (options) => openAll(files, index, options) };
}

async function findIndex(files: ModelFiles, options: ReadOptions): Promise<Index> {
  if (await files.has(SINGLE, options)) return null;
  if (!await files.has(INDEX, options)) {
    throw new ModelFileError(`Cannot find weights in ${files.describe()}: looked for ${SINGLE} and ${INDEX}`);
  }
  return readIndex(
    await files.json(INDEX, MAX_TOKENIZER_BYTES, options),
    `${files.describe()}/${INDEX}`,
  );
}

async function openAll(
  files: ModelFiles,
  index: Index,
  { beginning = false, ...read }: SourceOptions,
): Promise<Weights> {
  const names = namesIn(index);
  const opened = new Map<string, SafetensorsFile>();
  try {
    await inParallel(names, read, async (name, each) => {
      opened.set(name, await openSafetensors(await files.source(name, { ...each, beginning }), each));
    });
    if (index === null) return opened.get(SINGLE)!;
    // In the order of the index, whichever came first.
    return new ShardedWeights(
      files.describe(),
      index,
      new Map(names.map((name) => [name, opened.get(name)!])),
    );
  } catch (error) {
    for (const file of opened.values()) file.close();
    throw error;
  }
}

/** Tensor name → shard. Shards must be plain names beside the index: nothing else can be meant honestly. */
function readIndex(json: unknown, name: string): Map<string, string> {
  const map = isRecord(json) ? json["weight_map"] : undefined;
  if (!isRecord(map)) throw new ModelFileError(`Cannot read ${name}: expected an object with a weight_map`);
  if (Object.keys(map).length > MAX_TENSORS) {
    throw new ModelFileError(`Cannot read ${name}: expected at most ${MAX_TENSORS} tensors`);
  }
  const index = new Map<string, string>();
  const shards = new Set<string>();
  for (const [tensor, shard] of Object.entries(map)) {
    if (typeof shard !== "string" || !/^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}\.safetensors$/.test(shard)) {
      throw new ModelFileError(
        `Cannot read ${name}: expected a plain name ending in .safetensors for tensor ${
          JSON.stringify(tensor.slice(0, 80))
        }, found ${JSON.stringify(shard)?.slice(0, 80)}`,
      );
    }
    index.set(tensor, shard);
    if (shards.add(shard).size > MAX_SHARDS) {
      throw new ModelFileError(`Cannot read ${name}: expected at most ${MAX_SHARDS} shards`);
    }
  }
  if (index.size === 0) throw new ModelFileError(`Cannot read ${name}: its weight_map is empty`);
  return index;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

class ShardedWeights implements Weights {
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly metadata: ReadonlyMap<string, string>;
  readonly #name: string;
  readonly #index: ReadonlyMap<string, string>;
  readonly #shards: ReadonlyMap<string, SafetensorsFile>;

  constructor(
    name: string,
    index: ReadonlyMap<string, string>,
    shards: ReadonlyMap<string, SafetensorsFile>,
  ) {
    const tensors = new Map<string, StoredTensor>();
    const metadata = new Map<string, string>();
    for (const [shard, file] of shards) {
      for (const [key, value] of file.metadata) metadata.set(key, value);
      for (const [tensor, stored] of file.tensors) {
        const listed = index.get(tensor);
        if (listed !== shard) {
          throw new ModelFileError(
            `Cannot read ${name}: tensor ${JSON.stringify(tensor)} is in ${shard}, but the index ` +
              (listed === undefined ? "does not list it" : `puts it into ${listed}`),
          );
        }
        tensors.set(tensor, stored);
      }
    }
    for (const [tensor, shard] of index) {
      if (!tensors.has(tensor)) {
        throw new ModelFileError(
          `Cannot read ${name}: the index puts tensor ${
            JSON.stringify(tensor)
          } into ${shard}, which does not hold it`,
        );
      }
    }
    this.#name = name;
    this.#index = index;
    this.#shards = shards;
    this.tensors = tensors;
    this.metadata = metadata;
  }

  tensor(name: string): LoadableTensor {
    return loadable(this.tensors, name, this.#name);
  }

  async stream(
    names: string | readonly string[] | null,
    sink: ChunkSink,
    options: StreamOptions = {},
  ): Promise<void> {
    const wanted = typeof names === "string" ? [names] : names ?? [...this.tensors.keys()];
    const byShard = Map.groupBy(new Set(wanted), (name) => this.#index.get(this.tensor(name).name));
    for (const [shard, list] of byShard) {
      await this.#shards.get(shard ?? "")!.stream(list, sink, options);
    }
  }

  close(): void {
    for (const shard of this.#shards.values()) shard.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
