/**
 * Llama 4, its text part with dense layers: rotary layers that attend inside chunks, and layers without positions that
 * attend to everything, with queries that grow with their position (Meta 2025).
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import type { Device } from "../devices/device.ts";
import { type AttentionContext, type PositionEncoding, SelfAttention } from "../layers/attention.ts";
import { PreNormBlock } from "../layers/block.ts";
import { Embedding } from "../layers/embedding.ts";
import { Linear } from "../layers/linear.ts";
import { GatedMLP } from "../layers/mlp.ts";
import { RMSNorm } from "../layers/norm.ts";
import type { Parameter, Parameters } from "../layers/parameter.ts";
import { RotaryEmbedding } from "../layers/rotary.ts";
import { add, log, mul } from "../ops/elementwise.ts";
import { permute, reshape } from "../ops/shape.ts";
import { tidy } from "../scope.ts";
import { Tensor } from "../tensor.ts";
import type { Call } from "./call.ts";
import { type Decoder, type HeadFields, runBlocks } from "./decoder.ts";
import { settle } from "./decoder_config.ts";
import type { ForwardOutput } from "./inputs.ts";
import { llama4Config, type Llama4Fields } from "./llama4_config.ts";
import { LayerMasks } from "./mask.ts";

/** The layers of Llama 4's text part. */
export class Llama4Decoder implements Decoder {
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly head: HeadFields;
  readonly embed_tokens: Embedding;
  readonly blocks: readonly PreNormBlock[];
  readonly #config: PretrainedConfig;
  readonly #fields: Llama4Fields;
  readonly #norm: RMSNorm;
  readonly #qk_norm: RMSNorm | null;
  readonly #rotary: RotaryEmbedding;

  /**
   * Builds the decoder from a checked config.
   *
   * @throws {InvalidArgument | ModelFileError} for a field out of range, or missing or misshapen weights
   */
  constructor(config: PretrainedConfig, parameters: Parameters) {
    const c = this.#fields = llama4Config(config);
    settle(config, { layer_types: c.layer_types, attention_chunk_size: c.attention_chunk_size });
    this.#config = config;
    this.vocab_size = c.vocab_size;
    this.hidden_size = c.hidden_size;
    this.head = { tied: c.tie_word_embeddings, softcap: null };
    this.embed_tokens = new Embedding(parameters.take("embed_tokens.weight", [c.vocab_size, c.hidden_size]));
    this.#rotary = new RotaryEmbedding(c.head_dim, c.rope);
    this.#qk_norm = c.use_qk_norm ? new RMSNorm(null, c.rms_norm_eps) : null;
    this.blocks = Array.from(
      { length: c.num_hidden_layers },
      (_, i) => llama4Block(config, c, parameters, i),
    );
    this.#norm = new RMSNorm(parameters.take("norm.weight", [c.hidden_size]), c.rms_norm_eps);
  }

  /** Hidden states (B, N, E), which are disposed → the last hidden state and what the call asks for. */
  async forward(
    call: Call,
    begin: () => Tensor | Promise<Tensor>,
    device: Device,
  ): Promise<ForwardOutput> {
    const { layer_types, uses_rope } = this.#fields;
    using masks = await LayerMasks.build(call, this.#config, layer_types, device.name);
    const rotate = this.#rotated(call, device);
    using temperature = uses_rope.every(Boolean) ? null : this.#temperature(call, device);
    const grow: PositionEncoding = (q, k) => [temperature === null ? q : mul(q, temperature), k];
    // `is_causal: false` does not open chunks, and a null mask must not mean that it does.
    const closed = call.is_causal === false ? { is_causal: true } : {};
    const contextOf = (i: number): AttentionContext => {
      const type = layer_types[i]!;
      return {
        plan: call.plans.of(this.#config),
        mask: masks.of(type),
        encode: uses_rope[i] ? rotate : grow,
        cache: call.cache,
        kwargs: type === "chunked_attention" ? { ...call.kwargs, ...closed } : call.kwargs,
      };
    };
    return await runBlocks(call, await begin(), this.blocks, contextOf, this.#norm);
  }

  /** Rotation, then normalisation of queries and keys. */
  #rotated(call: Call, device: Device): PositionEncoding {
    const rotate = this.#rotary.at(call.positions, call.last_position, device);
    const norm = this.#qk_norm;
    return (query, key) => {
      const [q, k] = rotate(query, key);
      return norm === null ? [q, k] : [norm.forward(q), norm.forward(k)];
    };
  }

  /**
   * Factors of the queries (N, 1), `1 + attn_scale · log(1 + ⌊(p + 1) / floor_scale⌋)` at place p of the row, which
   * counts padding too; null when they are off. The steps are whole numbers; their logarithm is the device's.
   */
  #temperature({ past, length }: Call, device: Device): Tensor | null {
    const { attn_temperature_tuning, floor_scale, attn_scale } = this.#fields;
    if (!attn_temperature_tuning) return null;
    const steps = Float32Array.from({ length }, (_, i) => 1 + Math.floor((past + i + 1) / floor_scale));
    using host = Tensor.ofHost(steps, "float32", [length, 1], device.name);
    return tidy(() => add(mul(log(host), attn_scale), 1));
  }

  /** Gives the rotary table back. */
  [Symbol.dispose](): void {
    this.#rotary[Symbol.dispose]();
  }
}

function llama4Block(
  config: PretrainedConfig,
  c: Llama4Fields,
  parameters: Parameters,
  i: number,
): PreNormBlock {
  const p = parameters.under(`layers.${i}`);
  const [e, f] = [c.hidden_size, c.intermediate_size];
  const [heads, kv_heads, head_dim] = [c.num_attention_heads, c.num_key_value_heads, c.head_dim];
  const linear = (name: string, out: number, inner: number, bias = false) =>
    new Linear(p.take(`${name}.weight`, [out, inner]), bias ? p.take(`${name}.bias`, [out]) : null);
  const norm = (name: string) => new RMSNorm(p.take(`${name}.weight`, [e]), c.rms_norm_eps);
  const query = linear("self_attn.q_proj", heads * head_dim, e, c.attention_bias);
  const key = linear("self_attn.k_proj", kv_heads * head_dim, e, c.attention_bias);
  if (c.uses_rope[i]) {
    splitPairs(query, heads, head_dim);
    splitPairs(key, kv_heads, head_dim);
  }
  return new PreNormBlock(
    norm("input_layernorm"),
    new SelfAttention(config, i, { heads, kv_heads, head_dim }, {
      query,
      key,
      value: linear("self_attn.v_proj", kv_heads * head_dim, e, c.attention_bias),
      output: linear("self_attn.o_proj", e, heads * head_dim, c.attention_bias),
    }),
    norm("post_attention_layernorm"),
    new GatedMLP(
      linear("feed_forward.gate_proj", f, e),
      linear("feed_forward.up_proj", f, e),
      linear("feed_forward.down_proj", e, f),
      c.hidden_act,
    ),
  );
}

/**
 * Reorders the rows of each head from pairs (2i, 2i + 1) to halves (i, i + D/2), once, when the model is built: Llama 4
 * rotates neighbours, kernels rotate halves. Nothing is rounded, and since queries and keys are reordered alike, neither
 * q·k nor the norm over D changes but for the order of their sums.
 */
function splitPairs({ weight, bias }: Linear, heads: number, head_dim: number): void {
  for (const parameter of [weight, bias]) {
    if (parameter === null) continue;
    const half = head_dim / 2;
    reorder(parameter, heads, half, 2);
    parameter.restore = (tensor) => tidy(() => swapInner(tensor, heads, 2, half));
  }
}

function reorder(parameter: Parameter, heads: number, a: number, b: number): void {
  const old = parameter.tensor;
  parameter.tensor = tidy(() => swapInner(old, heads, a, b));
  old[Symbol.dispose]();
}

/** Rows (heads·a·b, …) → (heads·b·a, …): row (h, i, j) becomes row (h, j, i). */
function swapInner(t: Tensor, heads: number, a: number, b: number): Tensor {
  const split = reshape(t, [heads, a, b, t.size / (heads * a * b)]);
  return reshape(permute(split, [0, 2, 1, 3]), t.shape);
}
