/**
 * A config → a new model with random weights.
 *
 * @module
 */
import { checkKvDType, type KvDType } from "./cache/kv_dtype.ts";
import { type AttnImplementation, PretrainedConfig } from "./config.ts";
import type { Device, DeviceName } from "./devices/device.ts";
import { DryDevice } from "./devices/dry.ts";
import { acquire, closeEngine, defaultDevice, openEngine } from "./devices/mod.ts";
import { WasmEngine } from "./devices/wasm/engine.ts";
import { convertTo, type DType, isFloat } from "./dtype.ts";
import { InvalidArgument } from "./errors.ts";
import { checkQuantization, linearWeights, type Quantization } from "./from_pretrained.ts";
import { Parameters } from "./layers/parameter.ts";
import { memoryType } from "./load_parameters.ts";
import type { Initial } from "./models/initial.ts";
import { applyImplementation } from "./models/plans.ts";
import type { PreTrainedModel } from "./models/pretrained.ts";
import { modelFor, type Task, TASKS } from "./models/tasks.ts";
import { emptyPacked, fillPacked, workbenchOf } from "./quantize/steps.ts";
import { fileTensors } from "./quantize/stored.ts";
import { normalGenerator, randomGenerator, randomSeed, streamOf } from "./random.ts";
import { Tensor } from "./tensor.ts";

/** Options of `from_config`. */
export interface FromConfigOptions {
  /** One name for all parts, or names by sub-config (`""` is all). Default: what the config says. */
  attn_implementation?: AttnImplementation;
  /** Type of the weights; `"auto"` (default) is the `dtype` of the config, else float32. */
  dtype?: DType | "auto";
  /**
   * Type keys and values are kept in by the caches made for calls: rounded to `"bfloat16"` or `"float16"`, or to `"int8"`
   * with a scale a row (on the CPU). Default: what layers compute, float32.
   */
  kv_dtype?: KvDType | null;
  /** Keeps the matrices of linear layers in 8 or 4 bits, as `from_pretrained` does. */
  quantization?: Quantization;
  /** Where the model computes; default `"wasm"`. */
  device?: DeviceName;
  /** Makes the weights repeatable; default: random. A weight depends on the seed and its name only. */
  seed?: number;
  /** Aborts the making. */
  signal?: AbortSignal;
}

const OPTIONS = ["attn_implementation", "dtype", "kv_dtype", "quantization", "device", "seed", "signal"];
const FLOATS: readonly DType[] = ["float32", "float16", "bfloat16"];
/** Numbers that are made at once, between two turns of the event loop. */
const CHUNK = 2 ** 18;

/** Builds a new model of a task; see `AutoModel.from_config`. */
export async function fromConfig(
  task: Task,
  config: PretrainedConfig,
  options: FromConfigOptions,
): Promise<PreTrainedModel> {
  for (const key of Object.keys(options)) {
    if (!OPTIONS.includes(key)) {
      throw new InvalidArgument(
        `Cannot make a model with option "${key}": known options are ${OPTIONS.join(", ")}`,
      );
    }
  }
  if (!(config instanceof PretrainedConfig)) {
    throw new InvalidArgument(
      "Cannot make a model: expected a PretrainedConfig, as from AutoConfig.from_pretrained",
    );
  }
  const { device: place = "wasm", seed = randomSeed(), signal } = options;
  if (place !== "wasm" && place !== "webgpu") {
    throw new InvalidArgument(`Cannot make a model on "${String(place)}": expected wasm or webgpu`);
  }
  const kv_dtype = checkKvDType(options.kv_dtype);
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new InvalidArgument(`Cannot make a model with seed ${String(seed)}: expected an integer ≥ 0`);
  }
  const { architecture, build } = modelFor(task, config, "this config");
  const dtype = dtypeOf(options.dtype ?? "auto", config);
  const { quantization } = options;
  checkQuantization(quantization);
  signal?.throwIfAborted();
  await acquire(place);
  const device = place === "wasm" ? openEngine() : defaultDevice(place);
  // The model runs with the config given, not a copy. Until it stands nothing about the config has changed.
  const undo = config.remember();
  const prefix = task === TASKS.base ? "" : architecture.new_prefix ?? architecture.prefix;
  let linear: ReadonlySet<string> = new Set();
  const parameters = new Parameters((name, shape) => {
    const [rows = 0, columns = 0] = shape;
    if (quantization === undefined || !linear.has(name) || (quantization === "int4" && columns % 2 === 1)) {
      return { tensor: Tensor.empty(device, memoryType(dtype, shape), shape), stored: dtype };
    }
    const quantized = { format: quantization, shape: [rows, columns] as const };
    return { tensor: emptyPacked(device, quantized), stored: fileTensors(quantized).values.dtype, quantized };
  }, prefix);
  let model: PreTrainedModel | null = null;
  try {
    const requested = options.attn_implementation ?? config._attn_implementation;
    applyImplementation(config, requested);
    const why = requested === null
      ? "default: nothing was requested"
      : `attn_implementation=${JSON.stringify(requested)}`;
    if (quantization !== undefined) {
      const dry = new DryDevice();
      const make = (_: string, shape: readonly number[]) => ({ tensor: Tensor.empty(dry, "float32", shape) });
      linear = linearWeights(build, { config, parameters: new Parameters(make, prefix), device: dry, why });
    }
    model = build({ config, parameters, device, why, kv_dtype });
    // Memory was found for all of them before the first is filled. A layer may have reordered a weight: its numbers are
    // independent of each other, so their order does not matter.
    for (const { name, tensor, quantized } of parameters) {
      const initial = architecture.initial(name, config);
      if (quantized === undefined) await fill(name, tensor, initial, device, seed, signal);
      else {
        const bench = workbenchOf(device);
        using floats = Tensor.empty(bench, "float32", quantized.shape);
        await fill(name, floats, initial, bench, seed, signal);
        await fillPacked(device, tensor, quantized, floats, null);
      }
    }
    config["dtype"] = dtype;
    return model;
  } catch (error) {
    undo();
    if (model !== null) await model.dispose();
    else {
      parameters.dispose();
      if (device instanceof WasmEngine) closeEngine(device);
    }
    throw error;
  }
}

/** @throws {InvalidArgument | ModelFileError} */
function dtypeOf(asked: DType | "auto", { read }: PretrainedConfig): DType {
  if (asked !== "auto") {
    if (isFloat(asked)) return asked;
    throw new InvalidArgument(
      `Cannot make a model as ${String(asked)}: expected auto, float32, float16 or bfloat16`,
    );
  }
  const field = read.has("dtype") ? "dtype" : "torch_dtype";
  const name = read.string(field, { default: "float32", known: FLOATS });
  return FLOATS.find((known) => known === name)!;
}

/** Writes the first values of a weight, some at a time. */
async function fill(
  name: string,
  tensor: Tensor,
  initial: Initial,
  device: Device,
  seed: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const next = "value" in initial
    ? () => initial.value
    : scaled(normalGenerator(randomGenerator(seed, streamOf(name))), initial.deviation);
  const [rows = 1] = tensor.shape;
  const row = "value" in initial ? undefined : initial.zero_row;
  const width = tensor.size / rows;
  // A negative row counts from the end, as in PyTorch.
  const zero = row === undefined ? -1 : (row < 0 ? row + rows : row) * width;
  for (let from = 0; from < tensor.size; from += CHUNK) {
    signal?.throwIfAborted();
    const values = Float32Array.from({ length: Math.min(CHUNK, tensor.size - from) }, next);
    if (zero >= 0) values.fill(0, Math.max(0, zero - from), Math.max(0, zero + width - from));
    const bytes = device.encode(tensor.dtype, convertTo(tensor.dtype, values));
    device.write(tensor.storage.on(device), from * device.elementBytes(tensor.dtype), bytes);
    await device.flush();
  }
}

function scaled(next: () => number, factor: number): () => number {
  return () => factor * next();
}
