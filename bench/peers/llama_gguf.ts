/**
 * The Llama decoder as a GGUF file, from the same checkpoint.
 *
 * @module
 */
import { type Checkpoint, shapesOfLlama } from "../checkpoint.ts";
import { GGML_TYPES, type GgmlType, type GgufTensor, type MetaValue, writeGguf } from "./gguf.ts";

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
  const [, index, inside] = /^model\.layers\.(\d+)\.(.+)\.weight$/.exec(name)!;
  return `blk.${index}.${NAMES[inside!]}.weight`;
}

/** llama.cpp rotates neighbours where the checkpoint rotates halves: the rows of each head are interleaved. */
function interleaved(values: Float32Array, heads: number, columns: number): Float32Array {
  const out = new Float32Array(values.length);
  const half = values.length / heads / columns / 2;
  for (let h = 0; h < heads; h++) {
    for (let i = 0; i < 2 * half; i++) {
      const from = (h * 2 * half + i) * columns;
      const to = h * 2 * half + (i < half ? 2 * i : 2 * (i - half) + 1);
      out.set(values.subarray(from, from + columns), to * columns);
    }
  }
  return out;
}

/** The text of token `id`: no other token's text is a part of it. */
export const tokenText = (id: number) => `<${id}>`;

/** Ids below have texts that are found again in a prompt. */
const FOUND_BELOW = 2048;

/**
 * What stands for the last 256 ids. Machine code cannot load a vocabulary that cannot spell every byte; WebAssembly
 * cannot return text that is not UTF-8, which such tokens make.
 */
export type LastTokens = "texts" | "bytes";

/** Writes the checkpoint with matrices of `type`; rows that have no whole blocks become F16, as in llama.cpp. */
export function writeLlamaGguf(path: string, checkpoint: Checkpoint, type: GgmlType, last: LastTokens): void {
  const { config: c, shapes } = checkpoint;
  const ids = Array.from({ length: c.vocab_size }, (_, id) => id);
  const [NORMAL, UNKNOWN, CONTROL, USER, BYTE] = [1, 2, 3, 4, 6];
  const byteOf = (id: number) => last === "bytes" ? id - (c.vocab_size - 256) : -1;
  const metadata: Record<string, MetaValue> = {
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
    "tokenizer.ggml.model": { text: "llama" },
    "tokenizer.ggml.tokens": {
      texts: ids.map((id) =>
        byteOf(id) < 0 ? tokenText(id) : `<0x${byteOf(id).toString(16).toUpperCase().padStart(2, "0")}>`
      ),
    },
    "tokenizer.ggml.scores": { f32s: new Float32Array(c.vocab_size) },
    "tokenizer.ggml.token_type": {
      i32s: Int32Array.from(
        ids,
        (id) =>
          [UNKNOWN, CONTROL, CONTROL][id] ?? (byteOf(id) >= 0 ? BYTE : id < FOUND_BELOW ? USER : NORMAL),
      ),
    },
    "tokenizer.ggml.unknown_token_id": { u32: 0 },
    "tokenizer.ggml.bos_token_id": { u32: 1 },
    "tokenizer.ggml.eos_token_id": { u32: 2 },
    "tokenizer.ggml.add_bos_token": { bool: false },
    "tokenizer.ggml.add_space_prefix": { bool: false },
  };
  const tensors = Object.keys(shapesOfLlama(c)).map((name): GgufTensor => {
    const shape = shapes.get(name)!;
    const heads = name.endsWith("q_proj.weight")
      ? c.num_attention_heads
      : name.endsWith("k_proj.weight")
      ? c.num_key_value_heads
      : null;
    const fits = shape.at(-1)! % GGML_TYPES[type].block === 0;
    return {
      name: nameOf(name),
      shape,
      type: shape.length === 1 ? "F32" : fits ? type : "F16",
      values: () => {
        const values = checkpoint.read(name);
        return heads === null ? values : interleaved(values, heads, shape.at(-1)!);
      },
    };
  });
  writeGguf(path, metadata, tensors);
}
