/**
 * Loading a configuration by name.
 *
 * @module
 */
import { type AttnImplementation, PretrainedConfig } from "./config.ts";
import { InvalidArgument } from "./errors.ts";
import { MAX_CONFIG_BYTES, type ModelFiles } from "./hub/files.ts";
import { HUB_OPTIONS, type HubOptions, hubOptions, openFiles } from "./hub/open.ts";
import { DownloadMeter } from "./hub/progress.ts";

/** Options of {@linkcode AutoConfig.from_pretrained}. */
export interface AutoConfigOptions extends HubOptions {
  /** Written onto the config; `""` is the global key, others must be sub-config names. */
  readonly attn_implementation?: AttnImplementation;
}

const OPTIONS: readonly string[] = ["attn_implementation", ...HUB_OPTIONS];

/** Loads configurations. */
export const AutoConfig: {
  from_pretrained(idOrPathOrUrl: string | URL, options?: AutoConfigOptions): Promise<PretrainedConfig>;
} = {
  /**
   * Reads `config.json` of a model: of a local folder (a path or a `file:` URL), of a folder behind an http(s) URL, or of
   * a hub's repository.
   *
   * @throws {ModelFileError} when the file is missing or malformed, or cannot be fetched.
   * @throws {InvalidArgument} for an unknown option, or when `attn_implementation` names an unknown part.
   */
  async from_pretrained(
    idOrPathOrUrl: string | URL,
    options: AutoConfigOptions = {},
  ): Promise<PretrainedConfig> {
    for (const key of Object.keys(options)) {
      if (!OPTIONS.includes(key)) {
        throw new InvalidArgument(`Cannot load a config with option ${key}: known are ${OPTIONS.join(", ")}`);
      }
    }
    const meter = new DownloadMeter(options.progress_callback);
    const config = await loadConfig(
      await openFiles(idOrPathOrUrl, { ...hubOptions(options), meter }),
      options,
    );
    meter.done("config.json");
    return config;
  },
};

/** Reads `config.json` among the files of a model. */
export async function loadConfig(
  files: ModelFiles,
  { signal, attn_implementation }: AutoConfigOptions = {},
): Promise<PretrainedConfig> {
  const rest = attn_implementation === undefined ? {} : { attn_implementation };
  const read = signal === undefined ? {} : { signal };
  const json = await files.json("config.json", MAX_CONFIG_BYTES, read);
  return PretrainedConfig.from_json(json, `${files.describe()}/config.json`, rest);
}
