/**
 * The one place where mask code reads a model config.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import { checkSize } from "./algebra.ts";
import type { MaskConfig } from "./types.ts";

/**
 * A window or chunk size of the config, or null where it has none.
 *
 * @throws {InvalidArgument} unless an integer ≥ 1.
 */
export function sizeField(
  config: MaskConfig,
  name: "sliding_window" | "attention_chunk_size",
): number | null {
  const value = config[name] ?? null;
  if (value === null) return null;
  checkSize(value, `config.${name}`);
  return value;
}

/**
 * Like {@linkcode sizeField}, for builders that need it.
 *
 * @throws {InvalidArgument} where the config has none.
 */
export function requiredSize(
  config: MaskConfig,
  name: "sliding_window" | "attention_chunk_size",
  builder: string,
): number {
  const value = sizeField(config, name);
  if (value === null) {
    throw new InvalidArgument(
      `Cannot ${builder} as config.${name} is required: current value is ${config[name]}`,
    );
  }
  return value;
}

/**
 * The type of every layer, or null where the config does not list them.
 *
 * @throws {InvalidArgument}
 */
export function layerTypes(config: MaskConfig): readonly string[] | null {
  const value = config.layer_types ?? null;
  if (value === null) return null;
  if (!Array.isArray(value) || !value.every((t) => typeof t === "string")) {
    throw new InvalidArgument(
      `Cannot read config.layer_types: expected a list of names, got ${JSON.stringify(value)}`,
    );
  }
  return value;
}

/** Attributes that hold the text half of a multi-modal config. */
const TEXT_CONFIGS = ["text_encoder", "decoder", "generator", "text_config"];

/**
 * The config of the text model: the only text sub-config, or the config itself.
 *
 * @throws {InvalidArgument} for several.
 */
export function textConfig(config: MaskConfig): MaskConfig {
  const nested = { ...asRecord(config.sub_configs) };
  const found = TEXT_CONFIGS.flatMap((name) => {
    const sub = nested[name] ?? Reflect.get(config, name);
    return isRecord(sub) ? [{ name, sub: sub as MaskConfig }] : [];
  });
  if (found.length > 1) {
    throw new InvalidArgument(
      `Cannot choose a text config: the config has ${
        found.map((f) => f.name).join(" and ")
      }, expected one of them`,
    );
  }
  return found[0]?.sub ?? config;
}

function isRecord(x: unknown): x is Record<string, unknown> {
  return typeof x === "object" && x !== null;
}

function asRecord(x: unknown): Record<string, unknown> {
  return isRecord(x) ? x : {};
}
