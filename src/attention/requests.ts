/**
 * Several requests packed into one row: where each begins, and attention over one after the other.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import { eager_mask } from "../masks/format_eager.ts";
import { readVector } from "../masks/input.ts";
import { paged_mask_function } from "../masks/paged.ts";
import type { MaskFormatter } from "../masks/types.ts";
import { cat, slice } from "../ops/shape.ts";
import { tidy } from "../scope.ts";
import type { Tensor } from "../tensor.ts";
import type { Attended } from "./attend.ts";
import { eager } from "./eager.ts";
import type { Attend } from "./forward.ts";
import type { AttentionKwargs, AttentionMask } from "./types.ts";

/** Where the queries and the keys of each request begin, then the totals. */
export interface Limits {
  readonly q: readonly number[];
  readonly k: readonly number[];
}

/**
 * The limits in `cu_seq_lens_q` and `cu_seq_lens_k`, lists or, where windows differ between layers, records of lists by
 * layer type; null where neither is given.
 *
 * @throws {InvalidArgument} for limits that are not those of this query and key
 */
export function limitsOf(query: Tensor, key: Tensor, kwargs: AttentionKwargs): Limits | null {
  const type = (kwargs.sliding_window ?? null) === null ? "full_attention" : "sliding_attention";
  const read = (name: "cu_seq_lens_q" | "cu_seq_lens_k"): readonly number[] | null => {
    const given = kwargs[name] ?? null;
    const byType = typeof given === "object" && given !== null && type in given;
    const list = byType ? (given as Record<string, unknown>)[type] : given;
    return list === null ? null : readVector(list as Tensor | number[], name);
  };
  const [q, k] = [read("cu_seq_lens_q"), read("cu_seq_lens_k")];
  if (q === null && k === null) return null;
  const [rows, T, N] = [query.shape[0], query.shape[2], key.shape[2]];
  if (q === null || k === null || rows !== 1 || q.at(-1) !== T || k.at(-1) !== N) {
    throw new InvalidArgument(
      `Cannot tell requests apart by cu_seq_lens_q [${q}] and cu_seq_lens_k [${k}]: expected limits up to ${T} queries ` +
        `and ${N} keys, of one packed row; query is [${query.shape}], key [${key.shape}]`,
    );
  }
  paged_mask_function(q, k, null); // checks that the limits count up
  return { q, k };
}

/** The mask that keeps requests apart, in one of the dense forms. */
export function requestMask(
  format: MaskFormatter,
  limits: Limits,
  query: Tensor,
  key: Tensor,
  window: number | null,
): AttentionMask {
  return format({
    batch_size: 1,
    q_length: query.shape[2]!,
    kv_length: key.shape[2]!,
    mask_function: paged_mask_function(limits.q, limits.k, window),
    device: query.device,
    allow_is_causal_skip: false,
  });
}

/**
 * Calls `attend`, which takes no mask, for one request after the other: no score between two of them is computed.
 *
 * @throws {InvalidArgument} for weights without causality, which no mask here expresses
 */
export function byRequest(attend: Attend, limits: Limits, ...call: Parameters<Attend>): Attended {
  const [module, query, key, value, , kwargs] = call;
  return tidy(() => {
    const { query_offset: _, ...rest } = kwargs;
    const own = {
      ...rest,
      position_ids: null,
      output_attentions: false,
      cu_seq_lens_q: null,
      cu_seq_lens_k: null,
    };
    const parts = limits.q.slice(1).flatMap((end, r): Attended[] => {
      const from = limits.q[r]!, [first, last] = [limits.k[r]!, limits.k[r + 1]!];
      if (from === end) return [];
      const [q, k, v] = [
        slice(query, 2, from, end),
        slice(key, 2, first, last),
        slice(value, 2, first, last),
      ];
      return [attend(module, q, k, v, null, own)];
    });
    const lse = parts.flatMap((p) => p.lse ?? []);
    if (parts.length === 0) {
      throw new InvalidArgument(
        `Cannot attend with cu_seq_lens_q [${limits.q}]: expected at least one query`,
      );
    }
    return {
      attn_output: cat(parts.map((p) => p.attn_output), 1),
      attn_weights: kwargs.output_attentions === true ? weightsOf(limits, ...call) : null,
      lse: lse.length === 0 ? null : cat(lse, 2),
    };
  });
}

/** The weights of all requests, (1, H, T, ΣN). */
function weightsOf(limits: Limits, ...call: Parameters<Attend>): Tensor | null {
  const [module, query, key, value, , kwargs] = call;
  if (kwargs.is_causal === false) {
    throw new InvalidArgument(
      "Cannot return the weights of packed requests with is_causal false: expected causality",
    );
  }
  const mask = requestMask(eager_mask, limits, query, key, kwargs.sliding_window ?? null);
  return eager(module, query, key, value, mask, kwargs).attn_weights;
}
