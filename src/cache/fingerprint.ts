/**
 * What tells models apart whose caches do not fit each other.
 *
 * @module
 */
import { PretrainedConfig } from "../config.ts";
import { InvalidArgument } from "../errors.ts";
import { textConfig } from "../masks/config.ts";
import { layerWindows } from "./windows.ts";

/** Fields of a text config that keys and values depend on. Windows are taken as caches read them. */
const FIELDS = [
  "model_type",
  "vocab_size",
  "hidden_size",
  "intermediate_size",
  "num_hidden_layers",
  "num_attention_heads",
  "num_key_value_heads",
  "head_dim",
  "hidden_act",
  "rms_norm_eps",
  "rope_theta",
  "rope_scaling",
  "rope_parameters",
  "attention_bias",
  "query_pre_attn_scalar",
  "attn_logit_softcapping",
  "no_rope_layers",
  "use_qk_norm",
];

/**
 * SHA-256, as hexadecimal digits, of what a config says about keys and values.
 *
 * @throws {InvalidArgument} unless it is a config
 */
export async function fingerprintOf(config: PretrainedConfig): Promise<string> {
  if (!(config instanceof PretrainedConfig)) {
    throw new InvalidArgument(
      "Cannot compare a cache with its model: expected config to be a PretrainedConfig",
    );
  }
  const text = textConfig(config) as PretrainedConfig;
  const { layers, every } = layerWindows(text);
  const fields = FIELDS.map((name) => [name, sorted(text[name] ?? null)]);
  const bytes = new TextEncoder().encode(JSON.stringify([fields, layers, every]));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (b) => b.toString(16).padStart(2, "0")).join("");
}

/** The value with the keys of objects in order. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  return Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1).map(([key, item]) => [key, sorted(item)]);
}
