/**
 * Quantised weights widened to floats: every format, chunk by chunk, beside its definition.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { Tensor } from "../../mod.ts";
import type { QuantizedFormat } from "../../src/devices/quantized.ts";
import { defaultDevice } from "../../src/devices/mod.ts";
import { convertTo, type DType, present } from "../../src/dtype.ts";
import { fileTensors } from "../../src/quantize/stored.ts";
import { widened } from "../../src/quantize/widen.ts";
import { liveTest } from "../models/support.ts";
import { seeded } from "../support/random.ts";

/** Shapes of one chunk; 40 columns end in a part of a group. */
const SMALL: readonly (readonly [number, number])[] = [[3, 40], [1, 32]];
/** Of several chunks, and with rows that are longer than one. */
const LARGE: readonly (readonly [number, number])[] = [[33, 2 ** 15], [2, 2 ** 20 + 64]];

for (const format of ["int8", "int8_g32", "int4"] as const satisfies readonly QuantizedFormat[]) {
  for (const dtype of ["float32", "float16", "bfloat16"] as const satisfies readonly DType[]) {
    liveTest(`${format} → ${dtype}: integers times their scales, rounded once`, async () => {
      for (const shape of format === "int4" && dtype === "float16" ? [...SMALL, ...LARGE] : SMALL) {
        const random = seeded(`${format} ${shape}`);
        const [rows, columns] = shape;
        const forms = fileTensors({ format, shape });
        const groups = forms.scales.shape[1] ?? 1;
        const integers = random.ints(
          rows * columns,
          format === "int4" ? -8 : -128,
          format === "int4" ? 8 : 128,
        );
        const floats = random.uniform(rows * groups, -0.1, 0.1);
        const bytes = format === "int4"
          ? Uint8Array.from(
            { length: integers.length / 2 },
            (_, i) => integers[2 * i]! + 8 | integers[2 * i + 1]! + 8 << 4,
          )
          : Int8Array.from(integers);
        const device = defaultDevice("wasm");
        using values = Tensor.from(bytes, { dtype: forms.values.dtype, shape: forms.values.shape });
        using scales = Tensor.from(floats, { dtype: forms.scales.dtype, shape: forms.scales.shape });
        using target = Tensor.empty(device, dtype, shape);
        await widened(target, { format, shape }, values, scales, device);
        const kept = await scales.data() as Float32Array;
        const expected = new Float32Array(integers.length);
        for (let i = 0; i < expected.length; i++) {
          const row = Math.floor(i / columns);
          expected[i] = integers[i]! * kept[row * groups + (groups === 1 ? 0 : i % columns >> 5)]!;
        }
        const rounded = present(dtype, convertTo(dtype, expected)) as ArrayLike<number>;
        assertEquals(Array.from(await target.data() as Float32Array), Array.from(rounded));
      }
    });
  }
}
