/**
 * Decoding over many keys: flash attention splits them over workgroups and joins the parts.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { WebGpuDevice } from "../../src/devices/webgpu/device.ts";
import { type AttentionCase, prepareAttention } from "../support/attention_cases.ts";
import { deviceTest, reportSkips, testDevices } from "../support/devices.ts";
import { assertClose, toleranceOf } from "../support/tolerance.ts";
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

reportSkips();
