/**
 * Products with quantised weights, and the rounding of keys and values.
 *
 * @module
 */
import { InvalidArgument } from "../../errors.ts";
import type { View } from "../device.ts";
import { groupsOf, QUANTIZED_GROUP, type QuantizedView, RECORD_WORDS } from "../quantized.ts";
import type { Dispatch } from "./command.ts";
import { count, expectDType, floatType, fold, launch, operand, Params } from "./record.ts";

/** Rows below which weights are streamed once instead of tiled. Both ways add in the same order. */
const FEW_ROWS = 8;
/** From this many rows on an invocation has 8 × 4 results instead of 4 × 4. Same bits again. */
const MANY = 48;

/** `out = x · weightᵀ + bias`; `room` holds the quantised rows of x until then. */
export function linearQuantized(
  x: View,
  weight: QuantizedView,
  bias: View | null,
  out: View,
  room: View,
): Dispatch[] {
  const [m, o] = out.shape as [number, number];
  if (m === 0 || o === 0) return [];
  expectDType("an input", x, "float32");
  expectDType("the result of linear", out, "float32");
  const { format } = weight;
  const groups = groupsOf(weight.shape[1]), blocks = Math.ceil(o / 4);
  const shift = bias ? operand(bias) : null, to = operand(out, true), matrix = operand(weight.packed);
  const constants = {
    FORMAT: format,
    // Words of a record in front of its values.
    VALUES: format === "int8_g32" ? 4 : 2,
    RECORD: RECORD_WORDS[format],
    BIAS: bias ? floatType("a bias", bias.dtype) : "f32",
    HAS_BIAS: bias !== null,
  };
  const params = new Params().int(m, groups, o, blocks);
  const rest = [shift?.offset ?? 0, bias?.strides[0] ?? 0, to.offset, out.strides[0]!];
  const operands = [operand(room), matrix, shift, to];
  const first = groups === 0 ? [] : [quantizeRows(x, weight, room)];
  if (m <= FEW_ROWS) {
    const ROWS = m === 1 ? 1 : m <= 4 ? 4 : FEW_ROWS;
    const { grid, pitch } = fold(blocks, 1);
    params.int(pitch, ...rest);
    return [...first, launch("linear_quantized_few", { ...constants, ROWS }, operands, [out], params, grid)];
  }
  const RM = m < MANY ? 1 : 2;
  params.int(...rest);
  const grid = [Math.ceil(o / 64), Math.ceil(m / (32 * RM)), 1] as const;
  return [...first, launch("linear_quantized", { ...constants, RM }, operands, [out], params, grid)];
}

/** The rows of x as integers, in `room`. */
function quantizeRows(x: View, { format, shape: [, columns] }: QuantizedView, room: View): Dispatch {
  const from = operand(x);
  const groups = groupsOf(columns), items = x.shape[0]! * groups;
  const { grid, pitch } = fold(items, 64 / (QUANTIZED_GROUP / 4));
  const params = new Params().int(items, pitch, groups, columns, from.offset, ...x.strides)
    .float(format === "int4" ? 127 : 63);
  return launch("quantize_rows", {}, [from, operand(room, true)], [room], params, grid);
}

/** Rows of keys or values as int8 with scales. */
export function quantizeStates(x: View, out: View, scales: View): Dispatch | null {
  const [b, h, n, d] = x.shape as [number, number, number, number];
  const fits = `${out.shape}` === `${x.shape}` && `${scales.shape}` === `${[b, h, n, 1]}` &&
    out.strides[3] === 1;
  if (!fits) {
    throw new InvalidArgument(
      `Cannot quantise (${x.shape}) into (${out.shape}) of strides [${out.strides}] with scales (${scales.shape}) on ` +
        `webgpu: expected (${x.shape}) of strides […, 1], (${[b, h, n, 1]})`,
    );
  }
  expectDType("quantised keys or values", out, "int8");
  expectDType("scales", scales, "float32");
  if (count(x.shape) === 0) return null;
  const from = operand(x), to = operand(out, true), by = operand(scales, true);
  const WORDS = [to.offset, d, ...out.strides.slice(0, 3)].every((k) => k % 4 === 0);
  const { grid, pitch } = fold(b * h * n, 1);
  const params = new Params().int(b * h * n, pitch, h, n, d, from.offset, ...x.strides)
    .int(to.offset, ...out.strides.slice(0, 3), by.offset, ...scales.strides.slice(0, 3));
  const constants = { IN: floatType("keys or values", x.dtype), OUT: "i8", WORDS };
  return launch("kv_quantize", constants, [from, to, by], [out, scales], params, grid);
}
