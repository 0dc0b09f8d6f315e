/**
 * `flash_attention_2`, `_3`, `_4`: tiled attention with an online softmax, memory independent of the key length.
 *
 * Here all three names run the one tiled kernel of the device; what the later versions add is not there yet.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import { slice } from "../ops/shape.ts";
import { hostData, Tensor } from "../tensor.ts";
import { attend, type Attended, type AttendOptions, checkKwargs } from "./attend.ts";
import { withWeights } from "./sdpa.ts";
import type { AttentionKwargs, AttentionMask, AttentionModule, AttentionResult } from "./types.ts";

/**
 * Flash attention (Dao 2023, arXiv 2307.08691). The mask is the 2-D padding mask (B, K) or null; causality and
 * windows are aligned to the bottom right: query i sits at key position i + K − Q. Queries on padding give zeros.
 *
 * @throws {InvalidArgument} for operands, masks or keyword arguments that do not fit
 */
export function flash_attention_forward(
  module: AttentionModule,
  query: Tensor,
  key: Tensor,
  value: Tensor,
  attention_mask: AttentionMask,
  kwargs: AttentionKwargs = {},
): AttentionResult {
  const { attn_output, attn_weights } = flash(module, query, key, value, attention_mask, kwargs);
  return [attn_output, attn_weights];
}

/** As {@linkcode flash_attention_forward}, with the log-sum-exp where `return_lse` asks for it. */
export function flash(
  module: AttentionModule,
  query: Tensor,
  key: Tensor,
  value: Tensor,
  attention_mask: AttentionMask,
  kwargs: AttentionKwargs,
): Attended {
  checkKwargs(kwargs, query.shape[1] ?? 0);
  const given = paddingMask(attention_mask, query.shape[0]!);
  const columns = given?.shape[1] ?? Infinity;
  const cut = key.shape[2]! > columns;
  using shorterKey = cut ? slice(key, 2, 0, columns) : null;
  using shorterValue = cut ? slice(value, 2, 0, columns) : null;
  const k = shorterKey ?? key;
  const v = shorterValue ?? value;
  const [q, n] = [query.shape[2]!, k.shape[2]!];
  if (query.size === 0 || k.size === 0) {
    throw new InvalidArgument(`Cannot run flash attention on query [${query.shape}] and key [${k.shape}]: no dimension may be 0`);
  }
  const causal = kwargs.is_causal ?? module.is_causal ?? true;
  const window = windowOf(kwargs.sliding_window ?? null, causal, n);
  using padding = given === null ? null : lastColumns(given, n);
  using segments = sequenceMask(padding, kwargs, query.shape[0]!, q, n, causal, window);
  const options: Omit<AttendOptions, "algorithm"> = {
    scaling: kwargs.scaling ?? module.scaling,
    softcap: kwargs.softcap,
    sinks: kwargs.s_aux,
    causal: causal && segments === null,
    query_offset: n - q,
    ...(segments === null ? { window } : { mask: segments }),
    padding,
    zero_padded_queries: padding !== null && q > 1,
  };
  const result = attend(query, k, v, { ...options, algorithm: "flash", lse: kwargs["return_lse"] === true });
  return kwargs.output_attentions === true ? withWeights(result, query, k, v, options) : result;
}

/** Checks that the mask is a 2-D padding mask. */
function paddingMask(mask: AttentionMask, batch: number): Tensor | null {
  if (mask === null || mask === undefined) return null;
  if (mask instanceof Tensor && mask.shape.length === 2 && mask.shape[0] === batch && mask.dtype === "bool") return mask;
  const what = mask instanceof Tensor ? `a ${mask.dtype} mask of shape [${mask.shape}]` : "a block mask";
  throw new InvalidArgument(
    `Cannot run flash attention with ${what}: it takes a bool padding mask (B, K) or null; "eager" and "sdpa" take (B, H, Q, K)`,
  );
}

/** A mask wider than the keys keeps its last columns; a narrower one already cut the keys. */
function lastColumns(mask: Tensor, n: number): Tensor {
  return slice(mask, 1, mask.shape[1]! - n);
}

/** Window w sees the token and the w − 1 before it; without causality, w to both sides. */
function windowOf(w: number | null, causal: boolean, keys: number): readonly [number, number] {
  if (w === null || keys <= w) return [-1, -1];
  return causal ? [w - 1, 0] : [w, w];
}

/**
 * Masks that depend on where each sequence begins: packed rows (position_ids that start anew), and padding whose
 * real keys are not the last columns, where distances count real tokens only. Null where offsets suffice.
 */
function sequenceMask(
  padding: Tensor | null,
  kwargs: AttentionKwargs,
  batch: number,
  q: number,
  n: number,
  causal: boolean,
  window: readonly [number, number],
): Tensor | null {
  const limited = window[0] >= 0 || window[1] >= 0;
  const visible = (qi: number, kj: number) =>
    (!causal || kj <= qi) && (window[0] < 0 || kj >= qi - window[0]) && (window[1] < 0 || kj <= qi + window[1]);
  const fill = (see: (b: number, i: number, j: number) => boolean): Tensor => {
    const keep = new Uint8Array(batch * q * n);
    for (let b = 0, at = 0; b < batch; b++) {
      for (let i = 0; i < q; i++) { for (let j = 0; j < n; j++) keep[at++] = see(b, i, j) ? 1 : 0; }
    }
    return Tensor.ofHost(keep, "bool", [batch, 1, q, n], "wasm");
  };
  if (padding !== null) {
    if (!limited && !(causal && q > 1)) return null;
    if (padding.storage.host === null) return null;
    const real = hostData(padding);
    const ragged = Array.from({ length: batch }, (_, b) => real.subarray(b * n, (b + 1) * n))
      .some((row) => row.lastIndexOf(1 as never) !== n - 1 || row.indexOf(0 as never, Math.max(0, row.indexOf(1 as never))) >= 0);
    if (!ragged) return null;
    if (!limited && q === n) return null;
    const rank = new Int32Array(batch * n);
    for (let b = 0; b < batch; b++) for (let j = 0, r = 0; j < n; j++) rank[b * n + j] = real[b * n + j] !== 0 ? r++ : -1;
    const total = (b: number) => Math.max(-1, ...rank.subarray(b * n, (b + 1) * n)) + 1;
    const totals = Array.from({ length: batch }, (_, b) => total(b));
    return fill((b, i, j) => {
      const kj = rank[b * n + j]!;
      const qi = q === 1 ? totals[b]! - 1 : rank[b * n + n - q + i]!;
      return kj >= 0 && qi >= 0 && visible(qi, kj);
    });
  }
  const starts = packedStarts(kwargs, batch, q, n);
  return starts === null ? null : fill((b, i, j) => starts[b * q + i] === starts[b * q + j] && visible(i, j));
}

/** For each token the index of its sequence's first token, when position_ids say that rows hold several sequences. */
function packedStarts(kwargs: AttentionKwargs, batch: number, q: number, n: number): Int32Array | null {
  const { position_ids } = kwargs;
  if (!(position_ids instanceof Tensor) || position_ids.shape.length !== 2 || q !== n || q < 2) return null;
  if (position_ids.storage.host === null) return null;
  const ids = hostData(position_ids);
  const rows = position_ids.shape[0]!;
  const starts = new Int32Array(batch * q);
  let packed = false;
  for (let b = 0; b < batch; b++) {
    const row = Array.from(ids.subarray((b % rows) * q, (b % rows + 1) * q), Number);
    const low = Math.min(...row);
    packed ||= row.some((p, i) => p !== low + i);
    for (let i = 0, start = 0; i < q; i++) {
      if (row[i] === low) start = i;
      starts[b * q + i] = start;
    }
  }
  return packed ? starts : null;
}
