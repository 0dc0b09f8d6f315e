/**
 * The public conformance suite: one attention implementation against the float64 oracle, row by row.
 *
 * @module
 */
import { attention, type AttentionOptions } from "../attention/attention.ts";
import { AttentionInterface } from "../attention/interface.ts";
import { reference_attention, type ReferenceResult } from "../attention/reference.ts";
import type { AttentionFunction } from "../attention/types.ts";
import { PretrainedConfig } from "../config.ts";
import type { DeviceName } from "../devices/device.ts";
import { AttentionRefused, InvalidArgument } from "../errors.ts";
import { randomGenerator } from "../random.ts";
import { and_masks } from "../masks/algebra.ts";
import { BlockMask } from "../masks/block_mask.ts";
import {
  bidirectional_mask_function,
  causal_mask_function,
  sliding_window_bidirectional_mask_function,
  sliding_window_causal_mask_function,
} from "../masks/functions.ts";
import { sdpa_mask } from "../masks/format_sdpa.ts";
import { ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface } from "../masks/interface.ts";
import type { AttentionMask, MaskFormatter, MaskFunction } from "../masks/types.ts";
import { Tensor } from "../tensor.ts";
import { CONFORMANCE_CASES, type ConformanceCase } from "./cases.ts";
import { ATTENTION_TOLERANCE, type Tolerance } from "./tolerance.ts";

/** Options of {@linkcode conformance}. */
export interface ConformanceOptions {
  /** Where to compute; default `"wasm"`. */
  device?: DeviceName;
  /** The rows; default {@linkcode CONFORMANCE_CASES}. */
  cases?: readonly ConformanceCase[];
  /** How masks reach a function that is given without a name; default `sdpa_mask`. */
  format_mask?: MaskFormatter;
  /** Largest allowed error; default: that of the device. */
  tolerance?: Tolerance;
  /** Why the test cannot run here: it is registered and ignored. */
  ignore?: string;
}

/** Functions given without a name get one each. */
let unnamed = 0;

/** One row of the suite, for any test runner: the fields are those of a `Deno.test` step. */
export interface ConformanceTest {
  /** The row's name. */
  readonly name: string;
  /** Whether the implementation's mask formatter refuses the row, which is no failure. */
  readonly ignore: boolean;
  /** Computes and compares; rejects with what differs. */
  fn(): Promise<void>;
}

/**
 * Registers a `Deno.test` with one step per row of the case table: the implementation, asked through
 * {@linkcode attention} with masks from its own formatter, must agree with {@linkcode reference_attention}. Rows that
 * the formatter refuses as beyond the implementation are ignored steps.
 *
 * Rows of padded queries may hold anything finite, and rows that see no key must be zeros.
 *
 * @throws {InvalidArgument} for a name without an attention function or mask formatter
 *
 * @example
 * ```ts ignore
 * import { conformance } from "@attune/attune/testing";
 * conformance("sdpa", { device: "webgpu" });
 * conformance(myAttention);
 * ```
 */
export function conformance(target: string | AttentionFunction, options: ConformanceOptions = {}): void {
  const { device = "wasm", ignore } = options;
  const name = nameOf(target, options);
  const rows = conformance_tests(name, options);
  Deno.test({
    name: `conformance: ${name} on ${device}${ignore === undefined ? "" : ` (${ignore})`}`,
    ignore: ignore !== undefined,
    fn: async (t) => {
      for (const row of rows) {
        await t.step({ ...row, name: row.ignore ? `${row.name} (its mask formatter refuses)` : row.name });
      }
    },
  });
}

/**
 * The rows of {@linkcode conformance} without a test runner, for runtimes that have another than Deno's, or none, as
 * browsers.
 *
 * @throws {InvalidArgument} for a name without an attention function or mask formatter
 *
 * @example
 * ```ts ignore
 * import { test } from "node:test";
 * for (const { name, ignore, fn } of conformance_tests("sdpa")) test(name, { skip: ignore }, fn);
 * ```
 */
export function conformance_tests(
  target: string | AttentionFunction,
  options: ConformanceOptions = {},
): ConformanceTest[] {
  const { device = "wasm", cases = CONFORMANCE_CASES, ignore } = options;
  const tolerance = options.tolerance ?? ATTENTION_TOLERANCE[device];
  const name = nameOf(target, options);
  const format = ALL_MASK_ATTENTION_FUNCTIONS.resolve(name);
  if (format === undefined) {
    throw new InvalidArgument(
      `Cannot check "${name}": no mask formatter is registered under it; register one with AttentionMaskInterface.register`,
    );
  }
  return cases.map((row) => ({
    name: row.name,
    ignore: ignore !== undefined || refuses(format, row, name, device),
    fn: () => checkRow(name, format, row, device, tolerance),
  }));
}

/** The name of an implementation; a function without one is registered under a new one. */
function nameOf(target: string | AttentionFunction, { format_mask = sdpa_mask }: ConformanceOptions): string {
  return typeof target === "string" ? target : registered(target, format_mask);
}

function registered(fn: AttentionFunction, format_mask: MaskFormatter): string {
  const name = `conformance ${++unnamed}: ${fn.name || "attention function"}`;
  AttentionInterface.register(name, fn);
  AttentionMaskInterface.register(name, format_mask);
  return name;
}

/** What a row says about visibility, as a predicate of absolute positions. */
function predicate(row: ConformanceCase): MaskFunction {
  const { is_causal = false, sliding_window: w, visible } = row;
  const pattern = w !== undefined
    ? (is_causal ? sliding_window_causal_mask_function : sliding_window_bidirectional_mask_function)(w)
    : is_causal
    ? causal_mask_function
    : bidirectional_mask_function;
  const offset = row.keys - row.queries;
  return visible === undefined ? pattern : and_masks(pattern, (b, h, q, kv) => visible(b, h, q - offset, kv));
}

/** Real keys, row-major (B, K). */
function realKeys({ batch = 1, keys, padding }: ConformanceCase): Uint8Array<ArrayBuffer> | null {
  if (padding === undefined) return null;
  return Uint8Array.from({ length: batch * keys }, (_, at) => {
    const length = padding.lengths[Math.floor(at / keys)] ?? keys, j = at % keys;
    return Number(padding.side === "right" ? j < length : j >= keys - length);
  });
}

function formatted(
  format: MaskFormatter,
  row: ConformanceCase,
  name: string,
  device: DeviceName,
): AttentionMask {
  const real = realKeys(row), { batch = 1, heads = 2, is_causal = false, sliding_window } = row;
  using padding = real === null ? null : Tensor.from(real, { shape: [batch, row.keys], dtype: "bool" });
  return format({
    batch_size: batch,
    q_length: row.queries,
    kv_length: row.keys,
    q_offset: row.keys - row.queries,
    kv_offset: 0,
    mask_function: predicate(row),
    attention_mask: padding,
    config: new PretrainedConfig({ num_attention_heads: heads }, { attn_implementation: name }),
    dtype: "float32",
    device,
    allow_is_causal_skip: is_causal && row.visible === undefined,
    allow_is_bidirectional_skip: !is_causal && row.visible === undefined,
    ...(sliding_window === undefined ? {} : { local_size: sliding_window }),
    ...(row.visible === undefined ? {} : { constraints: ["mask_function"] }),
  });
}

/** Whether a row is beyond what the formatter can express. */
function refuses(format: MaskFormatter, row: ConformanceCase, name: string, device: DeviceName): boolean {
  try {
    const mask = formatted(format, row, name, device);
    if (mask instanceof Tensor || mask instanceof BlockMask) mask[Symbol.dispose]();
    return false;
  } catch (error) {
    if (error instanceof AttentionRefused) return true;
    throw error;
  }
}

async function checkRow(
  name: string,
  format: MaskFormatter,
  row: ConformanceCase,
  device: DeviceName,
  tolerance: Tolerance,
): Promise<void> {
  const { batch = 1, heads = 2, kv_heads = heads, queries, keys, head_dim = 8, value_dim = head_dim } = row;
  const random = normal(row.name);
  const make = (shape: readonly number[], scale = 1) => {
    const data = random(shape.reduce((a, b) => a * b, 1), scale);
    return { data, shape, tensor: Tensor.from(data, { shape, device }) };
  };
  const query = make([batch, heads, queries, head_dim], row.magnitude);
  const key = make([batch, kv_heads, keys, head_dim], row.magnitude);
  const value = make([batch, kv_heads, keys, value_dim]);
  const sinks = row.sinks === true ? make([heads]) : null;
  using owned = new DisposableStack();
  for (const t of [query, key, value, sinks]) if (t !== null) owned.use(t.tensor);
  const mask = formatted(format, row, name, device);
  if (mask instanceof Tensor || mask instanceof BlockMask) owned.use(mask);
  const real = realKeys(row), visible = predicate(row);
  const expected = reference_attention({
    query,
    key,
    value,
    mask: visible,
    padding: real === null ? null : { data: real, shape: [batch, keys] },
    ...(row.scaling === undefined ? {} : { scaling: row.scaling }),
    ...(row.softcap === undefined ? {} : { softcap: row.softcap }),
    ...(sinks === null ? {} : { sinks }),
  });
  const options: AttentionOptions = {
    attn_implementation: name,
    attention_mask: mask,
    is_causal: row.is_causal ?? false,
    ...(row.scaling === undefined ? {} : { scaling: row.scaling }),
    ...(row.softcap === undefined ? {} : { softcap: row.softcap }),
    ...(row.sliding_window === undefined ? {} : { sliding_window: row.sliding_window }),
    ...(sinks === null ? {} : { s_aux: sinks.tensor }),
  };
  const { attn_output, attn_weights } = await attention(query.tensor, key.tensor, value.tensor, options);
  owned.use(attn_output);
  if (attn_weights !== null) owned.use(attn_weights);
  const shape = [batch, queries, heads, value_dim];
  if (`${attn_output.shape}` !== `${shape}`) {
    throw new Error(`attn_output has shape [${attn_output.shape}], expected (B, Q, H, Dv) = [${shape}]`);
  }
  const padded = (b: number, i: number) => real !== null && real[b * keys + keys - queries + i] === 0;
  const output = await attn_output.data() as Float32Array;
  compare("attn_output", output, expected.output, (at) => {
    const line = Math.floor(at / (heads * value_dim)), head = Math.floor(at / value_dim) % heads;
    const b = Math.floor(line / queries), i = line % queries;
    return padded(b, i) && !isBlank(expected, (b * heads + head) * queries + i, keys);
  }, tolerance);
  if (attn_weights === null) return;
  const weights = await attn_weights.data() as Float32Array;
  compare("attn_weights", weights, expected.weights, (at) => {
    const line = Math.floor(at / keys);
    return padded(Math.floor(line / (heads * queries)), line % queries) && !isBlank(expected, line, keys);
  }, tolerance);
}

/** Whether a query row sees no key at all. */
function isBlank({ weights }: ReferenceResult, row: number, keys: number): boolean {
  return weights.subarray(row * keys, (row + 1) * keys).every((w) => w === 0);
}

/** Compares values; `free` elements, those of padded queries, must only be finite. */
function compare(
  what: string,
  actual: Float32Array,
  expected: Float64Array,
  free: (at: number) => boolean,
  { atol, rtol }: Tolerance,
): void {
  if (actual.length !== expected.length) {
    throw new Error(`${what} has ${actual.length} elements, expected ${expected.length}`);
  }
  for (let at = 0; at < expected.length; at++) {
    const [a, e] = [actual[at]!, expected[at]!];
    const fits = free(at) ? Number.isFinite(a) : Math.abs(a - e) <= atol + rtol * Math.abs(e);
    if (!fits) throw new Error(`${what}[${at}] is ${a}, expected ${e} within ${atol} + ${rtol}·|expected|`);
  }
}

/** Standard normal numbers seeded by a text (FNV-1a, Box–Muller). */
function normal(text: string): (n: number, scale?: number) => Float32Array<ArrayBuffer> {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  const next = randomGenerator(hash >>> 0, 0);
  return (n, scale = 1) =>
    Float32Array.from(
      { length: n },
      () => scale * Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()),
    );
}
