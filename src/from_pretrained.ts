/**
 * A name → files → checked config → weights in memory → model. No maths here.
 *
 * @module
 */
import { loadConfig } from "./auto_config.ts";
import { checkKvDType, type KvDType } from "./cache/kv_dtype.ts";
import { type AttnImplementation, PretrainedConfig } from "./config.ts";
import type { Device, DeviceName } from "./devices/device.ts";
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
import { type LoadOptions, loadParameters, planMemory } from "./load_parameters.ts";
import type { Architecture, BuildModel } from "./models/mod.ts";
import { applyImplementation } from "./models/plans.ts";
import type { ModelParts, PreTrainedModel } from "./models/pretrained.ts";
import { modelFor, type Task } from "./models/tasks.ts";
import { warnOnce } from "./notice.ts";

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
   * with a scale a row (on the CPU). Default: what layers compute, float32.
   */
  kv_dtype?: KvDType | null;
  /** Where the model computes; default `"wasm"`. */
  device?: DeviceName;
}

const OPTIONS: readonly string[] = [
  "attn_implementation",
  "config",
  "dtype",
  "kv_dtype",
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
  const { dtype = "auto", device: place = "wasm", signal } = options;
  if (dtype !== "auto" && !isFloat(dtype)) {
    throw new InvalidArgument(`Cannot load a model as ${dtype}: expected auto, float32, float16 or bfloat16`);
  }
  if (place !== "wasm" && place !== "webgpu") {
    throw new InvalidArgument(`Cannot load a model on "${String(place)}": expected wasm or webgpu`);
  }
  const kv_dtype = checkKvDType(options.kv_dtype, place);
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
  const blueprint = {
    ...blueprintOf(task, config, options.attn_implementation, files.describe()),
    kv_dtype,
  };
  const generation_config = await loadGenerationConfig(files, read);
  await acquire(place);
  // A device that fails takes the weights with it: then they are read again.
  const reopen = () => openWeights(files, {});
  using weights = await openWeights(files, {
    ...read,
    // A model that is too large is refused before it is downloaded.
    ...(place === "wasm" ? { accept: (found) => void planMemory(found, dtype, settings.max_memory) } : {}),
  });
  const device = place === "wasm" ? openEngine() : defaultDevice(place);
  try {
    const file = files.describe();
    const load = { dtype, file, progress: meter.loading, signal };
    const model = await buildOn(device, weights, blueprint, load, reopen);
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
  refuseQuantized(config);
  const requested = attn_implementation ?? config._attn_implementation;
  applyImplementation(config, requested);
  const why = requested === null
    ? "default: nothing was requested"
    : `attn_implementation=${JSON.stringify(requested)}`;
  return { architecture, build, config, why };
}

/** @throws {InvalidArgument | ModelFileError} for a checkpoint whose weights stand for others, which nothing here unpacks */
function refuseQuantized({ read, sub_configs }: PretrainedConfig): void {
  if (read.has("quantization_config")) {
    throw read.refuse(
      "quantization_config",
      "none, as the weights of quantised checkpoints cannot be read; use the checkpoint they were made from",
    );
  }
  for (const part of Object.values(sub_configs)) refuseQuantized(part);
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
  load: LoadOptions,
  reopen?: () => Promise<Weights>,
): Promise<PreTrainedModel> {
  const again = { ...load, progress: undefined, signal: undefined };
  const reload = reopen && (async (target: Device) => {
    using opened = await reopen();
    // Only its weights are taken, as the layers have made them ready.
    return (await buildParts(target, opened, blueprint, again)).parameters;
  });
  return (await buildParts(device, weights, blueprint, load, reload)).model;
}

async function buildParts(
  device: Device,
  weights: Weights,
  { architecture, build, config, why, kv_dtype = null }: Blueprint,
  load: LoadOptions,
  reload?: ModelParts["reload"],
): Promise<{ model: PreTrainedModel; parameters: Parameters }> {
  const loaded = await loadParameters(weights, device, load);
  const parameters = new Parameters(loaded, prefixOf(architecture, loaded));
  try {
    const model = build({
      config,
      parameters,
      device,
      why,
      kv_dtype,
      ...(reload === undefined ? {} : { reload }),
    });
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
