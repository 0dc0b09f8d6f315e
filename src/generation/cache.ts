/**
 * Which cache a generation uses.
 *
 * @module
 */
import type { Cache } from "../cache/cache.ts";
import { DynamicCache } from "../cache/dynamic.ts";
import { checkKvDType, type KvDType } from "../cache/kv_dtype.ts";
import { StaticCache } from "../cache/static.ts";
import { InvalidArgument } from "../errors.ts";
import type { Generative } from "./decoding.ts";
import type { GenerationParameters } from "./parameters.ts";

/** Kinds of caches, by the names of the option. */
const KINDS = ["dynamic", "static"] as const;

/** The options that say which cache. */
export interface CacheChoice {
  readonly past_key_values?: Cache | null | undefined;
  readonly cache_implementation?: GenerationParameters["cache_implementation"] | undefined;
  readonly kv_dtype?: KvDType | null | undefined;
}

/**
 * The cache given, or a new one with room for `length` tokens.
 *
 * @throws {InvalidArgument}
 */
export function cacheOf(
  options: CacheChoice,
  { text_config: config, kv_dtype: own }: Pick<Generative, "text_config" | "kv_dtype">,
  length: number,
): Cache {
  const { past_key_values = null, cache_implementation } = options;
  if (cache_implementation !== undefined && !KINDS.includes(cache_implementation)) {
    throw new InvalidArgument(
      `Cannot generate with cache_implementation ${JSON.stringify(cache_implementation)}: expected one of ${
        KINDS.join(", ")
      }`,
    );
  }
  if (past_key_values !== null) {
    const also = cache_implementation !== undefined
      ? "cache_implementation"
      : (options.kv_dtype ?? null) !== null
      ? "kv_dtype"
      : null;
    if (also === null) return past_key_values;
    throw new InvalidArgument(`Cannot generate with past_key_values and ${also}: expected one of them`);
  }
  const kv_dtype = checkKvDType(options.kv_dtype ?? own);
  return cache_implementation === "static"
    ? new StaticCache({ config, max_cache_len: length, kv_dtype })
    : new DynamicCache({ config, kv_dtype });
}
