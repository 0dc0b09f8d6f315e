/**
 * The versions of flash attention on WebGPU, with enough queries that they differ: every mask, both paths of staging,
 * and the tile of a GPU, which a software adapter does not choose by itself.
 *
 * @module
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import type { FlashVersion } from "../../src/devices/device.ts";
import { WebGpuDevice } from "../../src/devices/webgpu/device.ts";
import { flashTile, LEAST_LIMITS } from "../../src/devices/webgpu/flash_tile.ts";
import { type AttentionCase, prepareAttention } from "../support/attention_cases.ts";
import { deviceTest, reportSkips, testDevices } from "../support/devices.ts";
import { assertClose, assertSameBits, toleranceOf } from "../support/tolerance.ts";
import { Bench } from "../support/views.ts";

const VERSIONS: readonly FlashVersion[] = [2, 3, 4];

const CASES: readonly AttentionCase[] = [
  { name: "causal, head dimension 24", B: 2, H: 4, Hkv: 2, Q: 70, K: 70, D: 24, causal: true },
  { name: "several chunks of D, odd value dimension", Q: 40, K: 100, D: 200, Dv: 18 },
  {
    name: "float16, large scores",
    Q: 50,
    K: 90,
    D: 64,
    kv: "float16",
    magnitude: 6,
    causal: true,
    query_offset: 40,
  },
  {
    ...{ name: "scores that grow by small steps", Q: 33, K: 150, D: 16, magnitude: 2, kv: "bfloat16" },
    ...{ mask: { type: "additive", stored: ["B", 1, "Q", "K"], masked_rows: [5] } },
  },
  {
    ...{
      name: "all that changes scores",
      B: 2,
      H: 4,
      Hkv: 2,
      Q: 40,
      K: 80,
      D: 12,
      causal: true,
      query_offset: 40,
    },
    ...{ window: [30, -1], softcap: 3, sinks: true, padding: { side: "left", lengths: [80, 30] } },
    zero_padded_queries: true,
  },
  {
    name: "bool mask, hidden rows",
    Q: 65,
    K: 65,
    mask: { type: "bool", stored: ["B", "H", "Q", "K"], masked_rows: [1, 64] },
  },
  { name: "blocks", H: 2, Q: 70, K: 100, D: 16, causal: true, query_offset: 30, blocks: { size: [16, 24] } },
];

const on = (await testDevices()).find((d) => d.name === "webgpu")!;

async function check(device: WebGpuDevice, row: AttentionCase, version: FlashVersion): Promise<void> {
  using bench = new Bench(device);
  const { call, expected } = prepareAttention(bench, "flash", row);
  device.kernels.attention({ ...call, version });
  const tolerance = toleranceOf("attention_flash", on.name);
  assertClose(await bench.read(call.out), expected.output, tolerance, `output of ${row.name}`);
  assertClose(await bench.read(call.lse!), expected.lse, tolerance, `lse of ${row.name}`);
}

for (const version of VERSIONS) {
  for (const row of CASES) {
    deviceTest(on, `flash ${version}: ${row.name}`, (device) => check(device as WebGpuDevice, row, version));
  }
}

// Loops are written out as for a GPU, which takes a software adapter many seconds to compile.
deviceTest(on, "flash 4: eight rows an invocation, written out, give the same bits", async (device) => {
  const row: AttentionCase = { name: "tall", H: 2, Q: 70, K: 70, D: 8, causal: true };
  const large = new WebGpuDevice({ unrolled: true });
  await large.acquire();
  assertEquals(flashTile(70, 8, 8, { blocks: false, version: 4 }, large.limits).RV, 2);
  await check(large, row, 4);
  const results: ArrayLike<number>[] = [];
  for (const each of [device as WebGpuDevice, large]) {
    using bench = new Bench(each);
    const { call } = prepareAttention(bench, "flash", row);
    each.kernels.attention({ ...call, version: 4 });
    results.push(await bench.read(call.out));
  }
  assertSameBits(results[1]!, results[0]!);
  await large.destroy();
});

deviceTest(on, "flash: the versions are kernels of their own", async (device) => {
  using bench = new Bench(device);
  const row: AttentionCase = { name: "keys", Q: 40, K: 64, D: 16, magnitude: 3 };
  const { call } = prepareAttention(bench, "flash", row);
  const bits = new Map<FlashVersion, ArrayLike<number>>();
  for (const version of VERSIONS) {
    const out = bench.empty(call.out.shape);
    device.kernels.attention({ ...call, out, version });
    bits.set(version, await bench.read(out));
  }
  // 3 changes when things are loaded, 4 what is computed.
  assertSameBits(bits.get(3)!, bits.get(2)!);
  assertNotEquals(bits.get(4), bits.get(2));
});

Deno.test("flash: a tile fits the adapter whatever the heads", () => {
  const large = { workgroupBytes: 49152, invocations: 1024, unrolled: true };
  for (
    const limits of [
      LEAST_LIMITS,
      { ...LEAST_LIMITS, unrolled: true },
      { ...large, workgroupBytes: 32768 },
      large,
    ]
  ) {
    for (const d of [1, 8, 64, 80, 128, 256, 512]) {
      for (const rows of [1, 8, 9, 17, 40, 5000]) {
        for (const blocks of [false, true]) {
          const { TY, RV, DC, VC, RESIDENT, WIDE } = flashTile(rows, d, d, { blocks, version: 4 }, limits);
          const d4 = Math.ceil(d / 4), n = TY * RV * 4;
          const parts = Math.ceil(d4 / DC), groups = Math.ceil(d4 / 8);
          const queries = n * (!RESIDENT ? DC + 1 : WIDE ? parts * 17 : parts * DC + 1);
          const staged = WIDE ? Math.ceil(VC * groups / 2) * 17 : VC * d4;
          const values = 32 * (TY * RV + 1) + staged + (RESIDENT ? queries : 0);
          if (WIDE) assertEquals([DC, TY * RV], [16, 16]);
          const stage = Math.max(queries + 32 * (DC + 1), values);
          const bytes = 16 * (stage + TY * 8 * RV) + (blocks ? 4 * n + 12 : 0);
          assert(bytes <= Math.min(32768, limits.workgroupBytes), `${bytes} bytes for D ${d}, ${rows} rows`);
          assert(TY * 8 <= limits.invocations);
        }
      }
    }
  }
});

reportSkips();
