/**
 * DynamicCache: what it holds, gives out and refuses.
 *
 * @module
 */
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "../support/fast_check.ts";
import { DynamicCache, InvalidArgument, liveBuffers, ops, PretrainedConfig, Tensor } from "../../mod.ts";
import { everywhere, liveTest, reportSkipped, withGpu } from "../models/support.ts";

/** States (B, H, N, D) whose elements are `first`, `first + 1`, … along N. */
function states(
  first: number,
  n: number,
  { B = 1, H = 2, D = 4, device = "wasm" as "wasm" | "webgpu" } = {},
): Tensor {
  const data = Float32Array.from({ length: B * H * n * D }, (_, at) => first + Math.floor(at / D) % n);
  return Tensor.from(data, { shape: [B, H, n, D], device });
}

/** The token numbers along N of what `update` returned; disposes it. */
async function tokens([key, value]: [Tensor, Tensor]): Promise<number[]> {
  using k = key;
  using v = value;
  using row = ops.tidy(() => ops.reshape(ops.slice(ops.slice(k, 1, 1, 2), 3, 0, 1), [-1]));
  assertEquals(v.shape.slice(0, 3), k.shape.slice(0, 3));
  return await row.tolist() as number[];
}

async function update(
  cache: DynamicCache,
  layer: number,
  first: number,
  n: number,
  options = {},
): Promise<number[]> {
  using key = states(first, n, options);
  using value = states(-first, n, options);
  return await tokens(cache.update(key, value, layer));
}

const upTo = (n: number) => Array.from({ length: n }, (_, i) => i + 1);

everywhere(
  "update returns everything seen, as views; sizes and offsets are those before it",
  async (device) => {
    using cache = new DynamicCache();
    assertEquals([cache.get_seq_length(), cache.get_query_offset(), cache.device], [0, 0, null]);
    assertEquals(cache.get_mask_sizes(5), [5, 0]);
    assertEquals(await update(cache, 0, 1, 5, { device }), upTo(5));
    assertEquals([cache.get_seq_length(), cache.get_query_offset(0), cache.device], [5, 5, device]);
    assertEquals(cache.get_mask_sizes(1), [6, 0]);
    assertEquals(cache.get_seq_length(3), 0, "a layer that was never updated");
    assertEquals(cache.get_mask_sizes(2, 3), [2, 0]);
    assertEquals(await update(cache, 0, 6, 1, { device }), upTo(6));
    assertEquals(await update(cache, 1, 1, 2, { device }), upTo(2));
    assertEquals(cache.is_sliding, [false, false]);
    assertEquals(cache.is_compileable, false);
  },
);

everywhere("any way of cutting a sequence gives the same states", async (device) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1, maxLength: 5 }),
      async (parts) => {
        using cache = new DynamicCache();
        let seen = 0, last: number[] = [];
        for (const n of parts) {
          last = await update(cache, 0, seen + 1, n, { device });
          seen += n;
        }
        assertEquals(last, upTo(seen));
      },
    ),
    { seed: 11, numRuns: device === "wasm" ? 30 : 5 },
  );
});

liveTest("views given out earlier keep their values while the cache grows", async () => {
  using cache = new DynamicCache();
  using key = states(1, 3);
  using value = states(1, 3);
  const early = cache.update(key, value, 0);
  await update(cache, 0, 4, 200);
  assertEquals(await tokens(early), upTo(3));
});

liveTest("a token costs no copy of the past: storage grows in few steps", async () => {
  using cache = new DynamicCache();
  const sizes = new Set<number>();
  for (let i = 1; i <= 400; i++) {
    using key = states(i, 1);
    using value = states(i, 1);
    const [k, v] = cache.update(key, value, 0);
    sizes.add(k.strides[1]!);
    k[Symbol.dispose]();
    v[Symbol.dispose]();
  }
  assertEquals(sizes.size <= 6, true, `${sizes.size} allocations for 400 tokens`);
  assertEquals(await update(cache, 0, 401, 1), upTo(401));
});

liveTest("crop removes the last tokens, reset all", async () => {
  using cache = new DynamicCache();
  await update(cache, 0, 1, 6);
  await update(cache, 1, 1, 6);
  cache.crop(0);
  cache.crop(-2);
  assertEquals([cache.get_seq_length(0), cache.get_seq_length(1)], [4, 4]);
  assertEquals(await update(cache, 0, 5, 1), upTo(5));
  cache.crop(-99);
  assertEquals(cache.get_seq_length(), 0);
  assertEquals(await update(cache, 0, 1, 2), [1, 2]);
  cache.reset();
  assertEquals([cache.get_seq_length(0), cache.get_seq_length(1)], [0, 0]);
  assertEquals(await update(cache, 0, 7, 2), [7, 8]);
});

everywhere("reorder_cache picks rows of the batch, also more or fewer than there were", async (device) => {
  using cache = new DynamicCache();
  using key = Tensor.from([[[[1.5]]], [[[2.5]]], [[[3.5]]]], { device });
  const given = cache.update(key, key, 0);
  for (const t of given) t[Symbol.dispose]();
  using beams = Tensor.from([2, 0, 0, 1]);
  cache.reorder_cache(beams);
  using next = Tensor.from([4.5, 5.5, 6.5, 7.5], { shape: [4, 1, 1, 1], device });
  const [k, v] = cache.update(next, next, 0);
  assertEquals(await k.tolist(), [[[[3.5], [4.5]]], [[[1.5], [5.5]]], [[[1.5], [6.5]]], [[[2.5], [7.5]]]]);
  for (const t of [k, v]) t[Symbol.dispose]();
});

liveTest("a cache refuses to move to an unknown device, empty or not", async () => {
  using cache = new DynamicCache();
  await assertRejects(() => cache.to("cuda" as never), InvalidArgument, "cuda");
  await update(cache, 0, 1, 3);
  await assertRejects(() => cache.to("cuda" as never), InvalidArgument, "cuda");
  assertEquals(await update(cache, 0, 4, 1), upTo(4));
});

withGpu("to() moves the states, and they grow on", async () => {
  using cache = new DynamicCache();
  await update(cache, 0, 1, 5);
  assertEquals((await cache.to("webgpu")).device, "webgpu");
  assertEquals(await update(cache, 0, 6, 1, { device: "webgpu" }), upTo(6));
  await cache.to("wasm");
  assertEquals(await update(cache, 0, 7, 1), upTo(7));
  await cache.to("wasm");
  assertEquals(cache.get_seq_length(), 7);
});

const REFUSED: readonly (readonly [name: string, act: (cache: DynamicCache) => unknown, mentions: string])[] =
  [
    ["crop by a positive number", (c) => c.crop(1), "1"],
    ["crop by a fraction", (c) => c.crop(-0.5), "-0.5"],
    ["a negative layer", (c) => c.update(states(1, 1), states(1, 1), -1), "layer -1"],
    ["a fractional layer", (c) => c.update(states(1, 1), states(1, 1), 0.5), "layer 0.5"],
    ["states of rank 3", (c) => c.update(Tensor.from([[[1.5]]]), Tensor.from([[[1.5]]]), 0), "[1,1,1]"],
    ["values of another length", (c) => c.update(states(1, 2), states(1, 1), 0), "[1,2,2,4]"],
    ["another batch", (c) => c.update(states(1, 1, { B: 2 }), states(1, 1, { B: 2 }), 0), "holds"],
    ["other heads", (c) => c.update(states(1, 1, { H: 1 }), states(1, 1, { H: 1 }), 0), "holds"],
    ["another head dimension", (c) => c.update(states(1, 1, { D: 8 }), states(1, 1, { D: 8 }), 0), "holds"],
    ["a beam outside the batch", (c) => c.reorder_cache(Tensor.from([1])), "row 1"],
  ];

for (const [name, act, mentions] of REFUSED) {
  liveTest(`a cache refuses ${name} and is unchanged`, async () => {
    using cache = new DynamicCache();
    await update(cache, 0, 1, 3);
    const live = liveBuffers();
    assertThrows(() => act(cache), InvalidArgument, mentions);
    assertEquals([cache.get_seq_length(), liveBuffers()], [3, live]);
    assertEquals(await update(cache, 0, 4, 1), upTo(4));
  });
}

liveTest("a disposed cache holds nothing and cannot be used", async () => {
  const cache = new DynamicCache({ config: new PretrainedConfig({ num_hidden_layers: 2 }) });
  await update(cache, 0, 1, 3);
  cache[Symbol.dispose]();
  cache[Symbol.dispose]();
  assertEquals(liveBuffers(), 0);
  const uses = [
    () => cache.get_seq_length(),
    () => cache.get_mask_sizes(1),
    () => cache.reset(),
    () => cache.crop(0),
    () => cache.snapshot(),
  ];
  for (const use of uses) assertThrows(use, InvalidArgument, "after it was disposed");
  await assertRejects(() => update(cache, 0, 1, 3), InvalidArgument, "after it was disposed");
  assertEquals(liveBuffers(), 0);
});

reportSkipped();
