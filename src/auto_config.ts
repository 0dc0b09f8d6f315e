/**
 * Loading a configuration by name.
 *
 * @module
 */
import { type AttnImplementation, PretrainedConfig } from "./config.ts";
import { InvalidArgument } from "./errors.ts";
import { MAX_CONFIG_BYTES, type ModelFiles, openFolder } from "./hub/files.ts";

/** Options of {@linkcode AutoConfig.from_pretrained}. */
export interface AutoConfigOptions {
  /** Written onto the config; `""` is the global key, others must be sub-config names. */
  readonly attn_implementation?: AttnImplementation;
  /** Aborts the loading. */
  readonly signal?: AbortSignal;
}

const OPTIONS = ["attn_implementation", "signal"];

/** Loads configurations. */
export const AutoConfig: {
  from_pretrained(folder: string | URL, options?: AutoConfigOptions): Promise<PretrainedConfig>;
} = {
  /**
   * Reads `config.json` of a local model folder, given as a path or a `file:` URL.
   *
   * @throws {ModelFileError} when the folder or the file is missing or malformed.
   * @throws {InvalidArgument} when `attn_implementation` names an unknown part.
   */
  async from_pretrained(folder: string | URL, options: AutoConfigOptions = {}): Promise<PretrainedConfig> {
    for (const key of Object.keys(options)) {
      if (!OPTIONS.includes(key)) {
        throw new InvalidArgument(`Cannot load a config with option ${key}: known are ${OPTIONS.join(", ")}`);
      }
    }
    const read = options.signal === undefined ? {} : { signal: options.signal };
    return await loadConfig(await openFolder(folder, read), options);
  },
};

/** Reads `config.json` among the files of a model. */
export async function loadConfig(
  files: ModelFiles,
  options: AutoConfigOptions = {},
): Promise<PretrainedConfig> {
  const { signal, ...rest } = options;
  const read = signal === undefined ? {} : { signal };
  const json = await files.json("config.json", MAX_CONFIG_BYTES, read);
  return PretrainedConfig.from_json(json, `${files.describe()}/config.json`, rest);
}
