/**
 * Decoding over many keys: flash attention splits them over workgroups and joins the parts.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { View } from "../../src/devices/device.ts";
import { WebGpuDevice } from "../../src/devices/webgpu/device.ts";
import { fewTile } from "../../src/devices/webgpu/flash_tile.ts";
import { type AttentionCase, prepareAttention } from "../support/attention_cases.ts";
import { deviceTest, reportSkips, testDevices } from "../support/devices.ts";
import { assertClose, assertSameBits, toleranceOf } from "../support/tolerance.ts";
import { Bench } from "../support/views.ts";

const CASES: readonly AttentionCase[] = [
  { name: "grouped, causal", B: 2, H: 4, Hkv: 2, Q: 1, K: 700, D: 16, causal: true },
  {
    name: "last part of one key, sinks, odd value dimension",
    H: 2,
    Q: 3,
    K: 513,
    D: 16,
    Dv: 18,
    causal: true,
    sinks: true,
  },
  { name: "whole parts left of the window", H: 2, Q: 2, K: 1100, D: 8, causal: true, window: [100, -1] },
  { name: "every part hidden", H: 2, Q: 2, K: 600, D: 8, causal: true, query_offset: -5 },
  {
    name: "every part hidden but sinks",
    H: 2,
    Q: 2,
    K: 600,
    D: 8,
    causal: true,
    query_offset: -5,
    sinks: true,
  },
  {
    ...{
      name: "padding that hides the first part, float16 cache with spare capacity",
      B: 2,
      H: 2,
      Q: 1,
      K: 600,
      D: 32,
    },
    ...{ causal: true, kv: "float16" as const, kvLayout: "capacity" as const },
    padding: { side: "left", lengths: [600, 200] },
  },
  {
    name: "the heads of one key head are two tiles of rows, softcap",
    H: 12,
    Hkv: 1,
    Q: 1,
    K: 300,
    D: 64,
    softcap: 4,
  },
  {
    ...{
      name: "five rows, every limit, rows on padding",
      B: 2,
      H: 5,
      Hkv: 1,
      Q: 1,
      K: 290,
      D: 20,
      causal: true,
    },
    ...{ window: [250, 3], padding: { side: "right", lengths: [290, 270] }, zero_padded_queries: true },
  },
  {
    ...{ name: "bool mask, a hidden row, keys shared by 16 invocations", H: 2, Hkv: 1, Q: 3, K: 333, D: 128 },
    mask: { type: "bool", stored: ["B", "H", "Q", "K"], masked_rows: [1] },
  },
  {
    ...{ name: "additive mask, bfloat16, a value wider than its key", H: 2, Q: 2, K: 270, D: 40, Dv: 136 },
    ...{ kv: "bfloat16", mask: { type: "additive", stored: [1, 1, "Q", "K"] } },
  },
  { name: "heads of 256, four rows", H: 4, Hkv: 1, Q: 1, K: 300, D: 256, causal: true, magnitude: 3 },
  { name: "more rows than are streamed", H: 8, Hkv: 2, Q: 6, K: 300, D: 16, causal: true },
];

const on = (await testDevices()).find((d) => d.name === "webgpu")!;

for (const row of CASES) {
  deviceTest(on, `attention flash, keys split: ${row.name}`, async (device) => {
    using bench = new Bench(device);
    const { call, expected } = prepareAttention(bench, "flash", row);
    await device.flush();
    const { stats } = device as WebGpuDevice;
    const before = stats.dispatches;
    device.kernels.attention(call);
    const tolerance = toleranceOf("attention_flash", on.name);
    assertClose(await bench.read(call.out), expected.output, tolerance, `output of ${row.name}`);
    assertClose(await bench.read(call.lse!), expected.lse, tolerance, `lse of ${row.name}`);
    assertEquals(stats.dispatches - before, 2, "parts and their merge");
  });
}

deviceTest(on, "attention flash, keys split: int8 keys and values are their floats", async (device) => {
  using bench = new Bench(device);
  const D = 72, row = { name: "int8", H: 4, Hkv: 1, Q: 1, K: 300, D, causal: true };
  const { call } = prepareAttention(bench, "flash", row);
  const rounded = (view: View): View => {
    const out = bench.empty(view.shape, "int8"), scales = bench.empty([...view.shape.slice(0, 3), 1]);
    device.kernels.quantize(view, out, scales);
    return { ...out, scales };
  };
  const widened = async (view: View): Promise<View> => {
    const [integers, scales] = [await bench.read(view), await bench.read(view.scales!)];
    return bench.place(view.shape, Float32Array.from(integers, (v, i) => v * scales[Math.floor(i / D)]!))
      .view;
  };
  const [key, value] = [rounded(call.key), rounded(call.value)];
  const floats = { ...call, key: await widened(key), value: await widened(value) };
  const small = { ...call, key, value, out: bench.empty(call.out.shape), lse: null };
  device.kernels.attention(floats);
  device.kernels.attention(small);
  const expected = await bench.read(floats.out);
  assertClose(await bench.read(small.out), expected, toleranceOf("attention_flash", on.name), "output");
});

deviceTest(on, "attention flash, keys split: the same without subgroups", async () => {
  const device = new WebGpuDevice({ subgroups: false });
  for (const row of CASES.filter(({ D = 0 }) => D <= 64).slice(0, 3)) {
    using bench = new Bench(device);
    const { call, expected } = prepareAttention(bench, "flash", row);
    device.kernels.attention(call);
    const tolerance = toleranceOf("attention_flash", on.name);
    assertClose(await bench.read(call.out), expected.output, tolerance, `output of ${row.name}`);
    assertClose(await bench.read(call.lse!), expected.lse, tolerance, `lse of ${row.name}`);
  }
  await device.destroy();
});

// Loops are written out as for a GPU, which takes a software adapter many seconds to compile.
deviceTest(on, "attention flash, keys split: written out, the same bits", async (device) => {
  const large = new WebGpuDevice({ unrolled: true });
  const row: AttentionCase = { name: "few", H: 2, Hkv: 1, Q: 1, K: 300, D: 16, causal: true };
  const results: ArrayLike<number>[] = [];
  for (const each of [device as WebGpuDevice, large]) {
    using bench = new Bench(each);
    const { call } = prepareAttention(bench, "flash", row);
    each.kernels.attention(call);
    results.push(await bench.read(call.out));
  }
  assertSameBits(results[1]!, results[0]!);
  await large.destroy();
});

Deno.test("flash: few rows are streamed, with what an invocation holds in registers bounded", () => {
  for (const d of [1, 8, 64, 65, 80, 128, 256, 512, 1024]) {
    for (const dv of [d, 64]) {
      for (let rows = 1; rows <= 16; rows++) {
        const tile = fewTile(rows, d, dv)!;
        if (rows <= 2) assert(tile !== null, `${rows} rows of ${d}`);
        if (tile === null) continue;
        const vectors = Math.ceil(Math.ceil(Math.max(d, dv) / 4) / tile.LANES);
        assert(tile.ROWS * vectors <= 16 && tile.KEYS * vectors <= 16, `${rows} rows of ${d}`);
        assert(Math.ceil(rows / tile.ROWS) <= 2, "keys are read at most twice");
      }
    }
  }
  assertEquals([fewTile(17, 64, 64), fewTile(3, 4096, 64)], [null, null]);
});

reportSkips();
