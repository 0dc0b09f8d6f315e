/**
 * Multi-head attention with grouped key/value heads: project, position, cache, attend, project.
 *
 * The attention function is looked up anew for every forward, so implementations can be swapped while a model runs.
 *
 * @module
 */
import type { AttentionFunction, AttentionKwargs, AttentionModule } from "../attention/types.ts";
import type { Cache } from "../cache/cache.ts";
import type { PretrainedConfig } from "../config.ts";
import { isFloat } from "../dtype.ts";
import { InvalidArgument } from "../errors.ts";
import type { AttentionMask } from "../masks/types.ts";
import { reshape } from "../ops/shape.ts";
import { tidy, tidySettled } from "../scope.ts";
import { Tensor } from "../tensor.ts";
import type { Linear } from "./linear.ts";

/** What one forward decided before its first layer; a swap meanwhile takes effect in the next forward. */
export interface AttentionPlan {
  /** Name of the implementation. */
  readonly implementation: string;
  readonly forward: AttentionFunction;
}

/** What a forward hands to the attention layers of one kind. */
export interface AttentionContext {
  readonly plan: AttentionPlan;
  readonly mask: AttentionMask;
  /** Brings positions into queries (B, H, N, D) and keys (B, Hkv, N, D); default: they have none. */
  readonly encode?: PositionEncoding;
  readonly cache: Cache | null;
  readonly kwargs: AttentionKwargs;
}

/** Queries and keys that know their positions: the given tensors, or new ones. */
export type PositionEncoding = (query: Tensor, key: Tensor) => [query: Tensor, key: Tensor];

/** The four linear layers around attention. */
export interface Projections {
  /** (H·D, E). */
  readonly query: Linear;
  /** (Hkv·D, E). */
  readonly key: Linear;
  /** (Hkv·D, E). */
  readonly value: Linear;
  /** (E, H·D). */
  readonly output: Linear;
}

/** Sizes and habits of an attention layer. */
export interface AttentionSizes {
  readonly heads: number;
  readonly kv_heads: number;
  readonly head_dim: number;
  /** Factor of q·k; default D^-0.5. */
  readonly scaling?: number;
  /** Whether a token sees only those before it, where nothing else says so; default true. */
  readonly is_causal?: boolean;
}

/** Self-attention. */
export class SelfAttention implements AttentionModule {
  readonly scaling: number;
  readonly num_key_value_groups: number;
  readonly is_causal: boolean;

  /** Layer `layer_idx` of the model that `config` describes. */
  constructor(
    readonly config: PretrainedConfig,
    readonly layer_idx: number,
    readonly sizes: AttentionSizes,
    readonly projections: Projections,
  ) {
    this.scaling = sizes.scaling ?? sizes.head_dim ** -0.5;
    this.is_causal = sizes.is_causal ?? true;
    this.num_key_value_groups = sizes.heads / sizes.kv_heads;
  }

  /** x (B, N, E) → (B, N, E) and, where the function returned them, weights (B, H, N, K). */
  async forward(x: Tensor, context: AttentionContext): Promise<[Tensor, Tensor | null]> {
    const [batch, n] = x.shape as [number, number, number];
    const { heads, kv_heads, head_dim } = this.sizes;
    const { plan, cache, encode = (q, k) => [q, k] } = context;
    // What a projection returns is contiguous.
    const split = (t: Tensor, h: number) =>
      t.view([batch, h, n, head_dim], [n * h * head_dim, head_dim, h * head_dim, 1]);
    const query_offset = cache === null ? null : unusedAfter(cache, n, this.layer_idx);
    const [query, key, value] = tidy(() => {
      const [q, k] = encode(
        split(this.projections.query.forward(x), heads),
        split(this.projections.key.forward(x), kv_heads),
      );
      const v = split(this.projections.value.forward(x), kv_heads);
      return [q, ...(cache?.update(k, v, this.layer_idx) ?? [k, v])] as [Tensor, Tensor, Tensor];
    });
    try {
      const kwargs = {
        scaling: this.scaling,
        dropout: 0,
        ...(query_offset === null ? {} : { query_offset }),
        ...context.kwargs,
      };
      const result = tidySettled(() => plan.forward(this, query, key, value, context.mask, kwargs));
      const settled = result instanceof Promise ? await result : result;
      const sizes = { batch, heads, queries: n, width: value.shape[3]! };
      const [attended, weights] = checkResult(settled, plan.implementation, sizes);
      using output = attended;
      try {
        return [tidy(() => this.projections.output.forward(reshape(output, [batch, n, -1]))), weights];
      } catch (error) {
        weights?.[Symbol.dispose]();
        throw error;
      }
    } finally {
      for (const t of [query, key, value]) t[Symbol.dispose]();
    }
  }
}

/**
 * Where `n` new queries will sit among the keys, if a cache of fixed length hands out slots behind them that no token
 * has filled: an implementation that has no mask for those must know. Null where the last key is the last query's.
 */
function unusedAfter(cache: Cache, n: number, layer_idx: number): number | null {
  const [keys, first] = cache.get_mask_sizes(n, layer_idx);
  const at = cache.get_query_offset(layer_idx) - first;
  return at + n < keys ? at : null;
}

/**
 * Checks what an attention function returned: it may be a user's. What is refused is disposed.
 *
 * @throws {InvalidArgument}
 */
function checkResult(
  result: unknown,
  name: string,
  sizes: { batch: number; heads: number; queries: number; width: number },
): [Tensor, Tensor | null] {
  const { batch, heads, queries, width } = sizes;
  const parts = Array.isArray(result) ? result as unknown[] : [];
  const [output, weights = null] = parts;
  const fits = (x: unknown, shape: readonly number[]): x is Tensor =>
    x instanceof Tensor && x.shape.length === 4 && shape.every((n, i) => x.shape[i] === n);
  const fit = fits(output, [batch, queries, heads, width]) && isFloat(output.dtype) &&
    (weights === null || fits(weights, [batch, heads, queries]));
  if (fit) return [output, weights];
  const got = Array.isArray(result) ? `[${parts.map(describe).join(", ")}]` : describe(result);
  for (const t of [result, ...parts]) if (t instanceof Tensor) t[Symbol.dispose]();
  throw new InvalidArgument(
    `Cannot use the result of attention function "${name}": expected [attn_output, attn_weights or null], floats of shapes ` +
      `(B, Q, H, Dv) = [${batch},${queries},${heads},${width}] and (B, H, Q, K) = [${batch},${heads},${queries},…], got ${got}`,
  );
}

function describe(x: unknown): string {
  return x instanceof Tensor ? `a tensor ${x.dtype} [${x.shape}]` : x === null ? "null" : typeof x;
}
