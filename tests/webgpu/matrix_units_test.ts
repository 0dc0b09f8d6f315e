/**
 * Products on matrix units: every variant passes Dawn's Tint and makes a pipeline on its null
 * backend, which writes no machine code, and adapters without them
 * are refused. Nothing here multiplies: software adapters have no matrix units.
 *
 * @module
 */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { WebGpuDevice } from "../../src/devices/webgpu/device.ts";
import { openDawn } from "../../src/devices/webgpu/dawn.ts";
import { DeviceUnavailable, InvalidArgument } from "../../src/errors.ts";
import { configure, device, liveBuffers } from "../../mod.ts";
import { nullGpu, Views } from "./null_gpu.ts";

const gpu = await nullGpu();
const missing = typeof gpu === "string";

/** The null backend with the information an adapter with matrix units gives. */
function withMatrices(inner: GPU, configs: readonly unknown[]): GPU {
  const info = { description: "null", subgroupMaxSize: 32, subgroupMatrixConfigs: configs };
  const requestAdapter = async () => {
    const adapter = (await inner.requestAdapter())!;
    return Object.assign(Object.create(null), {
      features: adapter.features,
      limits: adapter.limits,
      info,
      requestDevice: (descriptor: GPUDeviceDescriptor) => adapter.requestDevice(descriptor),
    }) as GPUAdapter;
  };
  return Object.assign(Object.create(null), { requestAdapter }) as GPU;
}

const FITS = { componentType: "f16", resultComponentType: "f32", M: 16, N: 16, K: 16 };

Deno.test({
  name: "matrix units: every variant compiles in Dawn, and other weights keep their kernels",
  ignore: missing,
  fn: async () => {
    const device = new WebGpuDevice({ gpu: withMatrices(gpu as GPU, [FITS]), matrices: true });
    {
      using views = new Views(device);
      for (const rows of [1, 16, 17, 100]) {
        for (const dtype of [null, "float32", "float16", "bfloat16"] as const) {
          const bias = dtype && views.make([5], dtype);
          device.kernels.linear(
            views.make([rows, 33]),
            views.make([5, 33], "float16"),
            bias,
            views.make([rows, 5]),
          );
        }
      }
      await device.flush();
      assertEquals(device.stats.pipelines, 2 * 4, "few rows and many, by the type of the bias");
      device.kernels.linear(views.make([1, 33]), views.make([5, 33]), null, views.make([1, 5]));
      await device.flush();
      assertEquals(device.stats.pipelines, 2 * 4 + 1);
    }
    assertEquals(device.live, 0);
    await device.destroy();
  },
});

Deno.test({
  name: "matrix units: an adapter without them is refused with every reason",
  ignore: missing,
  fn: async () => {
    const plain = new WebGpuDevice({ gpu: gpu as GPU, matrices: true });
    const { message } = await assertRejects(() => plain.acquire(), DeviceUnavailable);
    assertStringIncludes(message, "its subgroups have up to 128 invocations, expected at most 32");
    assertStringIncludes(message, "it multiplies no matrices, expected f16 to f32 16×16×16");
    await plain.destroy();
    const other = new WebGpuDevice({ gpu: withMatrices(gpu as GPU, [{ ...FITS, M: 8 }]), matrices: true });
    const { message: shapes } = await assertRejects(() => other.acquire(), DeviceUnavailable);
    assertStringIncludes(shapes, "it multiplies f16 to f32 8×16×16, expected");
    await other.destroy();
  },
});

Deno.test("matrix units: settings are checked, and the runtime's own WebGPU is refused, not used without them", async () => {
  await assertRejects(() => Reflect.apply(configure, null, [{ webgpu: "metal" }]), InvalidArgument, '"dawn"');
  await assertRejects(
    () => Reflect.apply(configure, null, [{ tensor_cores: 1 }]),
    InvalidArgument,
    "true or false",
  );
  await configure({ tensor_cores: true });
  try {
    await assertRejects(() => device("webgpu"), DeviceUnavailable);
  } finally {
    await configure({ tensor_cores: false });
  }
  assertEquals(liveBuffers(), 0);
});

Deno.test({
  name: "matrix units: Dawn is opened by name",
  ignore: missing,
  fn: async () => assertEquals(typeof (await openDawn()).requestAdapter, "function"),
});

if (missing) {
  const line = `3 tests skipped because ${gpu}`;
  Deno.test(`skips: ${line}`, () => console.log(line));
}
