/**
 * Caches into files, so that a long prompt is computed once and read again later.
 *
 * A file is safetensors: `layers.<i>.key` and `layers.<i>.value` (B, Hkv, slots, D) hold the filled slots, `token_ids`
 * (B, N) the tokens they are of, where these were given; int8 has `…_scale` (B, Hkv, slots, 1) beside keys and values. The metadata says which kind of cache it was.
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import { InvalidArgument } from "../errors.ts";
import { type StreamedTensor, streamSafetensors } from "../hub/safetensors_write.ts";
import { writeFile } from "../hub/write.ts";
import { releasing } from "../release.ts";
import { Tensor } from "../tensor.ts";
import type { Cache } from "./cache.ts";
import { DynamicCache } from "./dynamic.ts";
import { fingerprintOf } from "./fingerprint.ts";
import type { LayerState } from "./layer.ts";
import { checkOptions } from "./layered.ts";
import { StaticCache } from "./static.ts";
import { layerWindows } from "./windows.ts";

/** What the metadata of every cache file says. */
export const FORMAT = "attune-cache";
/** Version of the format. */
export const VERSION = "1";

/** Options of {@linkcode save_cache}. */
export interface SaveCacheOptions {
  /** The config of the model the cache is of: the file can then be loaded with this config only. */
  config?: PretrainedConfig;
  /** (B, N) tokens the cache holds, by which a reader knows what it is of. */
  token_ids?: readonly (readonly number[])[];
  /** Aborts the saving; there is no file then, or the one there was. */
  signal?: AbortSignal;
}

/**
 * Writes a cache into a safetensors file, which appears when it is whole. The cache stays usable; what is added to it
 * meanwhile is not in the file.
 *
 * @throws {InvalidArgument} for a cache of another kind, one whose layers have not seen the same tokens, or `token_ids`
 * that do not fit it
 * @throws {ModelFileError} when the file cannot be written, saying which permission is missing
 * @throws the signal's reason when aborted
 */
export async function save_cache(
  cache: Cache,
  path: string | URL,
  options: SaveCacheOptions = {},
): Promise<void> {
  checkOptions(options, ["config", "token_ids", "signal"], "save");
  if (!(cache instanceof DynamicCache || cache instanceof StaticCache)) {
    throw new InvalidArgument("Cannot save a cache of this kind: expected a DynamicCache or a StaticCache");
  }
  const { config, token_ids, signal } = options;
  if (cache instanceof StaticCache && config === undefined) {
    throw new InvalidArgument(
      "Cannot save a StaticCache without config: expected the config it was made with",
    );
  }
  if (config !== undefined && !cache.keeps(layerWindows(config))) {
    throw new InvalidArgument(
      "Cannot save a cache with a config that gives its layers other windows: expected the config it was made with",
    );
  }
  const layers = cache.saveLayers();
  try {
    const seen = layers[0]?.seen ?? 0;
    const odd = layers.findIndex((layer) => layer.seen !== seen);
    if (odd >= 0) {
      throw new InvalidArgument(
        `Cannot save a cache in the middle of a forward: layer 0 has seen ${seen} tokens, layer ${odd} ${
          layers[odd]!.seen
        }`,
      );
    }
    const tensors = layers.flatMap(layerTensors);
    if (token_ids !== undefined) {
      tensors.push(tokenTensor(token_ids, seen, layers[0]?.states?.[0].shape[0] ?? token_ids.length));
    }
    const metadata = {
      format: FORMAT,
      version: VERSION,
      kind: cache instanceof StaticCache ? "static" : "dynamic",
      seen: String(seen),
      layers: String(layers.length),
      ...(cache.kv_dtype === null ? {} : { kv_dtype: cache.kv_dtype }),
      ...(cache instanceof StaticCache ? { max_cache_len: String(cache.max_cache_len) } : {}),
      ...(config === undefined ? {} : { config: await fingerprintOf(config) }),
    };
    await writeFile(path, streamSafetensors(tensors, metadata), signal === undefined ? {} : { signal });
  } finally {
    for (const { states } of layers) for (const t of states ?? []) t[Symbol.dispose]();
  }
}

function layerTensors({ states, start, end }: LayerState, i: number): StreamedTensor[] {
  return (states ?? []).flatMap((held, k) => {
    const name = `layers.${i}.${k === 0 ? "key" : "value"}`;
    const filled = (buffer: Tensor, name: string): StreamedTensor => {
      const [b, h, , d] = buffer.shape as [number, number, number, number];
      const shape = [b, h, end - start, d];
      const open = () => {
        const offset = buffer.offset + start * buffer.strides[2]!;
        return releasing(buffer.unscaled(), (numbers) => numbers.view(shape, buffer.strides, offset));
      };
      return { name, dtype: buffer.dtype, shape, open };
    };
    return [filled(held, name), ...(held.scales === null ? [] : [filled(held.scales, `${name}_scale`)])];
  });
}

/** @throws {InvalidArgument} */
function tokenTensor(
  rows: readonly (readonly number[])[],
  seen: number,
  batch: number,
): StreamedTensor {
  const ids = rows.flat();
  if (
    rows.length !== batch || rows.some((row) => row.length !== seen) ||
    !ids.every((id) => Number.isSafeInteger(id) && id >= 0)
  ) {
    throw new InvalidArgument(
      `Cannot save token_ids of ${rows.length} rows with a cache of batch ${batch}: expected ids ≥ 0, ${seen} in every row`,
    );
  }
  const shape = [rows.length, seen];
  const open = () => Tensor.from(ids, { dtype: "int64", shape });
  return { name: "token_ids", dtype: "int64", shape, open };
}
