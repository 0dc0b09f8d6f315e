/**
 * `paged|…`: attention over the requests of a continuous batch, which lie packed in one row and whose past is in a
 * cache of pages.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import { eager_mask } from "../masks/format_eager.ts";
import { sdpa_mask } from "../masks/format_sdpa.ts";
import type { MaskFormatter } from "../masks/types.ts";
import { tidy } from "../scope.ts";
import { Tensor } from "../tensor.ts";
import type { Attended } from "./attend.ts";
import { eager } from "./eager.ts";
import { flash } from "./flash.ts";
import { type Attend, type BuiltinAttention, forwardOf } from "./forward.ts";
import { limitsOf, requestMask } from "./requests.ts";
import { packedSdpa } from "./sdpa.ts";
import type { AttentionKwargs, AttentionModule } from "./types.ts";

/** What paged attention needs of `kwargs.cache`. */
export interface PagedCache {
  /**
   * Stores the new keys and values (1, Hkv, T, D) and returns all that the requests attend to, (1, Hkv, ΣN, D), one
   * request after the other. Tensors it makes for this are disposed after the call.
   */
  update(
    key_states: Tensor,
    value_states: Tensor,
    layer_idx: number,
    kwargs: AttentionKwargs,
  ): [Tensor, Tensor];
}

/** Keys of `forward` that paged attention reads; `read_index`, `write_index` and `block_table` are for the cache. */
export const PAGED_KEYS: readonly string[] = [
  "cache",
  "cu_seq_lens_q",
  "cu_seq_lens_k",
  "max_length_q",
  "max_length_k",
  "read_index",
  "write_index",
  "block_table",
];

/** The paged cache among the keyword arguments, if there is one. */
export function pagedCache(kwargs: AttentionKwargs): PagedCache | null {
  const cache = kwargs["cache"];
  const fits = typeof cache === "object" && cache !== null && "update" in cache &&
    typeof cache.update === "function";
  if (fits) return cache as PagedCache;
  if (cache === undefined || cache === null) return null;
  throw new InvalidArgument(
    `Cannot attend with a cache of ${typeof cache}: expected one with update(key_states, value_states, layer_idx, kwargs)`,
  );
}

/**
 * `paged|eager`: {@linkcode eager_attention_forward} over what `kwargs.cache` returns. The mask is the packed one
 * (1, 1, T, ΣN); without it the limits `cu_seq_lens_q` and `cu_seq_lens_k` say what each request sees, and without
 * these every key is visible.
 *
 * @throws {InvalidArgument} without a cache, or for operands, masks or limits that do not fit
 */
export const eager_paged_attention_forward: BuiltinAttention = forwardOf((...args) => pagedEager(...args));

/**
 * `paged|sdpa`: {@linkcode sdpa_attention_forward} over what `kwargs.cache` returns, never causal by itself. Masks
 * as in {@linkcode eager_paged_attention_forward}.
 *
 * @throws {InvalidArgument} without a cache, or for operands, masks or limits that do not fit
 */
export const sdpa_paged_attention_forward: BuiltinAttention = forwardOf((...args) => pagedSdpa(...args));

/**
 * `paged|flash_attention_2`, `_3`, `_4`: {@linkcode flash_attention_forward} request by request, told apart by
 * `cu_seq_lens_q` and `cu_seq_lens_k` (by layer type where the layers' windows differ); without them the row is one
 * request. Causal unless `is_causal` is false; takes no mask.
 *
 * @throws {InvalidArgument} without a cache, with a mask, or for operands or limits that do not fit
 */
export const flash_paged_attention_forward: BuiltinAttention = forwardOf((...args) => pagedFlash(...args));

/** As {@linkcode eager_paged_attention_forward}, with the log-sum-exp. */
export const pagedEager: Attend = masked("paged|eager", eager, eager_mask);
/** As {@linkcode sdpa_paged_attention_forward}, with the log-sum-exp. */
export const pagedSdpa: Attend = masked("paged|sdpa", packedSdpa, sdpa_mask);

function masked(name: string, attend: Attend, format: MaskFormatter): Attend {
  return (module, query, key, value, attention_mask, kwargs) =>
    tidy(() => {
      const [k, v] = update(name, module, key, value, kwargs);
      const limits = (attention_mask ?? null) === null ? limitsOf(query, k, kwargs) : null;
      const mask = limits === null
        ? attention_mask
        : requestMask(format, limits, query, k, kwargs.sliding_window ?? null);
      // A copy of the record: as a plain object, its tensors outlive the scope.
      return { ...attend(module, query, k, v, mask, { ...kwargs, is_causal: false }) };
    });
}

/** As {@linkcode flash_paged_attention_forward}, with the log-sum-exp. */
export const pagedFlash: Attend = pagedFlashOf(flash);

/** As {@linkcode pagedFlash}, by one version of flash attention. */
export function pagedFlashOf(attend: Attend): Attend {
  return (...args) => pagedFlashBy(attend, ...args);
}

function pagedFlashBy(
  attend: Attend,
  ...[module, query, key, value, attention_mask, kwargs]: Parameters<Attend>
): Attended {
  if ((attention_mask ?? null) !== null) {
    throw new InvalidArgument(
      "Cannot run paged flash attention with a mask: it tells requests apart by cu_seq_lens_q and cu_seq_lens_k; " +
        '"paged|eager" and "paged|sdpa" take (1, 1, T, ΣN)',
    );
  }
  return tidy(() => {
    const [k, v] = update("paged|flash_attention", module, key, value, kwargs);
    return { ...attend(module, query, k, v, null, { ...kwargs, is_causal: kwargs.is_causal ?? true }) };
  });
}

function update(
  name: string,
  module: AttentionModule,
  key: Tensor,
  value: Tensor,
  kwargs: AttentionKwargs,
): [Tensor, Tensor] {
  const cache = pagedCache(kwargs);
  if (cache === null) {
    throw new InvalidArgument(
      `Cannot call the attention function of "${name}" without a cache: expected kwargs.cache with update(); ` +
        "models that run without continuous batching use the name behind the bar",
    );
  }
  const result: unknown = cache.update(key, value, module.layer_idx, kwargs);
  const [k, v] = Array.isArray(result) ? result as unknown[] : [];
  if (k instanceof Tensor && v instanceof Tensor) return [k, v];
  throw new InvalidArgument(
    `Cannot use what the cache of "${name}" returned: expected [keys, values] of shape (1, Hkv, ΣN, D)`,
  );
}
