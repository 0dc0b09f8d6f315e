/**
 * StaticCache: a fixed number of slots.
 *
 * @module
 */
import { PretrainedConfig } from "../config.ts";
import { InvalidArgument } from "../errors.ts";
import { checkKvDType, type KvDType } from "./kv_dtype.ts";
import { checkOptions, LayeredCache } from "./layered.ts";
import { StaticLayer, StaticSlidingLayer } from "./static_layer.ts";
import { layerWindows } from "./windows.ts";

/**
 * A cache of `max_cache_len` slots a layer, allocated at the first token, so that shapes and memory stay what they
 * are. Attention is given all slots; masks hide those that no token has filled. Layers with a window or chunk w have
 * min(w, max_cache_len) slots and take any number of tokens. `kv_dtype` is the type keys and values are kept in; default:
 * what they come in, float32 from models.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { PretrainedConfig } from "../config.ts";
 * import { Tensor } from "../tensor.ts";
 *
 * using cache = new StaticCache({ config: new PretrainedConfig({ num_hidden_layers: 1 }), max_cache_len: 8 });
 * using states = Tensor.from(new Float32Array(5 * 2), { shape: [1, 1, 5, 2] });
 * const [keys, values] = cache.update(states, states, 0);
 * assertEquals([keys.shape, cache.get_seq_length()], [[1, 1, 8, 2], 5]);
 * for (const t of [keys, values]) t[Symbol.dispose]();
 * ```
 *
 * Source: Transformers, `StaticCache`.
 */
export class StaticCache extends LayeredCache {
  /** Shapes stay fixed. */
  readonly is_compileable = true;
  /** Slots of a layer without a window. */
  readonly max_cache_len: number;

  /**
   * A cache without tokens.
   *
   * @throws {InvalidArgument | ModelFileError} for a length below 1, a config that does not say what layers keep, or an
   * unknown `kv_dtype`
   */
  constructor(options: { config: PretrainedConfig; max_cache_len: number; kv_dtype?: KvDType | null }) {
    checkOptions(options, ["config", "max_cache_len", "kv_dtype"]);
    const kv_dtype = checkKvDType(options.kv_dtype);
    const { config, max_cache_len: size } = options;
    if (!(config instanceof PretrainedConfig)) {
      throw new InvalidArgument("Cannot make a StaticCache without config: expected a PretrainedConfig");
    }
    if (!Number.isSafeInteger(size) || size < 1) {
      throw new InvalidArgument(
        `Cannot make a StaticCache with max_cache_len ${String(size)}: expected an integer ≥ 1`,
      );
    }
    super(
      layerWindows(config),
      (window) =>
        window === null
          ? new StaticLayer(size, kv_dtype)
          : new StaticSlidingLayer(Math.min(window, size), kv_dtype),
      kv_dtype,
    );
    this.max_cache_len = size;
  }
}
