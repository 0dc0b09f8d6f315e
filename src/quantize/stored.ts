/**
 * Quantised weights in files: two tensors a weight, and a `quantization_config` that says so.
 *
 * A weight (O, I) named `w` is `w` and `w_scale`. `int8`: int8 (O, I) and float32 (O); `int8_g32`: int8 (O, I) and float16
 * (O, ⌈I/32⌉); `int4`: uint8 (O, I/2), the even columns in the lower halves, each plus 8, and float16 (O, ⌈I/32⌉).
 *
 * @module
 */
import { isRecord } from "../config_fields.ts";
import type { PretrainedConfig } from "../config.ts";
import {
  groupsOf,
  QUANTIZED_FORMATS,
  type QuantizedFormat,
  type QuantizedMatrix,
} from "../devices/quantized.ts";
import type { DType } from "../dtype.ts";
import { ModelFileError } from "../errors.ts";

/** What is put behind a weight's name for its scales. */
const SCALE = "_scale";

/** Name of the scales of a weight. */
export function scaleName(weight: string): string {
  return weight + SCALE;
}

/** Type and shape of a tensor. */
export interface TypedShape {
  readonly dtype: DType | null;
  readonly shape: readonly number[];
}

/** The tensors a weight is in a file. */
export function fileTensors(
  { format, shape: [rows, columns] }: QuantizedMatrix,
): { readonly values: TypedShape & { dtype: DType }; readonly scales: TypedShape & { dtype: DType } } {
  return {
    values: format === "int4"
      ? { dtype: "uint8", shape: [rows, columns / 2] }
      : { dtype: "int8", shape: [rows, columns] },
    scales: format === "int8"
      ? { dtype: "float32", shape: [rows] }
      : { dtype: "float16", shape: [rows, groupsOf(columns)] },
  };
}

/**
 * What the tensors `name` and its scales stand for; null when `values` is no quantised weight.
 *
 * @throws {ModelFileError} for scales that are missing or do not fit
 */
export function storedMatrix(
  name: string,
  values: TypedShape,
  scales: TypedShape | undefined,
): QuantizedMatrix | null {
  const { dtype, shape } = values;
  if (shape.length !== 2 || (dtype !== "int8" && dtype !== "uint8")) return null;
  if (scales === undefined) {
    if (dtype === "uint8") return null;
    throw new ModelFileError(
      `Cannot read the quantised weight ${JSON.stringify(name)}: its scales, ${
        JSON.stringify(scaleName(name))
      }, are missing`,
    );
  }
  const [rows, width] = shape as [number, number];
  const formats: readonly QuantizedFormat[] = dtype === "uint8" ? ["int4"] : ["int8", "int8_g32"];
  for (const format of formats) {
    const matrix = { format, shape: [rows, dtype === "uint8" ? width * 2 : width] as const };
    const expected = fileTensors(matrix).scales;
    if (scales.dtype === expected.dtype && String(scales.shape) === String(expected.shape)) return matrix;
  }
  throw new ModelFileError(
    `Cannot read the quantised weight ${JSON.stringify(name)}, ${dtype} [${shape}]: its scales are ${
      scales.dtype ?? "of an unknown type"
    } [${scales.shape}], expected float16 (O, I/32)${dtype === "int8" ? " or float32 (O)" : ""}`,
  );
}

/** `quant_method` of files in the form of this module. */
const METHOD = "attune";

/** The field of a config whose weights are quantised in `formats`. */
export function quantizationConfig(formats: Iterable<QuantizedFormat>): Record<string, unknown> {
  return { quant_method: METHOD, format_version: 1, formats: [...new Set(formats)].sort() };
}

/**
 * The formats a config says its weights are in; null where none are quantised.
 *
 * @throws {InvalidArgument | ModelFileError} for weights in a form that nothing here unpacks
 */
export function quantizedFormats(config: PretrainedConfig): QuantizedFormat[] | null {
  for (const part of Object.values(config.sub_configs)) {
    if (part.read.has("quantization_config")) refuse(part);
  }
  if (!config.read.has("quantization_config")) return null;
  const field = config["quantization_config"];
  if (!isRecord(field) || field["quant_method"] !== METHOD) refuse(config);
  const { format_version, formats } = field;
  const known = (x: unknown): x is QuantizedFormat => QUANTIZED_FORMATS.some((format) => format === x);
  if (format_version !== 1 || !Array.isArray(formats) || !formats.every(known)) {
    throw config.read.refuse(
      "quantization_config",
      `format_version 1 and formats among ${QUANTIZED_FORMATS.join(", ")}`,
    );
  }
  return formats;
}

/** @throws {InvalidArgument | ModelFileError} */
function refuse({ read }: PretrainedConfig): never {
  throw read.refuse(
    "quantization_config",
    `none, or one with quant_method ${METHOD}, as other quantised checkpoints cannot be read; use the checkpoint they were made from, with the option quantization`,
  );
}
