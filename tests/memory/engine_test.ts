/**
 * Engines: what fits, what a trap does, and that one engine's end is its own.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  AutoModelForCausalLM,
  ComputationDropped,
  configure,
  DynamicCache,
  EngineFailure,
  liveBuffers,
  ops,
  OutOfMemory,
  type PreTrainedModel,
  Tensor,
} from "../../mod.ts";
import type { Allocation } from "../../src/devices/device.ts";
import { WasmEngine } from "../../src/devices/wasm/engine.ts";
import { disposeAll, ids, liveTest, LLAMA, rowsOf } from "../models/support.ts";

// In a memory of 4 GiB every 32-bit address exists; in a smaller one a pointer can be out of range.
await configure({ max_memory: 256 << 20 });

const PROMPT = [3, 41, 19, 10, 47, 6, 12, 36];

async function generate(model: PreTrainedModel): Promise<number[][]> {
  using input_ids = ids([PROMPT]);
  return await rowsOf(await model.generate({ input_ids, max_new_tokens: 5 }));
}

/** Records a copy whose source lies at the very end of the address space: a kernel that goes wrong. */
function sabotage(engine: WasmEngine): void {
  const target = engine.allocate(1 << 16);
  const bytes = 1 << 16, address = 2 ** 32 - 256;
  const beyond = { device: engine, bytes, dropped: false, address } as Allocation;
  const view = { dtype: "float32" as const, offset: 0, shape: [1 << 14], strides: [1] };
  engine.kernels.unary("exp", { ...view, allocation: beyond }, { ...view, allocation: target });
  engine.release(target);
}

Deno.test("a trap kills its engine only: a typed error for its model, other models and tensors live on", async () => {
  await using healthy = await AutoModelForCausalLM.from_pretrained(LLAMA);
  const expected = await generate(healthy);
  const broken = await AutoModelForCausalLM.from_pretrained(LLAMA);
  using cache = new DynamicCache();
  using input_ids = ids([PROMPT]);
  const before = await broken.forward({ input_ids, past_key_values: cache });
  const engine = broken.deviceHandle as WasmEngine;
  sabotage(engine);
  const failure = await assertRejects(() => broken.forward({ input_ids }), EngineFailure);
  assert(failure.cause instanceof WebAssembly.RuntimeError, String(failure.cause));
  await assertRejects(() => generate(broken), EngineFailure);
  await assertRejects(() => before.logits!.data(), EngineFailure);
  assertThrows(() => ops.neg(before.logits!), EngineFailure);
  assertEquals(await generate(healthy), expected);
  using x = Tensor.from([1.5, 2]);
  using y = ops.mul(x, 2);
  assertEquals(await y.tolist(), [3, 4]);
  await using again = await AutoModelForCausalLM.from_pretrained(LLAMA);
  assertEquals(await generate(again), expected);
  disposeAll(before);
  cache[Symbol.dispose]();
  await broken.dispose();
});

Deno.test("after a trap and disposal nothing is left", () => assertEquals(liveBuffers(), 0));

liveTest("the default engine is replaced after a trap", async () => {
  using x = Tensor.from([1.5, 2]);
  const made = ops.neg(x);
  sabotage(made.storage.home as WasmEngine);
  await assertRejects(() => made.data(), EngineFailure);
  made[Symbol.dispose]();
  using fresh = Tensor.from([1.5, 2]);
  using again = ops.neg(fresh);
  assertEquals(await again.tolist(), [-1.5, -2]);
  // The host copy survives the engine.
  using same = ops.neg(x);
  assertEquals(await same.tolist(), [-1.5, -2]);
});

Deno.test("an engine refuses what does not fit, says so, and goes on", async () => {
  const engine = new WasmEngine({ maximum: 32 << 20 });
  const half = engine.allocate(12 << 20);
  const refused = assertThrows(() => engine.allocate(24 << 20), OutOfMemory);
  assert(refused.message.includes(`${24 << 20} bytes`), refused.message);
  engine.release(half);
  const all = engine.allocate(24 << 20);
  assertEquals([engine.live, engine.bytes], [1, 24 << 20]);
  assert(engine.peak >= 24 << 20);
  assertEquals((await engine.read(all, 0, 8)).length, 8);
  engine.release(all);
  engine.release(all);
  assertEquals([engine.live, engine.bytes], [0, 0]);
  engine.close();
  assertThrows(() => engine.allocate(1), EngineFailure, "closed");
});

liveTest("a tensor whose computation was dropped by an abort says so; others are unharmed", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  const engine = model.deviceHandle as WasmEngine;
  const kept = Tensor.empty(engine, "float32", [4]);
  engine.write(kept.storage.on(engine), 0, new Uint8Array(16));
  using doubled = ops.mul(kept, 2);
  await engine.flush(AbortSignal.abort(new Error("stop"))).catch(() => {});
  await assertRejects(() => doubled.data(), ComputationDropped);
  assertEquals(await kept.tolist(), [0, 0, 0, 0]);
  kept[Symbol.dispose]();
});

liveTest("a generation that runs out of memory is a typed error; the model goes on", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  const expected = await generate(model);
  const engine = model.deviceHandle as WasmEngine;
  // Everything but a few KiB is taken.
  const hogs: Allocation[] = [];
  for (let size = engine.maximum; size >= 1 << 12;) {
    try {
      hogs.push(engine.allocate(size));
    } catch {
      size = Math.floor(size / 2);
    }
  }
  const live = liveBuffers();
  await assertRejects(() => generate(model), OutOfMemory);
  assertEquals(liveBuffers(), live, "what the failed forward had made is given back");
  for (const hog of hogs) engine.release(hog);
  assertEquals(await generate(model), expected);
});
