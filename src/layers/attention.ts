/**
 * Multi-head attention with grouped key/value heads: project, rotate, cache, attend, project.
 *
 * The attention function is looked up anew for every forward, so implementations can be swapped while a model runs.
 *
 * @module
 */
import type { AttentionFunction, AttentionKwargs, AttentionModule } from "../attention/types.ts";
import type { Cache } from "../cache/cache.ts";
import type { PretrainedConfig } from "../config.ts";
import { InvalidArgument } from "../errors.ts";
import type { AttentionMask } from "../masks/types.ts";
import { permute, reshape } from "../ops/shape.ts";
import { tidy, tidySettled } from "../scope.ts";
import { Tensor } from "../tensor.ts";
import type { Linear } from "./linear.ts";
import type { RotaryEmbedding } from "./rotary.ts";

/** What one forward decided before its first layer; a swap meanwhile takes effect in the next forward. */
export interface AttentionPlan {
  /** Name of the implementation. */
  readonly implementation: string;
  readonly forward: AttentionFunction;
}

/** What a forward hands to every attention layer. */
export interface AttentionContext {
  readonly plan: AttentionPlan;
  readonly mask: AttentionMask;
  /** (B, N) int32, on the model's device. */
  readonly positions: Tensor;
  readonly cache: Cache | null;
  readonly kwargs: AttentionKwargs;
}

/** Sizes of an attention layer. */
export interface AttentionSizes {
  readonly heads: number;
  readonly kv_heads: number;
  readonly head_dim: number;
}

/** Self-attention with rotary positions. */
export class SelfAttention implements AttentionModule {
  readonly scaling: number;
  readonly num_key_value_groups: number;
  readonly is_causal = true;

  constructor(
    readonly config: PretrainedConfig,
    readonly layer_idx: number,
    readonly sizes: AttentionSizes,
    readonly q_proj: Linear,
    readonly k_proj: Linear,
    readonly v_proj: Linear,
    readonly o_proj: Linear,
    readonly rotary: RotaryEmbedding,
  ) {
    this.scaling = sizes.head_dim ** -0.5;
    this.num_key_value_groups = sizes.heads / sizes.kv_heads;
  }

  /** x (B, N, E) → (B, N, E) and, where the function returned them, weights (B, H, N, K). */
  async forward(x: Tensor, context: AttentionContext): Promise<[Tensor, Tensor | null]> {
    const [batch, n] = x.shape as [number, number, number];
    const { heads, kv_heads, head_dim } = this.sizes;
    const split = (t: Tensor, h: number) => permute(reshape(t, [batch, n, h, head_dim]), [0, 2, 1, 3]);
    const [query, key, value] = tidy(() => {
      const q = this.rotary.forward(split(this.q_proj.forward(x), heads), context.positions);
      const k = this.rotary.forward(split(this.k_proj.forward(x), kv_heads), context.positions);
      const v = split(this.v_proj.forward(x), kv_heads);
      return [q, ...(context.cache?.update(k, v, this.layer_idx) ?? [k, v])] as [Tensor, Tensor, Tensor];
    });
    try {
      const { plan } = context;
      const kwargs = { scaling: this.scaling, dropout: 0, ...context.kwargs };
      const result = tidySettled(() => plan.forward(this, query, key, value, context.mask, kwargs));
      const settled = result instanceof Promise ? await result : result;
      const [attended, weights] = checkResult(settled, plan.implementation, [
        batch,
        n,
        heads,
        value.shape[3]!,
      ]);
      using output = attended;
      return [tidy(() => this.o_proj.forward(reshape(output, [batch, n, -1]))), weights];
    } finally {
      for (const t of [query, key, value]) t[Symbol.dispose]();
    }
  }
}

/**
 * Checks what an attention function returned: it may be a user's.
 *
 * @throws {InvalidArgument}
 */
function checkResult(result: unknown, name: string, shape: readonly number[]): [Tensor, Tensor | null] {
  const [output, weights] = Array.isArray(result) ? result as unknown[] : [result];
  const fits = output instanceof Tensor && output.shape.length === 4 &&
    output.shape.every((d, i) => d === shape[i]);
  if (!fits || !(weights === null || weights === undefined || weights instanceof Tensor)) {
    const got = output instanceof Tensor ? `an output of shape [${output.shape}]` : typeof output;
    throw new InvalidArgument(
      `Cannot use the result of attention function "${name}": expected [attn_output (B, Q, H, Dv) = [${shape}], attn_weights or null], got ${got}`,
    );
  }
  return [output, weights ?? null];
}
