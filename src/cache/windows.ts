/**
 * Which layers of a model keep a window, by its config.
 *
 * @module
 */
import { PretrainedConfig } from "../config.ts";
import { InvalidArgument } from "../errors.ts";
import { textConfig } from "../masks/config.ts";

/** Bound of sizes: keeps products exact. */
const MOST = 2 ** 30;
/** Bound of the number of layers. */
const MOST_LAYERS = 4096;

/** Windows by layer, in tokens; null keeps everything. */
export interface LayerWindows {
  /** One per layer; null where the config does not say how many there are. */
  readonly layers: readonly (number | null)[] | null;
  /** The window of every layer where `layers` is null. */
  readonly every: number | null;
}

/**
 * Reads `layer_types` of the text part: `sliding_attention` keeps `sliding_window` tokens, `chunked_attention`
 * `attention_chunk_size`, other types everything. Without `layer_types` all layers keep `sliding_window`, else
 * `attention_chunk_size`, else everything.
 *
 * @throws {InvalidArgument | ModelFileError} for fields that are not what they should be.
 */
export function layerWindows(config: PretrainedConfig | undefined): LayerWindows {
  if (config === undefined) return { layers: null, every: null };
  const text = config instanceof PretrainedConfig ? textConfig(config) : null;
  if (!(text instanceof PretrainedConfig)) {
    throw new InvalidArgument("Cannot make a cache: expected config to be a PretrainedConfig");
  }
  const { read } = text;
  const size = { min: 1, max: MOST };
  if (read.has("layer_types")) {
    const layers = read.strings("layer_types", { most: MOST_LAYERS }).map((type) => {
      if (type === "sliding_attention") return read.integer("sliding_window", size);
      if (type === "chunked_attention") return read.integer("attention_chunk_size", size);
      return null;
    });
    return { layers, every: null };
  }
  const every = read.integer("sliding_window", { ...size, default: null }) ??
    read.integer("attention_chunk_size", { ...size, default: null });
  const count = read.integer("num_hidden_layers", { min: 1, max: MOST_LAYERS, default: null });
  return { layers: count === null ? null : new Array<number | null>(count).fill(every), every };
}
