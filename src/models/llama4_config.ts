/**
 * The fields of a Llama 4 text configuration, checked before anything is allocated from them.
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import type { Fields } from "../config_fields.ts";
import { type DecoderFields, decoderFields, layerTypes, size, tokenSpan } from "./decoder_config.ts";

/** A checked Llama 4 text configuration. */
export interface Llama4Fields extends DecoderFields {
  /** `chunked_attention` or `full_attention`, per layer. */
  readonly layer_types: readonly string[];
  /** Tokens that see each other in a chunked layer. */
  readonly attention_chunk_size: number | null;
  /** Per layer: whether queries and keys are rotated. */
  readonly uses_rope: readonly boolean[];
  /** Whether rotated queries and keys are normalised. */
  readonly use_qk_norm: boolean;
  /** Whether queries of layers without rotation grow with their position. */
  readonly attn_temperature_tuning: boolean;
  /** Tokens per step of that growth. */
  readonly floor_scale: number;
  /** Growth per step, in logarithms. */
  readonly attn_scale: number;
}

const LAYER_TYPES = ["chunked_attention", "full_attention"];
/** Every how many layers one goes without rotation. */
const NO_ROPE_INTERVAL = 4;

/**
 * Checks the fields of a Llama 4 text configuration and fills in the defaults of the format.
 *
 * @throws {InvalidArgument | ModelFileError} naming the field, what was expected and what was found; also for
 * layers with experts, which are not supported.
 */
export function llama4Config(config: PretrainedConfig): Llama4Fields {
  const read = config.read;
  const fields = decoderFields(config, {
    head_dim: 128,
    rms_norm_eps: 1e-5,
    rope_theta: 500000,
    max_position_embeddings: 4096 * 32,
  });
  refuseExperts(read);
  const layers = fields.num_hidden_layers;
  const uses_rope = ropeLayers(read, layers);
  const layer_types = layerTypes(read, layers, LAYER_TYPES, (i) => LAYER_TYPES[uses_rope[i] ? 0 : 1]!);
  const attention_chunk_size = tokenSpan(config, "attention_chunk_size", 8192);
  if (attention_chunk_size === null && layer_types.includes("chunked_attention")) {
    throw read.refuse(
      "attention_chunk_size",
      "an integer of at least 1, because layer_types has chunked_attention,",
    );
  }
  return {
    ...fields,
    // Dense layers have a width of their own beside that of the experts.
    intermediate_size: size(read, "intermediate_size_mlp", 16384),
    layer_types,
    attention_chunk_size,
    uses_rope,
    use_qk_norm: read.boolean("use_qk_norm", { default: true }),
    attn_temperature_tuning: temperature(config, read),
    floor_scale: read.number("floor_scale", { above: 0, max: 1e9, default: 8192 }),
    attn_scale: read.number("attn_scale", { min: 0, max: 1e6, default: 0.1 }),
  };
}

/** Old conversions store 4 for "on". */
function temperature(config: PretrainedConfig, read: Fields): boolean {
  const value = config["attn_temperature_tuning"];
  return typeof value === "number" ? value !== 0 : read.boolean("attn_temperature_tuning", { default: true });
}

function refuseExperts(read: Fields): void {
  const dense = read.has("moe_layers")
    ? read.integers("moe_layers", { min: 0 }).length === 0
    : read.integer("interleave_moe_layer_step", { min: 0, default: 1 }) === 0;
  if (!dense) {
    throw read.refuse("moe_layers", "an empty list, because layers of experts are not supported,");
  }
}

/** `no_rope_layers` lists 1 for layers with rotation, despite its name. */
function ropeLayers(read: Fields, layers: number): readonly boolean[] {
  const listed = read.integers("no_rope_layers", { min: 0, max: 1 });
  if (listed.length === 0) {
    const interval = read.integer("no_rope_layer_interval", { min: 1, default: NO_ROPE_INTERVAL });
    return Array.from({ length: layers }, (_, i) => (i + 1) % interval !== 0);
  }
  if (listed.length !== layers) {
    throw read.refuse("no_rope_layers", `0 or 1 for each of ${layers} layers`);
  }
  return listed.map((flag) => flag === 1);
}
