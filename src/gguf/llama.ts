/**
 * Llama in GGUF → its configuration and the names of its weights in Transformers. Mistral's files say they are Llama, too.
 *
 * @module
 */
import { ModelFileError } from "../errors.ts";
import { quantizationConfig } from "../quantize/stored.ts";
import { formOf } from "./blocks.ts";
import { type Gguf, type GgufTensor, type GgufValue, label } from "./header.ts";
import type { Placed } from "./weights.ts";

/** Factors that the rotation's frequencies are divided by, as llama.cpp writes `rope_type: "llama3"`. */
export const ROPE_FACTORS = "rope_freqs.weight";

/** Weights outside of layers. */
const OUTER: Readonly<Record<string, string>> = {
  token_embd: "model.embed_tokens",
  output_norm: "model.norm",
  output: "lm_head",
};

/** Weights of a layer. */
const INNER: Readonly<Record<string, string>> = {
  attn_norm: "input_layernorm",
  ffn_norm: "post_attention_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
};

/** Where a tensor goes; a name that Llama does not have stays as it is, and is told of as unused. */
export function placeOf(name: string, head_dim: number): Placed | null {
  if (name === ROPE_FACTORS) return null;
  const [, index, inside = "", kind] = /^(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)$/.exec(name) ?? [];
  const table = index === undefined ? OUTER : INNER;
  const found = Object.hasOwn(table, inside) ? table[inside] : undefined;
  if (found === undefined) return { name, head_dim: null };
  const rotated = inside === "attn_q" || inside === "attn_k";
  return {
    name: index === undefined ? `${found}.${kind}` : `model.layers.${index}.${found}.${kind}`,
    head_dim: index !== undefined && rotated ? head_dim : null,
  };
}

/** Reads single values of the metadata. */
export class Metadata {
  /** `file` is what messages call it. */
  constructor(readonly values: ReadonlyMap<string, GgufValue>, readonly file: string) {}

  /** The error for a value. */
  refuse(key: string, expected: string): ModelFileError {
    const value = this.values.get(key);
    const found = value === undefined
      ? "nothing"
      : typeof value === "object"
      ? `a list of ${value.length}`
      : typeof value === "string"
      ? label(value)
      : String(value);
    return new ModelFileError(`Cannot read ${key} of ${this.file}: expected ${expected}, found ${found}`);
  }

  /** @throws {ModelFileError} for what is no number, or nothing without `otherwise` */
  number(key: string, otherwise?: number): number {
    const value = this.values.get(key) ?? otherwise;
    if (typeof value === "number" && Number.isFinite(value)) return value;
    throw this.refuse(key, "a number");
  }

  /** @throws {ModelFileError} for what is no text */
  text(key: string): string | null {
    const value = this.values.get(key);
    if (value === undefined || typeof value === "string") return value ?? null;
    throw this.refuse(key, "a text");
  }

  /** @throws {ModelFileError} for what is neither true nor false */
  truth(key: string, otherwise: boolean): boolean {
    const value = this.values.get(key) ?? otherwise;
    if (typeof value === "boolean") return value;
    throw this.refuse(key, "true or false");
  }

  /** An id of a token, if there is one. */
  id(name: string): number | null {
    const key = `tokenizer.ggml.${name}_token_id`;
    return this.values.has(key) ? this.number(key) : null;
  }
}

/** Rows of a head of queries and keys. */
export function headDim(m: Metadata): number {
  const heads = m.number("llama.attention.head_count");
  if (!(heads >= 1)) throw m.refuse("llama.attention.head_count", "at least 1");
  const head_dim = m.number("llama.attention.key_length", m.number("llama.embedding_length") / heads);
  if (Number.isInteger(head_dim) && head_dim >= 2 && head_dim % 2 === 0) return head_dim;
  throw m.refuse("llama.attention.key_length", "an even number of rows a head");
}

/**
 * The fields of `config.json`. `factors` are the values of {@linkcode ROPE_FACTORS}, null where the file has none.
 *
 * @throws {ModelFileError} for an architecture other than Llama, and what its layers here do not compute
 */
export function configOf(
  { metadata, tensors }: Gguf,
  factors: Float32Array | null,
  file: string,
): Record<string, unknown> {
  const m = new Metadata(metadata, file);
  if (m.text("general.architecture") !== "llama") throw m.refuse("general.architecture", '"llama"');
  const head_dim = headDim(m);
  const same = (key: string, expected: number) => {
    if (m.number(key, expected) !== expected) throw m.refuse(key, String(expected));
  };
  same("llama.attention.value_length", head_dim);
  same("llama.rope.dimension_count", head_dim);
  same("llama.expert_count", 0);
  same("split.count", 1);
  const embedding = tensors.get("token_embd.weight");
  const [, ...blocks] = [embedding, ...tensors.values()];
  const formats = blocks.flatMap((tensor) => formOf(tensor?.type.name ?? "")?.format ?? []);
  const eos = [m.id("eos"), m.id("eot")].filter((id) => id !== null);
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    dtype: floatType(embedding),
    vocab_size: m.number("llama.vocab_size", embedding?.shape[0] ?? 0),
    hidden_size: m.number("llama.embedding_length"),
    intermediate_size: m.number("llama.feed_forward_length"),
    num_hidden_layers: m.number("llama.block_count"),
    num_attention_heads: m.number("llama.attention.head_count"),
    num_key_value_heads: m.number(
      "llama.attention.head_count_kv",
      m.number("llama.attention.head_count"),
    ),
    head_dim,
    hidden_act: "silu",
    rms_norm_eps: m.number("llama.attention.layer_norm_rms_epsilon"),
    max_position_embeddings: m.number("llama.context_length"),
    rope_parameters: ropeOf(m, head_dim, factors),
    attention_bias: tensors.has("blk.0.attn_q.bias"),
    mlp_bias: tensors.has("blk.0.ffn_up.bias"),
    tie_word_embeddings: !tensors.has("output.weight"),
    bos_token_id: m.id("bos"),
    eos_token_id: eos.length > 1 ? [...new Set(eos)] : eos[0] ?? null,
    pad_token_id: m.id("padding"),
    ...(formats.length === 0 ? {} : { quantization_config: quantizationConfig(formats) }),
  };
}

/** The type floats of the model are of, as far as there is one. */
function floatType(embedding: GgufTensor | undefined): string {
  const form = formOf(embedding?.type.name ?? "");
  return form === undefined || form.format !== null ? "float16" : form.dtype;
}

/** The contexts that models with `rope_type: "llama3"` were first trained for, and their factors for wave lengths. */
const LLAMA3 = { low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 };
/** Factors are written in float32, of numbers computed in float32. */
const NEARLY = 1e-3;

function ropeOf(m: Metadata, head_dim: number, factors: Float32Array | null): Record<string, unknown> {
  const rope_theta = m.number("llama.rope.freq_base", 10000);
  const type = m.text("llama.rope.scaling.type") ?? "none";
  const factor = m.number("llama.rope.scaling.factor", m.number("llama.rope.scale_linear", 1));
  if (type !== "none" && type !== "linear") throw m.refuse("llama.rope.scaling.type", "none or linear");
  const linear = factor !== 1 && (type === "linear" || m.values.has("llama.rope.scale_linear"));
  if (factors === null) {
    return linear ? { rope_type: "linear", rope_theta, factor } : { rope_type: "default", rope_theta };
  }
  const most = factors.reduce((a, b) => Math.max(a, b), 1);
  const { low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings: context } = LLAMA3;
  const expected = (i: number) => {
    const waves = context / (2 * Math.PI * rope_theta ** (2 * i / head_dim));
    const smooth = Math.min(1, Math.max(0, (waves - low) / (high - low)));
    return 1 / ((1 - smooth) / most + smooth);
  };
  if (!linear && factors.length === head_dim / 2) {
    if (factors.every((f) => f === 1)) return { rope_type: "default", rope_theta };
    if (factors.every((f, i) => Math.abs(f / expected(i) - 1) < NEARLY)) {
      return { rope_type: "llama3", rope_theta, factor: most, ...LLAMA3 };
    }
  }
  throw new ModelFileError(
    `Cannot read ${ROPE_FACTORS} of ${m.file}: expected the ${
      head_dim / 2
    } factors of rope_type llama3 for a context of ${context}, found ${factors.length} others`,
  );
}
