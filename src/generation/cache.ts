/**
 * Which cache a generation uses.
 *
 * @module
 */
import type { Cache } from "../cache/cache.ts";
import { DynamicCache } from "../cache/dynamic.ts";
import { StaticCache } from "../cache/static.ts";
import type { PretrainedConfig } from "../config.ts";
import { InvalidArgument } from "../errors.ts";
import type { GenerationParameters } from "./parameters.ts";

/** Kinds of caches, by the names of the option. */
const KINDS = ["dynamic", "static"] as const;

/** The options that say which cache. */
export interface CacheChoice {
  readonly past_key_values?: Cache | null | undefined;
  readonly cache_implementation?: GenerationParameters["cache_implementation"] | undefined;
}

/**
 * The cache given, or a new one with room for `length` tokens.
 *
 * @throws {InvalidArgument}
 */
export function cacheOf(options: CacheChoice, config: PretrainedConfig, length: number): Cache {
  const { past_key_values = null, cache_implementation } = options;
  if (cache_implementation !== undefined && !KINDS.includes(cache_implementation)) {
    throw new InvalidArgument(
      `Cannot generate with cache_implementation ${JSON.stringify(cache_implementation)}: expected one of ${
        KINDS.join(", ")
      }`,
    );
  }
  if (past_key_values !== null) {
    if (cache_implementation === undefined) return past_key_values;
    throw new InvalidArgument(
      "Cannot generate with past_key_values and cache_implementation: expected one of them",
    );
  }
  return cache_implementation === "static"
    ? new StaticCache({ config, max_cache_len: length })
    : new DynamicCache({ config });
}
