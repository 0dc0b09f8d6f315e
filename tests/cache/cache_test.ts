/**
 * Corners of caches: what configs make of them, moves, snapshots and refusals.
 *
 * @module
 */
import { assertEquals, assertThrows } from "@std/assert";
import { DynamicCache } from "../../src/cache/dynamic.ts";
import type { LayeredCache } from "../../src/cache/layered.ts";
import { StaticCache } from "../../src/cache/static.ts";
import { PretrainedConfig } from "../../src/config.ts";
import { liveBuffers } from "../../src/devices/mod.ts";
import { InvalidArgument } from "../../src/errors.ts";
import { Tensor } from "../../src/tensor.ts";
import { everywhere, liveTest, reportSkipped, withGpu } from "../models/support.ts";
import { type StateOptions, states, tokens } from "./states.ts";

async function add(cache: LayeredCache, layer: number, first: number, n: number, options: StateOptions = {}) {
  using keys = states(first, n, options);
  using values = states(-first, n, options);
  return await tokens(cache.update(keys, values, layer));
}

const upTo = (n: number, from = 1) => Array.from({ length: n - from + 1 }, (_, i) => from + i);

/** Configs, and the windows their layers keep: what sizes become after 20 tokens. */
const CONFIGS: readonly (readonly [name: string, fields: Record<string, unknown>, sliding: boolean[]])[] = [
  ["nothing", { num_hidden_layers: 2 }, [false, false]],
  ["a window", { num_hidden_layers: 2, sliding_window: 4 }, [true, true]],
  ["no window but null", { num_hidden_layers: 2, sliding_window: null }, [false, false]],
  ["a chunk", { num_hidden_layers: 1, attention_chunk_size: 4 }, [true]],
  ["a window and a chunk", { num_hidden_layers: 1, attention_chunk_size: 9, sliding_window: 4 }, [true]],
  ["types", { layer_types: ["full_attention", "sliding_attention"], sliding_window: 4 }, [false, true]],
  ["chunked types", { layer_types: ["chunked_attention", "full_attention"], attention_chunk_size: 4 }, [
    true,
    false,
  ]],
  ["types that are unknown", { layer_types: ["linear_attention", "conv"], sliding_window: 4 }, [
    false,
    false,
  ]],
  ["a text part", { text_config: { num_hidden_layers: 2, sliding_window: 4 } }, [true, true]],
];

for (const [name, fields, sliding] of CONFIGS) {
  liveTest(`a config with ${name} says which layers keep a window`, async () => {
    using cache = new DynamicCache({ config: new PretrainedConfig(fields) });
    using fixed = new StaticCache({ config: new PretrainedConfig(fields), max_cache_len: 32 });
    assertEquals([cache.is_sliding, fixed.is_sliding], [sliding, sliding]);
    assertEquals([cache.is_compileable, fixed.is_compileable], [false, true]);
    for (const [i, slides] of sliding.entries()) {
      assertEquals(await add(cache, i, 1, 20), upTo(20), "the tokens that are new see each other");
      await add(fixed, i, 1, 20);
      assertEquals(cache.get_mask_sizes(1, i), slides ? [4, 17] : [21, 0]);
      assertEquals(fixed.get_mask_sizes(1, i), slides ? [4, 17] : [32, 0]);
    }
  });
}

const BAD_CONFIGS: readonly (readonly [fields: Record<string, unknown>, mentions: string])[] = [
  [{ layer_types: ["sliding_attention"] }, "sliding_window"],
  [{ layer_types: ["chunked_attention"], sliding_window: 4 }, "attention_chunk_size"],
  [{ sliding_window: 0 }, "sliding_window"],
  [{ sliding_window: 2.5 }, "sliding_window"],
  [{ layer_types: "full_attention" }, "layer_types"],
  [{ num_hidden_layers: -1 }, "num_hidden_layers"],
];

Deno.test("configs that do not say what layers keep are refused by the name of the field", () => {
  for (const [fields, mentions] of BAD_CONFIGS) {
    const config = new PretrainedConfig(fields);
    assertThrows(() => new DynamicCache({ config }), InvalidArgument, mentions);
    assertThrows(() => new StaticCache({ config, max_cache_len: 4 }), InvalidArgument, mentions);
  }
});

Deno.test("options that are wrong, missing or misspelt are refused", () => {
  const config = new PretrainedConfig({ num_hidden_layers: 1 });
  for (const max_cache_len of [0, -1, 1.5, NaN, "4", undefined]) {
    const options = { config, max_cache_len } as never;
    assertThrows(() => new StaticCache(options), InvalidArgument, "max_cache_len");
  }
  assertThrows(() => new StaticCache({ max_cache_len: 4 } as never), InvalidArgument, "config");
  assertThrows(
    () => new StaticCache({ config, max_cache_length: 4 } as never),
    InvalidArgument,
    "max_cache_length",
  );
  assertThrows(() => new DynamicCache({ config: {} } as never), InvalidArgument, "PretrainedConfig");
  assertThrows(() => new DynamicCache({ conf: config } as never), InvalidArgument, "conf");
});

liveTest("a layer the config does not have is refused", () => {
  using cache = new DynamicCache({ config: new PretrainedConfig({ num_hidden_layers: 2 }) });
  using token = states(1, 1);
  assertThrows(() => cache.update(token, token, 2), InvalidArgument, "0…1");
});

everywhere("a window of 1 stores nothing", async (device) => {
  const live = liveBuffers();
  using cache = new DynamicCache({
    config: new PretrainedConfig({ num_hidden_layers: 1, sliding_window: 1 }),
  });
  assertEquals(await add(cache, 0, 1, 3, { device }), [1, 2, 3]);
  assertEquals(await add(cache, 0, 4, 1, { device }), [4]);
  assertEquals([cache.get_seq_length(), cache.get_mask_sizes(1), cache.device], [4, [1, 4], null]);
  assertEquals(liveBuffers(), live);
});

everywhere("unused slots hold zeros again after crop, reset and a snapshot", async (device) => {
  const config = new PretrainedConfig({
    layer_types: ["full_attention", "sliding_attention"],
    sliding_window: 8,
  });
  using cache = new StaticCache({ config, max_cache_len: 8 });
  for (const layer of [0, 1]) {
    assertEquals(await add(cache, layer, 1, 5, { device }), [1, 2, 3, 4, 5, 0, 0, 0]);
  }
  {
    using before = cache.snapshot();
    for (const layer of [0, 1]) await add(cache, layer, 6, 3, { device });
    before.restore();
  }
  for (const layer of [0, 1]) {
    assertEquals(await add(cache, layer, 9, 1, { device }), [1, 2, 3, 4, 5, 9, 0, 0]);
  }
  cache.crop(-3);
  for (const layer of [0, 1]) {
    assertEquals(await add(cache, layer, 7, 1, { device }), [1, 2, 3, 7, 0, 0, 0, 0]);
  }
  cache.reset();
  for (const layer of [0, 1]) {
    assertEquals(await add(cache, layer, 3, 1, { device }), [3, 0, 0, 0, 0, 0, 0, 0]);
  }
});

liveTest("a snapshot goes back to an empty cache, and to layers there were not", async () => {
  using cache = new DynamicCache();
  const empty = cache.snapshot();
  await add(cache, 0, 1, 3);
  await add(cache, 1, 1, 3);
  const full = cache.snapshot();
  empty.restore();
  assertEquals([cache.get_seq_length(0), cache.get_seq_length(1), cache.is_sliding], [0, 0, []]);
  full.restore();
  assertEquals([cache.get_seq_length(0), cache.get_seq_length(1), cache.is_sliding], [3, 3, [false, false]]);
  assertEquals(await add(cache, 1, 4, 1), upTo(4));
  for (const s of [empty, full]) s[Symbol.dispose]();
  assertThrows(() => full.restore(), InvalidArgument, "disposed");
});

liveTest("a static cache that is full refuses more, and is unchanged", async () => {
  using cache = new StaticCache({ config: new PretrainedConfig({ num_hidden_layers: 1 }), max_cache_len: 4 });
  await add(cache, 0, 1, 3);
  const live = liveBuffers();
  using two = states(4, 2);
  const refused = assertThrows(() => cache.update(two, two, 0), InvalidArgument, "max_cache_len is 4");
  assertEquals(refused.message.includes("holds 3"), true);
  assertEquals(liveBuffers() - live, 0);
  assertEquals(await add(cache, 0, 4, 1), [1, 2, 3, 4]);
});

liveTest("a batch of another size is refused while there are tokens, and taken after reset", async () => {
  const config = new PretrainedConfig({ num_hidden_layers: 1 });
  for (const cache of [new DynamicCache(), new StaticCache({ config, max_cache_len: 4 })]) {
    using owned = cache;
    await add(owned, 0, 1, 2);
    using two = states(1, 1, { B: 2 });
    assertThrows(() => owned.update(two, two, 0), InvalidArgument, "holds");
    owned.reset();
    const [keys, values] = owned.update(two, two, 0);
    assertEquals(keys.shape[0], 2);
    for (const t of [keys, values]) t[Symbol.dispose]();
  }
});

liveTest("reorder_cache refuses what is not a list of rows", async () => {
  using cache = new DynamicCache();
  await add(cache, 0, 1, 2);
  for (const wrong of [[0, 1], [-1], [0.5], [[0]], []] as number[][]) {
    using beams = Tensor.from(wrong);
    assertThrows(() => cache.reorder_cache(beams), InvalidArgument, "reorder");
  }
  assertEquals(await add(cache, 0, 3, 1), upTo(3));
});

withGpu("every kind of cache moves with what it holds, is reordered there and goes on", async () => {
  const config = new PretrainedConfig({
    layer_types: ["full_attention", "sliding_attention"],
    sliding_window: 4,
  });
  for (const cache of [new DynamicCache({ config }), new StaticCache({ config, max_cache_len: 12 })]) {
    using owned = cache;
    const zeros = cache instanceof StaticCache;
    for (const layer of [0, 1]) await add(owned, layer, 1, 7);
    using one = Tensor.from([0]);
    for (const [to, first] of [["webgpu", 8], ["wasm", 9], ["wasm", 10]] as const) {
      await owned.to(to);
      assertEquals(owned.device, to);
      owned.reorder_cache(one);
      const full = await add(owned, 0, first, 1, { device: to });
      assertEquals(full, [...upTo(first), ...(zeros ? new Array(12 - first).fill(0) : [])]);
      assertEquals(await add(owned, 1, first, 1, { device: to }), upTo(first, first - 3));
    }
  }
});

reportSkipped();
