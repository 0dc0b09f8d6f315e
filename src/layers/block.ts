/** The pre-norm transformer block. @module */
import { add } from "../ops/elementwise.ts";
import { tidy } from "../scope.ts";
import type { Tensor } from "../tensor.ts";
import type { AttentionContext, SelfAttention } from "./attention.ts";
import type { FeedForward } from "./mlp.ts";
import type { Norm } from "./norm.ts";

/** A layer of a stack: attention, then a feed-forward layer. */
export interface Block {
  readonly self_attn: SelfAttention;
  /** hidden (B, N, E) → the next hidden states and, where returned, weights (B, H, N, K). */
  forward(hidden: Tensor, context: AttentionContext): Promise<[Tensor, Tensor | null]>;
}

/** Attention and feed-forward, each on the normalised residual stream (Xiong et al. 2020). */
export class PreNormBlock implements Block {
  constructor(
    readonly attention_norm: Norm,
    readonly self_attn: SelfAttention,
    readonly feed_forward_norm: Norm,
    readonly feed_forward: FeedForward,
  ) {}

  /** hidden (B, N, E) → the next hidden states and, where returned, weights (B, H, N, K). */
  async forward(hidden: Tensor, context: AttentionContext): Promise<[Tensor, Tensor | null]> {
    using normed = this.attention_norm.forward(hidden);
    const [attended, weights] = await this.self_attn.forward(normed, context);
    using output = attended;
    return keepingWeights(weights, () => {
      const middle = add(hidden, output);
      return add(middle, this.feed_forward.forward(this.feed_forward_norm.forward(middle)));
    });
  }
}

/** Runs what follows attention in a scope; the weights are disposed when it fails. */
export function keepingWeights(weights: Tensor | null, rest: () => Tensor): [Tensor, Tensor | null] {
  try {
    return [tidy(rest), weights];
  } catch (error) {
    weights?.[Symbol.dispose]();
    throw error;
  }
}
