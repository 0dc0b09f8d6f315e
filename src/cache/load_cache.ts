/**
 * Caches from files. Everything is checked: a file may come from anywhere.
 *
 * @module
 */
import { PretrainedConfig } from "../config.ts";
import type { DeviceName } from "../devices/device.ts";
import { acquire } from "../devices/mod.ts";
import { type DType, hostArray, hostView, isFloat } from "../dtype.ts";
import { InvalidArgument, ModelFileError } from "../errors.ts";
import { openSafetensors, type Weights } from "../hub/safetensors.ts";
import { fileSource } from "../hub/source.ts";
import { Tensor } from "../tensor.ts";
import { DynamicCache } from "./dynamic.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { KV_DTYPES } from "./kv_dtype.ts";
import type { LayerState } from "./layer.ts";
import { checkOptions } from "./layered.ts";
import { FORMAT, VERSION } from "./save_cache.ts";
import { StaticCache } from "./static.ts";

const MOST_LAYERS = 4096;
const MOST_TOKENS = 2 ** 30;

/** Options of {@linkcode load_cache}. */
export interface LoadCacheOptions {
  /** The config of the model; needed where the file was saved with one. */
  config?: PretrainedConfig;
  /** Where the states will be used; default `"wasm"`. */
  device?: DeviceName;
  /** Aborts the loading. */
  signal?: AbortSignal;
}

/** What a cache file holds. */
export interface LoadedCache {
  /** A cache that goes on where the saved one was; the caller's. */
  readonly past_key_values: DynamicCache | StaticCache;
  /** (B, N) tokens it holds, or null where the file does not say. */
  readonly token_ids: number[][] | null;
}

/**
 * Reads a cache that `save_cache` has written. Generation goes on with it as with the one that was saved.
 *
 * That the model has the same weights is not checked: the config is.
 *
 * @throws {ModelFileError} for a missing or malformed file, or one of another model
 * @throws {InvalidArgument} for options that do not fit, such as a missing config
 * @throws {DeviceUnavailable} when the device does not exist here
 * @throws the signal's reason when aborted
 */
export async function load_cache(path: string | URL, options: LoadCacheOptions = {}): Promise<LoadedCache> {
  checkOptions(options, ["config", "device", "signal"], "load");
  const { config, device = "wasm", signal } = options;
  if (device !== "wasm" && device !== "webgpu") {
    throw new InvalidArgument(`Cannot load a cache to "${String(device)}": expected wasm or webgpu`);
  }
  await acquire(device);
  const read = signal === undefined ? {} : { signal };
  const source = await fileSource(path, read);
  const { name } = source;
  using file = await openSafetensors(source, read);
  const { cache, seen, count } = await emptyCache(file, name, config);
  const layers: LayerState[] = [];
  let done = false;
  try {
    const ids = tokensIn(file, name, seen);
    const expected = seen === 0 ? 0 : (cache.kv_dtype === "int8" ? 4 : 2) * count;
    if (file.tensors.size !== expected + (ids === null ? 0 : 1)) {
      throw new ModelFileError(
        `Cannot read ${name} as a cache: expected keys and values of ${count} layers, it has ${file.tensors.size} tensors`,
      );
    }
    const common = { batch: ids?.[0] ?? null, dtype: cache.kv_dtype };
    for (let i = 0; i < count; i++) {
      const end = cache.filled(i, seen);
      const states = seen === 0 ? null : statesIn(file, name, i, end, device, common);
      layers.push({ states, start: 0, end: states === null ? 0 : end, seen });
    }
    await fill(file, layers, read);
    const token_ids = ids === null ? null : await readTokens(file, name, ids, config, read);
    cache.loadLayers(layers);
    done = true;
    return { past_key_values: cache, token_ids };
  } finally {
    for (const { states } of layers) for (const t of states ?? []) t[Symbol.dispose]();
    if (!done) cache[Symbol.dispose]();
  }
}

/** The cache the metadata describes, without tokens. */
async function emptyCache(
  { metadata }: Weights,
  name: string,
  config: PretrainedConfig | undefined,
): Promise<{ cache: DynamicCache | StaticCache; seen: number; count: number }> {
  const refuse = (what: string, expected: string) =>
    new ModelFileError(
      `Cannot read ${name} as a cache: expected ${expected}, its ${what} is ${
        JSON.stringify(metadata.get(what)?.slice(0, 80)) ?? "missing"
      }`,
    );
  const number = (what: string, min: number, max: number) => {
    const text = metadata.get(what) ?? "";
    const value = /^\d{1,10}$/.test(text) ? Number(text) : NaN;
    if (value >= min && value <= max) return value;
    throw refuse(what, `an integer from ${min} to ${max}`);
  };
  if (metadata.get("format") !== FORMAT) throw refuse("format", `the format ${FORMAT}`);
  if (metadata.get("version") !== VERSION) throw refuse("version", `version ${VERSION}`);
  const kind = metadata.get("kind");
  if (kind !== "dynamic" && kind !== "static") throw refuse("kind", "dynamic or static");
  const count = number("layers", 0, MOST_LAYERS);
  const seen = number("seen", 0, MOST_TOKENS);
  const print = metadata.get("config");
  if (print === undefined && (config !== undefined || kind === "static")) {
    throw refuse("config", "the fingerprint of a config");
  }
  if (print !== undefined) {
    if (!(config instanceof PretrainedConfig)) {
      throw new InvalidArgument(
        `Cannot load the cache ${name} without config: it was saved with one, expected that of its model`,
      );
    }
    const own = await fingerprintOf(config);
    if (print !== own) throw refuse("config", `the cache of a model with the fingerprint ${own}`);
  }
  const kept = metadata.get("kv_dtype");
  const kv_dtype = KV_DTYPES.find((dtype) => dtype === kept) ?? null;
  if (kept !== undefined && kv_dtype === null) throw refuse("kv_dtype", `one of ${KV_DTYPES.join(", ")}`);
  const cache = kind === "static"
    ? new StaticCache({
      config: config!,
      kv_dtype,
      max_cache_len: number("max_cache_len", Math.max(1, seen), MOST_TOKENS),
    })
    : new DynamicCache({ kv_dtype, ...(config === undefined ? {} : { config }) });
  const layers = cache.is_sliding.length;
  if (layers > 0 && layers !== count) {
    throw refuse("layers", `${layers} layers, as the config says`);
  }
  return { cache, seen, count };
}

/** Shape of the token ids, or null where there are none. */
function tokensIn(file: Weights, name: string, seen: number): [batch: number, length: number] | null {
  const found = file.tensors.get("token_ids");
  if (found === undefined) return null;
  const [batch = 0, length] = found.shape;
  if (found.dtype !== "int64" || found.shape.length !== 2 || length !== seen || batch < 1) {
    throw new ModelFileError(
      `Cannot read ${name} as a cache: expected token_ids I64 (B, ${seen}), found ${found.stored} [${found.shape}]`,
    );
  }
  return [batch, length];
}

/** Host tensors for the states of a layer, checked against each other and the layers before. */
function statesIn(
  file: Weights,
  name: string,
  i: number,
  slots: number,
  device: DeviceName,
  common: { batch: number | null; dtype: DType | null },
): [Tensor, Tensor] {
  const [key, value] = [file.tensor(`layers.${i}.key`), file.tensor(`layers.${i}.value`)];
  const [b, h, n, d] = key.shape;
  common.batch ??= b ?? 0;
  common.dtype ??= key.dtype;
  const fits = key.shape.length === 4 && value.shape.length === 4 && n === slots && d! > 0 && h! > 0 &&
    b! > 0 && b === common.batch && key.shape.slice(0, 3).every((dim, at) => value.shape[at] === dim) &&
    value.shape[3]! > 0 && (isFloat(key.dtype) || common.dtype === "int8") && key.dtype === common.dtype &&
    value.dtype === key.dtype;
  if (!fits) {
    throw new ModelFileError(
      `Cannot read ${name} as a cache: expected layer ${i} to hold ${common.dtype ?? "floats"} (${
        common.batch ?? "B"
      }, Hkv, ${slots}, D) of one type, found key ${key.stored} [${key.shape}] and value ${value.stored} [${value.shape}]`,
    );
  }
  const host = ({ dtype, shape }: { dtype: DType; shape: readonly number[] }) =>
    Tensor.ofHost(hostArray(dtype, shape.reduce((x, y) => x * y, 1)), dtype, [...shape], device);
  if (key.dtype !== "int8") return [host(key), host(value)];
  const quantized = (t: typeof key, what: string) => {
    const scale = file.tensor(`layers.${i}.${what}_scale`);
    const shape = [...t.shape.slice(0, 3), 1];
    if (scale.dtype !== "float32" || `${scale.shape}` !== `${shape}`) {
      throw new ModelFileError(
        `Cannot read ${name} as a cache: expected float32 scales [${shape}] in layer ${i}, found ${scale.stored} [${scale.shape}]`,
      );
    }
    using integers = host(t), scales = host({ dtype: "float32", shape });
    return Tensor.quantized(integers, scales);
  };
  const keys = quantized(key, "key");
  try {
    return [keys, quantized(value, "value")];
  } catch (error) {
    keys[Symbol.dispose]();
    throw error;
  }
}

async function fill(
  file: Weights,
  layers: readonly LayerState[],
  read: { signal?: AbortSignal },
): Promise<void> {
  const hosts = new Map<string, Uint8Array>();
  layers.forEach(({ states }, i) =>
    states?.forEach((t, k) => {
      const name = `layers.${i}.${k === 0 ? "key" : "value"}`;
      const bytesOf = ({ storage: { host } }: Tensor) =>
        new Uint8Array(host!.buffer, host!.byteOffset, host!.byteLength);
      hosts.set(name, bytesOf(t));
      if (t.scales !== null) hosts.set(`${name}_scale`, bytesOf(t.scales));
    })
  );
  await file.stream([...hosts.keys()], (chunk, at, { name }) => hosts.get(name)!.set(chunk, at), read);
}

async function readTokens(
  file: Weights,
  name: string,
  [batch, length]: readonly [number, number],
  config: PretrainedConfig | undefined,
  read: { signal?: AbortSignal },
): Promise<number[][]> {
  const bytes = new Uint8Array(batch * length * 8);
  await file.stream("token_ids", (chunk, at) => bytes.set(chunk, at), read);
  const ids = Array.from(hostView("int64", bytes.buffer), Number);
  const vocab = config?.["vocab_size"];
  const most = typeof vocab === "number" ? vocab : 2 ** 31;
  const odd = ids.find((id) => !(id >= 0 && id < most));
  if (odd !== undefined) {
    throw new ModelFileError(
      `Cannot read ${name} as a cache: expected token ids 0…${most - 1}, found ${odd}`,
    );
  }
  return Array.from({ length: batch }, (_, b) => ids.slice(b * length, (b + 1) * length));
}
