/**
 * CLIP's vision tower: a pre-norm transformer over the patches of an image and a class token (Radford et al. 2021,
 * arXiv 2103.00020).
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import { type AttentionContext, SelfAttention } from "../layers/attention.ts";
import { PreNormBlock } from "../layers/block.ts";
import { Linear } from "../layers/linear.ts";
import { MLP } from "../layers/mlp.ts";
import { LayerNorm } from "../layers/norm.ts";
import type { Parameter, Parameters } from "../layers/parameter.ts";
import { PatchEmbedding } from "../layers/patch_embedding.ts";
import { add } from "../ops/elementwise.ts";
import { cat, reshape } from "../ops/shape.ts";
import { tidy } from "../scope.ts";
import type { Tensor } from "../tensor.ts";
import { clipVisionConfig, type ClipVisionFields } from "./clip_config.ts";

/** The vision tower of CLIP, up to its hidden states. */
export class ClipVisionTower {
  readonly fields: ClipVisionFields;
  readonly blocks: readonly PreNormBlock[];
  readonly #class: Parameter;
  readonly #patches: PatchEmbedding;
  readonly #positions: Parameter;
  readonly #norm: LayerNorm;

  /**
   * Builds the tower from a checked config.
   *
   * @throws {InvalidArgument | ModelFileError} for a field out of range, or missing or misshapen weights
   */
  constructor(readonly config: PretrainedConfig, parameters: Parameters) {
    const c = this.fields = clipVisionConfig(config);
    const e = c.hidden_size;
    const shape = [e, c.num_channels, c.patch_size, c.patch_size];
    this.#class = parameters.take("embeddings.class_embedding", [e]);
    this.#patches = new PatchEmbedding(parameters.take("embeddings.patch_embedding.weight", shape));
    this.#positions = parameters.take("embeddings.position_embedding.weight", [c.num_patches + 1, e]);
    // The name has been misspelt since the first checkpoint.
    this.#norm = layerNorm(parameters, "pre_layrnorm", c);
    this.blocks = Array.from({ length: c.num_hidden_layers }, (_, i) => clipBlock(config, c, parameters, i));
  }

  /**
   * Images (B, C, H, W) → the hidden states (B, 1 + patches, E) at `indices`, where 0 is the embedding and i the output of
   * layer i. Layers beyond the last index are not run.
   */
  async hiddenStates(
    images: Tensor,
    indices: readonly number[],
    context: AttentionContext,
  ): Promise<Tensor[]> {
    const found = new Map<number, Tensor>();
    let hidden = this.#embed(images);
    try {
      for (let i = 0;; i++) {
        if (indices.includes(i)) found.set(i, hidden.view(hidden.shape, hidden.strides));
        if (i >= Math.max(...indices)) break;
        const [next, weights] = await this.blocks[i]!.forward(hidden, context);
        weights?.[Symbol.dispose]();
        hidden[Symbol.dispose]();
        hidden = next;
      }
      return indices.map((i) => found.get(i)!);
    } catch (error) {
      for (const t of found.values()) t[Symbol.dispose]();
      throw error;
    } finally {
      hidden[Symbol.dispose]();
    }
  }

  #embed(images: Tensor): Tensor {
    const batch = images.shape[0]!;
    return tidy(() => {
      const one = reshape(this.#class.tensor, [1, 1, this.fields.hidden_size]);
      const first = cat(new Array<Tensor>(batch).fill(one), 0);
      const tokens = cat([first, this.#patches.forward(images)], 1);
      return this.#norm.forward(add(tokens, this.#positions.tensor));
    });
  }
}

function layerNorm(p: Parameters, name: string, c: ClipVisionFields): LayerNorm {
  const take = (part: string) => p.take(`${name}.${part}`, [c.hidden_size]);
  return new LayerNorm(take("weight"), take("bias"), c.layer_norm_eps);
}

function clipBlock(
  config: PretrainedConfig,
  c: ClipVisionFields,
  parameters: Parameters,
  i: number,
): PreNormBlock {
  const p = parameters.under(`encoder.layers.${i}`);
  const [e, f, heads] = [c.hidden_size, c.intermediate_size, c.num_attention_heads];
  const linear = (name: string, out: number, inner: number) =>
    new Linear(p.take(`${name}.weight`, [out, inner]), p.take(`${name}.bias`, [out]));
  return new PreNormBlock(
    layerNorm(p, "layer_norm1", c),
    new SelfAttention(config, i, { heads, kv_heads: heads, head_dim: e / heads, is_causal: false }, {
      query: linear("self_attn.q_proj", e, e),
      key: linear("self_attn.k_proj", e, e),
      value: linear("self_attn.v_proj", e, e),
      output: linear("self_attn.out_proj", e, e),
    }),
    layerNorm(p, "layer_norm2", c),
    new MLP(linear("mlp.fc1", f, e), linear("mlp.fc2", e, f), c.hidden_act),
  );
}
