/**
 * The loaders: one for each thing a model is wanted for.
 *
 * @module
 */
import type { PretrainedConfig } from "./config.ts";
import { fromConfig, type FromConfigOptions } from "./from_config.ts";
import { fromPretrained, type FromPretrainedOptions } from "./from_pretrained.ts";
import type { PreTrainedModel } from "./models/pretrained.ts";
import { type Task, TASKS } from "./models/tasks.ts";

/** A loader of one kind of models. */
export interface AutoClass {
  /**
   * Loads `config.json` and safetensors, in one file or in shards: of a local folder (a path or a `file:` URL), of a
   * folder behind an http(s) URL, or of a hub's repository (`org/name`). An existing folder wins over a hub's id. A path or
   * URL that ends in `.gguf` is one file that holds everything; see `gguf_file`.
   *
   * @throws {ModelFileError} for missing or malformed files, and for those that cannot be fetched
   * @throws {InvalidArgument} for an unknown option, implementation or sub-config
   * @throws {OutOfMemory} when the weights do not fit, before anything is read
   * @throws {DeviceUnavailable} when the device does not exist here
   */
  from_pretrained(idOrPathOrUrl: string | URL, options?: FromPretrainedOptions): Promise<PreTrainedModel>;
  /**
   * Makes a new model with random weights, as Transformers begins to train one: normal with the config's
   * `initializer_range`, biases 0, norms 1, the padding token's embedding 0. The model runs with `config` itself, not
   * with a copy; when making it fails, the config is as it was.
   *
   * @throws {InvalidArgument} for an unknown option, implementation, sub-config or field out of range
   * @throws {OutOfMemory} when the weights do not fit
   * @throws {DeviceUnavailable} when the device does not exist here
   */
  from_config(config: PretrainedConfig, options?: FromConfigOptions): Promise<PreTrainedModel>;
}

function autoClass(task: Task): AutoClass {
  return {
    from_pretrained: async (model, options = {}) => await fromPretrained(task, model, options),
    from_config: async (config, options = {}) => await fromConfig(task, config, options),
  };
}

/** Loads models without a head. */
export const AutoModel: AutoClass = autoClass(TASKS.base);

/** Loads models that predict the next token. */
export const AutoModelForCausalLM: AutoClass = autoClass(TASKS.causal_lm);

/** Loads models that continue text about images. */
export const AutoModelForImageTextToText: AutoClass = autoClass(TASKS.image_text_to_text);
