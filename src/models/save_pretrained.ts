/**
 * A model → a folder that Transformers and this library load.
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import { HOST_BYTES } from "../dtype.ts";
import { InvalidArgument } from "../errors.ts";
import { jsonText } from "../hub/json_text.ts";
import { type StreamedTensor, streamSafetensors } from "../hub/safetensors_write.ts";
import { INDEX, MAX_SHARDS, SINGLE } from "../hub/weights.ts";
import { FolderWriter } from "../hub/write.ts";
import { type Parameter, type Parameters, weightShape } from "../layers/parameter.ts";
import { unpack } from "../quantize/steps.ts";
import { fileTensors, quantizationConfig, scaleName } from "../quantize/stored.ts";
import { sizeOf } from "../shape.ts";

/** How saving reports where it is. */
export interface SaveProgress {
  /** What happens now. */
  readonly status: "progress" | "done";
  /** The file being written, or at the end the folder. */
  readonly file: string;
  /** Bytes of weights so far, over all files. */
  readonly loaded: number;
  /** Bytes of weights in all. */
  readonly total: number;
}

/** Options of `model.save_pretrained`. */
export interface SavePretrainedOptions {
  /** Bytes of weights a file has at most, as a number or like `"5GB"` (the default; units KB, MB, GB, TB of 1000). */
  max_shard_size?: number | string;
  /** Called while weights are written. */
  progress_callback?: (event: SaveProgress) => void;
  /** Aborts the saving; the folder is then as it was. */
  signal?: AbortSignal;
}

/** What is saved. */
export interface SavedParts {
  readonly config: PretrainedConfig;
  readonly parameters: Parameters;
  /** Name of the class in Transformers. */
  readonly class_name: string;
  /** Fields of `generation_config.json`, or null for none. */
  readonly generation_config: Readonly<Record<string, unknown>> | null;
}

const OPTIONS = ["max_shard_size", "progress_callback", "signal"];
const UNITS: Readonly<Record<string, number>> = { KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 };

/**
 * Writes configuration and weights.
 *
 * @throws {InvalidArgument} for options that do not fit
 * @throws {ModelFileError} when the folder cannot be written
 * @throws the signal's reason when aborted
 */
export async function savePretrained(
  folder: string | URL,
  { config, parameters, class_name, generation_config }: SavedParts,
  options: SavePretrainedOptions,
): Promise<void> {
  for (const key of Object.keys(options)) {
    if (!OPTIONS.includes(key)) {
      throw new InvalidArgument(
        `Cannot save a model with option "${key}": known options are ${OPTIONS.join(", ")}`,
      );
    }
  }
  const { signal, progress_callback } = options;
  const shards = split([...parameters], bytesIn(options.max_shard_size ?? "5GB"));
  await using writer = await FolderWriter.open(folder, signal === undefined ? {} : { signal });
  const total = shards.flat().reduce((sum, p) => sum + bytesOf(p), 0);
  let loaded = 0;
  const files = shards.map((list, i) => ({ name: fileName(i, shards.length), list }));
  for (const { name, list } of files) {
    await writer.write(
      name,
      streamSafetensors(list.flatMap(streamed), { format: "pt" }, (bytes) => {
        loaded += bytes;
        progress_callback?.({ status: "progress", file: name, loaded, total });
      }),
    );
  }
  if (files.length > 1) await writer.write(INDEX, jsonText(indexOf(files, total)));
  await writer.write("config.json", jsonText(configOf(config, class_name, shards.flat())));
  if (generation_config !== null) await writer.write("generation_config.json", jsonText(generation_config));
  await writer.commit((name) => name === SINGLE || name === INDEX || SHARD.test(name));
  progress_callback?.({ status: "done", file: writer.folder, loaded, total });
}

/** The tensors of a file that hold a weight. */
function streamed({ name, tensor, stored, restore, quantized }: Parameter): StreamedTensor[] {
  if (quantized === undefined) {
    const open = () => restore === undefined ? tensor.view(tensor.shape, tensor.strides) : restore(tensor);
    return [{ name, dtype: stored, shape: tensor.shape, open }];
  }
  const form = fileTensors(quantized);
  const open = async (part: "values" | "scales") => {
    const { values, scales } = await unpack(tensor, quantized);
    (part === "values" ? scales : values)[Symbol.dispose]();
    return part === "values" ? values : scales;
  };
  return [
    { name, ...form.values, open: () => open("values") },
    { name: scaleName(name), ...form.scales, open: () => open("scales") },
  ];
}

/** Names that weights of an earlier save may have. */
const SHARD = /^model-\d{5}-of-\d{5}\.safetensors$/;

function fileName(i: number, count: number): string {
  const five = (n: number) => String(n).padStart(5, "0");
  return count === 1 ? SINGLE : `model-${five(i + 1)}-of-${five(count)}.safetensors`;
}

/** @throws {InvalidArgument} */
function bytesIn(size: number | string): number {
  const [, digits, unit = ""] = /^\s*([\d.]+)\s*([KMGT]B)\s*$/i.exec(String(size)) ?? [];
  const bytes = typeof size === "number" ? size : Math.floor(Number(digits) * UNITS[unit.toUpperCase()]!);
  if (Number.isFinite(bytes) && bytes >= 1) return bytes;
  throw new InvalidArgument(
    `Cannot save a model with max_shard_size ${
      JSON.stringify(size)
    }: expected bytes ≥ 1, or a text like "5GB"`,
  );
}

function bytesOf(parameter: Parameter): number {
  return streamed(parameter).reduce((sum, { dtype, shape }) => sum + sizeOf(shape) * HOST_BYTES[dtype], 0);
}

/**
 * Weights by file, as huggingface_hub splits them: in order, a file ends before the weight that would exceed the limit,
 * and a weight beyond the limit has a file to itself.
 *
 * @throws {InvalidArgument} for more files than are read back
 */
function split(parameters: readonly Parameter[], most: number): Parameter[][] {
  const shards: Parameter[][] = [];
  let current: Parameter[] = [];
  let bytes = 0;
  for (const parameter of parameters) {
    const more = bytesOf(parameter);
    if (more > most) {
      shards.push([parameter]);
      continue;
    }
    if (bytes + more > most) {
      shards.push(current);
      [current, bytes] = [[], 0];
    }
    current.push(parameter);
    bytes += more;
  }
  if (current.length > 0) shards.push(current);
  if (shards.length <= MAX_SHARDS) return shards;
  throw new InvalidArgument(
    `Cannot save a model in ${shards.length} files: expected a max_shard_size that gives at most ${MAX_SHARDS}, found ${most} bytes`,
  );
}

function indexOf(
  files: readonly { name: string; list: readonly Parameter[] }[],
  total_size: number,
): unknown {
  const entries = files.flatMap(({ name, list }) =>
    list.flatMap(streamed).map((t) => [t.name, name] as const)
  );
  const all = files.flatMap(({ list }) => list);
  const total_parameters = all.reduce((n, p) => n + sizeOf(weightShape(p)), 0);
  return { metadata: { total_parameters, total_size }, weight_map: Object.fromEntries(entries) };
}

/** The fields of a config, with the class and the types of what is saved. */
function configOf(config: PretrainedConfig, class_name: string, all: readonly Parameter[]): unknown {
  const { torch_dtype: _, quantization_config: __, ...fields } = config.toJSON();
  const formats = all.flatMap(({ quantized }) => quantized === undefined ? [] : [quantized.format]);
  const { stored } = all.find(({ quantized }) => quantized === undefined) ?? all[0]!;
  return {
    ...fields,
    architectures: [class_name],
    dtype: stored,
    ...(formats.length === 0 ? {} : { quantization_config: quantizationConfig(formats) }),
  };
}
