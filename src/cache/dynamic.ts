/**
 * DynamicCache: grows with the sequence.
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import { checkKvDType, type KvDType } from "./kv_dtype.ts";
import { DynamicLayer } from "./dynamic_layer.ts";
import { checkOptions, LayeredCache } from "./layered.ts";
import { layerWindows } from "./windows.ts";

/**
 * A cache that keeps all tokens, or in layers with a window those the next token may see. Storage grows by half of
 * what is needed, so a token costs no copy of the past.
 *
 * `kv_dtype` is the type keys and values are kept in; default: what they come in, float32 from models.
 *
 * With a config there is a layer per `layer_types`, each with its window or chunk; without one, layers without a
 * window are made as they are first updated.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { PretrainedConfig } from "../config.ts";
 * import { Tensor } from "../tensor.ts";
 *
 * using cache = new DynamicCache({ config: new PretrainedConfig({ sliding_window: 3, num_hidden_layers: 1 }) });
 * using states = Tensor.from(new Float32Array(5 * 2), { shape: [1, 1, 5, 2] });
 * for (const t of cache.update(states, states, 0)) t[Symbol.dispose]();
 * assertEquals([cache.get_seq_length(), cache.get_mask_sizes(1)], [5, [3, 3]]);
 * ```
 *
 * Source: Transformers, `DynamicCache`.
 */
export class DynamicCache extends LayeredCache {
  /** Shapes change with every token. */
  readonly is_compileable = false;

  /**
   * A cache without tokens.
   *
   * @throws {InvalidArgument | ModelFileError} for a config whose layers do not say what they keep, or an unknown `kv_dtype`
   */
  constructor(options: { config?: PretrainedConfig; kv_dtype?: KvDType | null } = {}) {
    checkOptions(options, ["config", "kv_dtype"]);
    const kv_dtype = checkKvDType(options.kv_dtype);
    super(layerWindows(options.config), (window) => new DynamicLayer(window, kv_dtype), kv_dtype);
  }
}
