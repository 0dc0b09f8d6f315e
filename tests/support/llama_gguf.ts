/**
 * Llama checkpoints as GGUF files.
 *
 * @module
 */
import { isRecord } from "../../src/config_fields.ts";
import { hostView, present } from "../../src/dtype.ts";
import { type FileTensor, tensorsIn } from "./folders.ts";
import { GGML_TYPES, type GgmlType, type GgufTensor, type MetaValue } from "./gguf.ts";

/** Names inside a layer. */
const NAMES: Readonly<Record<string, string>> = {
  "input_layernorm": "attn_norm",
  "post_attention_layernorm": "ffn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
};

function nameOf(name: string): string {
  if (name === "model.embed_tokens.weight") return "token_embd.weight";
  if (name === "model.norm.weight") return "output_norm.weight";
  if (name === "lm_head.weight") return "output.weight";
  const [, index, inside, kind] = /^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name)!;
  return `blk.${index}.${NAMES[inside!]}.${kind}`;
}

/** As llama.cpp's converter: `reshape(heads, 2, D/2, columns).swapaxes(1, 2)`. */
export function permuted(values: Float32Array, heads: number, columns: number): Float32Array {
  const half = values.length / heads / columns / 2;
  const out = new Float32Array(values.length);
  let to = 0;
  for (let h = 0; h < heads; h++) {
    for (let i = 0; i < half; i++) {
      for (let s = 0; s < 2; s++, to += columns) {
        const row = (h * 2 + s) * half + i;
        out.set(values.subarray(row * columns, (row + 1) * columns), to);
      }
    }
  }
  return out;
}

/** The fields of a Llama's config.json that a GGUF file has. */
export interface LlamaFields {
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly head_dim: number;
  readonly num_hidden_layers: number;
  readonly rms_norm_eps: number;
  readonly vocab_size: number;
  readonly max_position_embeddings: number;
  readonly rope_parameters: { readonly rope_theta: number };
}

/** The metadata of a Llama, without a tokenizer. */
export function llamaMetadata(c: LlamaFields): Record<string, MetaValue> {
  return {
    "general.architecture": { text: "llama" },
    "llama.context_length": { u32: c.max_position_embeddings },
    "llama.embedding_length": { u32: c.hidden_size },
    "llama.block_count": { u32: c.num_hidden_layers },
    "llama.feed_forward_length": { u32: c.intermediate_size },
    "llama.attention.head_count": { u32: c.num_attention_heads },
    "llama.attention.head_count_kv": { u32: c.num_key_value_heads },
    "llama.attention.key_length": { u32: c.head_dim },
    "llama.attention.value_length": { u32: c.head_dim },
    "llama.attention.layer_norm_rms_epsilon": { f32: c.rms_norm_eps },
    "llama.rope.dimension_count": { u32: c.head_dim },
    "llama.rope.freq_base": { f32: c.rope_parameters.rope_theta },
    "llama.vocab_size": { u32: c.vocab_size },
  };
}

/**
 * A tensor of a Llama: a matrix as `type`, or F16 where its rows have no whole blocks, as llama.cpp makes them; a vector as
 * F32. `read` gives its values.
 */
export function llamaTensor(
  name: string,
  shape: readonly number[],
  type: GgmlType,
  { num_attention_heads, num_key_value_heads }: LlamaFields,
  read: () => Float32Array,
): GgufTensor {
  const [, which] = /([qk])_proj\./.exec(name) ?? [];
  const heads = which === "q" ? num_attention_heads : num_key_value_heads;
  const fits = shape.at(-1)! % GGML_TYPES[type].block === 0;
  return {
    name: nameOf(name),
    shape,
    type: shape.length === 1 ? "F32" : fits ? type : "F16",
    values: () =>
      which === undefined ? read() : permuted(read(), heads, shape.length === 1 ? 1 : shape.at(-1)!),
  };
}

/** Values of a tensor of a file. */
function floatsOf({ dtype, bytes }: FileTensor): Float32Array {
  const type = ({ F32: "float32", F16: "float16", BF16: "bfloat16" } as const)[dtype]!;
  return Float32Array.from(present(type, hostView(type, bytes.slice().buffer)) as ArrayLike<number>);
}

/** A checkpoint as the parts of a GGUF file. */
export interface LlamaParts {
  readonly metadata: Record<string, MetaValue>;
  readonly tensors: GgufTensor[];
}

/** The llama of `folder`, without its tokenizer. */
export function llamaParts(folder: string, type: GgmlType): LlamaParts {
  const config = JSON.parse(Deno.readTextFileSync(`${folder}/config.json`)) as LlamaFields;
  const tensors = [...tensorsIn(`${folder}/model.safetensors`)].map(([name, tensor]) =>
    llamaTensor(name, tensor.shape, type, config, () => floatsOf(tensor))
  );
  return { metadata: llamaMetadata(config), tensors };
}

/** The byte-level tokenizer of `folder` as metadata. */
export function bytePairMetadata(folder: string): Record<string, MetaValue> {
  const json: unknown = JSON.parse(Deno.readTextFileSync(`${folder}/tokenizer.json`));
  const { model, added_tokens } = json as {
    model: { vocab: Record<string, number>; merges: (string | [string, string])[] };
    added_tokens: { id: number; content: string; special: boolean }[];
  };
  const tokens: string[] = [];
  for (const [token, id] of Object.entries(model.vocab)) tokens[id] = token;
  const types = new Int32Array(tokens.length).fill(1);
  for (const { id, special } of added_tokens) types[id] = special ? 3 : 4;
  const config: unknown = JSON.parse(Deno.readTextFileSync(`${folder}/tokenizer_config.json`));
  const id = (name: string): Record<string, MetaValue> => {
    const token = isRecord(config) ? config[`${name}_token`] : undefined;
    const key = { bos: "bos", eos: "eos", unk: "unknown", pad: "padding" }[name]!;
    return typeof token === "string"
      ? { [`tokenizer.ggml.${key}_token_id`]: { u32: tokens.indexOf(token) } }
      : {};
  };
  return {
    "tokenizer.ggml.model": { text: "gpt2" },
    "tokenizer.ggml.pre": { text: "gpt-2" },
    "tokenizer.ggml.tokens": { texts: tokens },
    "tokenizer.ggml.token_type": { i32s: types },
    "tokenizer.ggml.merges": { texts: model.merges.map((m) => typeof m === "string" ? m : m.join(" ")) },
    ...id("bos"),
    ...id("eos"),
    ...id("pad"),
    "tokenizer.ggml.add_bos_token": { bool: false },
  };
}
