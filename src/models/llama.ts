/**
 * Llama: pre-norm decoder with grouped-query attention, rotary positions and SwiGLU (Touvron et al. 2023).
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import { SelfAttention } from "../layers/attention.ts";
import type { AttentionContext } from "../layers/attention.ts";
import { Embedding } from "../layers/embedding.ts";
import { Linear } from "../layers/linear.ts";
import { GatedMLP } from "../layers/mlp.ts";
import { RMSNorm } from "../layers/norm.ts";
import type { Parameters } from "../layers/parameter.ts";
import { RotaryEmbedding } from "../layers/rotary.ts";
import { create_causal_mask, create_sliding_window_causal_mask } from "../masks/create.ts";
import { add } from "../ops/elementwise.ts";
import { slice } from "../ops/shape.ts";
import { tidy } from "../scope.ts";
import { Tensor } from "../tensor.ts";
import { ownedMask } from "./mask.ts";
import { llamaConfig, type LlamaFields } from "./llama_config.ts";
import { type Call, type ForwardOutput, type ModelParts, PreTrainedModel } from "./pretrained.ts";

/** One decoder layer: attention and feed-forward, each on the normalised residual stream. */
class LlamaDecoderLayer {
  readonly input_layernorm: RMSNorm;
  readonly self_attn: SelfAttention;
  readonly post_attention_layernorm: RMSNorm;
  readonly mlp: GatedMLP;

  constructor(
    config: PretrainedConfig,
    c: LlamaFields,
    parameters: Parameters,
    index: number,
    rotary: RotaryEmbedding,
  ) {
    const p = parameters.under(`layers.${index}`);
    const [e, f] = [c.hidden_size, c.intermediate_size];
    const [q, kv] = [c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim];
    const linear = (name: string, out: number, inner: number, bias: boolean) =>
      new Linear(p.take(`${name}.weight`, [out, inner]), bias ? p.take(`${name}.bias`, [out]) : null);
    const norm = (name: string) => new RMSNorm(p.take(`${name}.weight`, [e]), c.rms_norm_eps);
    this.input_layernorm = norm("input_layernorm");
    this.self_attn = new SelfAttention(
      config,
      index,
      { heads: c.num_attention_heads, kv_heads: c.num_key_value_heads, head_dim: c.head_dim },
      linear("self_attn.q_proj", q, e, c.attention_bias),
      linear("self_attn.k_proj", kv, e, c.attention_bias),
      linear("self_attn.v_proj", kv, e, c.attention_bias),
      linear("self_attn.o_proj", e, q, c.attention_bias),
      rotary,
    );
    this.post_attention_layernorm = norm("post_attention_layernorm");
    this.mlp = new GatedMLP(
      linear("mlp.gate_proj", f, e, c.mlp_bias),
      linear("mlp.up_proj", f, e, c.mlp_bias),
      linear("mlp.down_proj", e, f, c.mlp_bias),
      c.hidden_act,
    );
  }

  /** hidden (B, N, E) → the next hidden states and, where returned, weights (B, H, N, K). */
  async forward(hidden: Tensor, context: AttentionContext): Promise<[Tensor, Tensor | null]> {
    using normed = this.input_layernorm.forward(hidden);
    const [attended, weights] = await this.self_attn.forward(normed, context);
    using output = attended;
    const next = tidy(() => {
      const middle = add(hidden, output);
      return add(middle, this.mlp.forward(this.post_attention_layernorm.forward(middle)));
    });
    return [next, weights];
  }
}

/** The Llama decoder without a head: hidden states out. */
export class LlamaModel extends PreTrainedModel {
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly attention_layers: readonly string[];
  protected readonly fields: LlamaFields;
  protected readonly embed_tokens: Embedding;
  readonly #layers: readonly LlamaDecoderLayer[];
  readonly #norm: RMSNorm;
  readonly #rotary: RotaryEmbedding;

  /**
   * Builds the model from checked parts.
   *
   * @throws {ModelFileError} for missing or misshapen weights
   */
  constructor(parts: ModelParts) {
    super(parts);
    const { config, parameters } = parts;
    const c = this.fields = llamaConfig(config);
    this.vocab_size = c.vocab_size;
    this.hidden_size = c.hidden_size;
    this.embed_tokens = new Embedding(parameters.take("embed_tokens.weight", [c.vocab_size, c.hidden_size]));
    this.#rotary = new RotaryEmbedding(c.head_dim, c.rope);
    this.#layers = Array.from(
      { length: c.num_hidden_layers },
      (_, i) => new LlamaDecoderLayer(config, c, parameters, i, this.#rotary),
    );
    this.#norm = new RMSNorm(parameters.take("norm.weight", [c.hidden_size]), c.rms_norm_eps);
    this.attention_layers = this.#layers.map((_, i) => `layers.${i}.self_attn`);
  }

  protected override async compute(call: Call): Promise<ForwardOutput> {
    const { sliding_window } = this.fields;
    const device = this.deviceHandle;
    this.#rotary.reach(call.last_position, device);
    const created = (sliding_window === null ? create_causal_mask : create_sliding_window_causal_mask)({
      config: this.config,
      inputs_embeds: {
        shape: [call.batch, call.length, this.hidden_size],
        dtype: "float32",
        device: device.name,
      },
      attention_mask: call.attention_mask,
      past_key_values: call.cache,
      position_ids: call.position_ids,
      is_causal: call.is_causal,
    });
    const mask = await ownedMask(created, call.attention_mask, device.name);
    const hidden_states: Tensor[] = [];
    const attentions: Tensor[] = [];
    let hidden = call.input_ids === null
      ? call.inputs_embeds!.view(call.inputs_embeds!.shape, call.inputs_embeds!.strides)
      : this.embed_tokens.forward(call.input_ids);
    try {
      const kwargs = sliding_window === null ? call.kwargs : { sliding_window, ...call.kwargs };
      const context: AttentionContext = {
        plan: call.plan,
        mask,
        positions: call.positions,
        cache: call.cache,
        kwargs,
      };
      for (const layer of this.#layers) {
        if (call.output_hidden_states) hidden_states.push(hidden.view(hidden.shape, hidden.strides));
        const [next, weights] = await layer.forward(hidden, context);
        hidden[Symbol.dispose]();
        hidden = next;
        if (weights !== null && call.output_attentions) attentions.push(weights);
        else weights?.[Symbol.dispose]();
      }
      const last_hidden_state = this.#norm.forward(hidden);
      if (call.output_hidden_states) {
        hidden_states.push(last_hidden_state.view(last_hidden_state.shape, last_hidden_state.strides));
      }
      return {
        last_hidden_state,
        ...(call.output_attentions ? { attentions } : {}),
        ...(call.output_hidden_states ? { hidden_states } : {}),
      };
    } catch (error) {
      for (const t of [...hidden_states, ...attentions]) t[Symbol.dispose]();
      throw error;
    } finally {
      hidden[Symbol.dispose]();
      if (mask instanceof Tensor) mask[Symbol.dispose]();
    }
  }

  protected override releaseState(): void {
    this.#rotary[Symbol.dispose]();
  }
}

/** Llama with a language-modelling head, tied to the embedding or its own. */
export class LlamaForCausalLM extends LlamaModel {
  readonly #lm_head: Linear;

  /**
   * Builds the model from checked parts.
   *
   * @throws {ModelFileError} for missing or misshapen weights
   */
  constructor(parts: ModelParts) {
    super(parts);
    const c = this.fields;
    this.#lm_head = new Linear(
      c.tie_word_embeddings
        ? this.embed_tokens.weight
        : parts.parameters.takeAbsolute("lm_head.weight", [c.vocab_size, c.hidden_size]),
    );
  }

  /** A head predicts tokens. */
  override can_generate(): boolean {
    return true;
  }

  protected override async compute(call: Call): Promise<ForwardOutput> {
    const { last_hidden_state, ...rest } = await super.compute(call);
    using hidden = last_hidden_state!;
    const logits = tidy(() => {
      const kept = call.logits_to_keep === 0
        ? hidden
        : slice(hidden, 1, Math.max(0, call.length - call.logits_to_keep));
      return this.#lm_head.forward(kept);
    });
    return { logits, ...rest };
  }
}
