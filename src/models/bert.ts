/**
 * BERT: an encoder that reads in both directions, normalised after each sum (Devlin et al. 2018, arXiv 1810.04805).
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import { InvalidArgument } from "../errors.ts";
import { type AttentionContext, SelfAttention } from "../layers/attention.ts";
import { type Block, keepingWeights } from "../layers/block.ts";
import { Embedding } from "../layers/embedding.ts";
import { Linear } from "../layers/linear.ts";
import { MLP } from "../layers/mlp.ts";
import { LayerNorm } from "../layers/norm.ts";
import type { Parameters } from "../layers/parameter.ts";
import { readIds } from "../masks/input.ts";
import { add } from "../ops/elementwise.ts";
import { tidy } from "../scope.ts";
import { Tensor } from "../tensor.ts";
import { bertConfig, type BertFields } from "./bert_config.ts";
import type { Call } from "./call.ts";
import { runBlocks } from "./decoder.ts";
import { LayerMasks } from "./mask.ts";
import type { AttentionLayer } from "./plans.ts";
import { type ForwardOutput, type ModelParts, PreTrainedModel } from "./pretrained.ts";

/** Attention and feed-forward, each normalised together with what it is added to. */
class PostNormBlock implements Block {
  constructor(
    readonly self_attn: SelfAttention,
    readonly attention_norm: LayerNorm,
    readonly feed_forward: MLP,
    readonly output_norm: LayerNorm,
  ) {}

  /** hidden (B, N, E) → the next hidden states and, where returned, weights (B, H, N, N). */
  async forward(hidden: Tensor, context: AttentionContext): Promise<[Tensor, Tensor | null]> {
    const [attended, weights] = await this.self_attn.forward(hidden, context);
    using output = attended;
    return keepingWeights(weights, () => {
      const middle = this.attention_norm.forward(add(hidden, output));
      return this.output_norm.forward(add(middle, this.feed_forward.forward(middle)));
    });
  }
}

/** BERT without a head: the hidden states of every token. */
export class BertModel extends PreTrainedModel {
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly attention_layers: readonly AttentionLayer[];
  readonly #fields: BertFields;
  readonly #words: Embedding;
  readonly #positions: Embedding;
  readonly #types: Embedding;
  readonly #norm: LayerNorm;
  readonly #blocks: readonly PostNormBlock[];

  /**
   * Builds the model from checked parts.
   *
   * @throws {InvalidArgument | ModelFileError} for a field out of range, or missing or misshapen weights
   */
  constructor(parts: ModelParts) {
    super(parts);
    const { config, parameters } = parts;
    const c = this.#fields = bertConfig(config);
    this.vocab_size = c.vocab_size;
    this.hidden_size = c.hidden_size;
    const table = (name: string, rows: number) =>
      new Embedding(parameters.take(`embeddings.${name}_embeddings.weight`, [rows, c.hidden_size]));
    this.#words = table("word", c.vocab_size);
    this.#positions = table("position", c.max_position_embeddings);
    this.#types = table("token_type", c.type_vocab_size);
    this.#norm = layerNorm(parameters, "embeddings.LayerNorm", c);
    this.#blocks = Array.from({ length: c.num_hidden_layers }, (_, i) => bertBlock(config, c, parameters, i));
    this.attention_layers = this.#blocks.map((_, i) => ({
      layer: `encoder.layer.${i}.attention.self`,
      config,
    }));
  }

  override get is_encoder(): boolean {
    return true;
  }

  override get input_keys(): readonly string[] {
    return ["token_type_ids"];
  }

  protected override async compute(call: Call): Promise<ForwardOutput> {
    const { max_position_embeddings } = this.#fields;
    if (call.last_position >= max_position_embeddings) {
      throw new InvalidArgument(
        `Cannot run the model on position ${call.last_position}: it has ${max_position_embeddings} positions, 0…${
          max_position_embeddings - 1
        }`,
      );
    }
    using types = this.#typesOf(call);
    using masks = await LayerMasks.build(call, this.config, ["encoder"], this.device);
    const context: AttentionContext = {
      plan: call.plans.of(this.config),
      mask: masks.of("encoder"),
      cache: null,
      kwargs: { ...call.shared_kwargs, ...(call.output_attentions ? { output_attentions: true } : {}) },
    };
    const embedded = tidy(() => {
      const words = call.inputs_embeds ?? this.#words.forward(call.input_ids!);
      const marked = add(words, this.#types.forward(types));
      return this.#norm.forward(add(marked, this.#positions.forward(call.positions)));
    });
    return await runBlocks(call, embedded, this.#blocks, () => context, null);
  }

  /** Segments (B, N) int32: given ones, else 0. */
  #typesOf({ inputs, batch, length }: Call): Tensor {
    const given = inputs.token_type_ids ?? null;
    const { type_vocab_size } = this.#fields;
    if (given === null) {
      return Tensor.ofHost(new Int32Array(batch * length), "int32", [batch, length], this.device);
    }
    const { data, rows, cols } = readIds(given, "token_type_ids");
    if (rows !== batch || cols !== length || !data.every((t) => t >= 0 && t < type_vocab_size)) {
      throw new InvalidArgument(
        `Cannot use token_type_ids of shape [${rows},${cols}]: expected (B, N) = [${batch},${length}] with ids 0…${
          type_vocab_size - 1
        }`,
      );
    }
    return Tensor.ofHost(data.slice() as Int32Array<ArrayBuffer>, "int32", [batch, length], this.device);
  }

  protected override releaseState(): void {}
}

/** A norm; checkpoints converted before 2020 call its weights gamma and beta. */
function layerNorm(p: Pick<Parameters, "take" | "has">, name: string, c: BertFields): LayerNorm {
  const [weight, bias] = p.has(`${name}.gamma`) ? ["gamma", "beta"] : ["weight", "bias"];
  const take = (part: string) => p.take(`${name}.${part}`, [c.hidden_size]);
  return new LayerNorm(take(weight!), take(bias!), c.layer_norm_eps);
}

function bertBlock(
  config: PretrainedConfig,
  c: BertFields,
  parameters: Parameters,
  i: number,
): PostNormBlock {
  const p = parameters.under(`encoder.layer.${i}`);
  const [e, f, heads] = [c.hidden_size, c.intermediate_size, c.num_attention_heads];
  const linear = (name: string, out: number, inner: number) =>
    new Linear(p.take(`${name}.weight`, [out, inner]), p.take(`${name}.bias`, [out]));
  const sizes = { heads, kv_heads: heads, head_dim: e / heads, is_causal: false };
  return new PostNormBlock(
    new SelfAttention(config, i, sizes, {
      query: linear("attention.self.query", e, e),
      key: linear("attention.self.key", e, e),
      value: linear("attention.self.value", e, e),
      output: linear("attention.output.dense", e, e),
    }),
    layerNorm(p, "attention.output.LayerNorm", c),
    new MLP(linear("intermediate.dense", f, e), linear("output.dense", e, f), c.hidden_act),
    layerNorm(p, "output.LayerNorm", c),
  );
}
