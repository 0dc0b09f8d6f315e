/**
 * The mask builders models call: a base pattern, the caller's constraints, then the active formatter.
 *
 * Constraints compose in a fixed order: the base pattern, `or_mask_function` opens, `and_mask_function` closes,
 * packing restarts positions, block ids open, and padding always closes last.
 *
 * Method: Transformers' `masking_utils`.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import { Tensor } from "../tensor.ts";
import { and_masks, or_masks } from "./algebra.ts";
import { requiredSize } from "./config.ts";
import {
  bidirectional_mask_function,
  causal_mask_function,
  chunked_causal_mask_function,
  same_id_mask_function,
  sliding_window_bidirectional_mask_function,
  sliding_window_causal_mask_function,
} from "./functions.ts";
import { readIds } from "./input.ts";
import { packed_compatible_mask_function } from "./packed.ts";
import { checkArgs, checkRows, prepare, type Prepared } from "./prepare.ts";
import type { AttentionMask, MaskArgs, MaskFunction } from "./types.ts";

/**
 * The mask of full causal attention, in the form the active implementation wants. With `is_causal` false it is
 * {@linkcode create_bidirectional_mask}; packing stays, block ids are dropped.
 *
 * A finished 4-D mask is returned as it is; an implementation without a formatter gives null and warns once.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { sdpa_mask } from "./format_sdpa.ts";
 * import { AttentionMaskInterface } from "./interface.ts";
 *
 * AttentionMaskInterface.register("mine", sdpa_mask);
 * const inputs_embeds = { shape: [1, 3, 64] };
 * const attention_mask = [[0, 1, 1]];
 * const mask = create_causal_mask({ config: { _attn_implementation: "mine" }, inputs_embeds, attention_mask });
 * assertEquals(mask?.shape, [1, 1, 3, 3]);
 * ```
 *
 * @throws {InvalidArgument} for inputs that do not fit each other.
 * @throws {AttentionRefused} when the implementation's masks cannot express a constraint.
 */
export function create_causal_mask(args: MaskArgs): AttentionMask {
  checkArgs(args, "create a causal mask");
  if (isCausalOff(args)) return create_bidirectional_mask(asBidirectional(args));
  const p = prepare(args, { sliding: false, cross: false });
  if ("mask" in p) return p.mask;
  return formatCausal(args, p, causal_mask_function, {});
}

/**
 * The mask of causal attention over a window of `config.sliding_window` tokens. With `is_causal` false it is
 * {@linkcode create_bidirectional_sliding_window_mask}; otherwise as {@linkcode create_causal_mask}.
 *
 * @throws {InvalidArgument} without `config.sliding_window`, or for inputs that do not fit each other.
 * @throws {AttentionRefused} when the implementation's masks cannot express a constraint.
 */
export function create_sliding_window_causal_mask(args: MaskArgs): AttentionMask {
  const act = "create a sliding window mask";
  checkArgs(args, act);
  if (isCausalOff(args)) return create_bidirectional_sliding_window_mask(asBidirectional(args));
  const p = prepare(args, { sliding: true, cross: false });
  if ("mask" in p) return p.mask;
  const window = requiredSize(args.config, "sliding_window", act);
  return formatCausal(args, p, sliding_window_causal_mask_function(window), { local_size: window });
}

/**
 * The mask of causal attention inside chunks of `config.attention_chunk_size` tokens, counted from the end of each
 * row's left padding. `is_causal` has no effect here; otherwise as {@linkcode create_causal_mask}.
 *
 * @throws {InvalidArgument} without `config.attention_chunk_size`, or for inputs that do not fit each other.
 * @throws {AttentionRefused} under flash as soon as the keys reach beyond one chunk.
 */
export function create_chunked_causal_mask(args: MaskArgs): AttentionMask {
  const act = "create a chunked mask";
  checkArgs(args, act);
  const p = prepare(args, { sliding: true, cross: false });
  if ("mask" in p) return p.mask;
  const chunk = requiredSize(args.config, "attention_chunk_size", act);
  const length = p.keys + p.keyOffset;
  const constraints = length > chunk
    ? [`a chunk of ${chunk} tokens (attention_chunk_size) under ${length} keys`]
    : [];
  return formatCausal(args, p, chunked_causal_mask_function(chunk, leftPadding(p)), {
    local_size: chunk,
    constraints,
  });
}

/**
 * The mask of attention in both directions, or with `encoder_hidden_states` of attention to an encoder. Batch and
 * dtype then come from the encoder's states.
 *
 * @throws {InvalidArgument} for inputs that do not fit each other.
 * @throws {AttentionRefused} when the implementation's masks cannot express a constraint.
 */
export function create_bidirectional_mask(args: MaskArgs): AttentionMask {
  checkArgs(args, "create a bidirectional mask");
  const p = prepare(args, { sliding: false, cross: true });
  if ("mask" in p) return p.mask;
  return formatBidirectional(args, p, bidirectional_mask_function, {});
}

/**
 * The mask of attention in both directions up to `config.sliding_window` tokens away (2·window + 1 in all).
 *
 * @throws {InvalidArgument} without `config.sliding_window`, or for inputs that do not fit each other.
 * @throws {AttentionRefused} when the implementation's masks cannot express a constraint.
 */
export function create_bidirectional_sliding_window_mask(args: MaskArgs): AttentionMask {
  const act = "create a bidirectional sliding window mask";
  checkArgs(args, act);
  const p = prepare(args, { sliding: true, cross: true });
  if ("mask" in p) return p.mask;
  const window = requiredSize(args.config, "sliding_window", act);
  return formatBidirectional(args, p, sliding_window_bidirectional_mask_function(window), {
    local_size: window,
  });
}

/** What a builder adds to the formatter's arguments. */
interface Extra {
  readonly local_size?: number;
  readonly constraints?: readonly string[];
}

function formatCausal(args: MaskArgs, p: Prepared, base: MaskFunction, extra: Extra): AttentionMask {
  const { fn: constrained, constraints } = constrain(args, base, extra.constraints);
  let fn = p.packed === null
    ? constrained
    : packed_compatible_mask_function(constrained, p.packed.positions, p.packed.ids);
  if (args.block_sequence_ids) {
    fn = or_masks(fn, blocks(args.block_sequence_ids, p));
    constraints.push("block_sequence_ids");
  }
  // Null would mean "causal" to the kernel, which is no longer what the predicate says.
  const plain = fn === base && !p.isStaticDecode;
  return format(args, p, fn, {
    ...extra,
    constraints,
    allow_is_causal_skip: (args.allow_is_causal_skip ?? true) && plain,
  });
}

function formatBidirectional(args: MaskArgs, p: Prepared, base: MaskFunction, extra: Extra): AttentionMask {
  const { fn: constrained, constraints } = constrain(args, base, extra.constraints);
  const fn = p.packed === null
    ? constrained
    : packed_compatible_mask_function(constrained, p.packed.positions, p.packed.ids);
  return format(args, p, fn, {
    ...extra,
    constraints,
    allow_is_causal_skip: false,
    allow_is_bidirectional_skip: (args.allow_is_bidirectional_skip ?? true) && fn === base,
  });
}

function constrain(args: MaskArgs, base: MaskFunction, given: readonly string[] = []) {
  const constraints = [...given];
  let fn = base;
  if (args.or_mask_function) {
    fn = or_masks(fn, args.or_mask_function);
    constraints.push("or_mask_function");
  }
  if (args.and_mask_function) {
    fn = and_masks(fn, args.and_mask_function);
    constraints.push("and_mask_function");
  }
  return { fn, constraints };
}

function format(
  args: MaskArgs,
  p: Prepared,
  mask_function: MaskFunction,
  rest: Extra & { allow_is_causal_skip: boolean; allow_is_bidirectional_skip?: boolean },
): AttentionMask {
  const padding = p.padding === null ? null : Tensor.ofHost(
    p.padding.data as Uint8Array<ArrayBuffer>,
    "bool",
    [p.padding.rows, p.padding.cols],
    p.device,
  );
  const mask = p.format({
    batch_size: p.batch,
    q_length: p.queries,
    kv_length: p.keys,
    q_offset: p.queryOffset,
    kv_offset: p.keyOffset,
    mask_function,
    attention_mask: padding,
    config: args.config,
    dtype: p.dtype,
    device: p.device,
    ...rest,
  });
  // The padding tensor was made for the formatter alone; one that returned it has passed it on to the caller.
  if (padding !== null && mask !== padding) padding[Symbol.dispose]();
  return mask;
}

/** Block ids, where every key beyond their end is in no block. */
function blocks(input: NonNullable<MaskArgs["block_sequence_ids"]>, p: Prepared): MaskFunction {
  const ids = readIds(input, "block_sequence_ids");
  checkRows(ids, p.batch, "block_sequence_ids", false);
  const length = p.keys + p.keyOffset;
  if (ids.cols > length) {
    throw new InvalidArgument(
      `Cannot use block_sequence_ids of shape [${ids.rows}, ${ids.cols}] with ${length} keys: expected at most one id per key`,
    );
  }
  return same_id_mask_function(ids, 0);
}

/** Leading zeros of every padding row. */
function leftPadding({ padding, batch }: Prepared): number[] {
  if (padding === null) return [0];
  return Array.from({ length: batch }, (_, b) => {
    const row = padding.data.subarray(b * padding.cols, (b + 1) * padding.cols);
    const first = row.indexOf(1);
    return first === -1 ? padding.cols : first;
  });
}

function isCausalOff({ config, is_causal }: MaskArgs): boolean {
  const value = is_causal ?? config.is_causal ?? true;
  if (typeof value !== "boolean") {
    throw new InvalidArgument(`Cannot use is_causal ${String(value)}: expected true or false`);
  }
  return !value;
}

/** The arguments a causal builder hands to its bidirectional twin. Block ids are meant for causal masks only. */
function asBidirectional(
  { allow_is_causal_skip = true, block_sequence_ids: _, ...args }: MaskArgs,
): MaskArgs {
  return { ...args, allow_is_bidirectional_skip: allow_is_causal_skip };
}
