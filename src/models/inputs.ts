/**
 * What a forward takes, checked.
 *
 * @module
 */
import type { SDPBackend } from "../attention/sdpa_kernel.ts";
import type { Cache } from "../cache/cache.ts";
import { InvalidArgument } from "../errors.ts";
import { isFloat } from "../dtype.ts";
import type { AttentionMask, BlockMaskLike } from "../masks/types.ts";
import { releasing } from "../release.ts";
import { hostData, Tensor } from "../tensor.ts";
import type { NestedArray } from "../tensor_data.ts";

/** Arguments of {@linkcode PreTrainedModel.forward}; unknown keys go to the attention function while a user's is active. */
export interface ForwardInputs {
  /** (B, N) token ids. */
  input_ids?: Tensor;
  /** (B, N, E) float32, instead of ids. */
  inputs_embeds?: Tensor;
  /**
   * (B, past + N) with 1 for real tokens, or a finished 4-D or block mask; where layers differ in type, also
   * finished masks by layer type.
   */
  attention_mask?: Tensor | NestedArray | BlockMaskLike | Readonly<Record<string, AttentionMask>> | null;
  /** (B, N) or (1, N); default: continuing the cache. */
  position_ids?: Tensor | NestedArray | null;
  /** Keys and values of past tokens; extended in place. */
  past_key_values?: Cache | null;
  /** Keep keys and values, in a new cache if none is given; default true. */
  use_cache?: boolean;
  /** Return attention weights per layer. */
  output_attentions?: boolean;
  /** Return the hidden states after the embedding and after every layer. */
  output_hidden_states?: boolean;
  /** Overrides `config.is_causal` for this call. */
  is_causal?: boolean;
  /** Images of a vision model, (images, C, H, W) floats: as many as the ids have places for. */
  pixel_values?: Tensor;
  /** (B, N) segments of an encoder's tokens; default 0. */
  token_type_ids?: Tensor | NestedArray;
  /** Compute logits of the last n positions only; 0 means all. */
  logits_to_keep?: number;
  /** Kernels `sdpa` may use, the preferred one first; default: what `sdpa_kernel` selected when the call began. */
  sdpa_backends?: SDPBackend | readonly SDPBackend[];
  /** Stops the computation; the cache is as before. */
  signal?: AbortSignal;
  /** Read by attention functions of yours. */
  [kwarg: string]: unknown;
}

/** What {@linkcode PreTrainedModel.forward} returns. Tensors belong to the caller. */
export interface ForwardOutput {
  /** (B, N, V) float32. */
  logits?: Tensor;
  /** (B, N, E) float32. */
  last_hidden_state?: Tensor;
  /** The cache, extended by these tokens. */
  past_key_values?: Cache;
  /** Per layer (B, H, N, K). */
  attentions?: Tensor[];
  /** (B, N, E) after the embedding and after every layer, the last one normalised. */
  hidden_states?: Tensor[];
}

/** Gives back the tensors of an output that nobody receives; the cache is not among them. */
export function disposeOutput(output: ForwardOutput): void {
  const tensors = [
    output.logits,
    output.last_hidden_state,
    ...(output.attentions ?? []),
    ...(output.hidden_states ?? []),
  ];
  for (const t of tensors) t?.[Symbol.dispose]();
}

/** Keys `forward` of every model knows. */
export const FORWARD_KEYS: readonly string[] = [
  "input_ids",
  "inputs_embeds",
  "attention_mask",
  "position_ids",
  "past_key_values",
  "use_cache",
  "output_attentions",
  "output_hidden_states",
  "is_causal",
  "logits_to_keep",
  "sdpa_backends",
  "signal",
];

/**
 * Splits off unknown keys.
 *
 * @throws {InvalidArgument} where nothing would read them, or for a misspelt known key
 */
export function extraKwargs(
  inputs: Readonly<Record<string, unknown>>,
  known: readonly string[],
  custom: string | null,
): Record<string, unknown> {
  const extra: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(inputs)) {
    if (known.includes(key) || value === undefined) continue;
    const near = known.find((k) => distance(k, key) <= 2);
    if (near !== undefined) {
      throw new InvalidArgument(`Cannot take the argument "${key}": did you mean "${near}"?`);
    }
    if (custom === null) {
      throw new InvalidArgument(
        `Cannot take the argument "${key}": built-in attention functions do not read it. Known arguments are ${
          known.join(", ")
        }; ` +
          "others are passed on while an attention function of yours is active",
      );
    }
    extra[key] = value;
  }
  return extra;
}

/** Edits between two words (Levenshtein). */
function distance(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 2) return 3;
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length]!;
}

/**
 * Checks token ids: (B, N) integers, not empty, inside the vocabulary.
 *
 * @throws {InvalidArgument}
 */
export function checkIds(input_ids: unknown, vocab_size: number): Tensor {
  if (!(input_ids instanceof Tensor) || (input_ids.dtype !== "int32" && input_ids.dtype !== "int64")) {
    const got = input_ids instanceof Tensor ? `${input_ids.dtype} [${input_ids.shape}]` : typeof input_ids;
    throw new InvalidArgument(
      `Cannot run the model on input_ids of ${got}: expected an int32 or int64 tensor (B, N)`,
    );
  }
  if (input_ids.shape.length !== 2 || input_ids.size === 0) {
    throw new InvalidArgument(
      `Cannot run the model on input_ids of shape [${input_ids.shape}]: expected (B, N) with at least one token`,
    );
  }
  const ids = hostData(input_ids);
  for (let i = 0; i < ids.length; i++) {
    const id = Number(ids[i]);
    if (!(id >= 0 && id < vocab_size)) {
      throw new InvalidArgument(
        `Cannot run the model on token id ${id} (element ${i}): the vocabulary has ids 0…${vocab_size - 1}`,
      );
    }
  }
  return input_ids;
}

/**
 * Checks a cache: something with the methods of one, or nothing.
 *
 * @throws {InvalidArgument}
 */
export function checkCache(cache: unknown): Cache | null {
  if (cache === null || cache === undefined) return null;
  const has = (name: string) =>
    typeof cache === "object" && typeof (cache as Record<string, unknown>)[name] === "function";
  if (!["update", "get_seq_length", "get_mask_sizes", "to", "snapshot"].every(has)) {
    throw new InvalidArgument(
      `Cannot run the model with past_key_values of ${typeof cache}: expected a cache such as new DynamicCache(), or nothing`,
    );
  }
  return cache as Cache;
}

/**
 * Checks embeddings: (B, N, E) floats.
 *
 * @throws {InvalidArgument}
 */
export function checkEmbeds(inputs_embeds: unknown, hidden_size: number): Tensor {
  const t = inputs_embeds;
  if (
    !(t instanceof Tensor) || t.shape.length !== 3 || t.shape[2] !== hidden_size || t.size === 0 ||
    !isFloat(t.dtype)
  ) {
    const got = t instanceof Tensor ? `${t.dtype} [${t.shape}]` : typeof t;
    throw new InvalidArgument(
      `Cannot run the model on inputs_embeds of ${got}: expected a float tensor (B, N, ${hidden_size}) with at least one token`,
    );
  }
  return t;
}

/**
 * Positions (rows, N) as host integers: given ones, else continuing after `past`.
 *
 * @throws {InvalidArgument}
 */
export function positionsOf(
  given: Tensor | NestedArray | null | undefined,
  batch: number,
  n: number,
  past: number,
): { rows: number; ids: Int32Array<ArrayBuffer> } {
  if (given === null || given === undefined) {
    return { rows: 1, ids: Int32Array.from({ length: n }, (_, i) => past + i) };
  }
  if (!(given instanceof Tensor)) {
    return releasing(Tensor.from(given), (made) => positionsOf(made, batch, n, past));
  }
  const [rows, columns] = given.shape;
  if (given.shape.length !== 2 || columns !== n || (rows !== batch && rows !== 1)) {
    throw new InvalidArgument(
      `Cannot use position_ids of shape [${given.shape}]: expected (${batch}, ${n}) or (1, ${n})`,
    );
  }
  const ids = Int32Array.from(hostData(given) as ArrayLike<number>, Number);
  const host = hostData(given);
  for (let i = 0; i < ids.length; i++) {
    if (ids[i] !== Number(host[i]) || ids[i]! < 0) {
      throw new InvalidArgument(
        `Cannot use position ${String(host[i])} (element ${i} of position_ids): expected an integer ≥ 0`,
      );
    }
  }
  return { rows: rows!, ids };
}

/** The same values in a tensor of our own on `device`, so that the caller's tensor is not tied to the model. */
export function ownCopy(t: Tensor, device: Tensor["device"]): Tensor {
  return Tensor.ofHost(hostData(t), t.dtype, t.shape, device);
}

/** As {@linkcode ownCopy}, also for values that only a device holds. */
export async function ownOn(t: Tensor, device: Tensor["device"]): Promise<Tensor> {
  return t.storage.host === null ? await t.to(device) : ownCopy(t, device);
}

/** Whether a caller's mask is a record of masks by layer type. */
export function isMaskRecord(
  mask: ForwardInputs["attention_mask"],
): mask is Readonly<Record<string, AttentionMask>> {
  return typeof mask === "object" && mask !== null && !Array.isArray(mask) && !(mask instanceof Tensor) &&
    !("kv_num_blocks" in mask);
}
