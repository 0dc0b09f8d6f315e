/**
 * What caches made of layers share.
 *
 * @module
 */
import type { DeviceName } from "../devices/device.ts";
import { InvalidArgument } from "../errors.ts";
import { hostData, Tensor } from "../tensor.ts";
import type { Cache, CacheSnapshot } from "./cache.ts";
import type { KvDType } from "./kv_dtype.ts";
import type { CacheLayer, LayerState, States } from "./layer.ts";
import type { LayerWindows } from "./windows.ts";

/** A cache that holds one {@linkcode CacheLayer} a layer. */
export abstract class LayeredCache implements Cache {
  /** Whether shapes stay fixed from step to step. */
  abstract readonly is_compileable: boolean;
  readonly #make: (window: number | null) => CacheLayer;
  readonly #windows: LayerWindows;
  /** Type keys and values are kept in; null keeps them as they come, float32 from models. */
  readonly kv_dtype: KvDType | null;
  #layers: CacheLayer[];
  #disposed = false;

  /**
   * A cache of layers that keep `windows`; where these do not say how many there are, layers are added as they come.
   *
   * @internal
   */
  constructor(
    windows: LayerWindows,
    make: (window: number | null) => CacheLayer,
    kv_dtype: KvDType | null = null,
  ) {
    this.kv_dtype = kv_dtype;
    this.#make = make;
    this.#windows = windows;
    this.#layers = (windows.layers ?? []).map(make);
  }

  get #every(): number | null {
    return this.#windows.every;
  }

  /** @throws {InvalidArgument} once the cache was disposed */
  #assertAlive(): void {
    if (this.#disposed) throw new InvalidArgument("Cannot use a cache after it was disposed");
  }

  /** Whether the number of layers is known. */
  get #fixed(): boolean {
    return this.#windows.layers !== null;
  }

  /** Whether each layer keeps only a window. */
  get is_sliding(): boolean[] {
    return this.#layers.map((l) => l.is_sliding);
  }

  /** Where the states live; null while there are none. */
  get device(): DeviceName | null {
    return this.#layers.find((l) => l.device !== null)?.device ?? null;
  }

  /**
   * Adds key and value states (B, Hkv, N, D) of a layer and returns what attention must use, as views that belong to
   * the caller.
   *
   * @throws {InvalidArgument} for a layer that is not there, or states that fit neither each other nor the cache
   */
  update(key_states: Tensor, value_states: Tensor, layer_idx: number): [Tensor, Tensor] {
    this.#assertAlive();
    const most = this.#fixed ? this.#layers.length - 1 : Infinity;
    if (!Number.isInteger(layer_idx) || layer_idx < 0 || layer_idx > most) {
      const expected = this.#fixed ? `0…${most}` : "an integer ≥ 0";
      throw new InvalidArgument(`Cannot update layer ${layer_idx} of a cache: expected ${expected}`);
    }
    while (this.#layers.length <= layer_idx) this.#layers.push(this.#make(this.#every));
    return this.#layers[layer_idx]!.update([key_states, value_states], layer_idx);
  }

  /** Number of keys attention will see after `query_length` new tokens, and the absolute position of the first. */
  get_mask_sizes(query_length: number, layer_idx = 0): [kv_length: number, kv_offset: number] {
    this.#assertAlive();
    return (this.#layers[layer_idx] ?? this.#make(this.#every)).get_mask_sizes(query_length);
  }

  /** Absolute position of the first new token. */
  get_query_offset(layer_idx = 0): number {
    return this.get_seq_length(layer_idx);
  }

  /** Tokens seen so far, also those a window has passed. */
  get_seq_length(layer_idx = 0): number {
    this.#assertAlive();
    return this.#layers[layer_idx]?.seen ?? 0;
  }

  /**
   * Moves the states to another device. On an error nothing has moved.
   *
   * @throws {DeviceUnavailable} when the device does not exist here
   */
  async to(device: DeviceName): Promise<this> {
    if (device !== "wasm" && device !== "webgpu") {
      throw new InvalidArgument(`Cannot move a cache to "${String(device)}": expected wasm or webgpu`);
    }
    this.#assertAlive();
    const moved: (States | null)[] = [];
    const layers = [...this.#layers];
    try {
      for (const layer of layers) moved.push(await layer.moved(device));
      this.#assertAlive();
    } catch (error) {
      dispose(moved);
      throw error;
    }
    layers.forEach((layer, i) => {
      const states = moved[i]!;
      if (states !== null) layer.settle(states);
    });
    return this;
  }

  /**
   * Removes the last −n tokens (n ≤ 0).
   *
   * @throws {InvalidArgument} for n > 0, or where a window has moved on; nothing has changed then
   */
  crop(n: number): void {
    this.#assertAlive();
    if (!Number.isInteger(n) || n > 0) {
      throw new InvalidArgument(
        `Cannot crop a cache by ${n}: expected −(number of last tokens to remove), an integer ≤ 0`,
      );
    }
    if (n === 0) return;
    this.#layers.forEach((layer, i) => {
      const reason = layer.refusesCrop(-n);
      if (reason !== null) {
        throw new InvalidArgument(`Cannot crop a cache by ${n} as of layer ${i} ${reason}`);
      }
    });
    for (const layer of this.#layers) layer.crop(-n);
  }

  /** Forgets everything; the cache can then be filled anew. */
  reset(): void {
    this.#assertAlive();
    for (const layer of this.#layers) layer.reset();
  }

  /**
   * Reorders the batch: row i becomes what row beam_idx[i] was; rows may repeat or be left out.
   *
   * @throws {InvalidArgument} for indices that are not there; nothing has changed then
   */
  reorder_cache(beam_idx: Tensor): void {
    this.#assertAlive();
    if (!(beam_idx instanceof Tensor) || beam_idx.shape.length !== 1 || beam_idx.size === 0) {
      const got = beam_idx instanceof Tensor ? `a tensor of shape [${beam_idx.shape}]` : typeof beam_idx;
      throw new InvalidArgument(`Cannot reorder a cache by ${got}: expected row numbers (B)`);
    }
    const rows = Array.from(hostData(beam_idx), Number);
    const picked: (States | null)[] = [];
    try {
      for (const layer of this.#layers) picked.push(layer.reordered(rows));
    } catch (error) {
      dispose(picked);
      throw error;
    }
    this.#layers.forEach((layer, i) => {
      const states = picked[i]!;
      if (states !== null) layer.exchange(states);
    });
  }

  /** What the cache holds now, to go back to when a forward fails half-way: it shares storage and copies nothing. */
  snapshot(): CacheSnapshot {
    let saved: readonly LayerState[] | null = this.saveLayers();
    return {
      restore: () => {
        if (saved === null) {
          throw new InvalidArgument("Cannot restore a cache from a snapshot after it was disposed");
        }
        // A forward whose cache was disposed meanwhile has nothing to go back to.
        if (!this.#disposed) this.loadLayers(saved);
      },
      [Symbol.dispose]: () => {
        dispose((saved ?? []).map((state) => state.states));
        saved = null;
      },
    };
  }

  /**
   * What every layer holds now, which belongs to the caller.
   *
   * @internal
   */
  saveLayers(): LayerState[] {
    this.#assertAlive();
    return this.#layers.map((layer) => layer.save());
  }

  /**
   * Makes the layers hold that, which stays the caller's.
   *
   * @internal
   */
  loadLayers(saved: readonly LayerState[]): void {
    for (const layer of this.#layers.splice(saved.length)) layer[Symbol.dispose]();
    while (this.#layers.length < saved.length) this.#layers.push(this.#make(this.#every));
    saved.forEach((state, i) => this.#layers[i]!.load(state));
  }

  /**
   * Whether every layer keeps what `windows` say.
   *
   * @internal
   */
  keeps(windows: LayerWindows): boolean {
    const of = ({ layers, every }: LayerWindows, i: number) => layers === null ? every : layers[i];
    return this.#layers.every((_, i) => of(windows, i) === of(this.#windows, i));
  }

  /**
   * Slots layer `layer_idx` fills after `seen` tokens.
   *
   * @internal
   */
  filled(layer_idx: number, seen: number): number {
    return (this.#layers[layer_idx] ?? this.#make(this.#every)).filled(seen);
  }

  /** Gives all states back; the cache cannot be used then. {@linkcode LayeredCache.reset} is for using it anew. */
  [Symbol.dispose](): void {
    this.#disposed = true;
    for (const layer of this.#layers) layer[Symbol.dispose]();
    if (!this.#fixed) this.#layers = [];
  }
}

function dispose(all: readonly (States | null)[]): void {
  for (const t of all.flatMap((states) => states ?? [])) t[Symbol.dispose]();
}

/**
 * Checks the names of options.
 *
 * @throws {InvalidArgument}
 */
export function checkOptions(options: object, known: readonly string[], act = "make"): void {
  const odd = Object.keys(options).find((key) => !known.includes(key));
  if (odd === undefined) return;
  throw new InvalidArgument(
    `Cannot ${act} a cache with option "${odd}": known options are ${known.join(", ")}`,
  );
}
