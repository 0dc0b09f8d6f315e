/**
 * Caches against what Transformers stores, returns and reports, step by step.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { DynamicCache } from "../../src/cache/dynamic.ts";
import type { LayeredCache } from "../../src/cache/layered.ts";
import { StaticCache } from "../../src/cache/static.ts";
import { PretrainedConfig } from "../../src/config.ts";
import { everywhere, reportSkipped } from "../models/support.ts";
import { type GoldenCase, goldenCases } from "../support/golden.ts";
import { states, tokens } from "./states.ts";

interface Layer {
  readonly kv_length: number;
  readonly kv_offset: number;
  readonly query_offset: number;
  readonly returned: readonly number[];
  readonly seq_length: number;
}

interface Steps {
  readonly steps: readonly { readonly new_tokens: number; readonly layers: readonly Layer[] }[];
  readonly is_sliding: readonly boolean[];
  readonly is_compileable: boolean;
}

/** The cache a case was recorded with; `dynamic` is one that was not given the config. */
function cacheOf({ params }: GoldenCase): LayeredCache {
  if (params.kind === "dynamic") return new DynamicCache();
  const fields = { ...params.config as Record<string, unknown>, num_hidden_layers: params.layers };
  const config = new PretrainedConfig(fields);
  if (params.kind === "dynamic_from_config") return new DynamicCache({ config });
  return new StaticCache({ config, max_cache_len: Number(params.max_cache_len) });
}

for (const recorded of goldenCases("cache")) {
  everywhere(`agrees with ${recorded.id}`, async (device) => {
    const expected = recorded.expect as unknown as Steps;
    using cache = cacheOf(recorded);
    let seen = 0;
    for (const step of expected.steps) {
      using keys = states(seen + 1, step.new_tokens, { device });
      using values = states(-seen - 1, step.new_tokens, { device });
      for (const [i, layer] of step.layers.entries()) {
        const before = {
          sizes: cache.get_mask_sizes(step.new_tokens, i),
          query_offset: cache.get_query_offset(i),
        };
        const returned = await tokens(cache.update(keys, values, i));
        assertEquals(returned, layer.returned, `layer ${i} after ${seen} tokens`);
        assertEquals(before, {
          sizes: [layer.kv_length, layer.kv_offset],
          query_offset: layer.query_offset,
        });
        assertEquals(returned.length, layer.kv_length, "what is returned has the size masks are made for");
        assertEquals(cache.get_seq_length(i), layer.seq_length);
      }
      seen += step.new_tokens;
    }
    assertEquals(cache.is_sliding, [...expected.is_sliding]);
    assertEquals(cache.is_compileable, expected.is_compileable);
  });
}

reportSkipped();
