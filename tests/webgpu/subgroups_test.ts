/**
 * Reductions through subgroups and without them: both agree with the oracles, on the same GPU.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { WebGpuDevice } from "../../src/devices/webgpu/device.ts";
import { type AttentionCase, prepareAttention } from "../support/attention_cases.ts";
import { deviceTest, reportSkips, testDevices } from "../support/devices.ts";
import { layerNormRow, REDUCE, rmsNormRow, rowsOf, softmaxRow } from "../support/kernel_oracles.ts";
import { seeded } from "../support/random.ts";
import { assertClose, type Kind, toleranceOf } from "../support/tolerance.ts";
import { Bench } from "../support/views.ts";

const WIDTHS = [1, 7, 64, 100, 1025];
const ATTENTION: AttentionCase = {
  ...{ name: "heads", B: 2, H: 4, Hkv: 2, Q: 40, K: 70, D: 16, Dv: 20, causal: true, query_offset: 30 },
  ...{ softcap: 20, sinks: true, padding: { side: "left", lengths: [70, 50] } },
};
const DECODE: AttentionCase = { name: "decode", H: 4, Hkv: 2, Q: 1, K: 300, D: 16, causal: true };

const on = (await testDevices()).find((d) => d.name === "webgpu")!;

async function check(device: WebGpuDevice, label: string): Promise<void> {
  const near = (kind: Kind) => toleranceOf(kind, "webgpu");
  for (const n of WIDTHS) {
    using bench = new Bench(device);
    const random = seeded(`subgroups ${n}`);
    const x = bench.place([3, n], random.normal(3 * n, 2));
    const [weight, bias] = [bench.place([n], random.normal(n)), bench.place([n], random.normal(n))];
    const rows = rowsOf(x.values, n);
    const { kernels } = device;
    const where = `${label}, ${n} columns`;
    for (const op of ["sum", "max", "mean"] as const) {
      const out = bench.empty([3]);
      kernels.reduce(op, x.view, out);
      assertClose(await bench.read(out), rows.map(REDUCE[op]), near("reduce"), `${op}, ${where}`);
    }
    const [probabilities, lse] = [bench.empty([3, n]), bench.empty([3])];
    kernels.softmax(x.view, probabilities, lse);
    const expected = rows.map(softmaxRow);
    const flat = expected.flatMap((r) => [...r.probabilities]);
    assertClose(await bench.read(probabilities), flat, near("softmax"), `softmax, ${where}`);
    assertClose(await bench.read(lse), expected.map((r) => r.lse), near("softmax"), `lse, ${where}`);
    const out = bench.empty([3, n]);
    kernels.rms_norm(x.view, weight.view, 1e-6, 0, out);
    const rms = rows.flatMap((row) => [...rmsNormRow(row, weight.values, 1e-6, 0)]);
    assertClose(await bench.read(out), rms, near("norm"), `rms_norm, ${where}`);
    if (n === 1) continue; // one value has no variance, so that rounding is all that is left
    kernels.layer_norm(x.view, weight.view, bias.view, 1e-5, out);
    const layer = rows.flatMap((row) => [...layerNormRow(row, weight.values, bias.values, 1e-5)]);
    assertClose(await bench.read(out), layer, near("norm"), `layer_norm, ${where}`);
  }
  for (const row of [ATTENTION, DECODE]) {
    using bench = new Bench(device);
    const { call, expected } = prepareAttention(bench, "flash", row);
    device.kernels.attention(call);
    assertClose(
      await bench.read(call.out),
      expected.output,
      near("attention_flash"),
      `${row.name}, ${label}`,
    );
    assertClose(await bench.read(call.lse!), expected.lse, near("attention_flash"), `${row.name}, ${label}`);
  }
}

deviceTest(on, "reductions without subgroups", async () => {
  const device = new WebGpuDevice({ subgroups: false });
  assertEquals((await device.info()).subgroup_size, 0);
  await check(device, "without subgroups");
  await device.destroy();
});

deviceTest(on, "reductions through subgroups, where they are found to work", async (device) => {
  const { subgroup_size } = await (device as WebGpuDevice).info();
  if (subgroup_size === 0) return console.log("this adapter has no subgroups that work");
  assertEquals(Math.log2(subgroup_size) % 1, 0);
  await check(device as WebGpuDevice, `subgroups of ${subgroup_size}`);
});

reportSkips();
