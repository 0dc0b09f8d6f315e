/**
 * Masks by blocks on WebGPU: keys split over workgroups, what is not read, and lists that do not fit.
 *
 * @module
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { create_block_mask, flex_attention_forward, Tensor } from "../../mod.ts";
import type { MaskFunction } from "../../mod.ts";
import { defaultDevice } from "../../src/devices/mod.ts";
import type { WebGpuDevice } from "../../src/devices/webgpu/device.ts";
import { InvalidArgument } from "../../src/errors.ts";
import { type AttentionCase, prepareAttention } from "../support/attention_cases.ts";
import { deviceTest, reportSkips, testDevices } from "../support/devices.ts";
import { seeded } from "../support/random.ts";
import { assertClose, toleranceOf } from "../support/tolerance.ts";
import { Bench } from "../support/views.ts";

const on = (await testDevices()).find((d) => d.name === "webgpu")!;
const tolerance = toleranceOf("attention_flash", "webgpu");

const CASES: readonly AttentionCase[] = [
  { name: "one query over 1500 keys", H: 4, Hkv: 2, Q: 1, K: 1500, D: 16, blocks: { size: [128, 128] } },
  {
    ...{ name: "a few queries, sinks, window", B: 2, H: 4, Hkv: 2, Q: 5, K: 900, D: 8, causal: true },
    ...{ window: [500, -1] as const, sinks: true, blocks: { size: [2, 100], stored: ["B", "H"] as const } },
  },
  {
    ...{ name: "blocks of 10 keys over a float16 cache", H: 2, Q: 3, K: 700, D: 32, kv: "float16" as const },
    blocks: { size: [3, 10], masked_rows: [1] },
  },
];

for (const row of CASES) {
  deviceTest(on, `blocks, keys split: ${row.name}`, async (device) => {
    using bench = new Bench(device);
    const { call, expected } = prepareAttention(bench, "flash", row);
    await device.flush();
    const { stats } = device as WebGpuDevice;
    const before = stats.dispatches;
    device.kernels.attention(call);
    assertClose(await bench.read(call.out), expected.output, tolerance, `output of ${row.name}`);
    assertClose(await bench.read(call.lse!), expected.lse, tolerance, `lse of ${row.name}`);
    assertEquals(stats.dispatches - before, 2, "parts and their merge");
  });
}

deviceTest(on, "blocks: lists that do not fit the call are refused", (device) => {
  using bench = new Bench(device);
  const { call } = prepareAttention(bench, "flash", {
    ...{ name: "unfit", H: 2, Q: 9, K: 40, blocks: { size: [8, 8] } },
  });
  const blocks = call.blocks!;
  const elsewhere = bench.place(
    blocks.entries.shape,
    new Array(2 * blocks.entries.shape[0]!).fill(0),
    "int32",
  );
  for (
    const wrong of [
      { ...blocks, entries: elsewhere.view },
      { ...blocks, size: [4, 8] as const },
      { ...blocks, bits: { ...blocks.bits, dtype: "int32" as const } },
    ]
  ) {
    for (const algorithm of ["flash", "eager"] as const) {
      const weights = algorithm === "eager" ? bench.empty([1, 2, 9, 40]) : null;
      assertThrows(
        () => device.kernels.attention({ ...call, algorithm, weights, blocks: wrong }),
        InvalidArgument,
        "one allocation",
      );
    }
  }
});

Deno.test({
  name: "webgpu: flex_attention reads no key or value that its mask hides from all",
  ignore: on.skip !== undefined,
  fn: async () => {
    for (const [Q, K, size] of [[96, 300, [32, 40]], [20, 300, [8, 24]], [1, 700, [1, 7]]] as const) {
      const hidden = (kv: number) => Math.floor(kv / size[1]) % 3 !== 1;
      const see: MaskFunction = (_b, _h, q, kv) => !hidden(kv) && (q + kv) % 5 !== 0;
      const random = seeded("nan");
      const make = (n: number, spoil: boolean) =>
        Tensor.from(
          random.normal(2 * n * 16).map((x, i) => spoil && hidden(Math.floor(i / 16) % n) ? NaN : x),
          { shape: [1, 2, n, 16], device: "webgpu" },
        );
      using q = make(Q, false);
      using k = make(K, true);
      using v = make(K, true);
      const options = { BLOCK_SIZE: size, device: "webgpu" } as const;
      using mask = create_block_mask(see, null, null, Q, K, options);
      using dense = mask.to_dense();
      const module = { scaling: 0.25, is_causal: false, layer_idx: 0, num_key_value_groups: 1 };
      const run = async (m: typeof mask | typeof dense) => {
        const [output] = flex_attention_forward({ ...module, config: null as never }, q, k, v, m, {});
        using held = output;
        return await held.data() as Float32Array;
      };
      assert((await run(mask)).every(Number.isFinite), `${Q} queries, blocks of ${size}`);
      assert((await run(dense)).some(Number.isNaN), "a dense mask reads everything");
    }
    assertEquals(defaultDevice("webgpu").live, 0);
  },
});

reportSkips();
