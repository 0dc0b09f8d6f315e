/**
 * Products of bytes on WebGPU: with and without their instruction, and the integers rows become.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { Device, View } from "../../src/devices/device.ts";
import { packedWords, QUANTIZED_FORMATS, roomWords } from "../../src/devices/quantized.ts";
import { WebGpuDevice } from "../../src/devices/webgpu/device.ts";
import type { DType } from "../../src/dtype.ts";
import { reportSkipped, withGpu } from "../models/support.ts";
import { seeded } from "../support/random.ts";

function view(device: Device, dtype: DType, shape: readonly number[], data?: ArrayBuffer): View {
  const n = shape.reduce((a, b) => a * b, 1);
  const allocation = device.allocate(n * device.elementBytes(dtype));
  if (data !== undefined) device.write(allocation, 0, new Uint8Array(data));
  const strides = shape.map((_, d) => shape.slice(d + 1).reduce((a, b) => a * b, 1));
  return { allocation, dtype, offset: 0, shape, strides };
}

withGpu("the instruction for four bytes and what stands in for it give the same bits", async () => {
  const results: Uint8Array[] = [];
  for (const packed_dot of [true, false]) {
    if (packed_dot && !hasFeature()) continue;
    const device = new WebGpuDevice({ packed_dot });
    const random = seeded(7);
    for (const format of QUANTIZED_FORMATS) {
      const matrix = { format, shape: [20, 96] as const };
      // Any bits are integers; scales of zero would hide them, so these are ones.
      const words = Uint32Array.from(random.ints(packedWords(matrix), -(2 ** 31), 2 ** 31));
      if (format === "int8") new Float32Array(words.buffer).fill(1, words.length - 20);
      else {
        for (let at = 0; at < words.length; at += format === "int4" ? 18 : 36) {
          words.fill(0x3c003c00, at, at + 2);
        }
      }
      const packed = view(device, "int32", [words.length], words.buffer);
      for (const M of [1, 3, 20]) {
        const x = view(device, "float32", [M, 96], random.normal(M * 96).buffer);
        const out = view(device, "float32", [M, 20]), room = view(device, "int32", [roomWords(M, 96)]);
        device.kernels.linear_quantized(x, { ...matrix, packed }, null, out, room);
        const bytes = await device.read(out.allocation, 0, out.allocation.bytes);
        assert(new Float32Array(bytes.buffer).every((v) => Number.isFinite(v) && v !== 0));
        results.push(bytes);
        for (const { allocation } of [x, out, room]) device.release(allocation);
      }
      device.release(packed.allocation);
    }
    assertEquals(device.live, 0);
    await device.destroy();
  }
  if (results.length > 9) assertEquals(results.slice(9), results.slice(0, 9));
});

/** Whether the implementation has the instruction. */
function hasFeature(): boolean {
  const gpu: GPU & { readonly wgslLanguageFeatures?: ReadonlySet<string> } = navigator.gpu;
  return gpu.wgslLanguageFeatures?.has("packed_4x8_integer_dot_product") === true;
}

withGpu("rows become the integers and scales that exact division gives, bit for bit", async () => {
  const device = new WebGpuDevice();
  const [M, I] = [40, 100], groups = 4;
  for (const format of ["int8", "int4"] as const) {
    const limit = format === "int4" ? 127 : 63;
    const random = seeded(format);
    const x = random.normal(M * I);
    // Rows of all magnitudes that a product still feels.
    x.forEach((v, i) => x[i] = v * 2 ** (Math.floor(i / I) * 6 - 117));
    const matrix = { format, shape: [4, I] as const };
    const from = view(device, "float32", [M, I], x.buffer);
    const room = view(device, "int32", [roomWords(M, I)]), out = view(device, "float32", [M, 4]);
    const packed = view(device, "int32", [packedWords(matrix)]);
    device.kernels.linear_quantized(from, { ...matrix, packed }, null, out, room);
    const words = await device.read(room.allocation, 0, M * groups * 48);
    for (let group = 0; group < M * groups; group++) {
      const row = Math.floor(group / groups), first = group % groups * 32;
      const values = x.subarray(row * I + first, row * I + Math.min(first + 32, I));
      const most = values.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
      const inverse = Math.fround(limit / most);
      const integers = Array.from({ length: 32 }, (_, i) => nearest(Math.fround((values[i] ?? 0) * inverse)));
      assertEquals([...new Int8Array(words.buffer, group * 48, 32)], integers, `row ${row}, column ${first}`);
      assertEquals(new Float32Array(words.buffer, group * 48 + 32, 1)[0], Math.fround(most / limit));
      const sum = integers.reduce((a, b) => a + b, 0);
      assertEquals(new Int32Array(words.buffer, group * 48 + 36, 1)[0], -8 * sum + 0);
    }
    for (const { allocation } of [from, room, out, packed]) device.release(allocation);
  }
  await device.destroy();
});

/** The nearest integer, even on ties. */
function nearest(x: number): number {
  const low = Math.floor(x), rest = x - low;
  return low + Number(rest > 0.5 || (rest === 0.5 && low % 2 !== 0)) + 0;
}

reportSkipped();
