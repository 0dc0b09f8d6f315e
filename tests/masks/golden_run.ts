/**
 * Runs recorded mask cases: the mini-language of mask functions, a cache that only knows its sizes, and one form in
 * which results and recordings are compared.
 *
 * @module
 */
import {
  create_bidirectional_mask,
  create_bidirectional_sliding_window_mask,
} from "../../src/masks/create.ts";
import {
  create_causal_mask,
  create_chunked_causal_mask,
  create_sliding_window_causal_mask,
} from "../../src/masks/create.ts";
import { eager_mask } from "../../src/masks/format_eager.ts";
import { flash_attention_mask } from "../../src/masks/format_flash.ts";
import { flex_attention_mask } from "../../src/masks/format_flex.ts";
import { sdpa_mask } from "../../src/masks/format_sdpa.ts";
import { BlockMask } from "../../src/masks/block_mask.ts";
import { add_offsets_to_mask_function, and_masks, or_masks } from "../../src/masks/algebra.ts";
import * as masks from "../../src/masks/functions.ts";
import { create_masks_for_generate } from "../../src/masks/generate.ts";
import { AttentionMaskInterface } from "../../src/masks/interface.ts";
import type { AttentionMask, MaskArgs, MaskCache, MaskFunction } from "../../src/masks/types.ts";
import { type DType, present } from "../../src/dtype.ts";
import { hostData, Tensor } from "../../src/tensor.ts";
import { type GoldenCase, goldenTensor, type GoldenValue, isTensorRef } from "../support/golden.ts";

/** The formatters the recordings have, in the order they are run. */
export const FORMATTERS = {
  eager: eager_mask,
  sdpa: sdpa_mask,
  flash_attention_2: flash_attention_mask,
  flex_attention: flex_attention_mask,
} as const;

for (const [name, formatter] of Object.entries(FORMATTERS)) AttentionMaskInterface.register(name, formatter);

/** What a recorded float mask hides with. */
const HIDDEN = -1.5;

type Json = { readonly [key: string]: GoldenValue };

/** A mask function of the mini-language. What is not built in is an opaque user function. */
export function maskFunction(spec: GoldenValue): MaskFunction {
  const s = spec as Json & { args: readonly GoldenValue[]; n: number; window: number; ids: number[][] };
  switch (s.op) {
    case "true":
      return () => true;
    case "false":
      return () => false;
    case "causal":
      return masks.causal_mask_function;
    case "bidirectional":
      return masks.bidirectional_mask_function;
    case "sliding_overlay":
      return masks.sliding_window_overlay(s.window);
    case "sliding_causal":
      return masks.sliding_window_causal_mask_function(s.window);
    case "sliding_bidirectional_overlay":
      return masks.bidirectional_window_overlay(s.window);
    case "sliding_bidirectional":
      return masks.sliding_window_bidirectional_mask_function(s.window);
    case "chunked_overlay":
      return masks.chunked_overlay(Number(s.chunk), s.left_padding as number[]);
    case "chunked_causal":
      return masks.chunked_causal_mask_function(Number(s.chunk), s.left_padding as number[]);
    case "blockwise":
      return masks.blockwise_overlay(s.ids);
    case "padding":
      return masks.padding_mask_function(s.mask as number[][]);
    case "packed":
      return masks.packed_sequence_mask_function(s.ids);
    case "add_offsets":
      return add_offsets_to_mask_function(maskFunction(s.arg!), Number(s.q), Number(s.kv));
    case "and":
      return and_masks(...s.args.map(maskFunction));
    case "or":
      return or_masks(...s.args.map(maskFunction));
    case "not": {
      const inner = maskFunction(s.arg!);
      return (b, h, q, kv) => !inner(b, h, q, kv);
    }
    case "kv_lt":
      return (_b, _h, _q, kv) => kv < s.n;
    case "q_lt":
      return (_b, _h, q) => q < s.n;
    case "dist_lt":
      return (_b, _h, q, kv) => Math.abs(q - kv) < s.n;
    case "kv_mod":
      return (_b, _h, _q, kv) => kv % Number(s.m) === s.r;
    case "kv_lt_batch":
      return (b, _h, _q, kv) => kv < (s.n as unknown as number[])[b]!;
    default:
      throw new Error(`The recordings have no mask function ${JSON.stringify(spec)}`);
  }
}

/** Sizes of a cache that has seen `updates`, without its keys and values. */
class SizesOnly implements MaskCache {
  readonly is_sliding: boolean[];
  readonly is_compileable: boolean;
  readonly #spec: Json;
  readonly #window: number;
  readonly #seen: number;

  constructor(spec: Json, config: Json, layers: number) {
    this.#spec = spec;
    const types = (config.layer_types ?? []) as readonly string[];
    this.#window = Number(config.sliding_window ?? config.attention_chunk_size ?? 0);
    const sizes = types.length > 0
      ? types.map((t) => t === "sliding_attention" || t === "chunked_attention")
      : Array.from({ length: layers }, () => this.#window > 0);
    const updates = spec.updates as readonly number[];
    this.is_sliding = spec.kind === "dynamic" ? updates.length > 0 ? sizes.map(() => false) : [] : sizes;
    this.is_compileable = spec.kind === "static";
    this.#seen = updates.reduce((a, b) => a + b, 0);
  }

  get_query_offset(): number {
    return this.#seen;
  }

  get_mask_sizes(q: number, layer = 0): [number, number] {
    const seen = this.#seen, sliding = this.is_sliding[layer] ?? false;
    if (!this.is_compileable) {
      if (!sliding || seen < this.#window) return [seen + q, 0];
      return [this.#window - 1 + q, seen - this.#window + 1];
    }
    const max = Number(this.#spec.max_cache_len), w = Math.min(this.#window, max);
    if (!sliding) return [max, 0];
    if (seen >= w) return [w + q - 1, seen - w + 1];
    const offset = Math.max(seen - w + 1, 0);
    return seen + q > w ? [seen + q, offset] : [w, offset];
  }
}

const BUILDERS: Record<string, (args: MaskArgs) => AttentionMask | Record<string, AttentionMask>> = {
  create_causal_mask,
  create_sliding_window_causal_mask,
  create_chunked_causal_mask,
  create_bidirectional_mask,
  create_bidirectional_sliding_window_mask,
  create_masks_for_generate,
};

/** The arguments of a recorded builder call, under one implementation. */
function builderArgs(c: GoldenCase, backend: string): MaskArgs {
  const p = c.params;
  const config = p.config as Json;
  const batch = Number(p.batch), dtype = (p.dtype ?? "float32") as DType;
  const raw = p.attention_mask ?? null;
  let attention_mask: MaskArgs["attention_mask"] = raw as number[][] | null;
  if (raw !== null && !Array.isArray(raw)) {
    const { dtype, keep } = raw as Json & { keep: number[][][] };
    const values = dtype === "bool"
      ? keep
      : keep.map((m) => m.map((row) => row.map((bit) => bit ? 0 : HIDDEN)));
    attention_mask = Tensor.from(values.map((m) => [m]), { dtype: dtype as DType });
  }
  return {
    config: { ...config, _attn_implementation: backend },
    inputs_embeds: { shape: [batch, Number(p.q_length), 0], dtype },
    attention_mask,
    past_key_values: p.cache ? new SizesOnly(p.cache as Json, config, Number(p.layers ?? 1)) : null,
    position_ids: (p.position_ids ?? null) as number[][] | null,
    or_mask_function: p.or_mask_function ? maskFunction(p.or_mask_function) : null,
    and_mask_function: p.and_mask_function ? maskFunction(p.and_mask_function) : null,
    block_sequence_ids: (p.block_sequence_ids ?? null) as number[][] | null,
    ...(p.encoder_length
      ? { encoder_hidden_states: { shape: [batch, Number(p.encoder_length), 0], dtype } }
      : {}),
    ...(p.allow_skip === undefined ? {} : {
      [c.op.includes("bidirectional") ? "allow_is_bidirectional_skip" : "allow_is_causal_skip"]:
        p.allow_skip === true,
    }),
  };
}

/** Runs a case under one implementation and describes what came out, errors included. */
export function run(c: GoldenCase, backend: string): Outcome {
  try {
    if (c.op !== "formatter") return describe(BUILDERS[c.op]!(builderArgs(c, backend)));
    const { mask_function, attention_mask, local_size, ...rest } = c.params as Json & Record<string, number>;
    const format = FORMATTERS[backend as keyof typeof FORMATTERS];
    return describe(format({
      ...rest as unknown as { batch_size: number; q_length: number; kv_length: number },
      mask_function: maskFunction(mask_function!),
      attention_mask: attention_mask
        ? Tensor.from(attention_mask as unknown as number[][], { dtype: "bool" })
        : null,
      ...(local_size === null ? {} : { local_size: Number(local_size) }),
    }));
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return { kind: "error", name: error.name, message: error.message };
  }
}

/** A result in the words of the recordings; values are flat, and `float` stands for additive masks too. */
export type Outcome =
  | { kind: "none" }
  | { kind: "error"; name: string; message: string }
  | { kind: "dict"; items: Record<string, Outcome> }
  | {
    kind: "block_mask";
    shape: readonly number[];
    block_size: readonly number[];
    values: readonly number[];
    lists: Readonly<Record<BlockList, readonly number[]>>;
  }
  | {
    kind: "bool" | "bool2d" | "int2d" | "float";
    shape: readonly number[];
    dtype: DType;
    values: readonly number[];
  };

const LISTS = ["kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices"] as const;
type BlockList = typeof LISTS[number];

/** A block mask in the words of the recordings; lists are flat. */
export function describeBlocks(mask: BlockMask): Outcome & { kind: "block_mask" } {
  using dense = mask.to_dense();
  const lists = Object.fromEntries(LISTS.map((name) => [name, Array.from(hostData(mask[name]), Number)]));
  return {
    kind: "block_mask",
    shape: mask.shape,
    block_size: mask.BLOCK_SIZE,
    values: Array.from(hostData(dense), Number),
    lists: lists as Record<BlockList, number[]>,
  };
}

function describe(mask: AttentionMask | Record<string, AttentionMask>): Outcome {
  if (mask === null) return { kind: "none" };
  if (mask instanceof BlockMask) return describeBlocks(mask);
  if (!(mask instanceof Tensor)) {
    const items = Object.entries(mask).map(([k, v]) => [k, describe(v as AttentionMask)] as const);
    return { kind: "dict", items: Object.fromEntries(items) };
  }
  const { shape, dtype } = mask, values = Array.from(present(mask.dtype, hostData(mask)), Number);
  if (shape.length === 2) return { kind: dtype === "bool" ? "bool2d" : "int2d", shape, dtype, values };
  return { kind: dtype === "bool" ? "bool" : "float", shape, dtype, values };
}

/** What keeps an outcome from being what was expected, or null. */
export function difference(actual: Outcome, expected: GoldenValue): string | null {
  const e = expected as Json;
  const kind = e.kind === "additive" ? "float" : e.kind;
  if (actual.kind !== kind) {
    return `is ${actual.kind}${actual.kind === "error" ? ` (${actual.message})` : ""}, expected ${e.kind}`;
  }
  switch (actual.kind) {
    case "none":
      return null;
    case "error": {
      if (e.name !== undefined && actual.name !== e.name) return `is ${actual.name}, expected ${e.name}`;
      const missing = (e.mentions as readonly string[]).filter((m) => !actual.message.includes(m));
      return missing.length === 0 ? null : `does not mention ${missing.join(", ")}: ${actual.message}`;
    }
    case "dict": {
      const items = e.items as Json, keys = Object.keys(items).sort().join();
      if (Object.keys(actual.items).sort().join() !== keys) {
        return `has ${Object.keys(actual.items)}, expected ${keys}`;
      }
      return Object.keys(items).map((k) => difference(actual.items[k]!, items[k]!)).find((d) => d !== null) ??
        null;
    }
  }
  if (actual.kind === "block_mask") {
    if (actual.block_size.join() !== (e.block_size as readonly number[]).join()) {
      return "has other block sizes";
    }
    const other = LISTS.find((name) =>
      actual.lists[name].join() !== (e[name] as readonly GoldenValue[]).flat(4).join()
    );
    if (other !== undefined) {
      return `has ${other} [${actual.lists[other]}], expected ${JSON.stringify(e[other])}`;
    }
  }
  if (actual.shape.join() !== (e.shape as readonly number[]).join()) {
    return `has shape [${actual.shape}], expected [${e.shape}]`;
  }
  if (actual.kind !== "block_mask" && e.dtype !== undefined && actual.dtype !== e.dtype) {
    return `has dtype ${actual.dtype}, expected ${e.dtype}`;
  }
  const stored = e.keep ?? e.dense ?? e.value!;
  const flat = isTensorRef(stored)
    ? Array.from(goldenTensor(stored).data)
    : (stored as readonly GoldenValue[]).flat(4).map(Number);
  const values = e.kind === "additive" ? flat.map((bit) => bit === 1 ? 0 : Number(e.masked_value)) : flat;
  const at = values.findIndex((v, i) => v !== actual.values[i]);
  return at === -1 && values.length === actual.values.length ? null : `differs at element ${at}`;
}
