/**
 * Matrix products with tiles of every size: all give the same bits for a row.
 *
 * @module
 */
import { WebGpuDevice } from "../../src/devices/webgpu/device.ts";
import type { DType } from "../../src/dtype.ts";
import { deviceTest, reportSkips, testDevices } from "../support/devices.ts";
import { seeded } from "../support/random.ts";
import { assertClose, assertSameBits, toleranceOf } from "../support/tolerance.ts";
import { Bench } from "../support/views.ts";

const on = (await testDevices()).find((d) => d.name === "webgpu")!;
const FLOATS: readonly DType[] = ["float32", "float16", "bfloat16"];

for (const unrolled of [false, true]) {
  deviceTest(
    on,
    `matmul, tiles of all sizes agree, inner loops ${unrolled ? "unrolled" : "kept"}`,
    async () => {
      const device = new WebGpuDevice({ unrolled });
      for (const [N, P, dtype] of [[300, 1284, 0], [36, 1281, 1], [33, 1288, 2]] as const) {
        for (const transpose_b of [true, false]) {
          // A software adapter compiles for many seconds what is unrolled.
          if (unrolled && (dtype !== 0 || !transpose_b)) continue;
          using bench = new Bench(device);
          const M = 1290, random = seeded(`${N} ${P}`);
          const a = bench.place([M, N], random.normal(M * N));
          const shape = transpose_b ? [P, N] : [N, P];
          const b = bench.place(shape, random.normal(P * N), FLOATS[dtype]!);
          const out = bench.empty([M, P]);
          device.kernels.matmul(a.view, b.view, out, transpose_b);
          const large = await bench.read(out);
          const expected = [0, 1, 127, 128, 200, M - 1].map((row) => ({
            row,
            values: Array.from({ length: P }, (_, col) => {
              let sum = 0;
              for (let k = 0; k < N; k++) {
                sum += a.values[row * N + k]! * b.values[transpose_b ? col * N + k : k * P + col]!;
              }
              return sum;
            }),
          }));
          for (const { row, values } of expected) {
            const found = large.subarray(row * P, (row + 1) * P);
            const label = `row ${row} of ${M} x ${N} x ${P}, ${FLOATS[dtype]}`;
            assertClose(found, values, toleranceOf("matmul", "webgpu"), label);
            // One row alone takes another tile, or in a linear layer another kernel.
            const alone = bench.empty([1, P]);
            const one = { ...a.view, shape: [1, N], offset: row * N };
            device.kernels.matmul(one, b.view, alone, transpose_b);
            assertSameBits(await bench.read(alone), found, label);
            if (!transpose_b) continue;
            device.kernels.linear(one, b.view, null, alone);
            assertSameBits(await bench.read(alone), found, `linear, ${label}`);
          }
        }
      }
      await device.flush();
      await device.destroy();
    },
  );
}

deviceTest(on, "linear: rows long and short, few and many, give the bits of matmul", async (device) => {
  for (const [I, dtype] of [[200, 0], [1030, 1], [2052, 2], [4500, 0]] as const) {
    using bench = new Bench(device);
    const O = 21, M = 9, random = seeded(`linear ${I}`);
    const x = bench.place([M, I], random.normal(M * I));
    const weight = bench.place([O, I], random.normal(O * I), FLOATS[dtype]!);
    const many = bench.empty([M, O]);
    device.kernels.matmul(x.view, weight.view, many, true);
    const expected = await bench.read(many);
    for (const rows of [1, 3, 8]) {
      const out = bench.empty([rows, O]);
      device.kernels.linear({ ...x.view, shape: [rows, I] }, weight.view, null, out);
      assertSameBits(
        await bench.read(out),
        expected.subarray(0, rows * O),
        `${rows} x ${I}, ${FLOATS[dtype]}`,
      );
    }
  }
});

deviceTest(on, "linear: with the next tile on its way, the same bits", async (device) => {
  const large = new WebGpuDevice({ unrolled: true });
  const I = 4500, O = 21, random = seeded("ahead");
  const [x, weight] = [random.normal(I), random.normal(O * I)];
  const results: ArrayLike<number>[] = [];
  for (const each of [device as WebGpuDevice, large]) {
    using bench = new Bench(each);
    const out = bench.empty([1, O]);
    each.kernels.linear(bench.place([1, I], x).view, bench.place([O, I], weight).view, null, out);
    results.push(await bench.read(out));
  }
  assertSameBits(results[1]!, results[0]!);
  await large.destroy();
});

reportSkips();
