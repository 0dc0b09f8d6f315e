/**
 * What is particular to the WebGPU device: symbolic recording, order of uploads, aborts, errors, counters.
 *
 * @module
 */
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import type { View } from "../../src/devices/device.ts";
import { launch, Params } from "../../src/devices/webgpu/record.ts";
import { WebGpuDevice } from "../../src/devices/webgpu/device.ts";
import {
  ComputationDropped,
  DeviceUnavailable,
  EngineFailure,
  InvalidArgument,
  OutOfMemory,
} from "../../src/errors.ts";
import { reportSkips, testDevices } from "../support/devices.ts";

const on = (await testDevices()).find((d) => d.name === "webgpu")!;

/** A test on a device of its own, which must end empty. */
function gpuTest(name: string, fn: (device: WebGpuDevice) => Promise<void>): void {
  Deno.test({
    name: `webgpu device: ${name}`,
    ignore: on.skip !== undefined,
    fn: async () => {
      const device = new WebGpuDevice();
      await fn(device);
      assertEquals(device.live, 0, "allocations left");
      await device.destroy();
    },
  });
}

function vector(device: WebGpuDevice, values: readonly number[] | number): View {
  const n = typeof values === "number" ? values : values.length;
  const allocation = device.allocate(n * 4);
  if (typeof values !== "number") device.write(allocation, 0, floats(values));
  return { allocation, dtype: "float32", offset: 0, shape: [n], strides: [1] };
}

function floats(values: readonly number[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new Float32Array(values).buffer);
}

async function read(device: WebGpuDevice, view: View): Promise<number[]> {
  const bytes = await device.read(view.allocation, view.offset * 4, view.shape[0]! * 4);
  return [...new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)];
}

function free(...views: View[]): void {
  for (const { allocation } of views) allocation.device.release(allocation);
}

Deno.test("webgpu device: making and recording acquires nothing, and no adapter is a DeviceUnavailable", async () => {
  let asked = 0;
  const gpu = {
    requestAdapter: () => {
      asked++;
      return Promise.resolve(null);
    },
  } as unknown as GPU;
  const device = new WebGpuDevice({ gpu });
  const x = vector(device, [1, 2]), y = vector(device, 2);
  device.kernels.unary("neg", x, y);
  assertEquals([asked, device.pending], [0, 2]);
  await assertRejects(() => device.acquire(), DeviceUnavailable, "no adapter");
  await assertRejects(() => device.read(y.allocation, 0, 8), DeviceUnavailable, "Vulkan");
  free(x, y);
  await device.destroy();
});

/** A GPU whose adapters are known by what was asked for. */
function adapters(known: Readonly<Record<string, "software" | "hardware">>): { gpu: GPU; asked: string[] } {
  const asked: string[] = [];
  const requestAdapter = (options: GPURequestAdapterOptions = {}) => {
    const name = options.forceFallbackAdapter ? "forced" : options.powerPreference ?? "any";
    asked.push(name);
    const kind = known[name];
    if (kind === undefined) return Promise.resolve(null);
    const info = { description: `${name} ${kind}`, isFallbackAdapter: kind === "software" };
    const requestDevice = () => Promise.reject(new Error(`chose ${info.description}`));
    return Promise.resolve({ info, limits: {}, features: new Set(), requestDevice });
  };
  return { gpu: { requestAdapter } as unknown as GPU, asked };
}

Deno.test("webgpu device: a software adapter is taken only where it is alone, or asked for", async () => {
  const both = { "high-performance": "software", "low-power": "hardware", forced: "software" } as const;
  const alone = { "high-performance": "software", "low-power": "software" } as const;
  const strong = { "high-performance": "hardware", "low-power": "software" } as const;
  for (
    const [known, software, chosen, times] of [
      [strong, false, "high-performance hardware", 1],
      [both, false, "low-power hardware", 2],
      [alone, false, "high-performance software", 2],
      [both, true, "forced software", 1],
    ] as const
  ) {
    const { gpu, asked } = adapters(known);
    await assertRejects(
      () => new WebGpuDevice({ gpu, software }).acquire(),
      DeviceUnavailable,
      `chose ${chosen}`,
    );
    assertEquals(asked.length, times);
  }
  const none = new WebGpuDevice({ gpu: adapters(strong).gpu, software: true });
  await assertRejects(() => none.acquire(), DeviceUnavailable, "no software adapter");
});

gpuTest("a flush without work touches no GPU", async (device) => {
  await device.flush();
  assertEquals(device.stats.submits, 0);
});

gpuTest("one flush is one submit, and reads asked for together share it", async (device) => {
  const x = vector(device, [1, 2, 3]), y = vector(device, 3), z = vector(device, 3);
  device.kernels.unary("neg", x, y);
  device.kernels.binary("mul", y, y, z);
  const [a, b] = await Promise.all([read(device, y), read(device, z)]);
  assertEquals([a, b], [[-1, -2, -3], [1, 4, 9]]);
  assertEquals(device.stats, { dispatches: 2, submits: 1, readbacks: 2, pipelines: 2 });
  free(x, y, z);
});

gpuTest("a write recorded between two kernels is seen by the second only", async (device) => {
  const x = vector(device, [1, 2]), y = vector(device, 2), z = vector(device, 2);
  device.kernels.unary("neg", x, y);
  device.write(x.allocation, 0, floats([10, 20]));
  device.kernels.unary("neg", x, z);
  device.write(x.allocation, 4, floats([30]));
  assertEquals(await Promise.all([read(device, y), read(device, z), read(device, x)]), [
    [-1, -2],
    [-10, -20],
    [10, 30],
  ]);
  assertEquals(device.stats.submits, 1);
  free(x, y, z);
});

gpuTest("an upload into recycled memory does not reach earlier kernels", async (device) => {
  const x = vector(device, [1, 2]), y = vector(device, 2);
  device.kernels.unary("neg", x, y);
  free(x);
  const again = vector(device, [7, 8]);
  assertEquals(again.allocation === x.allocation, false);
  assertEquals(await Promise.all([read(device, y), read(device, again)]), [[-1, -2], [7, 8]]);
  assertThrows(() => device.kernels.unary("neg", x, y), InvalidArgument, "released");
  free(y, again);
});

gpuTest("a read sees the values of its moment", async (device) => {
  const x = vector(device, [1]);
  const before = read(device, x);
  device.write(x.allocation, 0, floats([2]));
  assertEquals([await before, await read(device, x)], [[1], [2]]);
  free(x);
});

gpuTest("writes and reads of halves at odd places keep their neighbours", async (device) => {
  const block = device.allocate(11);
  device.write(block, 0, new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]));
  device.write(block, 3, new Uint8Array([103, 104, 105, 106, 107, 108]));
  device.write(block, 1, new Uint8Array([91, 92]));
  device.write(block, 10, new Uint8Array([110]));
  assertEquals([...await device.read(block, 0, 11)], [1, 91, 92, 103, 104, 105, 106, 107, 108, 10, 110]);
  assertEquals([...await device.read(block, 5, 3)], [105, 106, 107]);
  assertEquals((await device.read(block, 5, 0)).length, 0);
  assertThrows(() => device.write(block, 8, new Uint8Array(4)), InvalidArgument, "Cannot reach bytes 8…12");
  await assertRejects(() => device.read(block, 8, 4), InvalidArgument);
  device.release(block);
});

gpuTest("an aborted flush drops what has not run, and what depends on it", async (device) => {
  const x = vector(device, [1, 2]), y = vector(device, 2), z = vector(device, 2);
  await device.flush();
  device.kernels.unary("neg", x, y);
  const reason = new Error("enough");
  await assertRejects(() => device.flush(AbortSignal.abort(reason)), Error, "enough");
  assertEquals([x.allocation.dropped, y.allocation.dropped], [false, true]);
  await assertRejects(() => device.read(y.allocation, 0, 8), ComputationDropped);
  device.kernels.unary("neg", y, z);
  await assertRejects(() => device.read(z.allocation, 0, 8), ComputationDropped);
  assertEquals(await read(device, x), [1, 2]);
  device.kernels.unary("neg", x, y); // written whole again, so it is whole again
  assertEquals(await read(device, y), [-1, -2]);
  free(x, y, z);
});

gpuTest(
  "a signal that aborts between two submits stops the rest; a read in it is rejected",
  async (device) => {
    const x = vector(device, [1, 2]), y = vector(device, 2), last = vector(device, 2);
    const controller = new AbortController();
    for (let i = 0; i < 5000; i++) device.kernels.unary("neg", x, y);
    device.kernels.unary("neg", x, last);
    const flushed = assertRejects(() => device.flush(controller.signal), Error, "stop");
    const wanted = assertRejects(() => device.read(last.allocation, 0, 8), ComputationDropped);
    while (device.stats.submits === 0) await new Promise((turn) => setTimeout(turn, 0));
    controller.abort(new Error("stop"));
    await Promise.all([flushed, wanted]);
    assertEquals([device.stats.submits < 5, last.allocation.dropped], [true, true]);
    assertEquals(await read(device, x), [1, 2]);
    free(x, y, last);
  },
);

gpuTest("an abort gives up the caller's own work only, and no upload", async (device) => {
  const [others, mine] = [vector(device, 2), vector(device, 2)];
  const x = vector(device, [1, 2]);
  device.kernels.unary("neg", x, others);
  const { mark } = device;
  const y = vector(device, [3, 4]);
  device.kernels.unary("neg", y, mine);
  const flushed = device.flush(AbortSignal.abort(new Error("stop")), mark);
  await assertRejects(() => flushed, Error, "stop");
  assertEquals([others.allocation.dropped, mine.allocation.dropped, y.allocation.dropped], [
    false,
    true,
    false,
  ]);
  assertEquals([await read(device, others), await read(device, y)], [[-1, -2], [3, 4]]);
  free(others, mine, x, y);
});

gpuTest("more commands than a submit holds run in order", async (device) => {
  const one = vector(device, [1]), a = vector(device, [0]), b = vector(device, 1);
  for (let i = 0; i < 1500; i++) {
    device.kernels.binary("add", a, one, b);
    device.kernels.binary("add", b, one, a);
  }
  assertEquals(await read(device, a), [3000]);
  assertEquals(device.stats.pipelines, 1);
  free(one, a, b);
});

gpuTest("views at the far end of memory above the binding limit", async (device) => {
  const n = 33 * 2 ** 20 + 64;
  const block = device.allocate(n * 4);
  device.write(block, (n - 3) * 4, floats([1, 2, 3]));
  const x: View = { allocation: block, dtype: "float32", offset: n - 3, shape: [3], strides: [1] };
  const y = vector(device, 3);
  device.kernels.unary("neg", x, y);
  assertEquals(await read(device, y), [-1, -2, -3]);
  device.release(block);
  free(y);
});

gpuTest("accounts: live, bytes and peak; a buffer no adapter has is out of memory", async (device) => {
  await device.acquire();
  const a = device.allocate(10), b = device.allocate(100, true);
  assertEquals([device.live, device.bytes, device.peak], [2, 110, 110]);
  device.release(a);
  device.release(a);
  assertEquals([device.live, device.bytes, device.peak], [1, 100, 110]);
  assertThrows(() => device.allocate(2 ** 45), OutOfMemory, "largest buffer");
  device.release(b);
});

gpuTest("int64 is checked when it is encoded", (device) => {
  assertEquals([...device.encode("int64", BigInt64Array.of(-5n, 7n))], [
    ...new Uint8Array(Int32Array.of(-5, 7).buffer),
  ]);
  assertThrows(() => device.encode("int64", BigInt64Array.of(2n ** 31n)), InvalidArgument, "element 0");
  assertEquals(device.decode("int64", device.encode("int64", BigInt64Array.of(-5n))), BigInt64Array.of(-5n));
  assertEquals(device.decode("uint8", device.encode("uint8", Uint8Array.of(255, 1))), Uint8Array.of(255, 1));
  assertEquals(device.decode("int8", device.encode("int8", Int8Array.of(-128, 1))), Int8Array.of(-128, 1));
  return Promise.resolve();
});

gpuTest("a GPU error is an EngineFailure that names the kernel, and the device is dead", async (device) => {
  const x = vector(device, [1]);
  // A launch without the buffer its kernel declares: WebGPU itself would say nothing and change nothing.
  device.record(launch("patch", {}, [null], [], new Params().int(0, 1, 1), [1, 1, 1]));
  await assertRejects(() => device.read(x.allocation, 0, 4), EngineFailure, "patch");
  assertThrows(() => device.allocate(4), EngineFailure);
  await assertRejects(() => device.flush(), EngineFailure);
  device.release(x.allocation);
});

gpuTest("destroying needs an empty device, up to copies of host data", async (device) => {
  const x = vector(device, [1]);
  await device.flush();
  await assertRejects(() => device.destroy(), InvalidArgument, "1 allocations");
  free(x);
  const copy = device.allocate(4, true);
  await device.destroy();
  assertEquals(device.isClosed, true);
  assertThrows(() => device.allocate(4), EngineFailure, "destroyed");
  device.release(copy);
});

reportSkips();
