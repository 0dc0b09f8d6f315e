/**
 * The masks of a forward, from the builders to the layers.
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import type { DeviceName } from "../devices/device.ts";
import { isFloat } from "../dtype.ts";
import { InvalidArgument } from "../errors.ts";
import {
  create_bidirectional_mask,
  create_causal_mask,
  create_chunked_causal_mask,
  create_sliding_window_causal_mask,
} from "../masks/create.ts";
import type { AttentionMask, MaskArgs } from "../masks/types.ts";
import { Tensor } from "../tensor.ts";
import type { Call } from "./call.ts";
import { isMaskRecord, ownOn } from "./inputs.ts";

/** Layer type → builder. `encoder` layers see everything. */
const BUILDERS = {
  full_attention: create_causal_mask,
  sliding_attention: create_sliding_window_causal_mask,
  chunked_attention: create_chunked_causal_mask,
  encoder: create_bidirectional_mask,
} as const;

/** A layer type that masks can be built for. */
export type LayerType = keyof typeof BUILDERS;

/** The masks of one forward by layer type. They belong to the forward, which disposes them. */
export class LayerMasks implements Disposable {
  readonly #masks = new Map<string, AttentionMask>();
  /** Block masks of the caller's. */
  readonly #lent = new Set<AttentionMask>();

  private constructor() {}

  /**
   * Builds one mask per distinct type from the call's `attention_mask`, in the form `config`'s implementation takes.
   * A record of finished masks by layer type, as `create_masks_for_generate` makes them, is taken as it is.
   *
   * @throws {InvalidArgument} for masks that do not fit
   * @throws {AttentionRefused} when the implementation's masks cannot express a type
   */
  static async build(
    call: Call,
    config: PretrainedConfig,
    types: readonly string[],
    device: DeviceName,
  ): Promise<LayerMasks> {
    const { attention_mask: given } = call;
    checkGiven(call);
    const distinct = [...new Set(types)];
    const masks = new LayerMasks();
    try {
      // All of them before the first await: a swap meanwhile must not give them different forms.
      if (isMaskRecord(given)) {
        checkRecord(given, distinct);
        for (const type of distinct) masks.#masks.set(type, given[type] ?? null);
      } else if (call.paged && (given ?? null) === null) {
        for (const type of distinct) masks.#masks.set(type, null);
      } else {
        const args: MaskArgs = {
          config,
          inputs_embeds: { shape: [call.batch, call.length, 0], dtype: "float32", device },
          attention_mask: given ?? filledSlots(call),
          past_key_values: call.cache,
          position_ids: call.position_ids,
          is_causal: call.is_causal,
        };
        if (call.create_masks === null) {
          for (const type of distinct) masks.#masks.set(type, BUILDERS[type as LayerType](args));
        } else masks.#take(call.create_masks(args), distinct);
      }
    } catch (error) {
      masks.#disposeBut(given);
      throw error;
    }
    return await masks.#own(given, device);
  }

  /** Takes masks that were built for this forward: by layer type, or one for all. */
  #take(made: AttentionMask | Record<string, AttentionMask>, types: readonly string[]): void {
    const byType = isMaskRecord(made) ? made : Object.fromEntries(types.map((type) => [type, made]));
    // Held before they are checked, so that they are given back if that fails.
    for (const [type, mask] of Object.entries(byType)) {
      if (mask instanceof Tensor) this.#masks.set(type, mask);
    }
    checkRecord(byType, types);
    for (const type of types) this.#masks.set(type, byType[type] ?? null);
  }

  /** Makes every mask one that the forward may dispose: the caller's are copied, and those of another device moved. */
  async #own(given: Call["attention_mask"], device: DeviceName): Promise<this> {
    const callers = new Set<unknown>(isMaskRecord(given) ? Object.values(given) : [given]);
    try {
      for (const [type, mask] of [...this.#masks]) {
        if (!(mask instanceof Tensor) && callers.has(mask)) this.#lent.add(mask);
        if (!(mask instanceof Tensor) || (!callers.has(mask) && mask.device === device)) continue;
        this.#masks.set(type, await ownOn(mask, device));
        if (!callers.has(mask)) mask[Symbol.dispose]();
      }
      return this;
    } catch (error) {
      this.#disposeBut(given);
      throw error;
    }
  }

  /** Disposes all masks that are not the caller's. Finished block masks of the caller's are used as they are. */
  #disposeBut(given: Call["attention_mask"]): void {
    const callers = new Set<unknown>(isMaskRecord(given) ? Object.values(given) : [given]);
    for (const mask of this.#masks.values()) {
      if (!callers.has(mask)) release(mask);
    }
    this.#masks.clear();
  }

  /** The mask of layers of one type, which was among those built. */
  of(type: string): AttentionMask {
    return this.#masks.get(type) ?? null;
  }

  [Symbol.dispose](): void {
    for (const mask of this.#masks.values()) if (!this.#lent.has(mask)) release(mask);
    this.#masks.clear();
  }
}

/**
 * Where nothing but a mask can say which slots of a cache of fixed length are filled: attention to both sides, in which
 * no causality hides those behind the last query. Builders extend a short mask by hidden keys.
 */
function filledSlots({ cache, is_causal, batch, length }: Call): number[][] | null {
  if (cache === null || !cache.is_compileable || is_causal !== false) return null;
  const seen = cache.get_query_offset() + length;
  return Array.from({ length: batch }, () => new Array<number>(seen).fill(1));
}

/**
 * Refuses, before anything is computed, what the builders take and the first layer would refuse or read wrongly.
 *
 * @throws {InvalidArgument}
 */
function checkGiven({ attention_mask: given, batch, length, past, cache, plans }: Call): void {
  const shape = given instanceof Tensor
    ? given.shape
    : Array.isArray(given)
    ? [given.length, Array.isArray(given[0]) ? given[0].length : 0]
    : [];
  if (shape.length === 2) {
    const slots = cache?.is_compileable
      ? cache.is_sliding.map((_, i) => cache.get_mask_sizes(length, i)[0])
      : [];
    const most = Math.max(past + length, ...slots);
    if (shape[1]! <= most) return;
    throw new InvalidArgument(
      `Cannot run the model with an attention_mask of shape [${shape}]: expected (B, length) with a column for each of ` +
        `${past} past and ${length} new tokens, at most ${most}`,
    );
  }
  // A function of the user's may give a finished mask a meaning of its own.
  if (!(given instanceof Tensor) || shape.length !== 4 || plans.custom !== null) return;
  const fits = (shape[0] === 1 || shape[0] === batch) && (shape[2] === 1 || shape[2] === length) &&
    (cache !== null || shape[3] === 1 || shape[3]! >= length);
  if (!fits || !(given.dtype === "bool" || isFloat(given.dtype))) {
    throw new InvalidArgument(
      `Cannot run the model with a mask ${given.dtype} [${shape}]: expected bool (true = attend) or a float added to the ` +
        `scores that broadcasts to (B, H, Q, K) with B = ${batch} and Q = ${length}`,
    );
  }
}

function release(mask: AttentionMask): void {
  // A function of the user's may have made it.
  if (typeof mask !== "object" || mask === null || !(Symbol.dispose in mask)) return;
  (mask as Disposable)[Symbol.dispose]();
}

function checkRecord(given: Readonly<Record<string, AttentionMask>>, types: readonly string[]): void {
  const keys = Object.keys(given);
  const wrong = keys.find((key) => !types.includes(key)) ?? types.find((type) => !keys.includes(type));
  if (wrong !== undefined) {
    throw new InvalidArgument(
      `Cannot take a mask by layer type with ${keys.join(", ") || "no types"}: expected ${types.join(", ")}`,
    );
  }
  for (const type of types) {
    const mask = given[type];
    if (
      mask !== null && !(mask instanceof Tensor) && !(typeof mask === "object" && "kv_num_blocks" in mask)
    ) {
      throw new InvalidArgument(
        `Cannot take ${typeof mask} as the mask of ${type} layers: expected a finished mask or null`,
      );
    }
  }
}
