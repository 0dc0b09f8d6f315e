/**
 * From what a caller passes to `forward` to one checked call that a model computes.
 *
 * @module
 */
import { PAGED_KEYS, pagedCache } from "../attention/paged.ts";
import type { SDPBackend } from "../attention/sdpa_kernel.ts";
import type { AttentionKwargs } from "../attention/types.ts";
import type { Cache } from "../cache/cache.ts";
import { DynamicCache } from "../cache/dynamic.ts";
import type { KvDType } from "../cache/kv_dtype.ts";
import type { PretrainedConfig } from "../config.ts";
import type { DeviceName } from "../devices/device.ts";
import { InvalidArgument } from "../errors.ts";
import type { AttentionMask, MaskArgs } from "../masks/types.ts";
import { Tensor } from "../tensor.ts";
import {
  checkEmbeds,
  checkIds,
  extraKwargs,
  FORWARD_KEYS,
  type ForwardInputs,
  type ForwardOutput,
  ownCopy,
  positionsOf,
} from "./inputs.ts";
import { ATTENTION_TAP, Plans, type Tapped } from "./plans.ts";

/**
 * Key of a forward's inputs that only this library uses: builds the masks from a mask (B, past + N) or none, instead of
 * the builders the model would choose.
 */
export const CREATE_MASKS: unique symbol = Symbol("create masks");

/** Makes a mask for all layers, or masks by layer type. */
export type CreateMasks = (args: MaskArgs) => AttentionMask | Record<string, AttentionMask>;

/** Inputs that may bring a builder. */
export interface WithCreateMasks {
  /** Builds the masks of this forward. */
  readonly [CREATE_MASKS]?: CreateMasks | undefined;
}

/**
 * Key of a forward's inputs that only this library uses: records work on the output, or asks for its values, before the
 * forward waits for its own, so that a GPU gets both in one submit. An abort drops the forward, and what follows with it.
 */
export const FOLLOW_UP: unique symbol = Symbol("follow up");

/** Inputs that may bring work that follows. */
export interface WithFollowUp {
  /** Follows the forward. */
  readonly [FOLLOW_UP]?: ((output: ForwardOutput) => void) | undefined;
}

/** What a model says of itself before its forwards. */
export interface Signature {
  readonly config: PretrainedConfig;
  /** The part of the config that describes the tokens' layers, hence the cache. */
  readonly text_config: PretrainedConfig;
  readonly device: DeviceName;
  readonly kv_dtype: KvDType | null;
  readonly vocab_size: number;
  readonly hidden_size: number;
  /** Keys of `forward` that only this model has. */
  readonly input_keys: readonly string[];
  /** Whether it reads in both directions, always and at once: no cache, and `is_causal` has no effect. */
  readonly is_encoder: boolean;
}

/** A forward, checked and ready to run. Tensors in it belong to the forward, but for what the caller gave. */
export interface Call {
  /** What the caller gave, for the keys that only one model has. */
  readonly inputs: ForwardInputs;
  readonly batch: number;
  readonly length: number;
  readonly input_ids: Tensor | null;
  readonly inputs_embeds: Tensor | null;
  /** As given, for the mask builders. */
  readonly attention_mask: ForwardInputs["attention_mask"];
  /** Builds the masks, or null for the builders the model chooses. */
  readonly create_masks: CreateMasks | null;
  /** Whether the caller gave positions: only then can they mean packed sequences. */
  readonly position_ids: Tensor | null;
  /** (B, N) int32. */
  readonly positions: Tensor;
  readonly last_position: number;
  /** Tokens the cache holds. */
  readonly past: number;
  readonly cache: Cache | null;
  /** Whether attention reads the past from a cache of pages, which tells sequences apart where no mask is given. */
  readonly paged: boolean;
  readonly is_causal: boolean | null;
  readonly plans: Plans;
  /** What layers that know nothing of the text pass to their attention function. */
  readonly shared_kwargs: AttentionKwargs;
  /** What the layers of the text pass to their attention function. */
  readonly kwargs: AttentionKwargs;
  readonly output_attentions: boolean;
  readonly output_hidden_states: boolean;
  readonly logits_to_keep: number;
  readonly signal: AbortSignal | undefined;
}

/**
 * Checks the inputs of a forward, joins the cache and snapshots the plan. Synchronous, and so are the mask builders
 * a model runs first: nothing can be swapped between them, so plan and masks are of one implementation.
 *
 * @throws {InvalidArgument} for inputs that do not fit each other or the model
 */
export function prepareCall(
  model: Signature,
  inputs: ForwardInputs & Tapped & WithCreateMasks,
  sdpa_backends: readonly SDPBackend[],
): Call {
  if ((inputs.input_ids === undefined) === (inputs.inputs_embeds === undefined)) {
    throw new InvalidArgument("Cannot run the model: expected exactly one of input_ids and inputs_embeds");
  }
  const plans = new Plans(model.config, inputs[ATTENTION_TAP], inputs.signal);
  const paged_keys = plans.paged ? PAGED_KEYS : [];
  const extra = extraKwargs(inputs, [...FORWARD_KEYS, ...model.input_keys, ...paged_keys], plans.custom);
  const paged_kwargs = Object.fromEntries(
    paged_keys.filter((key) => inputs[key] !== undefined).map((key) => [key, inputs[key]]),
  );
  const paged = pagedCache(paged_kwargs) !== null;
  const ids = inputs.input_ids === undefined ? null : checkIds(inputs.input_ids, model.vocab_size);
  const embeds = inputs.inputs_embeds === undefined
    ? null
    : checkEmbeds(inputs.inputs_embeds, model.hidden_size);
  const [batch, length] = (ids ?? embeds!).shape as [number, number];
  const keep = inputs.logits_to_keep ?? 0;
  if (!Number.isInteger(keep) || keep < 0) {
    throw new InvalidArgument(
      `Cannot keep the logits of ${keep} positions: expected an integer ≥ 0 (0 keeps all)`,
    );
  }
  const { config, text_config } = model;
  const wantsWeights = inputs.output_attentions ??
    (config.output_attentions || text_config.output_attentions);
  const shared_kwargs = { ...extra, sdpa_backends };
  const is_causal = model.is_encoder ? null : inputs.is_causal ?? text_config.is_causal ?? config.is_causal;
  // What can be refused is refused before a cache is made.
  positionsOf(inputs.position_ids, batch, length, 0);
  const cache = paged ? withoutCache(inputs) : cacheOf(model, inputs);
  const past = cache?.get_query_offset() ?? 0;
  const { rows, ids: positions } = positionsOf(inputs.position_ids, batch, length, past);
  const spread = rows === batch
    ? positions
    : Int32Array.from({ length: batch * length }, (_, i) => positions[i % length]!);
  const given = inputs.position_ids === undefined || inputs.position_ids === null;
  const position_ids = given ? null : Tensor.ofHost(positions, "int32", [rows, length], model.device);
  return {
    inputs,
    batch,
    length,
    input_ids: ids === null ? null : ownCopy(ids, model.device),
    inputs_embeds: embeds,
    attention_mask: inputs.attention_mask ?? null,
    create_masks: inputs[CREATE_MASKS] ?? null,
    position_ids,
    positions: Tensor.ofHost(spread, "int32", [batch, length], model.device),
    last_position: positions.reduce((a, b) => Math.max(a, b), 0),
    past,
    cache,
    paged,
    is_causal,
    plans,
    shared_kwargs,
    kwargs: {
      ...shared_kwargs,
      ...paged_kwargs,
      position_ids,
      use_cache: cache !== null,
      ...(is_causal === null ? {} : { is_causal }),
      ...(wantsWeights ? { output_attentions: true } : {}),
    },
    output_attentions: wantsWeights,
    output_hidden_states: inputs.output_hidden_states ?? false,
    logits_to_keep: keep,
    signal: inputs.signal,
  };
}

/** The cache a forward extends: the caller's, or a new one. */
function cacheOf(model: Signature, inputs: ForwardInputs): Cache | null {
  const given = inputs.past_key_values ?? null;
  if (!model.is_encoder) {
    const { text_config: config, kv_dtype } = model;
    return given ?? (inputs.use_cache ?? true ? new DynamicCache({ config, kv_dtype }) : null);
  }
  if (given === null) return null;
  throw new InvalidArgument(
    `Cannot run a ${
      String(model.config["model_type"])
    } model with past_key_values: it reads a whole text at once and keeps no cache`,
  );
}

/** No second cache beside one of pages. */
function withoutCache({ past_key_values }: ForwardInputs): null {
  if (past_key_values === undefined || past_key_values === null) return null;
  throw new InvalidArgument(
    "Cannot run the model with both cache and past_key_values: a paged cache holds the whole past",
  );
}

/** Gives back what {@linkcode prepareCall} made, but for the cache. */
export function releaseCall(call: Call): void {
  for (const t of [call.input_ids, call.positions, call.position_ids]) t?.[Symbol.dispose]();
}
