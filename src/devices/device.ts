/**
 * The contract every device keeps, and all that the layers above know of one.
 *
 * A device is a memory, an ordered queue of work on it, and a fixed set of kernels. It is *not* an autograd
 * engine, a graph compiler or a tensor library: it knows views of raw storage and nothing of models, masks as
 * predicates, or who owns what.
 *
 * Work is recorded and values are read. Every kernel call, write and release is recorded synchronously, in
 * order; `flush` runs what is recorded (WASM in slices that yield to the event loop, WebGPU as one submit) and
 * only `read` waits for values. Because execution follows the order of recording exactly, memory released
 * after a kernel was recorded may be given out again at once.
 *
 * Shape legend, here and in all kernels: `B` batch, `H` query heads, `Hkv` key/value heads, `Q` query length,
 * `K` key length, `D` head dimension of query and key, `Dv` of value.
 *
 * @module
 */
import type { DType, HostArray } from "../dtype.ts";
import type { QuantizedView } from "./quantized.ts";

/** The device families a tensor can live on. */
export type DeviceName = "wasm" | "webgpu";

/** A block of device memory. Each `allocate` returns a new object, even when the memory is recycled. */
export interface Allocation {
  /** The device that owns the block. */
  readonly device: Device;
  /** Size in bytes as requested. */
  readonly bytes: number;
  /** Set when the work that should have filled the block was dropped by an abort: its values must not be read. */
  dropped: boolean;
}

/** Raw storage seen as a tensor. Offset and strides count elements; a stride of 0 broadcasts. */
export interface View {
  readonly allocation: Allocation;
  readonly dtype: DType;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  /**
   * (…, 1) float32, only with int8 keys and values: the value of an element is the integer times the scale of its row.
   * Kernels that do not speak of scales are never given such a view.
   */
  readonly scales?: View;
}

/** Highest rank a strided kernel takes. */
export const MAX_RANK = 6;

/** Elementwise functions of one operand. `copy` converts between dtypes and strides. */
export type UnaryOp =
  | "copy"
  | "neg"
  | "exp"
  | "log"
  | "tanh"
  | "sigmoid"
  | "sqrt"
  | "silu"
  | "gelu"
  | "gelu_tanh"
  | "quick_gelu"
  | "relu";

/** Elementwise functions of two operands. `silu_mul(a, b)` is `a·sigmoid(a)·b`. */
export type BinaryOp = "add" | "sub" | "mul" | "div" | "maximum" | "silu_mul";

/** How an attention kernel works: `eager` materialises scores, `flash` tiles with an online softmax. */
export type AttentionAlgorithm = "eager" | "flash";

/** Versions of the `flash` kernel, by the paper each follows; where a device has fewer, they are the same kernel. */
export type FlashVersion = 2 | 3 | 4;

/** How scores are multiplied: `int8` quantises queries and keys. */
export type AttentionPrecision = "float32" | "int8";

/**
 * A mask by blocks of queries and keys: what a block of queries does not list is hidden, and not read by `flash`. Blocks
 * at the edges may reach beyond the last query and key.
 */
export interface BlocksView {
  /** Queries and keys of a block. */
  readonly size: readonly [queries: number, keys: number];
  /** (B, H, ⌈Q / queries⌉, 2) int32, B and H by any strides: the entries from the first number up to the second. */
  readonly lists: View;
  /** (n, 2) int32, contiguous, in the allocation of `lists`: a block of keys, ascending within a list, and which `bits` are its own; −1 where all is visible. */
  readonly entries: View;
  /** (m, queries, bytes) uint8, contiguous: bit j % 8 of byte j / 8 of a row is 1 where key j of the block is visible. */
  readonly bits: View;
}

/** What an attention kernel is asked to compute. All mask forms that are present hold at once. */
export interface AttentionCall {
  readonly algorithm: AttentionAlgorithm;
  /** Which `flash`; default: the device's best. */
  readonly version?: FlashVersion | undefined;
  /** Default `float32`; `int8` only with version 3 on WASM. */
  readonly precision?: AttentionPrecision | undefined;
  /** (B, H, Q, D) float32, any outer strides, last dimension contiguous. */
  readonly query: View;
  /** (B, Hkv, K, D) float32, float16, bfloat16, or int8 with scales. Query head h reads key/value head floor(h / (H / Hkv)). */
  readonly key: View;
  /** (B, Hkv, K, Dv), dtype as `key`. */
  readonly value: View;
  /** (B, Q, H, Dv) float32, contiguous. */
  readonly out: View;
  /** (B, H, Q, K) float32, contiguous; only with `algorithm: "eager"`. */
  readonly weights: View | null;
  /** (B, H, Q) float32, contiguous: log Σ exp of the scores, sinks included; −∞ for a fully masked row without a sink. */
  readonly lse: View | null;
  /** Multiplies q·k. */
  readonly scaling: number;
  /** `c·tanh(score / c)` before any mask; 0 means none. */
  readonly softcap: number;
  /** Position of query row i among the keys is `i + query_offset`; causal and window limits are relative to it. */
  readonly query_offset: number;
  /** Key j is visible only if j ≤ i + query_offset. */
  readonly causal: boolean;
  /** Key j is visible only if j ≥ i + query_offset − window_left; −1 means unbounded. */
  readonly window_left: number;
  /** Key j is visible only if j ≤ i + query_offset + window_right; −1 means unbounded. */
  readonly window_right: number;
  /** (B, K) bool, 1 = real key. Where given with `zero_padded_queries`, rows that sit on a padded key position give zeros. */
  readonly padding: View | null;
  readonly zero_padded_queries: boolean;
  /** Broadcastable to (B, H, Q, K) by 0 strides: bool (1 = visible), or float32 added to the score, where ≤ min/2 means masked. */
  readonly mask: View | null;
  /** Key blocks by query block. */
  readonly blocks: BlocksView | null;
  /** (H) float32 sink logits: each adds exp(sink) to its head's denominator. */
  readonly sinks: View | null;
}

/**
 * The kernels of a device. Each call records one operation. An output never shares storage with an input.
 * Float arithmetic is float32; float16 and bfloat16 operands are widened on load. A row whose keys are all
 * masked gives zeros, never NaN.
 */
export interface Kernels {
  /** `out = op(x)`, shapes equal after broadcasting `x` by 0 strides. Converts dtypes (float → int truncates, → bool is ≠ 0). */
  unary(op: UnaryOp, x: View, out: View): void;
  /** `out = op(a, b)`; a and b already broadcast to the shape of `out` by 0 strides. float32, or all three int32 (add, sub, mul, maximum). */
  binary(op: BinaryOp, a: View, b: View, out: View): void;
  /** `out = condition ? a : b`, all broadcast to the shape of `out`; condition is bool. */
  where(condition: View, a: View, b: View, out: View): void;
  /** Reduces the last dimension: x (…, N) → out (…). */
  reduce(op: "sum" | "max" | "mean", x: View, out: View): void;
  /** Softmax over the last dimension; x (…, N) → out (…, N) contiguous, and optionally lse (…). A row of −∞ gives zeros. */
  softmax(x: View, out: View, lse: View | null): void;
  /** `out = a · b` or `a · bᵀ`: a (…, M, N), b (…, N, P) or (…, P, N) → out (…, M, P) contiguous; batch dims equal by 0 strides. */
  matmul(a: View, b: View, out: View, transpose_b: boolean): void;
  /** `out = x · weightᵀ + bias`: x (M, I) float32, weight (O, I) of any float dtype, bias (O), out (M, O) contiguous. */
  linear(x: View, weight: View, bias: View | null, out: View): void;
  /**
   * `out = x · weightᵀ + bias` with a quantised weight: x (M, I) float32 is rounded to integers as well, 32 columns at a
   * time, which lie in `room` (int32, `roomWords` long) meanwhile. bias (O), out (M, O) contiguous.
   */
  linear_quantized(x: View, weight: QuantizedView, bias: View | null, out: View, room: View): void;
  /**
   * Makes a quantised weight of floats, or brings one from the form of files into that of memory, or back (see
   * `quantized_weights.rs`). WASM only: weights are made there for every device.
   */
  weight_step?(
    step: "quantize" | "pack" | "unpack",
    weight: QuantizedView,
    values: View,
    scales: View | null,
  ): void;
  /** Rows of `weight` (V, E) picked by `ids` (N) int32 → out (N, E) float32. Ids are checked by the caller. */
  embedding(ids: View, weight: View, out: View): void;
  /** `x · rsqrt(mean(x²) + eps) · (weight + unit_offset)` over rows: x (M, N), weight (N) or null → out (M, N). */
  rms_norm(x: View, weight: View | null, eps: number, unit_offset: number, out: View): void;
  /** Layer normalisation over rows: x (M, N), weight (N), bias (N) or null → out (M, N). */
  layer_norm(x: View, weight: View, bias: View | null, eps: number, out: View): void;
  /** Rows first…first+rows of the rotary table: out (rows, D) = [cos(p·f₀…), sin(p·f₀…)]·scaling, for `frequencies` (D/2). */
  rotary_table(frequencies: Float32Array, first: number, scaling: number, out: View): void;
  /** Half-split rotation of x (B, H, N, D) by table rows `positions` (B, N) int32 → out (B, H, N, D) contiguous. */
  rotary(x: View, table: View, positions: View, out: View): void;
  /** Index of the largest element of each row (first on ties): x (M, N) → out (M) int32. */
  argmax(x: View, out: View): void;
  /**
   * Rows of x (B, H, N, D), any float type, as int8: `scales` (B, H, N, 1) = max|row| / 127 and `out` (B, H, N, D) =
   * x / scale, rounded to the nearest, ties to even. A row of zeros has scale 0, one that is not finite NaN.
   */
  quantize(x: View, out: View, scales: View): void;
  /** Scaled dot-product attention, see {@linkcode AttentionCall}. */
  attention(call: AttentionCall): void;
}

/** A memory, an ordered queue of work, and kernels. See the module comment. */
export interface Device {
  readonly name: DeviceName;
  readonly kernels: Kernels;
  /** Bytes one element of `dtype` takes on this device. */
  elementBytes(dtype: DType): number;
  /** Device bytes of a host array. */
  encode(dtype: DType, host: HostArray): Uint8Array<ArrayBuffer>;
  /** Host array of device bytes. */
  decode(dtype: DType, bytes: Uint8Array<ArrayBuffer>): HostArray;
  /**
   * Reserves memory, uninitialised. `evictable` marks a copy of host data, which does not keep a closing device open.
   *
   * @throws {OutOfMemory}
   */
  allocate(bytes: number, evictable?: boolean): Allocation;
  /** Gives memory back once everything recorded so far has run. */
  release(allocation: Allocation): void;
  /** Records a write of host bytes, which the caller no longer changes. */
  write(allocation: Allocation, byteOffset: number, data: Uint8Array<ArrayBuffer>): void;
  /**
   * Runs everything recorded, then copies bytes to the host.
   *
   * @throws {ComputationDropped | EngineFailure}
   */
  read(allocation: Allocation, byteOffset: number, bytes: number): Promise<Uint8Array<ArrayBuffer>>;
  /**
   * Runs everything recorded. When `signal` aborts, what was recorded since the mark `since` (default: all) and has not
   * run yet is dropped, and the promise rejects with the signal's reason.
   */
  flush(signal?: AbortSignal, since?: number): Promise<void>;
  /** Where the recording stands, for `flush`; undefined where work cannot be told apart. */
  readonly mark?: number;
  /** Number of live allocations. */
  readonly live: number;
  /** Bytes in live allocations, and the most there ever were. */
  readonly bytes: number;
  readonly peak: number;
  /** Whether the device was closed for good. */
  readonly isClosed: boolean;
  /**
   * Throws when the device can no longer compute.
   *
   * @throws {EngineFailure}
   */
  assertAlive(): void;
}
