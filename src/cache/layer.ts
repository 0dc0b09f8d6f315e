/**
 * One layer of a cache: buffers (B, Hkv, capacity, D) of which slots start…end are filled.
 *
 * New states are written in place after `end`, so a token costs no copy of the past. Where a buffer is full, what
 * must stay moves into another one (a kernel never writes the storage it reads), in steps so large that the cost
 * for a token stays constant. Nothing that was filled is written again, so a snapshot is a view; it keeps a buffer
 * alive that was left, because an abort drops the copies into the new one.
 *
 * Length: each kind of layer changes what the one it is made of does with the same buffers.
 *
 * @module
 */
import type { DeviceName } from "../devices/device.ts";
import { type DType, hostArray, isFloat } from "../dtype.ts";
import { InvalidArgument } from "../errors.ts";
import { expandView, placeOf } from "../ops/place.ts";
import { slice } from "../ops/shape.ts";
import { keep, tidy } from "../scope.ts";
import { hostData, Tensor } from "../tensor.ts";
import type { KvDType } from "./kv_dtype.ts";

/** Keys (B, Hkv, N, D) and values (B, Hkv, N, Dv). */
export type States = [keys: Tensor, values: Tensor];

/** What a layer held at one moment; its views belong to whoever saved it. */
export interface LayerState {
  readonly states: States | null;
  readonly start: number;
  readonly end: number;
  readonly seen: number;
}

/** One layer. Subclasses say what stays, what is returned, and how large buffers are. */
export abstract class CacheLayer implements Disposable {
  /** Whether the layer keeps only a window. */
  abstract readonly is_sliding: boolean;
  /** Slots the layer fills after `seen` tokens. */
  abstract filled(seen: number): number;
  /** Whether unused slots are handed out, and therefore hold zeros. */
  protected abstract readonly zeroed: boolean;
  /** The buffers; null before the first update. */
  #states: States | null = null;
  /** First filled slot. */
  protected start = 0;
  /** One past the last filled slot. */
  protected end = 0;
  #seen = 0;
  readonly #dtype: KvDType | null;

  /** Keeps keys and values as `dtype`, or null for what they come in. */
  constructor(dtype: KvDType | null = null) {
    this.#dtype = dtype;
  }

  /** Tokens seen so far. */
  get seen(): number {
    return this.#seen;
  }

  /** Where the states live. */
  get device(): DeviceName | null {
    return this.#states?.[0].device ?? null;
  }

  /** Capacity of a buffer for `needed` tokens; a smaller one says that so many are not kept. */
  protected abstract capacityFor(needed: number): number;

  /** Adds `n` tokens and returns what attention must use. */
  protected abstract add(states: States, n: number): States;

  /** Key length and offset for `query_length` new tokens; see the contract of caches. */
  abstract get_mask_sizes(query_length: number): [kv_length: number, kv_offset: number];

  /** Why `n` > 0 last tokens cannot be removed, or null. */
  abstract refusesCrop(n: number): string | null;

  /**
   * Adds states and returns what attention must use, as views that belong to the caller.
   *
   * @throws {InvalidArgument} for states that fit neither each other nor what the layer holds, or have no room
   */
  update(states: States, layer_idx: number): States {
    return tidy(() => {
      const n = this.#check(states, layer_idx);
      const views = this.add(states, n);
      this.#seen += n;
      return views;
    });
  }

  /** Removes the last `n` tokens. */
  crop(n: number): void {
    if (n === 0) return;
    this.#seen = Math.max(0, this.#seen - n);
    this.end = this.#seen === 0 ? 0 : this.end - n;
    if (this.#seen === 0) this.start = 0;
    this.#clearUnused();
  }

  /** Forgets everything. Buffers of fixed size stay, others are given back. */
  reset(): void {
    if (this.zeroed) this.crop(this.#seen);
    else this[Symbol.dispose]();
  }

  /** What the layer holds now. */
  save(): LayerState {
    const states = this.#states === null ? null : both((i) => same(this.#states![i]));
    return { states, start: this.start, end: this.end, seen: this.#seen };
  }

  /** Holds `state` again, which stays the caller's. */
  load({ states, start, end, seen }: LayerState): void {
    this.#replace(states === null ? null : both((i) => same(states[i])), start, end);
    this.#seen = seen;
    this.#clearUnused();
  }

  /** The filled slots on another device, which belong to the caller; null when there is nothing to move. */
  async moved(device: DeviceName): Promise<States | null> {
    if (this.#states === null || this.device === device) return null;
    const [keys, values] = this.views(this.start, this.end);
    using _keys = keys;
    using _values = values;
    const there = await keys.to(device);
    try {
      return [there, await values.to(device)];
    } catch (error) {
      there[Symbol.dispose]();
      throw error;
    }
  }

  /** Takes over what {@linkcode CacheLayer.moved} gave. It has no spare room: the next update finds it some. */
  settle(states: States): void {
    this.#replace(states, 0, this.end - this.start);
  }

  /**
   * The buffers with batch row i taken from row `rows[i]`, which belong to the caller; null when there are none.
   *
   * @throws {InvalidArgument} for a row that is not there
   */
  reordered(rows: readonly number[]): States | null {
    const states = this.#states;
    if (states === null) return null;
    const batch = states[0].shape[0]!;
    const wrong = rows.find((r) => !(Number.isInteger(r) && r >= 0 && r < batch));
    if (wrong !== undefined) {
      throw new InvalidArgument(
        `Cannot reorder a cache of batch ${batch} by row ${wrong}: expected 0…${batch - 1}`,
      );
    }
    return both((i) => pick(states[i], rows));
  }

  /** Takes over what {@linkcode CacheLayer.reordered} gave. */
  exchange(states: States): void {
    this.#replace(states, this.start, this.end);
  }

  /** Gives the states back and forgets everything. */
  [Symbol.dispose](): void {
    this.#replace(null, 0, 0);
    this.#seen = 0;
  }

  /** Slots `from…to`. */
  protected views(from: number, to: number): States {
    const states = this.#states!;
    return [slice(states[0], 2, from, to), slice(states[1], 2, from, to)];
  }

  /**
   * Puts `n` tokens behind slots `from…end`, of which, with them, the last `stays` are kept, and returns all of these.
   * Where they are more than a buffer is made for, what is returned has storage of its own.
   */
  protected append(from: number, states: States, n: number, stays: number): States {
    const held = this.end - from;
    const capacity = this.capacityFor(held + n);
    if (this.end + n > this.#room && held + n > capacity) {
      const all = held === 0 && this.#keeps(states[0])
        ? [same(states[0]), same(states[1])] as States
        : this.#buffers(states, from, held + n);
      if (held > 0 || !this.#keeps(states[0])) all.forEach((t, i) => write(t, states[i]!, held));
      const tail: States = [slice(all[0], 2, held + n - stays), slice(all[1], 2, held + n - stays)];
      const kept = stays === 0 ? null : this.#buffers(states, this.end, this.capacityFor(stays));
      kept?.forEach((t, i) => write(t, tail[i]!, 0));
      this.#replace(kept, 0, stays);
      return all;
    }
    let first = from;
    if (this.end + n > this.#room) {
      this.#replace(this.#buffers(states, from, capacity), 0, held);
      first = 0;
    }
    this.#states!.forEach((t, i) => write(t, states[i]!, this.end));
    this.end += n;
    this.start = Math.max(first, this.end - stays);
    return this.views(first, this.end);
  }

  /** Slots that may be written. States that still have a host copy (they were just moved) are not written in place. */
  get #room(): number {
    const keys = this.#states?.[0];
    return keys === undefined || keys.storage.host !== null ? 0 : keys.shape[2]!;
  }

  /** New buffers where and of the type that `like` is, which begin with slots `from…end`. */
  #buffers(like: States, from: number, capacity: number): States {
    const held = this.end - from;
    return both((i) => {
      const [b, h, , d] = like[i].shape as [number, number, number, number];
      const buffer = bufferOf(like[i], this.#dtype ?? like[i].dtype, [b, h, capacity, d]);
      if (held > 0) write(buffer, slice(this.#states![i], 2, from, this.end), 0);
      if (this.zeroed) clear(slice(buffer, 2, held));
      return buffer;
    });
  }

  #clearUnused(): void {
    if (!this.zeroed || this.#room === 0) return;
    tidy(() => this.views(this.end, this.#room).forEach(clear));
  }

  /** Whether states are of the type they are kept in. */
  #keeps(states: Tensor): boolean {
    return this.#dtype === null || states.dtype === this.#dtype;
  }

  #replace(states: States | null, start: number, end: number): void {
    states?.forEach(keep);
    for (const t of this.#states ?? []) t[Symbol.dispose]();
    this.#states = states;
    this.start = start;
    this.end = end;
  }

  /** Checks states against each other and what the layer holds; returns the number of tokens. */
  #check([key, value]: States, layer_idx: number): number {
    const [b, h, n] = key.shape;
    const pair = key.shape.length === 4 && value.shape.length === 4 && value.shape[0] === b &&
      value.shape[1] === h && value.shape[2] === n && value.dtype === key.dtype &&
      (this.#keeps(key) || isFloat(key.dtype));
    const dtype = this.#dtype ?? key.dtype;
    const [keys, values] = this.#states ?? [];
    const alike = keys === undefined || values === undefined ||
      (keys.shape[0] === b && keys.shape[1] === h && keys.shape[3] === key.shape[3] &&
        values.shape[3] === value.shape[3] && keys.dtype === dtype);
    if (!pair || (!alike && this.#seen > 0)) {
      const held = keys === undefined ? "" : `; layer ${layer_idx} holds ${keys.dtype} [${keys.shape}]`;
      throw new InvalidArgument(
        `Cannot cache key ${key.dtype} [${key.shape}] and value ${value.dtype} [${value.shape}]: expected (B, Hkv, N, D) and (B, Hkv, N, Dv)${held}`,
      );
    }
    if (!alike) this.#replace(null, 0, 0);
    return n!;
  }
}

/** Makes keys and values, both or none. */
function both(make: (i: 0 | 1) => Tensor): States {
  const made = tidy(() => [make(0), make(1)] as States);
  made.forEach(keep);
  return made;
}

/** Another tensor over the same storage. */
function same(t: Tensor): Tensor {
  return t.view(t.shape, t.strides);
}

/** An empty buffer where `like` is; int8 has scales. */
function bufferOf(like: Tensor, dtype: DType, shape: readonly number[]): Tensor {
  const device = placeOf([like], "cache");
  if (dtype !== "int8") return Tensor.empty(device, dtype, shape);
  return tidy(() => {
    const scales = Tensor.empty(device, "float32", [...shape.slice(0, 3), 1]);
    return Tensor.quantized(Tensor.empty(device, dtype, shape), scales);
  });
}

/** The tensors something is made of, in the active scope: the integers and scales of what is quantised. */
function parts(t: Tensor): Tensor[] {
  return t.scales === null ? [t] : [t.unscaled(), t.scales];
}

/** Copies states to slots from `at` on, rounding them to the type of the buffer. */
function write(buffer: Tensor, states: Tensor, at: number): void {
  if (states.size === 0) return;
  const device = buffer.storage.home!;
  tidy(() => {
    const targets = parts(buffer).map((part) => {
      const view = part.on(device);
      const shape = [...states.shape.slice(0, 3), view.shape[3]!];
      return { ...view, shape, offset: view.offset + at * view.strides[2]! };
    });
    const [target, scales] = targets;
    if (scales !== undefined && states.scales === null) {
      device.kernels.quantize(states.on(device), target!, scales);
    } else {
      parts(states).forEach((part, i) => device.kernels.unary("copy", part.on(device), targets[i]!));
    }
  });
}

/** Fills with zeros. */
function clear(t: Tensor): void {
  if (t.size === 0) return;
  const device = t.storage.home!;
  using zero = Tensor.from([0], { dtype: "float32", shape: [1, 1, 1, 1], device: t.device });
  tidy(() =>
    parts(t).forEach((part) =>
      device.kernels.unary("copy", expandView(zero.on(device), part.shape), part.on(device))
    )
  );
}

/** Rows of the batch, in a tensor of their own; on the host for states that are still there. */
function pick(t: Tensor, rows: readonly number[]): Tensor {
  if (t.scales !== null) {
    return tidy(() => Tensor.quantized(pick(t.unscaled(), rows), pick(t.scales!, rows)));
  }
  const shape = [rows.length, ...t.shape.slice(1)];
  const row = t.size / t.shape[0]!;
  if (t.storage.host !== null) {
    const from = hostData(t);
    const to = hostArray(t.dtype, rows.length * row);
    const bytes = new Uint8Array(to.buffer), size = row * to.BYTES_PER_ELEMENT;
    rows.forEach((r, i) =>
      bytes.set(new Uint8Array(from.buffer, from.byteOffset + r * size, size), i * size)
    );
    return Tensor.ofHost(to, t.dtype, shape, t.device);
  }
  const device = t.storage.home!;
  const out = Tensor.empty(device, t.dtype, shape);
  rows.forEach((r, i) => {
    using source = slice(t, 0, r, r + 1);
    using target = slice(out, 0, i, i + 1);
    if (row > 0) device.kernels.unary("copy", source.on(device), target.on(device));
  });
  return out;
}
