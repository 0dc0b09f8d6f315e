/**
 * Gemma 2: full and sliding layers in turn, a norm before and after attention and feed-forward, softcapped scores and
 * logits (Gemma Team 2024, arXiv 2408.00118).
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import type { Device } from "../devices/device.ts";
import { type AttentionContext, SelfAttention } from "../layers/attention.ts";
import { type Block, keepingWeights } from "../layers/block.ts";
import { Embedding } from "../layers/embedding.ts";
import { Linear } from "../layers/linear.ts";
import { GatedMLP } from "../layers/mlp.ts";
import { RMSNorm } from "../layers/norm.ts";
import type { Parameters } from "../layers/parameter.ts";
import { RotaryEmbedding } from "../layers/rotary.ts";
import { add, mul } from "../ops/elementwise.ts";
import type { Tensor } from "../tensor.ts";
import type { Call } from "./call.ts";
import { type Decoder, type HeadFields, runBlocks } from "./decoder.ts";
import { settle } from "./decoder_config.ts";
import { gemma2Config, type Gemma2Fields } from "./gemma2_config.ts";
import type { ForwardOutput } from "./inputs.ts";
import { LayerMasks } from "./mask.ts";

/** Attention and feed-forward, each normalised on the way in and on the way out. */
class Gemma2Block implements Block {
  constructor(
    readonly input_layernorm: RMSNorm,
    readonly self_attn: SelfAttention,
    readonly post_attention_layernorm: RMSNorm,
    readonly pre_feedforward_layernorm: RMSNorm,
    readonly mlp: GatedMLP,
    readonly post_feedforward_layernorm: RMSNorm,
  ) {}

  /** hidden (B, N, E) → the next hidden states and, where returned, weights (B, H, N, K). */
  async forward(hidden: Tensor, context: AttentionContext): Promise<[Tensor, Tensor | null]> {
    using normed = this.input_layernorm.forward(hidden);
    const [attended, weights] = await this.self_attn.forward(normed, context);
    using output = attended;
    return keepingWeights(weights, () => {
      const middle = add(hidden, this.post_attention_layernorm.forward(output));
      const fed = this.mlp.forward(this.pre_feedforward_layernorm.forward(middle));
      return add(middle, this.post_feedforward_layernorm.forward(fed));
    });
  }
}

/** The layers of Gemma 2. */
export class Gemma2Decoder implements Decoder {
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly head: HeadFields;
  readonly embed_tokens: Embedding;
  readonly blocks: readonly Gemma2Block[];
  readonly #config: PretrainedConfig;
  readonly #fields: Gemma2Fields;
  readonly #norm: RMSNorm;
  readonly #rotary: RotaryEmbedding;

  /**
   * Builds the decoder from a checked config.
   *
   * @throws {InvalidArgument | ModelFileError} for a field out of range, or missing or misshapen weights
   */
  constructor(config: PretrainedConfig, parameters: Parameters) {
    const c = this.#fields = gemma2Config(config);
    settle(config, { layer_types: c.layer_types, sliding_window: c.sliding_window });
    this.#config = config;
    this.vocab_size = c.vocab_size;
    this.hidden_size = c.hidden_size;
    this.head = { tied: c.tie_word_embeddings, softcap: c.final_logit_softcapping };
    this.embed_tokens = new Embedding(parameters.take("embed_tokens.weight", [c.vocab_size, c.hidden_size]));
    this.#rotary = new RotaryEmbedding(c.head_dim, c.rope);
    this.blocks = Array.from(
      { length: c.num_hidden_layers },
      (_, i) => gemma2Block(config, c, parameters, i),
    );
    this.#norm = gemmaNorm(parameters, "norm", c);
  }

  /** Hidden states (B, N, E), which are disposed → the last hidden state and what the call asks for. */
  async forward(
    call: Call,
    begin: () => Tensor | Promise<Tensor>,
    device: Device,
  ): Promise<ForwardOutput> {
    const { layer_types, sliding_window, attn_logit_softcapping: softcap, hidden_size } = this.#fields;
    using masks = await LayerMasks.build(call, this.#config, layer_types, device.name);
    const encode = this.#rotary.at(call.positions, call.last_position, device);
    const contextOf = (i: number): AttentionContext => {
      const type = layer_types[i]!;
      const window = type === "sliding_attention" ? sliding_window : null;
      return {
        plan: call.plans.of(this.#config),
        mask: masks.of(type),
        encode,
        cache: call.cache,
        kwargs: { sliding_window: window, softcap, ...call.kwargs },
      };
    };
    // The scale belongs to the model, not to the embedding: embeddings a caller gives are scaled as well.
    using hidden = await begin();
    const scaled = mul(hidden, Math.fround(Math.sqrt(hidden_size)));
    return await runBlocks(call, scaled, this.blocks, contextOf, this.#norm);
  }

  /** Gives the rotary table back. */
  [Symbol.dispose](): void {
    this.#rotary[Symbol.dispose]();
  }
}

/** Gemma's norms multiply by 1 + w. */
function gemmaNorm(p: Pick<Parameters, "take">, name: string, c: Gemma2Fields): RMSNorm {
  return new RMSNorm(p.take(`${name}.weight`, [c.hidden_size]), c.rms_norm_eps, 1);
}

function gemma2Block(
  config: PretrainedConfig,
  c: Gemma2Fields,
  parameters: Parameters,
  i: number,
): Gemma2Block {
  const p = parameters.under(`layers.${i}`);
  const [e, f] = [c.hidden_size, c.intermediate_size];
  const [heads, kv_heads, head_dim] = [c.num_attention_heads, c.num_key_value_heads, c.head_dim];
  const linear = (name: string, out: number, inner: number, bias = false) =>
    new Linear(p.take(`${name}.weight`, [out, inner]), bias ? p.take(`${name}.bias`, [out]) : null);
  const scaling = c.query_pre_attn_scalar ** -0.5;
  return new Gemma2Block(
    gemmaNorm(p, "input_layernorm", c),
    new SelfAttention(config, i, { heads, kv_heads, head_dim, scaling }, {
      query: linear("self_attn.q_proj", heads * head_dim, e, c.attention_bias),
      key: linear("self_attn.k_proj", kv_heads * head_dim, e, c.attention_bias),
      value: linear("self_attn.v_proj", kv_heads * head_dim, e, c.attention_bias),
      output: linear("self_attn.o_proj", e, heads * head_dim, c.attention_bias),
    }),
    gemmaNorm(p, "post_attention_layernorm", c),
    gemmaNorm(p, "pre_feedforward_layernorm", c),
    new GatedMLP(
      linear("mlp.gate_proj", f, e),
      linear("mlp.up_proj", f, e),
      linear("mlp.down_proj", e, f),
      c.hidden_act,
    ),
    gemmaNorm(p, "post_feedforward_layernorm", c),
  );
}
