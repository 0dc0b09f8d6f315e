/**
 * Records products with quantised weights, and the making of such weights.
 *
 * @module
 */
import type { View } from "../device.ts";
import { groupsOf, QUANTIZED_FORMATS, type QuantizedView } from "../quantized.ts";
import type { Recorder } from "./command.ts";
import { checkFloat, checkOutput, codeOf, rowStride, wholly, Words } from "./params.ts";

/** Bytes of quantised rows that a part goes through again for every few columns: half a second-level cache. */
const ROWS_BYTES = 2 ** 18;

/** Records `out = x · weightᵀ + bias`; `room` holds the quantised rows of x until then. */
export function linearQuantized(
  recorder: Recorder,
  x: View,
  weight: QuantizedView,
  bias: View | null,
  out: View,
  room: View,
): void {
  checkFloat("an input", x, true);
  checkFloat("a bias", bias);
  checkOutput("a linear layer's result", out);
  const [M, I] = x.shape as [number, number];
  const [O] = weight.shape;
  if (M * O === 0) return;
  if (bias !== null) rowStride("a bias", bias);
  const format = QUANTIZED_FORMATS.indexOf(weight.format);
  const rows = Math.max(1, Math.floor(2 ** 15 / Math.max(1, I)));
  recorder.record({
    kernel: "quantize_rows",
    params: new Words(recorder).pointer(x).int(rowStride("an input", x)).pointer(room)
      .int(M, I, format, rows).words,
    parts: Math.ceil(M / rows),
    cost: 6 * M * I,
    writes: wholly(room),
  });
  const few = M < 4;
  const row_block = few ? M : Math.min(M, Math.max(4, Math.floor(ROWS_BYTES / (groupsOf(I) * 40) / 4) * 4));
  const streamed = Math.ceil(2e6 / (M * Math.max(1, I)) / 32) * 32;
  // A vector goes along 32 columns at a time.
  const col_block = few ? Math.min(512, Math.max(32, streamed)) : 64;
  recorder.record({
    kernel: "linear_quantized",
    params: new Words(recorder).pointer(room).pointer(weight.packed).int(format).typed(bias).pointer(out)
      .int(M, I, O, row_block, col_block).words,
    parts: Math.ceil(M / row_block) * Math.ceil(O / col_block),
    cost: M * I * O,
    writes: wholly(out),
  });
}

/** What is done to a weight: made of floats, or brought from the form of files into that of memory, or back. */
export type WeightStep = "quantize" | "pack" | "unpack";

/**
 * Records a step. `values` (O, I) are floats to quantise, or integers in the form of files, whose `scales` are (O)
 * float32 for `int8` and (O, ⌈I/32⌉) float16 else.
 */
export function weightStep(
  recorder: Recorder,
  step: WeightStep,
  weight: QuantizedView,
  values: View,
  scales: View | null,
): void {
  const [O, I] = weight.shape;
  if (O * I === 0) return;
  recorder.record({
    kernel: `${step}_weight`,
    params:
      new Words(recorder).pointer(values).int(codeOf(values.dtype)).pointer(scales).pointer(weight.packed)
        .int(QUANTIZED_FORMATS.indexOf(weight.format), O, I).words,
    parts: Math.ceil(O / 4),
    cost: (step === "quantize" ? 200 : 10) * O * I,
    writes: wholly(...(step === "unpack" ? [values, scales] : [weight.packed])),
  });
}
