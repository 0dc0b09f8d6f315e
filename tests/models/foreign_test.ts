/**
 * What comes from outside a model: attention functions, mask formatters, caches, positions and configs that do not fit.
 *
 * @module
 */
import { assertEquals, assertRejects } from "@std/assert";
import {
  type AttentionFunction,
  AttentionInterface,
  AttentionMaskInterface,
  AutoModelForCausalLM,
  DynamicCache,
  InvalidArgument,
  liveBuffers,
  ops,
  sdpa_attention_forward,
  sdpa_mask,
  Tensor,
} from "../../mod.ts";
import { openEngine, closeEngine } from "../../src/devices/mod.ts";
import { RotaryEmbedding } from "../../src/layers/rotary.ts";
import type { MaskFormatter } from "../../src/masks/types.ts";
import { llamaConfig } from "../../src/models/llama_config.ts";
import { assertClose, EXACT } from "../support/tolerance.ts";
import { changedConfig } from "./hostile.ts";
import { ids, LLAMA, liveTest } from "./support.ts";

function register(name: string, forward: AttentionFunction, format: MaskFormatter = sdpa_mask): string {
  AttentionInterface.register(name, forward);
  AttentionMaskInterface.register(name, format);
  return name;
}

liveTest("an abort ends the waiting for an attention function, and what that returns later is disposed", async () => {
  const { promise: called, resolve: call } = Promise.withResolvers<void>();
  const late = Promise.withResolvers<[Tensor, null]>();
  const attn_implementation = register("never_done", (_, query) => {
    ops.add(query, 1);
    call();
    return late.promise;
  });
  const model = await AutoModelForCausalLM.from_pretrained(LLAMA, { attn_implementation });
  using input_ids = ids([[5, 6, 7]]);
  const abort = new AbortController();
  const running = model.forward({ input_ids, signal: abort.signal });
  await called;
  abort.abort(new Error("enough"));
  await assertRejects(() => running, Error, "enough");
  await model.dispose();
  const live = liveBuffers();
  late.resolve([Tensor.from([1, 2]), null]);
  await late.promise;
  await Promise.resolve();
  assertEquals(liveBuffers(), live);
});

liveTest("an attention function must return floats", async () => {
  const attn_implementation = register("integers", (_, query) => {
    const [b, h, n, d] = query.shape as [number, number, number, number];
    return [ops.full([b, n, h, d], 1, { dtype: "int32" }), null];
  });
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA, { attn_implementation });
  using input_ids = ids([[5, 6]]);
  await assertRejects(() => model.forward({ input_ids }), InvalidArgument, "int32");
});

liveTest("a mask formatter that returns no mask is named", async () => {
  for (const wrong of ["mask", undefined, {}, [1], Promise.resolve(null)]) {
    const format = (() => wrong) as unknown as MaskFormatter;
    const attn_implementation = register("odd_masks", (...args) => sdpa_attention_forward(...args), format);
    await using model = await AutoModelForCausalLM.from_pretrained(LLAMA, { attn_implementation });
    using input_ids = ids([[5, 6]]);
    await assertRejects(() => model.forward({ input_ids }), InvalidArgument, '"odd_masks"');
  }
});

liveTest("a cache disposed while a model generates does not come back to life", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  using input_ids = ids([[5, 6, 7]]);
  const past_key_values = new DynamicCache();
  let tokens = 0;
  const streamer = {
    put: () => {
      if (tokens++ === 2) past_key_values[Symbol.dispose]();
    },
    end: () => {},
  };
  await assertRejects(
    () => model.generate({ input_ids, past_key_values, streamer, max_new_tokens: 6 }),
    InvalidArgument,
    "after it was disposed",
  );
});

liveTest("positions beyond the rotary table take a row each, with the same numbers", async () => {
  const device = openEngine();
  try {
    using rotary = new RotaryEmbedding(4, { rope_type: "default", rope_theta: 10000 });
    using x = Tensor.from([1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0], { shape: [1, 1, 3, 4], dtype: "float32" });
    const places = [5, 6, 1e9];
    using positions = Tensor.ofHost(Int32Array.from(places), "int32", [1, 3], "wasm");
    const [q, k] = rotary.at(positions, 1e9, device)(x, x);
    // x is (1, 1, 0, 0): its rotation is (cos a, cos b, sin a, sin b) of the float32 angles.
    const frequencies = [1, Math.fround(0.01)];
    const expected = places.flatMap((p) => {
      const angles = frequencies.map((f) => Math.fround(Math.fround(p) * f));
      return [...angles.map(Math.cos), ...angles.map(Math.sin)].map(Math.fround);
    });
    assertClose(await q.data() as Float32Array, Float32Array.from(expected), EXACT);
    assertEquals(device.bytes < 2 ** 16, true);
    for (const t of [q, k]) t[Symbol.dispose]();
  } finally {
    closeEngine(device);
  }
});

Deno.test("rope_scaling stands in the place of rope_parameters, as in Transformers", async () => {
  const rope = async (fields: Record<string, unknown>): Promise<unknown> =>
    llamaConfig(await changedConfig("llama", fields)).rope;
  const rope_parameters = { rope_type: "default", rope_theta: 5000 };
  const rope_scaling = { rope_type: "linear", factor: 4 };
  assertEquals(await rope({ rope_parameters, rope_scaling }), { ...rope_scaling, rope_theta: 10000 });
  assertEquals(await rope({ rope_parameters, rope_scaling: {} }), rope_parameters);
  await assertRejects(() => rope({ rope_parameters, rope_scaling: { type: "dynamic" } }), InvalidArgument, "dynamic");
});

liveTest("layer types that do not fit and quantised weights are refused when a model is loaded", async () => {
  for (
    const [fields, name] of [
      [{ layer_types: ["full_attention"] }, "layer_types"],
      [{ layer_types: ["nonsense", "full_attention"] }, "layer_types"],
      [{ layer_types: ["full_attention", "sliding_attention"], sliding_window: 3 }, "layer_types"],
      [{ quantization_config: { quant_method: "gptq" } }, "quantization_config"],
    ] as const
  ) {
    const config = await changedConfig("llama", fields);
    await assertRejects(() => AutoModelForCausalLM.from_pretrained(LLAMA, { config }), InvalidArgument, name);
  }
});
