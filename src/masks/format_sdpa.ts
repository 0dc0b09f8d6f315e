/**
 * Masks as `sdpa` takes them: (B, 1, Q, N) bool, true = may attend, or none.
 *
 * @module
 */
import { Tensor } from "../tensor.ts";
import {
  eachRow,
  type Frame,
  isAll,
  isShared,
  maskHeads,
  paddingRow,
  programOf,
  readFrame,
} from "./frame.ts";
import type { RowProgram } from "./rows.ts";
import type { AttentionMask, MaskFormatterArgs } from "./types.ts";

/**
 * Formats a predicate and padding as a bool mask (B, 1, Q, N), or null where the kernel's own causal flag or no
 * mask at all says the same. A predicate that depends on the head gives (B, H, Q, N); heads are compared only for
 * functions without a known structure, and only when `config.num_attention_heads` says how many there are.
 *
 * `allow_is_causal_skip` (default true) is the caller's word that the predicate is causal, up to `local_size`: it is
 * not looked at. Pass false with any other predicate, as the builders do.
 *
 * Method: Transformers' `sdpa_mask`.
 *
 * @throws {InvalidArgument} for sizes, masks or functions that do not fit.
 */
export function sdpa_mask(args: MaskFormatterArgs): AttentionMask {
  const frame = readFrame(args);
  if ((args.allow_is_causal_skip ?? true) && isPlainCausal(frame)) return null;
  if ((args.allow_is_bidirectional_skip ?? false) && isPlainBidirectional(frame)) return null;
  const program = programOf(frame);
  const heads = maskHeads(frame, program);
  const data = denseBits(frame, program, heads);
  return Tensor.ofHost(data, "bool", [frame.batch, heads, frame.queries, frame.keys], frame.device);
}

/** The dense mask: B · heads · Q · N bytes, 1 = visible. */
export function denseBits(frame: Frame, program: RowProgram, heads: number): Uint8Array<ArrayBuffer> {
  const data = new Uint8Array(frame.batch * heads * frame.queries * frame.keys);
  const { padding, keyOffset } = frame;
  const shared = isShared(frame, program);
  eachRow(shared ? { ...frame, batch: 1 } : frame, program, heads, (at, b, start, end, bits) => {
    if (start === end) return;
    if (bits !== null) data.set(bits, at + start);
    else if (padding === null) data.fill(1, at + start, at + end);
    else data.set(paddingRow(padding, b, keyOffset + start, end - start), at + start);
  });
  if (shared) repeatFirst(data, frame.batch);
  return data;
}

/** Copies the first of `n` equal parts of `data` over the others. */
export function repeatFirst(data: Uint8Array | Float32Array | Uint16Array, n: number): void {
  const size = data.length / n;
  for (let i = 1; i < n; i++) data.copyWithin(i * size, 0, size);
}

/** Whether a kernel's upper-left causal flag (or, with one query, nothing) masks what the formatter would. */
function isPlainCausal({ batch, queries, keys, queryOffset, keyOffset, padding, localSize }: Frame): boolean {
  if (localSize !== null && keys >= localSize) return false;
  const rows = (test: (row: Uint8Array) => boolean): boolean => {
    if (padding === null) return true;
    const from = padding.cols > keys ? keyOffset : 0;
    return Array.from({ length: batch }, (_, b) => paddingRow(padding, b, from, keys)).every(test);
  };
  if ((queries === 1 || keys === queries) && rows((row) => isAll(row, 1))) return true;
  // Prefill into a longer static cache: the kernel cuts the keys to the queries.
  return queryOffset === 0 &&
    rows((row) => isAll(row.subarray(0, queries), 1) && isAll(row.subarray(queries), 0));
}

/** Whether nothing is hidden. */
export function isPlainBidirectional({ keys, padding, localSize }: Frame): boolean {
  return (padding === null || isAll(padding.data, 1)) && (localSize === null || keys < localSize);
}
