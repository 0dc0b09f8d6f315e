/**
 * Attention kernels, eager and flash, on every device against the oracle: the rows of
 * `support/attention_cases.ts`, and random calls.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import fc from "./support/fast_check.ts";
import type { AttentionAlgorithm, Device, DeviceName, FlashVersion } from "../src/devices/device.ts";
import { ATTENTION_CASES, type AttentionCase, prepareAttention } from "./support/attention_cases.ts";
import { deviceTest, reportSkips, testDevices } from "./support/devices.ts";
import { assertClose, assertSameBits, toleranceOf } from "./support/tolerance.ts";
import { Bench } from "./support/views.ts";

const ALGORITHMS: readonly AttentionAlgorithm[] = ["eager", "flash"];

/**
 * Versions of flash that are kernels of their own; version 4 is what `flash` is without one. On WebGPU they have a test
 * of their own, with as many queries as it takes for them to differ.
 */
const VERSIONS: Readonly<Record<DeviceName, readonly FlashVersion[]>> = { wasm: [2, 3], webgpu: [] };

/** A random row: few sizes, all corners, so that shrinking ends at something readable. */
const randomCase: fc.Arbitrary<AttentionCase> = fc.record({
  B: fc.integer({ min: 1, max: 3 }),
  groups: fc.integer({ min: 1, max: 3 }),
  Hkv: fc.integer({ min: 1, max: 2 }),
  Q: fc.constantFrom(1, 1, 2, 3, 7, 16, 33, 65),
  K: fc.constantFrom(0, 1, 2, 5, 16, 31, 64, 65, 100, 129),
  D: fc.constantFrom(2, 4, 6, 8, 12, 16, 33, 64),
  Dv: fc.constantFrom(2, 4, 6, 8, 20, 64),
  kv: fc.constantFrom("float32" as const, "float16" as const, "bfloat16" as const),
  kvLayout: fc.constantFrom("contiguous" as const, "projected" as const, "capacity" as const),
  causal: fc.boolean(),
  query_offset: fc.integer({ min: -3, max: 140 }),
  window: fc.tuple(fc.integer({ min: -1, max: 70 }), fc.integer({ min: -1, max: 70 })),
  softcap: fc.constantFrom(0, 0, 1, 30),
  sinks: fc.boolean(),
  pads: fc.option(fc.record({ side: fc.constantFrom("left" as const, "right" as const), cut: fc.nat(40) }), {
    nil: null,
  }),
  zero_padded_queries: fc.boolean(),
  mask: fc.option(
    fc.record({
      type: fc.constantFrom("bool" as const, "additive" as const),
      stored: fc.constantFrom<NonNullable<AttentionCase["mask"]>["stored"]>(
        ["B", 1, "Q", "K"],
        [1, 1, "Q", "K"],
        [1, 1, 1, "K"],
        ["B", "H", "Q", "K"],
      ),
      masked_rows: fc.subarray([0, 1, 5, 64]),
    }),
    { nil: null },
  ),
  blocks: fc.option(
    fc.record({
      size: fc.tuple(fc.integer({ min: 1, max: 140 }), fc.integer({ min: 1, max: 140 })),
      stored: fc.constantFrom<NonNullable<NonNullable<AttentionCase["blocks"]>["stored"]>>(
        [1, 1],
        ["B", 1],
        [1, "H"],
        ["B", "H"],
      ),
      masked_rows: fc.subarray([0, 1, 5, 64]),
    }),
    { nil: null },
  ),
  name: fc.string({ minLength: 4, maxLength: 4 }),
}).map(({ groups, pads, mask, blocks, ...row }) => ({
  ...row,
  H: row.Hkv * groups,
  ...(pads === null ? {} : {
    padding: {
      side: pads.side,
      lengths: [row.K, Math.max(0, row.K - pads.cut), Math.min(1, row.K)].slice(0, row.B),
    },
  }),
  ...(mask === null ? {} : { mask }),
  ...(blocks === null || row.K === 0 ? {} : { blocks }),
}));

for (const on of await testDevices({ every_build: true })) {
  const check = async (device: Device, algorithm: AttentionAlgorithm, row: AttentionCase) => {
    using bench = new Bench(device);
    const { call, expected } = prepareAttention(bench, algorithm, row);
    device.kernels.attention(call);
    const tolerance = toleranceOf(`attention_${algorithm}`, on.name);
    assertClose(await bench.read(call.out), expected.output, tolerance, `output of ${row.name}`);
    assertClose(await bench.read(call.lse!), expected.lse, tolerance, `lse of ${row.name}`);
    if (call.weights === null) return;
    assertClose(await bench.read(call.weights), expected.weights, tolerance, `weights of ${row.name}`);
  };

  for (const version of VERSIONS[on.name]) {
    for (const row of ATTENTION_CASES) {
      deviceTest(on, `attention flash ${version}: ${row.name}`, async (device) => {
        using bench = new Bench(device);
        const { call, expected } = prepareAttention(bench, "flash", row);
        device.kernels.attention({ ...call, version });
        const tolerance = toleranceOf("attention_flash", on.name);
        assertClose(await bench.read(call.out), expected.output, tolerance, `output of ${row.name}`);
        assertClose(await bench.read(call.lse!), expected.lse, tolerance, `lse of ${row.name}`);
      });
    }
  }

  if (on.name === "wasm") {
    for (
      const row of ATTENTION_CASES.filter((row) => (row.magnitude ?? 1) === 1 && row.scaling === undefined)
    ) {
      deviceTest(on, `attention flash in int8: ${row.name}`, async (device) => {
        using bench = new Bench(device);
        const { call, expected } = prepareAttention(bench, "flash", row);
        device.kernels.attention({ ...call, version: 3, precision: "int8" });
        const tolerance = toleranceOf("attention_int8", on.name);
        assertClose(await bench.read(call.out), expected.output, tolerance, `output of ${row.name}`);
        assertClose(await bench.read(call.lse!), expected.lse, tolerance, `lse of ${row.name}`);
      });
    }

    deviceTest(on, "attention flash in int8: a row has the same bits beside any others", async (device) => {
      using bench = new Bench(device);
      const row: AttentionCase = { name: "rows", H: 2, Q: 150, K: 150, D: 40, causal: true };
      const { call } = prepareAttention(bench, "flash", row);
      const whole = { ...call, version: 3, precision: "int8" } as const;
      device.kernels.attention(whole);
      const first = bench.empty([1, 9, 2, 40]);
      device.kernels.attention({
        ...whole,
        query: { ...call.query, shape: [1, 2, 9, 40] },
        out: first,
        lse: null,
      });
      assertSameBits(await bench.read(first), (await bench.read(call.out)).slice(0, 9 * 2 * 40));
    });
  }

  for (const algorithm of ALGORITHMS) {
    for (const row of ATTENTION_CASES) {
      deviceTest(on, `attention ${algorithm}: ${row.name}`, (device) => check(device, algorithm, row));
    }

    deviceTest(
      on,
      `attention ${algorithm}: without lse and weights the output is the same`,
      async (device) => {
        using bench = new Bench(device);
        const row: AttentionCase = { name: "plain", B: 2, H: 4, Hkv: 2, Q: 5, K: 70, D: 16, causal: true };
        const { call } = prepareAttention(bench, algorithm, row);
        const plain = { ...call, out: bench.empty(call.out.shape), weights: null, lse: null };
        device.kernels.attention(call);
        device.kernels.attention(plain);
        assertSameBits(await bench.read(plain.out), await bench.read(call.out));
      },
    );

    deviceTest(on, `attention ${algorithm}: a row has the same bits in any batch`, async (device) => {
      using bench = new Bench(device);
      for (const Q of [1, 9]) {
        const row: AttentionCase = { name: "batch", B: 3, H: 2, Q, K: 70, D: 16, causal: true };
        const { call } = prepareAttention(bench, algorithm, row);
        device.kernels.attention(call);
        const together = await bench.read(call.out);
        for (let b = 0; b < 3; b++) {
          const one = <V extends typeof call.query>(view: V) => ({
            ...view,
            shape: [1, ...view.shape.slice(1)],
            offset: view.offset + b * view.strides[0]!,
          });
          const out = bench.empty([1, ...call.out.shape.slice(1)]);
          device.kernels.attention({
            ...call,
            query: one(call.query),
            key: one(call.key),
            value: one(call.value),
            out,
            weights: null,
            lse: null,
          });
          const size = together.length / 3;
          assertSameBits(
            await bench.read(out),
            together.slice(b * size, (b + 1) * size),
            `batch row ${b}, Q=${Q}`,
          );
        }
      }
    });

    deviceTest(on, `attention ${algorithm}: random calls agree with the oracle`, async (device) => {
      await fc.assert(fc.asyncProperty(randomCase, (row) => check(device, algorithm, row)), {
        seed: 20250101,
        numRuns: on.name === "wasm" ? 150 : 12,
        endOnFailure: on.name !== "wasm",
      });
    });
  }

  deviceTest(on, "attention kernels leave nothing allocated", async (device) => {
    await device.flush();
    assertEquals(device.live, 0);
  });
}
reportSkips();
