/**
 * The mask an attention function received, around one query.
 *
 * @module
 */
import { maskToString } from "../masks/draw.ts";
import { describeMask, visibleOf } from "../masks/visible.ts";
import type { MaskFunction } from "../masks/types.ts";
import type { AttentionTrace } from "./trace.ts";

/** A mask as its receiver saw it. */
export interface ReceivedMask {
  /** What it was: a tensor of some shape, a block mask, or nothing but flags. */
  readonly words: string;
  /** The rows around the query, drawn, with the query marked; null where nobody but the receiver can read it. */
  readonly drawing: string | null;
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
  if (visible === null) return { words, drawing: null, visible: null };
  const [queries, keys] = [query.shape[2]!, key.shape[2]!];
  const from = Math.max(0, position - q_offset - ROWS),
    to = Math.min(queries, position - q_offset + ROWS + 1);
  const last = Math.min(keys, position - kv_offset + AFTER + 1), first = Math.max(0, last - KEYS);
  const drawn = maskToString(
    (b, h, q, kv) => visible(b, h, q - q_offset, kv - kv_offset),
    to - from,
    Math.min(keys, first + KEYS) - first,
    { batch, head, q_offset: q_offset + from, kv_offset: kv_offset + first },
  );
  const row = 1 + position - q_offset - from;
  return {
    words,
    drawing: drawn.split("\n").map((line, i) => i === row ? `${line}  ← here` : line).join("\n"),
    visible: Array.from({ length: keys }, (_, kv) => kv)
      .filter((kv) => visible(batch, head, position - q_offset, kv))
      .map((kv) => kv + kv_offset),
  };
}
