/**
 * The configuration of a model: the fields of `config.json`, its sub-configurations, and which attention
 * implementation each of them uses.
 *
 * @module
 */
import { checkFieldName, copyJson, Fields, isRecord, show } from "./config_fields.ts";
import { AttuneError, InvalidArgument, ModelFileError } from "./errors.ts";
import { jsonText } from "./hub/json_text.ts";
import { writeFolder } from "./hub/write.ts";

/**
 * Attention implementations: one name for all parts, null to let each part choose, or names by sub-config,
 * where `""` stands for the top level and every part without a key of its own.
 */
export type AttnImplementation = string | null | { readonly [part: string]: AttnImplementation };

/** Names under which published configurations nest others, whether or not they state a model_type. */
const SUB_CONFIGS = [
  "text_config",
  "vision_config",
  "audio_config",
  "encoder",
  "decoder",
  "text_encoder",
  "audio_encoder",
  "speech_config",
  "qformer_config",
];

/** Fields that carry the choice of attention in a file; only the public one is honoured, none is kept. */
const ATTENTION_FIELDS = ["attn_implementation", "_attn_implementation", "_attn_implementation_internal"];

/**
 * A model's configuration. Every field of `config.json` is a property; sub-configurations are
 * {@linkcode PretrainedConfig}s. Constructing one does not check names of implementations: models do.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const config = new PretrainedConfig({ model_type: "llava", text_config: { hidden_size: 32 } }, {
 *   attn_implementation: { "": "eager", text_config: "sdpa" },
 * });
 * assertEquals(config._attn_implementation, "eager");
 * assertEquals(config.sub_configs.text_config?._attn_implementation, "sdpa");
 * assertEquals(config.sub_configs.text_config?.read.number("hidden_size", { min: 1 }), 32);
 * ```
 */
export class PretrainedConfig {
  /** Any field of `config.json`; read it through {@linkcode PretrainedConfig.read}. */
  [field: string]: unknown;

  #attn: string | null = null;
  #isCausal: boolean | null = null;
  #outputAttentions = false;
  #file: string | null = null;

  /**
   * Copies `fields`.
   *
   * @throws {InvalidArgument} when a field is not plain JSON, or `attn_implementation` names an unknown part.
   */
  constructor(
    fields: Readonly<Record<string, unknown>> = {},
    options: { readonly attn_implementation?: AttnImplementation } = {},
  ) {
    if (!isRecord(fields)) {
      throw new InvalidArgument(`Cannot build a config: expected fields, found ${show(fields)}`);
    }
    for (const key of Object.keys(options)) {
      if (key !== "attn_implementation") {
        throw new InvalidArgument(`Cannot build a config with option ${key}: known is attn_implementation`);
      }
    }
    for (const [key, value] of Object.entries(fields)) {
      if (value === undefined || ATTENTION_FIELDS.includes(key)) continue;
      this.#define(key, value);
    }
    // Set after all parts exist; what a file asks for comes first, what the caller asks for wins.
    const chosen = fields["attn_implementation"];
    if (chosen !== undefined && chosen !== null) this._attn_implementation = checkImplementation(chosen, "");
    if (options.attn_implementation !== undefined) this._attn_implementation = options.attn_implementation;
  }

  /** Builds a config from the content of a file, which later errors then name. */
  static from_json(
    json: unknown,
    file: string,
    options: { readonly attn_implementation?: AttnImplementation } = {},
  ): PretrainedConfig {
    if (!isRecord(json)) {
      throw new ModelFileError(`Cannot read ${file}: expected an object, found ${show(json)}`);
    }
    let config: PretrainedConfig;
    try {
      config = new PretrainedConfig(json);
    } catch (error) {
      if (!(error instanceof AttuneError)) throw error;
      throw new ModelFileError(`${error.message} (${file})`, { cause: error });
    }
    config.#setFile(file);
    if (options.attn_implementation !== undefined) config._attn_implementation = options.attn_implementation;
    return config;
  }

  #setFile(file: string | null): void {
    this.#file = file;
    for (const part of Object.values(this.sub_configs)) part.#setFile(file);
  }

  #define(key: string, value: unknown): void {
    checkFieldName(key, "the config");
    if (key === "is_causal" || key === "output_attentions") {
      if (value !== null && typeof value !== "boolean") {
        throw new InvalidArgument(`Cannot set ${key}: expected true or false, found ${show(value)}`);
      }
      if (key === "is_causal") this.#isCausal = value;
      else this.#outputAttentions = value ?? false;
      return;
    }
    if (key in PretrainedConfig.prototype) {
      throw new InvalidArgument(`Cannot set the config field ${key}: the name belongs to the config itself`);
    }
    let kept: unknown;
    if (value instanceof PretrainedConfig) kept = value.clone();
    else if (isRecord(value) && (SUB_CONFIGS.includes(key) || typeof value["model_type"] === "string")) {
      // The depth of nested parts is bounded by the depth of the whole.
      kept = new PretrainedConfig(plainRecord(copyJson(value, key)));
    } else kept = copyJson(value, key);
    Object.defineProperty(this, key, { value: kept, enumerable: true, writable: true, configurable: true });
  }

  /** The nested configurations by attribute name. */
  get sub_configs(): Record<string, PretrainedConfig> {
    const parts: Record<string, PretrainedConfig> = {};
    for (const [key, value] of Object.entries(this)) {
      if (value instanceof PretrainedConfig) parts[key] = value;
    }
    return parts;
  }

  /** Checked access to the fields: `config.read.number("hidden_size", { min: 1 })`. */
  get read(): Fields {
    return new Fields(Object.fromEntries(Object.entries(this)), "", this.#file);
  }

  /** The name of this part's attention implementation, or null before a model has chosen. Never saved. */
  get _attn_implementation(): string | null {
    return this.#attn;
  }

  /**
   * Sets this part and its sub-configurations, all or nothing.
   *
   * @throws {InvalidArgument} on a key that is neither `""` nor the name of a sub-configuration.
   */
  set _attn_implementation(value: AttnImplementation) {
    this.#check(value, "");
    this.#assign(value, undefined);
  }

  #check(value: unknown, path: string): void {
    const parts = this.sub_configs;
    for (const [key, item] of isRecord(value) ? Object.entries(value) : []) {
      if (key === "") checkImplementation(item, `${path}[""]`, false);
      else if (Object.hasOwn(parts, key)) parts[key]!.#check(item, `${path}.${key}`);
      else {
        const known = Object.keys(parts);
        throw new InvalidArgument(
          `Cannot set attn_implementation${path} for ${
            JSON.stringify(key)
          }: expected "" or a sub-config name` +
            (known.length > 0 ? ` (${known.join(", ")})` : ", this config has none"),
        );
      }
    }
    if (!isRecord(value)) checkImplementation(value, path, false);
  }

  /** `inherited` is the global choice of an outer part; undefined keeps what there is. */
  #assign(value: AttnImplementation, inherited: string | null | undefined): void {
    if (!isRecord(value)) {
      this.#attn = value;
      for (const part of Object.values(this.sub_configs)) part.#assign(value, undefined);
      return;
    }
    const own = Object.hasOwn(value, "") ? value[""] : inherited;
    // #check has refused anything but a name or null here.
    const global = typeof own === "object" && own !== null ? undefined : own;
    if (global !== undefined) this.#attn = global;
    for (const [key, part] of Object.entries(this.sub_configs)) {
      const choice = Object.hasOwn(value, key) ? value[key] : undefined;
      if (choice !== undefined) part.#assign(choice, global);
      else if (global !== undefined) part.#assign(global, undefined);
    }
  }

  /** Whether attention is causal: null leaves it to the model. */
  get is_causal(): boolean | null {
    return this.#isCausal;
  }
  set is_causal(value: boolean | null) {
    this.#define("is_causal", value);
  }

  /** Whether forward returns attention weights by default. Works with every implementation. */
  get output_attentions(): boolean {
    return this.#outputAttentions;
  }
  set output_attentions(value: boolean) {
    this.#define("output_attentions", value);
  }

  /** A deep copy, with the same choice of attention in every part. */
  clone(): PretrainedConfig {
    const copy = new PretrainedConfig(this.toJSON());
    copy.#adopt(this);
    return copy;
  }

  /**
   * Returns what puts every field and choice of attention back to what they are now.
   *
   * @internal
   */
  remember(): () => void {
    const [attn, isCausal, outputAttentions] = [this.#attn, this.#isCausal, this.#outputAttentions];
    const fields = new Map(Object.entries(this));
    const parts = Object.values(this.sub_configs).map((part) => part.remember());
    return () => {
      [this.#attn, this.#isCausal, this.#outputAttentions] = [attn, isCausal, outputAttentions];
      for (const key of Object.keys(this)) if (!fields.has(key)) delete this[key];
      for (const [key, value] of fields) this[key] = value;
      for (const undo of parts) undo();
    };
  }

  #adopt(other: PretrainedConfig): void {
    this.#attn = other.#attn;
    this.#file = other.#file;
    const parts = this.sub_configs;
    for (const [key, part] of Object.entries(other.sub_configs)) {
      const mine = parts[key];
      if (mine !== undefined) mine.#adopt(part);
    }
  }

  /** The fields as plain JSON, a copy. The choice of attention is not among them. */
  toJSON(): Record<string, unknown> {
    const json: Record<string, unknown> = {};
    for (const [key, value] of Object.entries(this)) {
      json[key] = value instanceof PretrainedConfig ? value.toJSON() : copyJson(value, key);
    }
    if (this.#isCausal !== null) json["is_causal"] = this.#isCausal;
    if (this.#outputAttentions) json["output_attentions"] = true;
    return json;
  }

  /**
   * Writes `config.json` into a folder, which is made where it is missing. The choice of attention is not saved.
   *
   * @throws {ModelFileError} when it cannot be written, saying which permission is missing
   */
  async save_pretrained(folder: string | URL): Promise<void> {
    await writeFolder(folder, { "config.json": jsonText(this.toJSON()) });
  }
}

function plainRecord(value: unknown): Record<string, unknown> {
  return isRecord(value) ? value : {};
}

/** Whether `value` has the type of an implementation; names are not checked here. */
function checkImplementation(value: unknown, path: string, nested = true): AttnImplementation {
  if (value === null || typeof value === "string") return value;
  if (nested && isRecord(value)) {
    const copy: Record<string, AttnImplementation> = {};
    for (const [key, item] of Object.entries(value)) copy[key] = checkImplementation(item, `${path}.${key}`);
    return copy;
  }
  const expected = nested ? "a name, null, or an object of names by sub-config" : "a name or null";
  throw new InvalidArgument(
    `Cannot set attn_implementation${path}: expected ${expected}, found ${show(value)}`,
  );
}

/**
 * The `model_type` of a config, which must be one of `known`.
 *
 * @throws {InvalidArgument | ModelFileError} listing the known ones.
 */
export function modelType(config: PretrainedConfig, known: readonly string[]): string {
  return config.read.string("model_type", { known });
}
