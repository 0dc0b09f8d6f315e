/**
 * Products with quantised weights on every device and build, against the formula of the quantisation in float64: integers are exact,
 * so only float32 sums over groups of 32 may differ.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { Device, View } from "../../src/devices/device.ts";
import {
  groupsOf,
  packedWords,
  QUANTIZED_FORMATS,
  type QuantizedFormat,
  roomWords,
} from "../../src/devices/quantized.ts";
import { WasmEngine } from "../../src/devices/wasm/engine.ts";
import type { DType } from "../../src/dtype.ts";
import { fileTensors } from "../../src/quantize/stored.ts";
import { deviceTest, reportSkips, testDevices } from "../support/devices.ts";
import { roundedRows } from "../support/kernel_oracles.ts";
import { seeded } from "../support/random.ts";
import { assertClose, assertSameBits, toleranceOf } from "../support/tolerance.ts";

const SHAPES = [
  ...[[1, 70, 33], [2, 32, 4], [3, 200, 31], [5, 96, 40], [9, 688, 21]],
  // Several segments of a row, and more rows than a tile of a GPU has.
  ...[[1, 2500, 9], [8, 2080, 6], [70, 260, 67]],
] as const satisfies readonly (readonly [M: number, I: number, O: number])[];

/** Views on a device. */
class Views {
  constructor(readonly device: Device) {}

  make(dtype: DType, shape: readonly number[], data?: Float32Array | Uint8Array): View {
    const n = shape.reduce((a, b) => a * b, 1);
    const allocation = this.device.allocate(n * this.device.elementBytes(dtype));
    if (data !== undefined) this.device.write(allocation, 0, new Uint8Array(data.slice().buffer));
    const strides = shape.map((_, d) => shape.slice(d + 1).reduce((a, b) => a * b, 1));
    return { allocation, dtype, offset: 0, shape, strides };
  }

  async bytes({ allocation }: View): Promise<Uint8Array<ArrayBuffer>> {
    return await this.device.read(allocation, 0, allocation.bytes);
  }
}

/** A matrix quantised on the CPU, for products on `device`, and the integers and scales it holds. */
async function quantised(
  device: Device,
  format: QuantizedFormat,
  O: number,
  I: number,
  floats: Float32Array,
) {
  const engine = device instanceof WasmEngine ? device : new WasmEngine({ maximum: 2 ** 26 });
  const made = new Views(engine), views = new Views(device);
  const matrix = { format, shape: [O, I] as const };
  const packed = made.make("int32", [packedWords(matrix)]);
  engine.kernels.weight_step!("quantize", { ...matrix, packed }, made.make("float32", [O, I], floats), null);
  const form = fileTensors(matrix);
  const values = made.make(form.values.dtype, form.values.shape),
    scales = made.make(form.scales.dtype, form.scales.shape);
  engine.kernels.weight_step!("unpack", { ...matrix, packed }, values, scales);
  const q = await made.bytes(values), s = await made.bytes(scales);
  const scaleOf = format === "int8" ? new Float32Array(s.buffer) : new Float16Array(s.buffer);
  const weight = Float64Array.from({ length: O * I }, (_, at) => {
    const [o, i] = [Math.floor(at / I), at % I];
    const integer = format === "int4" ? (q[at >> 1]! >> (at % 2 * 4) & 15) - 8 : new Int8Array(q.buffer)[at]!;
    return integer * scaleOf[format === "int8" ? o : o * groupsOf(I) + (i >> 5)]!;
  });
  const again = made.make("int32", [packedWords(matrix)]);
  engine.kernels.weight_step!("pack", { ...matrix, packed: again }, values, scales);
  const bytes = await made.bytes(packed);
  assertEquals(await made.bytes(again), bytes, "packed again");
  const here = engine === device ? packed : views.make("int32", [packedWords(matrix)], bytes);
  if (engine !== device) engine.close();
  const product = async (x: Float32Array, M: number, bias: Float32Array | null) => {
    const out = views.make("float32", [M, O]);
    const room = views.make("int32", [roomWords(M, I)]);
    const given = views.make("float32", [M, I], x);
    const shift = bias === null ? null : views.make("float32", [O], bias);
    device.kernels.linear_quantized(given, { ...matrix, packed: here }, shift, out, room);
    const y = new Float32Array((await views.bytes(out)).buffer);
    for (const view of [out, room, given, shift]) if (view !== null) device.release(view.allocation);
    return y;
  };
  return { weight, product, close: () => device.release(here.allocation) };
}

for (const on of await testDevices({ every_build: true })) {
  for (const format of QUANTIZED_FORMATS) {
    deviceTest(on, `${format}: what the formula gives, row by row`, async (device) => {
      for (const [M, I, O] of SHAPES) {
        const random = seeded(`${M} ${I} ${O}`);
        const floats = random.normal(O * I), x = random.normal(M * I), bias = random.normal(O);
        const { weight, product, close } = await quantised(device, format, O, I, floats);
        const y = await product(x, M, bias);
        const seen = roundedRows(x, I, format === "int4" ? 127 : 63);
        const expected = Array.from({ length: M * O }, (_, at) => {
          const [m, o] = [Math.floor(at / O), at % O];
          let sum = bias[o]!;
          for (let i = 0; i < I; i++) sum += seen[m * I + i]! * weight[o * I + i]!;
          return sum;
        });
        assertClose(y, expected, toleranceOf("linear", on.name), `${format} ${M}×${I}×${O}`);
        for (let m = 0; m < M; m++) {
          const alone = await product(x.slice(m * I, m * I + I), 1, bias);
          assertSameBits(alone, y.subarray(m * O, m * O + O), `row ${m} of ${M} alone`);
        }
        close();
      }
    });

    deviceTest(on, `${format}: sums of whole numbers are exact`, async (device) => {
      const [I, O] = [416, 10], limit = format === "int4" ? 127 : 63, most = format === "int4" ? 8 : 127;
      const random = seeded(format);
      const whole = (n: number, bound: number) => random.uniform(n, -bound, bound).map(Math.round);
      // With these in every group all scales are 1.
      const x = whole(60 * I, limit).map((v, i) => i % 32 === 0 ? limit : v);
      const floats = whole(O * I, most - 1).map((v, i) => i % 32 === 5 ? -most : v);
      const { weight, product, close } = await quantised(device, format, O, I, floats);
      assertEquals([...weight], [...floats]);
      for (const M of [1, 3, 8, 9, 60]) {
        const y = await product(x.slice(0, M * I), M, null);
        y.forEach((v, at) => {
          const [m, o] = [Math.floor(at / O), at % O];
          let sum = 0;
          for (let i = 0; i < I; i++) sum += x[m * I + i]! * floats[o * I + i]!;
          assertEquals(v, sum, `${M} rows, ${at}`);
        });
      }
      close();
    });

    deviceTest(on, `${format}: a NaN is not lost, and zeros are zeros`, async (device) => {
      const { product, close } = await quantised(device, format, 4, 64, new Float32Array(256).fill(0.5));
      const bias = new Float32Array(4);
      for (const M of [1, 9]) {
        const zero = new Float32Array(64 * M);
        assertEquals([...await product(zero, M, bias)], Array(4 * M).fill(0));
        for (const bad of [NaN, Infinity]) {
          const x = zero.slice();
          x[40] = bad;
          const y = await product(x, M, bias);
          assert(y.subarray(0, 4).every(Number.isNaN), `${bad}: ${y}`);
          assert(y.subarray(4).every((v) => v === 0), "other rows are not touched");
        }
      }
      close();
    });
  }
}

for (const on of await testDevices({ every_build: true })) {
  for (const format of QUANTIZED_FORMATS) {
    deviceTest(
      on,
      `${format}: a row of weights that is not finite gives NaN, and no other does`,
      async (device) => {
        for (const bad of [NaN, Infinity, -Infinity]) {
          const floats = seeded(1).normal(6 * 64);
          floats[2 * 64 + 40] = bad;
          const { product, close } = await quantised(device, format, 6, 64, floats);
          for (const M of [1, 9]) {
            const y = await product(seeded(2).normal(64 * M), M, null);
            y.forEach((v, at) => assertEquals(Number.isFinite(v), at % 6 !== 2, `${bad}, ${M} rows: ${y}`));
          }
          close();
        }
      },
    );
  }
}

Deno.test("weights are quantised to the same bits by both builds, and as near as their bits allow", async () => {
  const floats = seeded(3).normal(48 * 96);
  for (const [format, most] of [["int8", 1.2e-2], ["int8_g32", 1.2e-2], ["int4", 0.1]] as const) {
    const [fast, plain] = await Promise.all([false, true].map(async (deterministic) => {
      const engine = new WasmEngine({ deterministic, maximum: 2 ** 26 });
      const { weight } = await quantised(engine, format, 48, 96, floats);
      engine.close();
      return weight;
    })) as [Float64Array, Float64Array];
    assertSameBits(fast, plain, format);
    let error = 0, size = 0;
    floats.forEach((w, i) => (error += (w - plain[i]!) ** 2, size += w * w));
    assert(Math.sqrt(error / size) < most, `${format}: ${Math.sqrt(error / size)}`);
  }
});

reportSkips();
