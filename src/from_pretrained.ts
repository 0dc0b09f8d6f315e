/**
 * A name → files → checked config → weights in memory → model. No maths here.
 *
 * @module
 */
import { loadConfig } from "./auto_config.ts";
import { checkKvDType, type KvDType } from "./cache/kv_dtype.ts";
import { type AttnImplementation, PretrainedConfig } from "./config.ts";
import { show } from "./config_fields.ts";
import type { Device, DeviceName } from "./devices/device.ts";
import { DryDevice } from "./devices/dry.ts";
import { acquire, closeEngine, defaultDevice, openEngine } from "./devices/mod.ts";
import { settings } from "./devices/settings.ts";
import { WasmEngine } from "./devices/wasm/engine.ts";
import { type DType, isFloat } from "./dtype.ts";
import { InvalidArgument, ModelFileError } from "./errors.ts";
import { loadGenerationConfig } from "./generation/generation_config.ts";
import { HUB_OPTIONS, type HubOptions, hubOptions, openFiles } from "./hub/open.ts";
import { DownloadMeter } from "./hub/progress.ts";
import type { Weights } from "./hub/safetensors.ts";
import { openWeights } from "./hub/weights.ts";
import { Parameters } from "./layers/parameter.ts";
import {
  type LoadOptions,
  loadParameters,
  planMemory,
  type PlannedWeight,
  planWeights,
  weightsIn,
  type WeightTypes,
} from "./load_parameters.ts";
import type { Architecture, BuildModel } from "./models/mod.ts";
import { applyImplementation } from "./models/plans.ts";
import type { ModelParts, PreTrainedModel } from "./models/pretrained.ts";
import { modelFor, type Task } from "./models/tasks.ts";
import { warnOnce } from "./notice.ts";
import { quantizedFormats } from "./quantize/stored.ts";
import { Tensor } from "./tensor.ts";

/** Options of `from_pretrained`. */
export interface FromPretrainedOptions extends HubOptions {
  /** One name for all parts, or names by sub-config (`""` is all). Default: the library chooses. */
  attn_implementation?: AttnImplementation;
  /** Used instead of the model's config.json; it is copied. */
  config?: PretrainedConfig;
  /** Type of the weight matrices in memory; `"auto"` (default) keeps the stored type. */
  dtype?: DType | "auto";
  /**
   * Type keys and values are kept in by the caches made for calls: rounded to `"bfloat16"` or `"float16"`, or to `"int8"`
   * with a scale a row. Default: what layers compute, float32.
   */
  kv_dtype?: KvDType | null;
  /**
   * Keeps the matrices of linear layers in 8 or 4 bits, which are made while they are loaded; embeddings, the head and
   * norms keep their type. Default: as stored.
   */
  quantization?: Quantization;
  /** Where the model computes; default `"wasm"`. */
  device?: DeviceName;
}

/** Bits of quantised weights: `int8` has a scale for each row, `int4` one for 32 neighbours of a row. */
export type Quantization = "int8" | "int4";

const OPTIONS: readonly string[] = [
  "attn_implementation",
  "config",
  "dtype",
  "kv_dtype",
  "quantization",
  "device",
  ...HUB_OPTIONS,
];

/** Builds the model of a task from its files; see `AutoModel.from_pretrained`. */
export async function fromPretrained(
  task: Task,
  idOrPathOrUrl: string | URL,
  options: FromPretrainedOptions,
): Promise<PreTrainedModel> {
  for (const key of Object.keys(options)) {
    if (!OPTIONS.includes(key)) {
      throw new InvalidArgument(
        `Cannot load a model with option "${key}": known options are ${OPTIONS.join(", ")}`,
      );
    }
  }
  const { dtype = "auto", quantization, device: place = "wasm", signal } = options;
  if (dtype !== "auto" && !isFloat(dtype)) {
    throw new InvalidArgument(`Cannot load a model as ${dtype}: expected auto, float32, float16 or bfloat16`);
  }
  checkQuantization(quantization);
  if (place !== "wasm" && place !== "webgpu") {
    throw new InvalidArgument(`Cannot load a model on "${String(place)}": expected wasm or webgpu`);
  }
  const kv_dtype = checkKvDType(options.kv_dtype);
  const read = signal === undefined ? {} : { signal };
  const meter = new DownloadMeter(options.progress_callback);
  const files = await openFiles(idOrPathOrUrl, { ...hubOptions(options), meter });
  const given = options.config;
  if (given !== undefined && !(given instanceof PretrainedConfig)) {
    throw new InvalidArgument(
      "Cannot load a model: config must be a PretrainedConfig, from AutoConfig.from_pretrained",
    );
  }
  const config = given?.clone() ?? await loadConfig(files, read);
  const found = blueprintOf(task, config, options.attn_implementation, files.describe());
  const blueprint = { ...found, kv_dtype };
  const generation_config = await loadGenerationConfig(files, read);
  const types = { dtype, quantization };
  await acquire(place);
  // A device that fails takes the weights with it: then they are read again.
  const reopen = () => openWeights(files, {});
  using weights = await openWeights(files, {
    ...read,
    // A model that is too large is refused before it is downloaded.
    ...(place === "wasm"
      ? { accept: (all) => void planMemory(planOf(all, blueprint, types), settings.max_memory) }
      : {}),
  });
  const device = place === "wasm" ? openEngine() : defaultDevice(place);
  try {
    const file = files.describe();
    const load = { file, progress: meter.loading, signal };
    const model = await buildOn(device, weights, blueprint, types, load, reopen);
    if (generation_config !== null) model.generation_config = generation_config;
    return model;
  } catch (error) {
    if (device instanceof WasmEngine) closeEngine(device);
    throw error;
  }
}

/** Which model is built of weights. */
export interface Blueprint {
  readonly architecture: Architecture;
  /** One of the architecture's. */
  readonly build: BuildModel;
  readonly config: PretrainedConfig;
  /** Why the config's attention implementation is what it is. */
  readonly why: string;
  /** Type caches keep keys and values in; default: what layers compute. */
  readonly kv_dtype?: KvDType | null;
}

/**
 * The model of a task, with its attention implementation chosen and written into `config`; `what` is what messages
 * call the model.
 *
 * @throws {InvalidArgument | ModelFileError} for an unknown model type, implementation or sub-config, or quantised weights
 */
export function blueprintOf(
  task: Task,
  config: PretrainedConfig,
  attn_implementation: AttnImplementation | undefined,
  what: string,
): Blueprint {
  const { architecture, build } = modelFor(task, config, what);
  quantizedFormats(config);
  const requested = attn_implementation ?? config._attn_implementation;
  applyImplementation(config, requested);
  const why = requested === null
    ? "default: nothing was requested"
    : `attn_implementation=${JSON.stringify(requested)}`;
  return { architecture, build, config, why };
}

/** @throws {InvalidArgument} for what is no name of a quantisation */
export function checkQuantization(quantization: unknown): void {
  if (quantization !== undefined && quantization !== "int8" && quantization !== "int4") {
    throw new InvalidArgument(
      `Cannot quantise a model as ${show(quantization)}: expected int8 or int4, or no quantization`,
    );
  }
}

/**
 * What becomes of every weight of a checkpoint.
 *
 * @throws {InvalidArgument} for a quantization other than that of the file
 * @throws {ModelFileError} for weights that do not fit the config
 */
export function planOf(weights: Weights, blueprint: Blueprint, types: WeightTypes): PlannedWeight[] {
  const found = weightsIn(weights);
  const formats = new Set(found.flatMap(({ stored }) => stored === null ? [] : [stored.format]));
  const said = quantizedFormats(blueprint.config);
  if (said === null && formats.size > 0) {
    throw new ModelFileError(
      `Cannot load quantised weights (${[...formats].join(", ")}): the config has no quantization_config`,
    );
  }
  for (const format of said ?? []) {
    const bits = format.slice(0, 4);
    if (types.quantization !== undefined && types.quantization !== bits) {
      throw new InvalidArgument(
        `Cannot quantise the model as ${types.quantization}: its weights are stored as ${format}, ` +
          "which is loaded without the option; quantise the checkpoint it was made from",
      );
    }
  }
  const quantises = types.quantization !== undefined && said === null;
  if (!quantises && formats.size === 0) {
    return planWeights(weights, { ...types, quantization: undefined }, NONE);
  }
  const { architecture, build, config, why } = blueprint;
  const device = new DryDevice();
  const empty = new Map(
    found.map(({ name, shape }) => [name, { tensor: Tensor.empty(device, "float32", shape) }]),
  );
  const parameters = new Parameters(empty, prefixOf(architecture, empty));
  const linear = linearWeights(build, { config, parameters, device, why });
  return planWeights(weights, quantises ? types : { ...types, quantization: undefined }, linear);
}

const NONE: ReadonlySet<string> = new Set();

/** Names of the matrices that only linear layers read: the model's own code says so, built of empty weights. */
export function linearWeights(build: BuildModel, parts: ModelParts): Set<string> {
  build(parts);
  // A weight that was reordered when the model was built is another than that of the file.
  return new Set(
    [...parts.parameters]
      .filter((p) => p.use === "linear" && p.restore === undefined && p.tensor.shape.length === 2)
      .map(({ name }) => name),
  );
}

/**
 * Loads weights onto a device and builds the model of them. On an error nothing is left there. `reopen` opens the
 * weights again, should the device fail.
 *
 * @throws {ModelFileError | InvalidArgument} for weights that do not fit the config
 */
export async function buildOn(
  device: Device,
  weights: Weights,
  blueprint: Blueprint,
  types: WeightTypes,
  load: LoadOptions,
  reopen?: () => Promise<Weights>,
): Promise<PreTrainedModel> {
  const again = { ...load, progress: undefined, signal: undefined };
  const reload = reopen && (async (target: Device) => {
    using opened = await reopen();
    // Only its weights are taken, as the layers have made them ready.
    return (await buildParts(target, opened, blueprint, types, again)).parameters;
  });
  return (await buildParts(device, weights, blueprint, types, load, reload)).model;
}

async function buildParts(
  device: Device,
  weights: Weights,
  blueprint: Blueprint,
  types: WeightTypes,
  load: LoadOptions,
  reload?: ModelParts["reload"],
): Promise<{ model: PreTrainedModel; parameters: Parameters }> {
  const { architecture, build, config, why, kv_dtype = null } = blueprint;
  const loaded = await loadParameters(weights, device, planOf(weights, blueprint, types), load);
  const parameters = new Parameters(loaded, prefixOf(architecture, loaded));
  try {
    const parts = { config, parameters, device, why, kv_dtype };
    const model = build(reload === undefined ? parts : { ...parts, reload });
    dropUnused(parameters, architecture, load.file);
    return { model, parameters };
  } catch (error) {
    parameters.dispose();
    throw error;
  }
}

/** Checkpoints of a model with a head keep the base model under a prefix; those of a bare model do not. */
function prefixOf({ prefix }: Architecture, tensors: ReadonlyMap<string, unknown>): string {
  const names = [...tensors.keys()];
  if (names.length === 0) throw new ModelFileError("Cannot build the model: the checkpoint holds no tensors");
  return names.some((name) => name.startsWith(prefix)) ? prefix : "";
}

function dropUnused(parameters: Parameters, { unused = [], kept = [] }: Architecture, where: string): void {
  const begins = (name: string, starts: readonly string[]) => starts.some((start) => name.startsWith(start));
  const dropped = parameters.dropUnused((name) => begins(name, kept));
  const surprising = dropped.filter((name) => !name.endsWith("rotary_emb.inv_freq") && !begins(name, unused));
  if (surprising.length > 0) {
    const shown = surprising.slice(0, 5).join(", ");
    warnOnce(
      `unused:${where}`,
      `${surprising.length} tensors of ${where} are not part of the model: ${shown}${
        surprising.length > 5 ? ", …" : ""
      }`,
    );
  }
}
