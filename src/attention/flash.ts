/**
 * `flash_attention_2`, `_3`, `_4`: tiled attention with an online softmax, memory independent of the key length.
 *
 * On WASM each name is a kernel after its paper: 2 takes the stages one after the other, 3 overlaps them and can
 * multiply queries and keys in int8, 4 scales earlier output only where a maximum has grown much. A few query rows
 * (decoding) have one kernel for all names. On WebGPU 3 loads keys and values ahead, and 4 also computes half of the
 * exponentials without the unit for them and scales late; up to 32 rows of a key head have one kernel there.
 *
 * @module
 */
import type { FlashVersion } from "../devices/device.ts";
import { InvalidArgument } from "../errors.ts";
import { slice } from "../ops/shape.ts";
import { Tensor } from "../tensor.ts";
import { attend, type Attended, type AttendOptions, checkKwargs, precisionOf } from "./attend.ts";
import { byRequest, limitsOf } from "./requests.ts";
import { withWeights } from "./sdpa.ts";
import { sequenceMask } from "./sequences.ts";
import { type Attend, type BuiltinAttention, forwardOf } from "./forward.ts";
import type { AttentionKwargs, AttentionMask, AttentionModule } from "./types.ts";

/**
 * Flash attention (Dao 2023, arXiv 2307.08691). The mask is the 2-D padding mask (B, K) or null; causality and
 * windows are aligned to the bottom right: query i sits at key position i + K − Q, or with `query_offset` (a cache that
 * hands out unused slots) at i + `query_offset`, and keys behind the last query do not count. Queries on padding give
 * zeros. Without a mask, `cu_seq_lens_q` and `cu_seq_lens_k` divide a packed row (1, H, T, D) into sequences.
 *
 * This function takes the device's best version; the registered names `flash_attention_2`, `_3` and `_4` take theirs.
 * With `precision: "int8"` version 3 on WASM multiplies quantised queries and keys, others refuse.
 *
 * @throws {InvalidArgument} for operands, masks or keyword arguments that do not fit
 * @throws {AttentionRefused} for a precision this version does not have on the device
 */
export const flash_attention_forward: BuiltinAttention = forwardOf((...args) => flash(...args));

/** The versions of flash attention, as the names end. */
export const FLASH_VERSIONS: readonly FlashVersion[] = [2, 3, 4];

/** As {@linkcode flash_attention_forward}, with the log-sum-exp where `return_lse` asks for it. */
export const flash: Attend = flashOf(undefined);

/** As {@linkcode flash}, by one version; without one the device takes its best. */
export function flashOf(version: FlashVersion | undefined): Attend {
  const own: Attend = (...args) => flashBy(own, version, ...args);
  return own;
}

function flashBy(
  self: Attend,
  version: FlashVersion | undefined,
  module: AttentionModule,
  query: Tensor,
  key: Tensor,
  value: Tensor,
  attention_mask: AttentionMask,
  kwargs: AttentionKwargs,
): Attended {
  checkKwargs(kwargs, query.shape[1] ?? 0);
  const precision = precisionOf(kwargs, nameOf(version), query.device, version === 3 ? ["wasm"] : []);
  const limits = (attention_mask ?? null) === null ? limitsOf(query, key, kwargs) : null;
  if (limits !== null) return byRequest(self, limits, module, query, key, value, null, kwargs);
  const given = paddingMask(attention_mask, query.shape[0]!);
  const [q, slots] = [query.shape[2]!, key.shape[2]!];
  // Positions are counted back from the last key, so slots of a static cache that no token has filled go first.
  const filled = kwargs.query_offset === undefined ? slots : kwargs.query_offset + q;
  const n = Math.min(slots, filled, given?.shape[1] ?? slots);
  using filledKey = n < slots ? slice(key, 2, 0, n) : null;
  using filledValue = n < slots ? slice(value, 2, 0, n) : null;
  const k = filledKey ?? key;
  const v = filledValue ?? value;
  if (query.size === 0 || k.size === 0) {
    throw new InvalidArgument(
      `Cannot run flash attention on query [${query.shape}] and key [${k.shape}]: a zero dimension is not allowed`,
    );
  }
  const causal = kwargs.is_causal ?? module.is_causal ?? true;
  const window = windowOf(kwargs.sliding_window ?? null, causal, n);
  using padding = given === null ? null : columnsOf(given, slots, n);
  const extent = { batch: query.shape[0]!, queries: q, keys: n, causal, window };
  using sequences = sequenceMask(padding, kwargs.position_ids, extent, query.device);
  const options: Omit<AttendOptions, "algorithm"> = {
    scaling: kwargs.scaling ?? module.scaling,
    softcap: kwargs.softcap,
    sinks: kwargs.s_aux,
    causal: causal && sequences === null,
    query_offset: n - q,
    ...(sequences === null ? { window } : { mask: sequences }),
    padding,
    zero_padded_queries: padding !== null && q > 1,
  };
  const lse = kwargs["return_lse"] === true;
  const result = attend(query, k, v, { ...options, algorithm: "flash", version, precision, lse });
  return kwargs.output_attentions === true ? withWeights(result, query, k, v, options) : result;
}

/** The name of a version in messages. */
function nameOf(version: FlashVersion | undefined): string {
  return version === undefined ? "flash attention" : `flash_attention_${version}`;
}

/** Checks that the mask is a 2-D padding mask. */
function paddingMask(mask: AttentionMask, batch: number): Tensor | null {
  if (mask === null || mask === undefined) return null;
  if (mask instanceof Tensor && mask.shape.length === 2 && mask.shape[0] === batch && mask.dtype === "bool") {
    return mask;
  }
  const what = mask instanceof Tensor ? `a ${mask.dtype} mask of shape [${mask.shape}]` : "a block mask";
  throw new InvalidArgument(
    `Cannot run flash attention with ${what}: it takes a bool padding mask (B, K) or null; "eager" and "sdpa" take (B, H, Q, K)`,
  );
}

/** The columns of the first `n` keys: a mask wider than the `slots` ends with them, a narrower one begins with them. */
function columnsOf(mask: Tensor, slots: number, n: number): Tensor {
  const first = Math.max(0, mask.shape[1]! - slots);
  return slice(mask, 1, first, first + n);
}

/** Window w sees the token and the w − 1 before it; without causality, w to both sides. */
function windowOf(w: number | null, causal: boolean, keys: number): readonly [number, number] {
  if (w === null || keys <= w) return [-1, -1];
  return causal ? [w - 1, 0] : [w, w];
}
