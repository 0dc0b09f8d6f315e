/**
 * DynamicCache: keeps every token, and grows in amortised steps.
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import type { DeviceName } from "../devices/device.ts";
import { InvalidArgument } from "../errors.ts";
import { cat, slice } from "../ops/shape.ts";
import { placeOf } from "../ops/place.ts";
import { keep } from "../scope.ts";
import { hostData, Tensor } from "../tensor.ts";
import type { Cache } from "./cache.ts";

/** Tokens the first allocation of a layer has room for, at least. */
const FIRST_CAPACITY = 64;

/** States of one layer: storage (B, Hkv, capacity, D) of which `length` tokens are filled. */
class Layer {
  keys: Tensor | null = null;
  values: Tensor | null = null;
  length = 0;

  /** Room for tokens. States that still have a host copy (they were just moved) are not written in place. */
  get capacity(): number {
    return this.keys === null || this.keys.storage.host !== null ? 0 : this.keys.shape[2]!;
  }

  dispose(): void {
    this.keys?.[Symbol.dispose]();
    this.values?.[Symbol.dispose]();
    this.keys = this.values = null;
    this.length = 0;
  }
}

/**
 * A cache that keeps all tokens of all layers. Storage grows by half of what is needed, so a token costs no copy
 * of the past.
 *
 * Source: Transformers, `DynamicCache`.
 */
export class DynamicCache implements Cache {
  readonly #layers: Layer[] = [];
  /** Shapes grow with every token. */
  readonly is_compileable = false;

  /** A cache without tokens. Layers are made when they are first updated. */
  constructor(_options: { config?: PretrainedConfig } = {}) {}

  get is_sliding(): boolean[] {
    return this.#layers.map(() => false);
  }

  get device(): DeviceName | null {
    return this.#layers.find((l) => l.keys !== null)?.keys?.device ?? null;
  }

  update(key_states: Tensor, value_states: Tensor, layer_idx: number): [Tensor, Tensor] {
    if (!Number.isInteger(layer_idx) || layer_idx < 0) {
      throw new InvalidArgument(`Cannot update layer ${layer_idx} of a cache: expected an integer ≥ 0`);
    }
    while (this.#layers.length <= layer_idx) this.#layers.push(new Layer());
    const layer = this.#layers[layer_idx]!;
    const n = check(key_states, value_states, layer, layer_idx);
    if (layer.length + n > layer.capacity) grow(layer, key_states, value_states, layer.length + n);
    write(layer.keys!, key_states, layer.length, n);
    write(layer.values!, value_states, layer.length, n);
    layer.length += n;
    return [slice(layer.keys!, 2, 0, layer.length), slice(layer.values!, 2, 0, layer.length)];
  }

  get_seq_length(layer_idx = 0): number {
    return this.#layers[layer_idx]?.length ?? 0;
  }

  get_query_offset(layer_idx = 0): number {
    return this.get_seq_length(layer_idx);
  }

  get_mask_sizes(query_length: number, layer_idx = 0): [number, number] {
    return [this.get_seq_length(layer_idx) + query_length, 0];
  }

  async to(device: DeviceName): Promise<this> {
    for (const layer of this.#layers) {
      if (layer.keys === null || layer.values === null || layer.keys.device === device) continue;
      using keys = slice(layer.keys, 2, 0, layer.length);
      using values = slice(layer.values, 2, 0, layer.length);
      const moved = await Promise.all([keys.to(device), values.to(device)]);
      const { length } = layer;
      layer.dispose();
      // The filled part arrives without spare room: the next update grows it once.
      [layer.keys, layer.values] = moved;
      layer.length = length;
    }
    return this;
  }

  crop(n: number): void {
    if (!Number.isInteger(n) || n > 0) {
      throw new InvalidArgument(
        `Cannot crop a cache by ${n}: expected −(number of last tokens to remove), an integer ≤ 0`,
      );
    }
    for (const layer of this.#layers) layer.length = Math.max(0, layer.length + n);
  }

  /**
   * Goes back to the first `length` tokens: what a forward that failed half-way leaves is undone.
   *
   * @internal
   */
  rewind(length: number): void {
    for (const layer of this.#layers) layer.length = Math.min(layer.length, length);
  }

  reset(): void {
    for (const layer of this.#layers) layer.length = 0;
  }

  reorder_cache(beam_idx: Tensor): void {
    const rows = Array.from(hostData(beam_idx), Number);
    for (const layer of this.#layers) {
      if (layer.keys === null || layer.values === null) continue;
      const batch = layer.keys.shape[0]!;
      const wrong = rows.find((r) => !(r >= 0 && r < batch));
      if (wrong !== undefined) {
        throw new InvalidArgument(
          `Cannot reorder a cache of batch ${batch} by row ${wrong}: expected 0…${batch - 1}`,
        );
      }
      const { length } = layer;
      const pick = (t: Tensor): Tensor => {
        const parts = rows.map((r) => slice(t, 0, r, r + 1));
        try {
          return keep(cat(parts, 0));
        } finally {
          for (const p of parts) p[Symbol.dispose]();
        }
      };
      const [keys, values] = [pick(layer.keys), pick(layer.values)];
      layer.dispose();
      layer.keys = keys;
      layer.values = values;
      layer.length = length;
    }
  }

  /** Gives all states back. */
  [Symbol.dispose](): void {
    for (const layer of this.#layers) layer.dispose();
    this.#layers.length = 0;
  }
}

/** Checks states against each other and what the layer holds; returns the number of new tokens. */
function check(key: Tensor, value: Tensor, layer: Layer, layer_idx: number): number {
  const [b, h, n] = key.shape;
  const pair = key.shape.length === 4 && value.shape.length === 4 && value.shape[0] === b &&
    value.shape[1] === h &&
    value.shape[2] === n;
  const same = layer.keys === null ||
    (layer.keys.shape[0] === b && layer.keys.shape[1] === h && layer.keys.shape[3] === key.shape[3] &&
      layer.values!.shape[3] === value.shape[3] && layer.keys.dtype === key.dtype);
  if (!pair || !same) {
    const held = layer.keys === null
      ? ""
      : `; layer ${layer_idx} holds ${layer.keys.dtype} [${layer.keys.shape}]`;
    throw new InvalidArgument(
      `Cannot cache key ${key.dtype} [${key.shape}] and value [${value.shape}]: expected (B, Hkv, N, D) and (B, Hkv, N, Dv)${held}`,
    );
  }
  return n!;
}

function grow(layer: Layer, key: Tensor, value: Tensor, needed: number): void {
  const capacity = Math.max(FIRST_CAPACITY, Math.ceil(needed * 1.5));
  const bigger = (old: Tensor | null, like: Tensor): Tensor => {
    const [b, h, , d] = like.shape as [number, number, number, number];
    const room = keep(Tensor.empty(placeOf([like], "cache"), like.dtype, [b, h, capacity, d]));
    if (old !== null && layer.length > 0) {
      using filled = slice(old, 2, 0, layer.length);
      write(room, filled, 0, layer.length);
    }
    return room;
  };
  const [keys, values] = [bigger(layer.keys, key), bigger(layer.values, value)];
  const { length } = layer;
  layer.dispose();
  layer.keys = keys;
  layer.values = values;
  layer.length = length;
}

function write(room: Tensor, states: Tensor, at: number, n: number): void {
  if (states.size === 0) return;
  using target = slice(room, 2, at, at + n);
  const device = room.storage.home!;
  device.kernels.unary("copy", states.on(device), target.on(device));
}
