/**
 * The mask an attention function received, around one query.
 *
 * @module
 */
import { maskToString } from "../masks/draw.ts";
import { describeMask, visibleOf } from "../masks/visible.ts";
import type { MaskFunction } from "../masks/types.ts";
import type { AttentionTrace } from "./trace.ts";

/** Part of a mask. */
export interface MaskWindow {
  /** Position of the first query in it. */
  readonly q_offset: number;
  /** Position of the first key in it. */
  readonly kv_offset: number;
  /** By query and key, whether it is visible. */
  readonly visible: readonly (readonly boolean[])[];
}

/** A mask as its receiver saw it. */
export interface ReceivedMask {
  /** What it was: a tensor of some shape, a block mask, or nothing but flags. */
  readonly words: string;
  /** The rows around the query, drawn, with the query marked; null where nobody but the receiver can read it. */
  readonly drawing: string | null;
  /** What the drawing shows; null as above. */
  readonly window: MaskWindow | null;
  /** Positions of the keys that the query sees; null as above. */
  readonly visible: readonly number[] | null;
}

/** Where to look. */
export interface MaskPlace {
  readonly batch: number;
  readonly head: number;
  /** Position of the query in the sequence. */
  readonly position: number;
}

/** What is known of a call when its mask is drawn: its tensors' shapes suffice. */
export type MaskedCall = Pick<
  AttentionTrace,
  "module" | "attention_mask" | "kwargs" | "query" | "key" | "q_offset" | "kv_offset"
>;

/** Rows before and after the query that are drawn. */
const ROWS = 4;
/** Keys that are drawn, and how many of them may lie after the query. */
const KEYS = 40, AFTER = 6;

/** Who sees whom in a call, by indices into its queries and keys, or null where the mask cannot be read. */
export function visibleIn({ module, attention_mask, kwargs, query, key }: MaskedCall): MaskFunction | null {
  return visibleOf(attention_mask, {
    queries: query.shape[2]!,
    keys: key.shape[2]!,
    is_causal: kwargs.is_causal ?? module.is_causal,
    sliding_window: kwargs.sliding_window ?? null,
    query_offset: kwargs.query_offset,
  });
}

/** The mask of a call around a query, in words and drawn. */
export function maskAt(call: MaskedCall, { batch, head, position }: MaskPlace): ReceivedMask {
  const { module, attention_mask, kwargs, query, key, q_offset, kv_offset } = call;
  const { sliding_window, query_offset } = kwargs;
  const flags = [
    `is_causal=${kwargs.is_causal ?? module.is_causal}`,
    ...(sliding_window == null ? [] : [`sliding_window=${sliding_window}`]),
    ...(query_offset === undefined ? [] : [`query_offset=${query_offset}`]),
  ].join(", ");
  const words = describeMask(attention_mask, `the flags of the call say the rest (${flags})`);
  const visible = visibleIn(call);
  if (visible === null) return { words, drawing: null, window: null, visible: null };
  const [queries, keys] = [query.shape[2]!, key.shape[2]!];
  const here = position - q_offset;
  const from = Math.max(0, here - ROWS), to = Math.min(queries, here + ROWS + 1);
  const last = Math.min(keys, position - kv_offset + AFTER + 1), first = Math.max(0, last - KEYS);
  const sees = (q: number, kv: number) => visible(batch, head, q, kv);
  const count = (n: number, start: number) => Array.from({ length: n }, (_, i) => start + i);
  const rows = count(to - from, from).map((q) =>
    count(Math.min(keys, first + KEYS) - first, first).map((kv) => sees(q, kv))
  );
  const window = { q_offset: q_offset + from, kv_offset: kv_offset + first, visible: rows };
  const drawn = maskToString(
    (_b, _h, q, kv) => rows[q - window.q_offset]![kv - window.kv_offset]!,
    rows.length,
    rows[0]!.length,
    { q_offset: window.q_offset, kv_offset: window.kv_offset },
  );
  return {
    words,
    drawing: drawn.split("\n").map((line, i) => i === 1 + here - from ? `${line}  ← here` : line).join("\n"),
    window,
    visible: count(keys, 0).filter((kv) => sees(here, kv)).map((kv) => kv + kv_offset),
  };
}
