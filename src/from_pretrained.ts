/**
 * A name → files → checked config → weights in memory → model. No maths here.
 *
 * @module
 */
import { loadConfig } from "./auto_config.ts";
import { type AttnImplementation, modelType, PretrainedConfig } from "./config.ts";
import type { DeviceName } from "./devices/device.ts";
import { acquire, closeEngine, defaultDevice, openEngine } from "./devices/mod.ts";
import { settings } from "./devices/settings.ts";
import { WasmEngine } from "./devices/wasm/engine.ts";
import { type DType, isFloat } from "./dtype.ts";
import { InvalidArgument, ModelFileError } from "./errors.ts";
import { openFolder } from "./hub/files.ts";
import { openWeights } from "./hub/weights.ts";
import { Parameters } from "./layers/parameter.ts";
import { loadParameters, type LoadProgress, planMemory } from "./load_parameters.ts";
import { type Architecture, type BuildModel, MODELS } from "./models/mod.ts";
import { applyImplementation } from "./models/plans.ts";
import type { PreTrainedModel } from "./models/pretrained.ts";
import { warnOnce } from "./notice.ts";

/** Options of `from_pretrained`. */
export interface FromPretrainedOptions {
  /** One name for all parts, or names by sub-config (`""` is all). Default: the library chooses. */
  attn_implementation?: AttnImplementation;
  /** Used instead of the folder's config.json; it is copied. */
  config?: PretrainedConfig;
  /** Type of the weight matrices in memory; `"auto"` (default) keeps the stored type. */
  dtype?: DType | "auto";
  /** Where the model computes; default `"wasm"`. */
  device?: DeviceName;
  /** Called while weights are read. */
  progress_callback?: (event: LoadProgress) => void;
  /** Aborts the loading. */
  signal?: AbortSignal;
}

const OPTIONS = ["attn_implementation", "config", "dtype", "device", "progress_callback", "signal"];

async function fromPretrained(
  [task, choose]: Task,
  folder: string | URL,
  options: FromPretrainedOptions,
): Promise<PreTrainedModel> {
  for (const key of Object.keys(options)) {
    if (!OPTIONS.includes(key)) {
      throw new InvalidArgument(
        `Cannot load a model with option "${key}": known options are ${OPTIONS.join(", ")}`,
      );
    }
  }
  const { dtype = "auto", device: place = "wasm", signal, progress_callback } = options;
  if (dtype !== "auto" && !isFloat(dtype)) {
    throw new InvalidArgument(`Cannot load a model as ${dtype}: expected auto, float32, float16 or bfloat16`);
  }
  if (place !== "wasm" && place !== "webgpu") {
    throw new InvalidArgument(`Cannot load a model on "${String(place)}": expected wasm or webgpu`);
  }
  const read = signal === undefined ? {} : { signal };
  const files = await openFolder(folder, read);
  const given = options.config;
  if (given !== undefined && !(given instanceof PretrainedConfig)) {
    throw new InvalidArgument(
      "Cannot load a model: config must be a PretrainedConfig, from AutoConfig.from_pretrained",
    );
  }
  const config = given?.clone() ?? await loadConfig(files, read);
  const architecture = MODELS[modelType(config, Object.keys(MODELS))]!;
  const build = choose(architecture);
  if (build === undefined) {
    const fitting = TASKS.filter(([, of]) => of(architecture) !== undefined).map(([name]) => name);
    throw new InvalidArgument(
      `Cannot load ${files.describe()} with ${task}: model type ${
        String(config["model_type"])
      } has no such head; use ${fitting.join(" or ")}`,
    );
  }
  const requested = options.attn_implementation ?? config._attn_implementation;
  applyImplementation(config, requested);
  const why = requested === null
    ? "default: nothing was requested"
    : `attn_implementation=${JSON.stringify(requested)}`;
  await acquire(place);
  using weights = await openWeights(files, read);
  if (place === "wasm") planMemory(weights, dtype, settings.max_memory);
  const device = place === "wasm" ? openEngine() : defaultDevice(place);
  try {
    const file = files.describe();
    const tensors = await loadParameters(weights, device, {
      dtype,
      file,
      progress: progress_callback,
      signal,
    });
    const parameters = new Parameters(tensors, prefixOf(architecture, tensors));
    try {
      const model = build({ config, parameters, device, why });
      dropUnused(parameters, architecture, files.describe());
      return model;
    } catch (error) {
      for (const p of parameters) p.tensor[Symbol.dispose]();
      throw error;
    }
  } catch (error) {
    if (device instanceof WasmEngine) closeEngine(device);
    throw error;
  }
}

/** Checkpoints of a model with a head keep the base model under a prefix; those of a bare model do not. */
function prefixOf({ prefix }: Architecture, tensors: ReadonlyMap<string, unknown>): string {
  const names = [...tensors.keys()];
  if (names.length === 0) throw new ModelFileError("Cannot build the model: the checkpoint holds no tensors");
  return names.some((name) => name.startsWith(prefix)) ? prefix : "";
}

function dropUnused(parameters: Parameters, { unused: expected = [] }: Architecture, where: string): void {
  const surprising = parameters.dropUnused().filter((name) =>
    !name.endsWith("rotary_emb.inv_freq") && !expected.some((start) => name.startsWith(start))
  );
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

type Task = readonly [name: string, choose: (architecture: Architecture) => BuildModel | undefined];

/** What the loaders are called, and which model of an architecture each of them builds. */
const TASKS: readonly Task[] = [
  ["AutoModel", (a) => a.base],
  ["AutoModelForCausalLM", (a) => a.causal_lm],
  ["AutoModelForImageTextToText", (a) => a.image_text_to_text],
];

/** A loader of one kind of models. */
export interface AutoClass {
  /** Loads a local model folder: `config.json` and safetensors. */
  from_pretrained(folder: string | URL, options?: FromPretrainedOptions): Promise<PreTrainedModel>;
}

/** Loads models without a head. */
export const AutoModel: AutoClass = {
  /**
   * Loads a local model folder: `config.json` and safetensors.
   *
   * @throws {ModelFileError} for missing or malformed files
   * @throws {InvalidArgument} for an unknown option, implementation or sub-config
   * @throws {OutOfMemory} when the weights do not fit, before anything is read
   * @throws {DeviceUnavailable} when the device does not exist here
   */
  async from_pretrained(folder: string | URL, options: FromPretrainedOptions = {}): Promise<PreTrainedModel> {
    return await fromPretrained(TASKS[0]!, folder, options);
  },
};

/** Loads models that predict the next token. */
export const AutoModelForCausalLM: AutoClass = {
  /**
   * Loads a local model folder: `config.json` and safetensors.
   *
   * @throws {ModelFileError} for missing or malformed files
   * @throws {InvalidArgument} for an unknown option, implementation or sub-config
   * @throws {OutOfMemory} when the weights do not fit, before anything is read
   * @throws {DeviceUnavailable} when the device does not exist here
   */
  async from_pretrained(folder: string | URL, options: FromPretrainedOptions = {}): Promise<PreTrainedModel> {
    return await fromPretrained(TASKS[1]!, folder, options);
  },
};

/** Loads models that continue text about images. */
export const AutoModelForImageTextToText: AutoClass = {
  /**
   * Loads a local model folder: `config.json` and safetensors.
   *
   * @throws {ModelFileError} for missing or malformed files
   * @throws {InvalidArgument} for an unknown option, implementation or sub-config
   * @throws {OutOfMemory} when the weights do not fit, before anything is read
   * @throws {DeviceUnavailable} when the device does not exist here
   */
  async from_pretrained(folder: string | URL, options: FromPretrainedOptions = {}): Promise<PreTrainedModel> {
    return await fromPretrained(TASKS[2]!, folder, options);
  },
};
