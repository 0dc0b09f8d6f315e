/**
 * Products with quantised weights on every build, against the formula of the quantisation in float64: integers are exact,
 * so only float32 sums over groups of 32 may differ.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { View } from "../../src/devices/device.ts";
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
import { seeded } from "../support/random.ts";
import { assertClose, assertSameBits, toleranceOf } from "../support/tolerance.ts";

const SHAPES = [[1, 70, 33], [2, 32, 4], [3, 200, 31], [5, 96, 40], [9, 688, 21]] as const;

/** A quantised matrix on a fresh engine, and the integers and scales it holds. */
async function quantised(
  deterministic: boolean,
  format: QuantizedFormat,
  O: number,
  I: number,
  floats: Float32Array,
) {
  const engine = new WasmEngine({ deterministic, maximum: 2 ** 26 });
  const view = (dtype: DType, shape: readonly number[], data?: Float32Array): View => {
    const n = shape.reduce((a, b) => a * b, 1);
    const allocation = engine.allocate(n * engine.elementBytes(dtype));
    if (data !== undefined) engine.write(allocation, 0, new Uint8Array(data.slice().buffer));
    return {
      allocation,
      dtype,
      offset: 0,
      shape,
      strides: shape.map((_, d) => shape.slice(d + 1).reduce((a, b) => a * b, 1)),
    };
  };
  const bytes = async ({ allocation }: View) => await engine.read(allocation, 0, allocation.bytes);
  const matrix = { format, shape: [O, I] as const };
  const packed = view("int32", [packedWords(matrix)]);
  engine.kernels.weight_step!("quantize", { ...matrix, packed }, view("float32", [O, I], floats), null);
  const form = fileTensors(matrix);
  const values = view(form.values.dtype, form.values.shape),
    scales = view(form.scales.dtype, form.scales.shape);
  engine.kernels.weight_step!("unpack", { ...matrix, packed }, values, scales);
  const q = await bytes(values), s = await bytes(scales);
  const scaleOf = format === "int8" ? new Float32Array(s.buffer) : new Float16Array(s.buffer);
  const weight = Float64Array.from({ length: O * I }, (_, at) => {
    const [o, i] = [Math.floor(at / I), at % I];
    const integer = format === "int4" ? (q[at >> 1]! >> (at % 2 * 4) & 15) - 8 : new Int8Array(q.buffer)[at]!;
    return integer * scaleOf[format === "int8" ? o : o * groupsOf(I) + (i >> 5)]!;
  });
  const again = view("int32", [packedWords(matrix)]);
  engine.kernels.weight_step!("pack", { ...matrix, packed: again }, values, scales);
  assertEquals(await bytes(again), await bytes(packed), "packed again");
  const product = async (x: Float32Array, M: number, bias: Float32Array) => {
    const out = view("float32", [M, O]);
    const room = view("int32", [roomWords(M, I)]);
    engine.kernels.linear_quantized!(
      view("float32", [M, I], x),
      { ...matrix, packed },
      view("float32", [O], bias),
      out,
      room,
    );
    return new Float32Array((await bytes(out)).buffer);
  };
  return { engine, weight, product };
}

/** Rows of x as integers times scales, 32 at a time. */
function rounded(x: Float32Array, columns: number, limit: number): Float64Array {
  const out = new Float64Array(x.length);
  for (let row = 0; row < x.length; row += columns) {
    for (let from = row; from < row + columns; from += 32) {
      const group = x.subarray(from, Math.min(from + 32, row + columns));
      const most = group.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
      const inverse = Math.fround(limit / most);
      group.forEach((v, i) => {
        const scaled = Math.fround(v * inverse), low = Math.floor(scaled);
        const up = scaled - low > 0.5 || (scaled - low === 0.5 && low % 2 !== 0);
        out[from + i] = (up ? low + 1 : low) * Math.fround(most / limit);
      });
    }
  }
  return out;
}

for (const deterministic of [false, true]) {
  for (const format of QUANTIZED_FORMATS) {
    Deno.test(`${deterministic ? "deterministic" : "fast"} ${format}: what the formula gives, row by row`, async () => {
      for (const [M, I, O] of SHAPES) {
        const random = seeded(`${M} ${I} ${O}`);
        const floats = random.normal(O * I), x = random.normal(M * I), bias = random.normal(O);
        const { engine, weight, product } = await quantised(deterministic, format, O, I, floats);
        const y = await product(x, M, bias);
        const seen = rounded(x, I, format === "int4" ? 127 : 63);
        const expected = Array.from({ length: M * O }, (_, at) => {
          const [m, o] = [Math.floor(at / O), at % O];
          let sum = bias[o]!;
          for (let i = 0; i < I; i++) sum += seen[m * I + i]! * weight[o * I + i]!;
          return sum;
        });
        assertClose(y, expected, toleranceOf("linear", "wasm"), `${format} ${M}×${I}×${O}`);
        for (let m = 0; m < M; m++) {
          const alone = await product(x.slice(m * I, m * I + I), 1, bias);
          assertSameBits(alone, y.subarray(m * O, m * O + O), `row ${m} of ${M} alone`);
        }
        engine.close();
      }
    });

    Deno.test(`${deterministic ? "deterministic" : "fast"} ${format}: a NaN is not lost, and zeros are zeros`, async () => {
      const { engine, product } = await quantised(
        deterministic,
        format,
        4,
        64,
        new Float32Array(256).fill(0.5),
      );
      const zero = new Float32Array(64), bias = new Float32Array(4);
      assertEquals([...await product(zero, 1, bias)], [0, 0, 0, 0]);
      for (const bad of [NaN, Infinity]) {
        const x = zero.slice();
        x[40] = bad;
        assert((await product(x, 1, bias)).every(Number.isNaN));
      }
      engine.close();
    });
  }
}

Deno.test("weights are quantised to the same bits by both builds, and as near as their bits allow", async () => {
  const floats = seeded(3).normal(48 * 96);
  for (const [format, most] of [["int8", 1.2e-2], ["int8_g32", 1.2e-2], ["int4", 0.1]] as const) {
    const [fast, plain] = [
      await quantised(false, format, 48, 96, floats),
      await quantised(true, format, 48, 96, floats),
    ];
    assertSameBits(fast.weight, plain.weight, format);
    let error = 0, size = 0;
    floats.forEach((w, i) => (error += (w - plain.weight[i]!) ** 2, size += w * w));
    assert(Math.sqrt(error / size) < most, `${format}: ${Math.sqrt(error / size)}`);
    for (const { engine } of [fast, plain]) engine.close();
  }
});
