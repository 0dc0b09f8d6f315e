/**
 * What every mask builder does first: checks, the formatter, sizes from the cache, padding, packed sequences.
 *
 * @module
 */
import type { DeviceName } from "../devices/device.ts";
import { type DType, isFloat } from "../dtype.ts";
import { InvalidArgument } from "../errors.ts";
import { Tensor } from "../tensor.ts";
import { warnOnce } from "../notice.ts";
import { checkCallable } from "./algebra.ts";
import { type Matrix, readIds, readMask } from "./input.ts";
import { ALL_MASK_ATTENTION_FUNCTIONS } from "./interface.ts";
import { packedIds } from "./packed.ts";
import type { AttentionMask, BlockMaskLike, EmbedsLike, MaskArgs, MaskFormatter } from "./types.ts";

/** What a builder works with. */
export interface Prepared {
  /** The active formatter. */
  readonly format: MaskFormatter;
  /** B. */
  readonly batch: number;
  /** Q. */
  readonly queries: number;
  /** N. */
  readonly keys: number;
  /** Absolute position of the first query. */
  readonly queryOffset: number;
  /** Absolute position of the first key. */
  readonly keyOffset: number;
  /** dtype of additive masks. */
  readonly dtype: DType;
  /** Where the mask will be used. */
  readonly device: DeviceName;
  /** (B, length) bool in absolute positions. */
  readonly padding: Matrix<Uint8Array> | null;
  /** Positions and sequence ids, where several sequences are packed into a row. */
  readonly packed: { readonly positions: Matrix<Int32Array>; readonly ids: Matrix<Int32Array> } | null;
  /** Whether one query meets a cache of fixed length, where null cannot say which slots are filled. */
  readonly isStaticDecode: boolean;
}

const KNOWN = new Set([
  "config",
  "inputs_embeds",
  "attention_mask",
  "past_key_values",
  "position_ids",
  "or_mask_function",
  "and_mask_function",
  "block_sequence_ids",
  "layer_idx",
  "encoder_hidden_states",
  "is_causal",
  "allow_is_causal_skip",
  "allow_is_bidirectional_skip",
]);

/**
 * Checks the names and functions among builder arguments.
 *
 * @throws {InvalidArgument}
 */
export function checkArgs(args: MaskArgs, builder: string): void {
  for (const key of Object.keys(args)) {
    if (!KNOWN.has(key)) {
      throw new InvalidArgument(
        `Cannot ${builder} with option "${key}": known options are ${[...KNOWN].join(", ")}`,
      );
    }
  }
  if (typeof args.config !== "object" || args.config === null) {
    throw new InvalidArgument(`Cannot ${builder} without config: got ${String(args.config)}`);
  }
  for (const name of ["or_mask_function", "and_mask_function"] as const) {
    if (args[name] !== undefined && args[name] !== null) checkCallable([args[name]], name);
  }
}

/** Options that change what {@linkcode prepare} reads. */
export interface PrepareOptions {
  /** Which layer's cache sizes count where `layer_idx` is not given. */
  readonly sliding: boolean;
  /** Whether batch and dtype come from the encoder's states, where given. */
  readonly cross: boolean;
}

/**
 * Returns a finished mask (4-D passthrough, or null where the implementation has no formatter) as `mask`, or what is
 * needed to build one.
 *
 * @throws {InvalidArgument} for inputs that do not fit each other.
 */
export function prepare(args: MaskArgs, options: PrepareOptions): { mask: AttentionMask } | Prepared {
  const { config, attention_mask, past_key_values: cache } = args;
  if (isFinished(attention_mask)) return { mask: attention_mask };
  const format = formatterOf(config._attn_implementation);
  if (format === null) return { mask: null };

  const embeds = checkEmbeds(args.inputs_embeds, "inputs_embeds");
  const encoder = args.encoder_hidden_states
    ? checkEmbeds(args.encoder_hidden_states, "encoder_hidden_states")
    : null;
  const source = options.cross && encoder !== null ? encoder : embeds;
  const batch = source.shape[0]!, queries = embeds.shape[1]!;
  const padding = attention_mask ? readMask(attention_mask, "attention_mask") : null;
  checkRows(padding, batch, "attention_mask", false);

  let keys = Math.max(padding?.cols ?? 0, encoder?.shape[1] ?? queries), keyOffset = 0, queryOffset = 0;
  if (cache) {
    const layer = args.layer_idx ?? Math.max(0, cache.is_sliding.indexOf(options.sliding));
    queryOffset = cache.get_query_offset(layer);
    [keys, keyOffset] = cache.get_mask_sizes(queries, layer);
  }
  let packed: Prepared["packed"] = null;
  if (padding === null && !cache && args.position_ids) {
    const positions = readIds(args.position_ids, "position_ids");
    checkRows(positions, batch, "position_ids", true);
    if (positions.cols !== queries) {
      throw new InvalidArgument(
        `Cannot use position_ids of shape [${positions.rows}, ${positions.cols}] with inputs_embeds [${embeds.shape}]: expected ${queries} positions`,
      );
    }
    const ids = packedIds(positions);
    if (ids !== null) packed = { positions, ids };
  }
  return {
    format,
    batch,
    queries,
    keys,
    queryOffset,
    keyOffset,
    dtype: source.dtype !== undefined && isFloat(source.dtype) ? source.dtype : "float32",
    device: embeds.device ?? "wasm",
    padding,
    packed,
    isStaticDecode: cache?.is_compileable === true && queries === 1,
  };
}

/**
 * Checks that a matrix has one row per batch element (or, where allowed, one for all).
 *
 * @throws {InvalidArgument}
 */
export function checkRows(m: Matrix | null, batch: number, what: string, broadcast: boolean): void {
  if (m === null || m.rows === batch || (broadcast && m.rows === 1)) return;
  throw new InvalidArgument(
    `Cannot use ${what} of shape [${m.rows}, ${m.cols}] with a batch of ${batch}: expected ${batch} rows${
      broadcast ? ", or one for all" : ""
    }`,
  );
}

function checkEmbeds(x: EmbedsLike, what: string): EmbedsLike {
  if (typeof x !== "object" || x === null || !Array.isArray(x.shape) || x.shape.length < 2) {
    throw new InvalidArgument(
      `Cannot build a mask from ${what}: expected shape (B, length, hidden), got ${
        typeof x === "object" && x !== null ? `[${x.shape}]` : String(x)
      }`,
    );
  }
  return x;
}

/** Whether a caller's mask is already what attention functions take. */
function isFinished(mask: MaskArgs["attention_mask"]): mask is Tensor | BlockMaskLike {
  if (mask === undefined || mask === null) return false;
  if (mask instanceof Tensor) return mask.shape.length === 4;
  return isBlockMask(mask);
}

/**
 * Checks what a formatter returned: it may be a user's.
 *
 * @throws {InvalidArgument}
 */
function checkFormatted(mask: unknown, implementation: string): AttentionMask {
  if (mask === null || mask instanceof Tensor || isBlockMask(mask)) return mask;
  const got = mask instanceof Promise ? "a promise" : Array.isArray(mask) ? "an array" : typeof mask;
  throw new InvalidArgument(
    `Cannot use the result of the mask formatter of "${implementation}": expected a Tensor, a BlockMask or null, got ${got}`,
  );
}

function isBlockMask(mask: unknown): mask is BlockMaskLike {
  return typeof mask === "object" && mask !== null && "kv_num_blocks" in mask;
}

function formatterOf(name: string | null | undefined): MaskFormatter | null {
  const format = typeof name === "string" ? ALL_MASK_ATTENTION_FUNCTIONS.resolve(name) : undefined;
  if (format !== undefined) return (args) => checkFormatted(format(args), name!);
  warnOnce(
    `mask formatter ${name}`,
    typeof name === "string"
      ? `No mask formatter is registered for attn_implementation "${name}": masks are skipped and it receives null. ` +
        `Register one with AttentionMaskInterface.register("${name}", sdpa_mask).`
      : "The config names no attention implementation: masks are skipped. Set config._attn_implementation first.",
  );
  return null;
}
