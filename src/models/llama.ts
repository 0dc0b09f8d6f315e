/**
 * Llama: pre-norm decoder with grouped-query attention, rotary positions and SwiGLU (Touvron et al. 2023).
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import type { Device } from "../devices/device.ts";
import { type AttentionContext, SelfAttention } from "../layers/attention.ts";
import { PreNormBlock } from "../layers/block.ts";
import { Embedding } from "../layers/embedding.ts";
import { Linear } from "../layers/linear.ts";
import { GatedMLP } from "../layers/mlp.ts";
import { RMSNorm } from "../layers/norm.ts";
import type { Parameters } from "../layers/parameter.ts";
import { RotaryEmbedding } from "../layers/rotary.ts";
import type { Tensor } from "../tensor.ts";
import type { Call } from "./call.ts";
import { type Decoder, type HeadFields, runBlocks } from "./decoder.ts";
import type { ForwardOutput } from "./inputs.ts";
import { llamaConfig, type LlamaFields } from "./llama_config.ts";
import { LayerMasks } from "./mask.ts";

/** The layers of Llama; a configuration with `sliding_window` makes them Mistral's. */
export class LlamaDecoder implements Decoder {
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly head: HeadFields;
  readonly embed_tokens: Embedding;
  readonly blocks: readonly PreNormBlock[];
  readonly #config: PretrainedConfig;
  readonly #sliding_window: number | null;
  readonly #norm: RMSNorm;
  readonly #rotary: RotaryEmbedding;

  /**
   * Builds the decoder from `config`, or from fields checked already.
   *
   * @throws {InvalidArgument | ModelFileError} for a field out of range, or missing or misshapen weights
   */
  constructor(config: PretrainedConfig, parameters: Parameters, fields: LlamaFields = llamaConfig(config)) {
    const c = fields;
    const e = c.hidden_size;
    this.#config = config;
    this.vocab_size = c.vocab_size;
    this.hidden_size = e;
    this.head = { tied: c.tie_word_embeddings, softcap: null };
    this.#sliding_window = c.sliding_window;
    this.embed_tokens = new Embedding(parameters.take("embed_tokens.weight", [c.vocab_size, e]));
    this.#rotary = new RotaryEmbedding(c.head_dim, c.rope);
    this.blocks = Array.from({ length: c.num_hidden_layers }, (_, i) => llamaBlock(config, c, parameters, i));
    this.#norm = new RMSNorm(parameters.take("norm.weight", [e]), c.rms_norm_eps);
  }

  /** Hidden states (B, N, E), which are disposed → the last hidden state and what the call asks for. */
  async forward(
    call: Call,
    begin: () => Tensor | Promise<Tensor>,
    device: Device,
  ): Promise<ForwardOutput> {
    const sliding_window = this.#sliding_window;
    const type = sliding_window === null ? "full_attention" : "sliding_attention";
    using masks = await LayerMasks.build(call, this.#config, [type], device.name);
    const context: AttentionContext = {
      plan: call.plans.of(this.#config),
      mask: masks.of(type),
      encode: this.#rotary.at(call.positions, call.last_position, device),
      cache: call.cache,
      kwargs: sliding_window === null ? call.kwargs : { sliding_window, ...call.kwargs },
    };
    return await runBlocks(call, await begin(), this.blocks, () => context, this.#norm);
  }

  /** Gives the rotary table back. */
  [Symbol.dispose](): void {
    this.#rotary[Symbol.dispose]();
  }
}

function llamaBlock(
  config: PretrainedConfig,
  c: LlamaFields,
  parameters: Parameters,
  i: number,
): PreNormBlock {
  const p = parameters.under(`layers.${i}`);
  const [e, f] = [c.hidden_size, c.intermediate_size];
  const [heads, kv_heads, head_dim] = [c.num_attention_heads, c.num_key_value_heads, c.head_dim];
  const linear = (name: string, out: number, inner: number, bias: boolean) =>
    new Linear(p.take(`${name}.weight`, [out, inner]), bias ? p.take(`${name}.bias`, [out]) : null);
  const norm = (name: string) => new RMSNorm(p.take(`${name}.weight`, [e]), c.rms_norm_eps);
  return new PreNormBlock(
    norm("input_layernorm"),
    new SelfAttention(config, i, { heads, kv_heads, head_dim }, {
      query: linear("self_attn.q_proj", heads * head_dim, e, c.attention_bias),
      key: linear("self_attn.k_proj", kv_heads * head_dim, e, c.attention_bias),
      value: linear("self_attn.v_proj", kv_heads * head_dim, e, c.attention_bias),
      output: linear("self_attn.o_proj", e, heads * head_dim, c.attention_bias),
    }),
    norm("post_attention_layernorm"),
    new GatedMLP(
      linear("mlp.gate_proj", f, e, c.mlp_bias),
      linear("mlp.up_proj", f, e, c.mlp_bias),
      linear("mlp.down_proj", e, f, c.mlp_bias),
      c.hidden_act,
    ),
  );
}
