/**
 * Requests nobody should send. What forward and generate refuse by argument is in tests/models/ and
 * tests/generation/; here are odd views, masks that hide everything, and aborts at every moment.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  attention,
  AttuneError,
  AutoModelForCausalLM,
  DynamicCache,
  EngineFailure,
  liveBuffers,
  type PreTrainedModel,
  Tensor,
} from "../../mod.ts";
import {
  disposeAll,
  everywhere,
  ids,
  liveTest,
  LLAMA,
  reportSkipped,
  rowsOf,
  withGpu,
} from "../models/support.ts";
import { WebGpuDevice } from "../../src/devices/webgpu/device.ts";
import { assertRefused } from "./refusal.ts";

const PROMPT = [3, 41, 19, 10, 47, 6];

async function tokensOf(model: PreTrainedModel, options: Record<string, unknown> = {}): Promise<number[][]> {
  using input_ids = ids([PROMPT]);
  return await rowsOf(await model.generate({ input_ids, max_new_tokens: 4, ...options }));
}

/** Data of tensors that is not what it seems. */
const ODD_DATA: readonly (readonly [name: string, make: () => unknown, shape: readonly number[]])[] = [
  ["a detached view", () => {
    const view = new Int32Array(6);
    structuredClone(view.buffer, { transfer: [view.buffer] });
    return view;
  }, [1, 6]],
  ["a shape of more than there is", () => new Int32Array(6), [1, 7]],
  ["a shape of less than there is", () => new Int32Array(6), [1, 5]],
  ["a negative shape", () => new Int32Array(6), [-1, -6]],
  ["a fractional shape", () => new Int32Array(6), [1.5, 4]],
  ["a shape over 2^53", () => new Int32Array(6), [2 ** 40, 2 ** 40]],
  ["a shape of NaN", () => new Int32Array(6), [NaN, 6]],
  ["a DataView", () => new DataView(new ArrayBuffer(24)), [1, 6]],
  ["ragged rows", () => [[1, 2], [3]], [2, 2]],
  ["rows of texts", () => [["a"]], [1, 1]],
  ["an object", () => ({ length: 6 }), [1, 6]],
  ["a list in itself", () => {
    const list: unknown[] = [];
    list.push(list);
    return list;
  }, [1]],
];

for (const [name, make, shape] of ODD_DATA) {
  liveTest(`a tensor of ${name} is refused`, async () => {
    await assertRefused(() => Reflect.apply(Tensor.from, Tensor, [make(), { shape, dtype: "int32" }]));
  });
}

liveTest("views that are whole give the same tokens: shared, offset, and changed afterwards", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  const expected = await tokensOf(model);
  const views = {
    shared: new Int32Array(new SharedArrayBuffer(24)),
    offset: new Int32Array(new ArrayBuffer(64), 20, 6),
    resizable: new Int32Array(new ArrayBuffer(24, { maxByteLength: 48 })),
  };
  for (const [name, view] of Object.entries(views)) {
    view.set(PROMPT);
    using input_ids = Tensor.from(view, { shape: [1, 6], dtype: "int32" });
    const running = model.generate({ input_ids, max_new_tokens: 4 });
    // What the caller does with its memory afterwards is its own affair.
    view.fill(1 << 30);
    assertEquals(await rowsOf(await running), expected, name);
  }
});

everywhere(
  "rows that see nothing, by mask or by a bias of −Infinity, give zeros and disturb nobody",
  async (device) => {
    const placed = async (data: Float32Array | Uint8Array, shape: number[]) => {
      const dtype = data instanceof Uint8Array ? "bool" : "float32";
      using host = Tensor.from(data, { shape, dtype });
      return await host.to(device);
    };
    const random = (seed: number) =>
      placed(Float32Array.from({ length: 2 * 2 * 4 * 8 }, (_, i) => Math.sin(i * seed + 1)), [2, 2, 4, 8]);
    using q = await random(1);
    using k = await random(2);
    using v = await random(3);
    const queryOf = (i: number) => Math.floor(i / 4) % 4;
    const hidden = (i: number) => i < 16 && queryOf(i) === 1 ? -Infinity : 0;
    using bias = await placed(Float32Array.from({ length: 2 * 4 * 4 }, (_, i) => hidden(i)), [2, 1, 4, 4]);
    using nothing = await placed(new Uint8Array(2 * 4 * 4), [2, 1, 4, 4]);
    for (const attn_implementation of ["eager", "sdpa"]) {
      const run = async (attention_mask: Tensor) => {
        const result = await attention(q, k, v, { attn_implementation, attention_mask });
        const data = [...await result.attn_output.data() as Float32Array]; // (B, Q, H, D)
        disposeAll(result);
        return data;
      };
      const some = await run(bias);
      assert(some.every(Number.isFinite), attn_implementation);
      assertEquals(
        some.slice(16, 32),
        Array(16).fill(0),
        `${attn_implementation}: query 1 of row 0 sees nothing`,
      );
      assert(some.slice(0, 16).some((x) => x !== 0) && some.slice(64).some((x) => x !== 0));
      assertEquals(await run(nothing), Array(128).fill(0), attn_implementation);
    }
  },
);

/** Resolves after `n` turns, first of microtasks, then of the event loop. */
async function turns(n: number): Promise<void> {
  for (let i = 0; i < Math.min(n, 20); i++) await Promise.resolve();
  for (let i = 20; i < n; i++) await new Promise((resolve) => setTimeout(resolve, 0));
}

for (const kind of ["forward", "generate", "generate with a cache", "load"] as const) {
  liveTest(
    `${kind} aborted after n turns, for every n: the reason or the result, and the next request is right`,
    async () => {
      await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
      const expected = await tokensOf(model);
      const before = liveBuffers();
      let aborted = 0, finished = 0;
      for (let n = 0; n < 60; n++) {
        const controller = new AbortController();
        const reason = new Error(`turn ${n}`);
        const { signal } = controller;
        using input_ids = ids([PROMPT]);
        using past_key_values = new DynamicCache();
        const work = {
          "forward": async () => disposeAll(await model.forward({ input_ids, signal })),
          "generate": async () => assertEquals(await tokensOf(model, { signal }), expected),
          "generate with a cache": async () =>
            assertEquals(await tokensOf(model, { signal, past_key_values }), expected),
          "load": async () => {
            await using other = await AutoModelForCausalLM.from_pretrained(LLAMA, { signal });
            assertEquals(await tokensOf(other), expected);
          },
        }[kind]();
        const done = work.then(() => finished++, (error) => {
          assertEquals(error, reason);
          aborted++;
        });
        await turns(n);
        controller.abort(reason);
        await done;
        if (n % 10 === 0) assertEquals(await tokensOf(model), expected, `after an abort at turn ${n}`);
        past_key_values[Symbol.dispose]();
        input_ids[Symbol.dispose]();
        assertEquals(liveBuffers(), before, `after an abort at turn ${n}`);
      }
      assert(aborted > 0, `all ${finished} finished`);
      assertEquals(await tokensOf(model), expected);
    },
  );
}

liveTest(
  "many requests at once, some bad and some aborted: the good ones give what they give alone",
  async () => {
    await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
    const expected = await tokensOf(model);
    const requests = Array.from({ length: 24 }, async (_, i) => {
      if (i % 4 === 1) {
        using bad = ids([[3, 64]]);
        await assertRejects(() => model.generate({ input_ids: bad }), AttuneError, "64");
      } else if (i % 4 === 2) {
        const signal = AbortSignal.timeout(i);
        await tokensOf(model, { signal }).then(
          (tokens) => assertEquals(tokens, expected),
          (error) => assertEquals(error, signal.reason),
        );
      } else assertEquals(await tokensOf(model), expected);
    });
    await Promise.all(requests);
  },
);

withGpu("a lost device refuses work with a typed error, and the others live on", async () => {
  let lose: (info: GPUDeviceLostInfo) => void = () => {};
  const lost = new Promise<GPUDeviceLostInfo>((resolve) => lose = resolve);
  /** The real GPU, whose devices are lost when the test says so. */
  const gpu = {
    async requestAdapter(options?: GPURequestAdapterOptions) {
      const adapter = await navigator.gpu.requestAdapter(options);
      const request = adapter?.requestDevice.bind(adapter);
      const requestDevice = async (wanted?: GPUDeviceDescriptor) =>
        Object.defineProperty(await request!(wanted), "lost", { value: lost });
      return adapter === null
        ? null
        : Object.defineProperty(adapter, "requestDevice", { value: requestDevice });
    },
  };
  const device = new WebGpuDevice({ gpu: gpu as unknown as GPU });
  await device.acquire();
  lose({ reason: "unknown", message: "the driver was reset" } as unknown as GPUDeviceLostInfo);
  await lost;
  const error = await assertRejects(() => device.acquire(), EngineFailure, "the driver was reset");
  assert(error.message.includes('model.to("wasm")'));
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  const expected = await tokensOf(model);
  await model.to("webgpu");
  assertEquals(await tokensOf(model), expected);
});

reportSkipped();
