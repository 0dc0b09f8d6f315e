/**
 * A GPU that goes away: typed errors, and a model that goes on elsewhere.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import {
  AutoConfig,
  AutoModelForCausalLM,
  configure,
  device as describe,
  DeviceUnavailable,
  DynamicCache,
  EngineFailure,
  GenerationSession,
  ops,
  support,
  Tensor,
} from "../../mod.ts";
import { defaultDevice } from "../../src/devices/mod.ts";
import { copyBuffer, makeBuffer, writeBuffer } from "../../src/devices/webgpu/buffers.ts";
import { WebGpuDevice } from "../../src/devices/webgpu/device.ts";
import { InvalidArgument, OutOfMemory } from "../../src/errors.ts";
import { ids, LLAMA, reportSkipped, rowsOf, withGpu } from "../models/support.ts";

const PROMPT = [21, 6, 49, 10];

/** Takes the GPU of all tensors away, as a driver does. */
async function lose(): Promise<void> {
  const device = await (defaultDevice("webgpu") as WebGpuDevice).acquire();
  device.destroy();
  await device.lost;
}

async function tokens(
  model: Awaited<ReturnType<typeof load>>,
  more: object = {},
  prompt: readonly number[] = PROMPT,
): Promise<number[]> {
  using input_ids = ids([prompt]);
  return (await rowsOf(await model.generate({ input_ids, max_new_tokens: 6, ...more })))[0]!;
}

const load = () => AutoModelForCausalLM.from_pretrained(LLAMA, { device: "webgpu" });

withGpu("a model whose GPU is lost in a generation fails with a type, and goes on elsewhere", async () => {
  for (const place of ["wasm", "webgpu"] as const) {
    await using model = await load();
    const expected = await tokens(model);
    using cache = new DynamicCache();
    let step = 0;
    const streamer = { put: async () => void (++step === 3 && await lose()), end: () => {} };
    const failed = tokens(model, { streamer, past_key_values: cache });
    await assertRejects(() => failed, EngineFailure, "was lost");
    await assertRejects(() => tokens(model), EngineFailure, 'to("wasm")');
    await model.to(place);
    assertEquals(model.device, place);
    assertEquals(await tokens(model), expected);
    // What the lost device held cannot come back.
    const again = tokens(model, { past_key_values: cache }, expected);
    await assertRejects(() => again, EngineFailure, "was lost");
    assertEquals(await tokens(model), expected);
  }
});

withGpu("a session whose GPU is lost goes on where the model goes on, from its first token", async () => {
  await using model = await load();
  const expected = await tokens(model);
  using session = new GenerationSession(model);
  using input_ids = ids([PROMPT]);
  let step = 0;
  const streamer = { put: async () => void (++step === 3 && await lose()), end: () => {} };
  await assertRejects(() => session.generate({ input_ids, max_new_tokens: 6, streamer }), EngineFailure);
  assertEquals(session.token_ids, []);
  await model.to("wasm");
  assertEquals(await rowsOf(await session.generate({ input_ids, max_new_tokens: 6 })), [expected]);
  assertEquals([session.reused, session.token_ids], [0, expected.slice(0, -1)]);
});

withGpu("tensors with a host copy survive a lost GPU, results do not", async () => {
  using x = Tensor.from([1, 2, 3], { dtype: "float32", device: "webgpu" });
  using y = ops.mul(x, 2);
  assertEquals(await y.tolist(), [2, 4, 6]);
  await lose();
  await assertRejects(() => y.data(), EngineFailure, "was lost");
  using z = ops.mul(x, 3);
  assertEquals(await z.tolist(), [3, 6, 9]);
});

withGpu("a software adapter can be asked for, and is reported", async () => {
  await configure({ webgpu: "software" });
  try {
    assertStringIncludes((await describe("webgpu")).description, ", a software adapter");
    const rows = (await support()).filter(({ device }) => device === "webgpu");
    assert(rows.every(({ available, why }) => available && why.includes("a software adapter")));
  } catch (error) {
    // Beside a GPU there may be none.
    assert(
      error instanceof DeviceUnavailable && error.message.includes("no software adapter"),
      String(error),
    );
  } finally {
    await configure({ webgpu: "runtime" });
  }
  await assertRejects(
    () => Reflect.apply(configure, null, [{ webgpu: "cpu" }]),
    InvalidArgument,
    '"software"',
  );
});

withGpu("a model that came from no files cannot be brought back, and says so", async () => {
  const config = await AutoConfig.from_pretrained(LLAMA);
  await using model = await AutoModelForCausalLM.from_config(config, { device: "webgpu", seed: 1 });
  await lose();
  await assertRejects(() => model.to("wasm"), EngineFailure, "save_pretrained");
  assertEquals(model.device, "webgpu");
});

withGpu("a buffer the GPU refuses is out of memory, and only what needed it is gone", async () => {
  const device = new WebGpuDevice();
  const view = (bytes: number) => ({
    ...{ allocation: device.allocate(bytes), dtype: "float32" as const, offset: 0, shape: [1], strides: [1] },
  });
  const x = view(4);
  device.write(x.allocation, 0, new Uint8Array(new Float32Array([5]).buffer));
  // Nothing is known of the adapter yet, so this is found out when the buffer is made.
  const huge = view(2 ** 45);
  device.write(huge.allocation, 0, new Uint8Array(4));
  device.kernels.unary("neg", x, huge);
  await assertRejects(() => device.flush(), OutOfMemory, "Cannot make a buffer");
  await assertRejects(() => device.read(huge.allocation, 0, 4));
  device.release(huge.allocation);
  const y = view(4);
  device.kernels.unary("neg", x, y);
  assertEquals(new Float32Array((await device.read(y.allocation, 0, 4)).buffer), Float32Array.of(-5));
  assertThrows(() => device.allocate(2 ** 45), OutOfMemory, "largest buffer");
  for (const { allocation } of [x, y]) device.release(allocation);
  assertEquals(device.live, 0);
  await device.destroy();
  assertEquals(device.buffers, 0);
});

withGpu("calls that end the process in some runtimes are refused", async () => {
  const device = new WebGpuDevice();
  const gpu = await device.acquire();
  for (const size of [0, 6, -4, NaN]) {
    assertThrows(() => makeBuffer(gpu, "wrong", size, "slot"), InvalidArgument, `${size} bytes`);
  }
  const [a, b] = [makeBuffer(gpu, "a", 16, "slot"), makeBuffer(gpu, "b", 8, "slot")];
  for (const [offset, bytes] of [[0, 0], [0, 20], [12, 8], [-4, 4], [2, 4], [0, 3]] as const) {
    assertThrows(() => writeBuffer(gpu, a, offset, new Uint8Array(bytes)), InvalidArgument, "Cannot write");
  }
  const encoder = gpu.createCommandEncoder();
  for (const [from, to, bytes] of [[0, 0, 0], [0, 4, 8], [12, 0, 8], [0, 0, 6]] as const) {
    assertThrows(() => copyBuffer(encoder, a, from, b, to, bytes), InvalidArgument, "Cannot copy");
  }
  assertThrows(() => copyBuffer(encoder, a, 0, a, 8, 4), InvalidArgument, "expected two");
  for (const buffer of [a, b]) buffer.destroy();
  await device.destroy();
});

Deno.test("webgpu: nothing else in the sources makes, writes or copies GPU buffers", () => {
  const folder = new URL("../../src/devices/webgpu/", import.meta.url);
  const found = [...Deno.readDirSync(folder)].map(({ name }) => name).filter((name) =>
    name !== "buffers.ts" &&
    /\.(createBuffer|writeBuffer|copyBufferToBuffer)\(/.test(Deno.readTextFileSync(new URL(name, folder)))
  );
  assertEquals(found, []);
  assert(folder.pathname.endsWith("/webgpu/"));
});

reportSkipped();
