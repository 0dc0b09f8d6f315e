/**
 * The contract of key/value caches.
 *
 * @module
 */
import type { DeviceName } from "../devices/device.ts";
import type { Tensor } from "../tensor.ts";

/** What a cache held at one moment. It is valid until the cache goes back further than that, and is disposed. */
export interface CacheSnapshot extends Disposable {
  /** Makes the cache hold that again. */
  restore(): void;
}

/** Keys and values of past tokens, per layer. Disposable; `using` works. */
export interface Cache extends Disposable {
  /** Adds key and value states (B, Hkv, N, D) of `layer_idx` and returns what attention must use, as views that belong to the caller. */
  update(
    key_states: Tensor,
    value_states: Tensor,
    layer_idx: number,
    kwargs?: Record<string, unknown>,
  ): [Tensor, Tensor];
  /** Number of keys attention will see after `query_length` new tokens, and the absolute position of the first. */
  get_mask_sizes(query_length: number, layer_idx?: number): [kv_length: number, kv_offset: number];
  /** Absolute position of the first new token. */
  get_query_offset(layer_idx?: number): number;
  /** Tokens seen so far. */
  get_seq_length(layer_idx?: number): number;
  /** Whether each layer keeps only a window. */
  readonly is_sliding: boolean[];
  /** Whether shapes stay fixed from step to step. */
  readonly is_compileable: boolean;
  /** Where the states live; null while there are none. */
  readonly device: DeviceName | null;
  /** Moves the states to another device. On an error nothing has moved. */
  to(device: DeviceName): Promise<this>;
  /** Removes the last −n tokens (n ≤ 0). A layer whose window has moved on cannot go back. */
  crop(n: number): void;
  /** Forgets everything. */
  reset(): void;
  /** Reorders the batch: row i becomes what row beam_idx[i] was. */
  reorder_cache(beam_idx: Tensor): void;
  /** What the cache holds now, to go back to when a forward fails half-way: it shares storage and copies nothing. */
  snapshot(): CacheSnapshot;
}
