/**
 * Recorded steps of caches.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { DynamicCache, type LayeredCache, PretrainedConfig, StaticCache } from "../../mod.ts";
import { states, tokens } from "../cache/states.ts";
import type { GoldenCase, GoldenValue } from "../support/golden.ts";
import { faultOf, type Runner } from "./outcome.ts";

/** The cache a case was recorded with; `dynamic` is one that was not given the config. */
function cacheOf({ params }: GoldenCase): LayeredCache {
  if (params.kind === "dynamic") return new DynamicCache();
  const fields = { ...params.config as Record<string, unknown>, num_hidden_layers: params.layers };
  const config = new PretrainedConfig(fields);
  if (params.kind === "dynamic_from_config") return new DynamicCache({ config });
  return new StaticCache({ config, max_cache_len: Number(params.max_cache_len) });
}

/** What a cache stores, returns and reports, step by step. */
export const runCache: Runner = async (recorded, device) => {
  const { steps } = recorded.expect as unknown as {
    steps: readonly { new_tokens: number; layers: unknown[] }[];
  };
  using cache = cacheOf(recorded);
  const found = [];
  let seen = 0;
  for (const { new_tokens, layers } of steps) {
    using keys = states(seen + 1, new_tokens, { device });
    using values = states(-seen - 1, new_tokens, { device });
    const rows = [];
    for (let i = 0; i < layers.length; i++) {
      const [kv_length, kv_offset] = cache.get_mask_sizes(new_tokens, i);
      const query_offset = cache.get_query_offset(i);
      const returned = await tokens(cache.update(keys, values, i));
      assertEquals(returned.length, kv_length, "what is returned has the size masks are made for");
      rows.push({ kv_length, kv_offset, query_offset, returned, seq_length: cache.get_seq_length(i) });
    }
    found.push({ new_tokens, layers: rows });
    seen += new_tokens;
  }
  const all = { steps: found, is_sliding: [...cache.is_sliding], is_compileable: cache.is_compileable };
  return [{
    recorded: recorded.expect,
    difference: (expected) => faultOf(() => assertEquals<unknown>(all, observable(expected))),
  }];
};

/** A recording without what a layer keeps to itself: the next step returns it. */
function observable(expected: GoldenValue): unknown {
  return JSON.parse(JSON.stringify(expected), (key, value) => key === "stored" ? undefined : value);
}
