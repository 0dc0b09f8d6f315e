/**
 * How far attention in float32 is from float64, ours beside PyTorch's on the same operands. What PyTorch errs is
 * recorded by `golden/make_accuracy.py`, whose operands are made again here bit for bit.
 *
 * @module
 */
import { AssertionError } from "@std/assert";
import { attention, Tensor } from "../../mod.ts";
import { reference_attention } from "../../src/attention/reference.ts";
import { eager_mask } from "../../src/masks/format_eager.ts";
import { sdpa_mask } from "../../src/masks/format_sdpa.ts";
import { causal_mask_function } from "../../src/masks/functions.ts";
import { goldenPath } from "./golden.ts";

/** Root mean square and largest absolute error. */
export interface Errors {
  readonly rms: number;
  readonly max: number;
}

/** The errors of each seed. */
interface Recorded {
  readonly rms: readonly number[];
  readonly max: readonly number[];
}

/** A shape of `make_accuracy.py`: one sequence, `H` query heads over `Hkv`, queries at the last of `K` positions. */
export interface AccuracyShape {
  readonly name: string;
  readonly H: number;
  readonly Hkv: number;
  readonly Q: number;
  readonly K: number;
  readonly D: number;
  readonly causal: boolean;
  /** Factor of the query. */
  readonly sharpness: number;
  /** Sum of all operands of all seeds, as PyTorch's side has it. */
  readonly checksum: number;
  /** What PyTorch's kernels err. */
  readonly torch: { readonly math: Recorded; readonly flash: Recorded };
}

/** What `make_accuracy.py` recorded. */
export interface Accuracy {
  readonly torch: string;
  readonly cpu: string;
  readonly seeds: number;
  readonly shapes: readonly AccuracyShape[];
}

/** The implementations that are compared. */
export const COMPARED = [
  "eager",
  "sdpa",
  "flash_attention_2",
  "flash_attention_3",
  "flash_attention_4",
] as const;

/** The goal: no more than so many times the error of PyTorch's better kernel. */
export const AIM: Errors = { rms: 1.1, max: 2 };

/** Reads the recording. */
export async function recordedAccuracy(): Promise<Accuracy> {
  return JSON.parse(await Deno.readTextFile(goldenPath("accuracy.json")));
}

/** The errors of all seeds together. */
export function pooled({ rms, max }: Recorded): Errors {
  return { rms: Math.sqrt(rms.reduce((sum, x) => sum + x * x, 0) / rms.length), max: Math.max(...max) };
}

/** The smaller error of PyTorch's two kernels. */
export function torchErrors({ torch }: AccuracyShape): Errors {
  const [math, flash] = [pooled(torch.math), pooled(torch.flash)];
  return { rms: Math.min(math.rms, flash.rms), max: Math.min(math.max, flash.max) };
}

/** The finaliser of MurmurHash3. */
function mixed(x: number): number {
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

/** `operand` of make_accuracy.py. */
function operand(seed: number, which: number, n: number, sharpness: number): Float32Array<ArrayBuffer> {
  const start = mixed(seed * 4 + which + 1), scale = sharpness * 1.75 / 65536;
  return Float32Array.from({ length: n }, (_, i) => {
    const a = mixed(start + 2 * i), b = mixed(start + 2 * i + 1);
    return ((a & 0xffff) + (a >>> 16) + (b & 0xffff) + (b >>> 16) - 131070) * scale;
  });
}

interface Operands {
  readonly q: Float32Array<ArrayBuffer>;
  readonly k: Float32Array<ArrayBuffer>;
  readonly v: Float32Array<ArrayBuffer>;
}

function operandsOf({ H, Hkv, Q, K, D, sharpness }: AccuracyShape, seed: number): Operands {
  return {
    q: operand(seed, 0, H * Q * D, sharpness),
    k: operand(seed, 1, Hkv * K * D, 1),
    v: operand(seed, 2, Hkv * K * D, 1),
  };
}

/** One seed of a shape: its operands, and the answer in float64. */
interface Question extends Operands {
  readonly exact: Float64Array;
}

/**
 * All seeds of a shape with their answers in float64.
 *
 * @throws {AssertionError} where the operands are not those PyTorch had
 */
export function questionsOf(shape: AccuracyShape, seeds: number): Question[] {
  const { H, Hkv, Q, K, D, causal } = shape;
  let sum = 0;
  const questions = Array.from({ length: seeds }, (_, seed) => {
    const { q, k, v } = operandsOf(shape, seed);
    for (const part of [q, k, v]) for (const x of part) sum += x;
    const exact = reference_attention({
      query: { data: q, shape: [1, H, Q, D] },
      key: { data: k, shape: [1, Hkv, K, D] },
      value: { data: v, shape: [1, Hkv, K, D] },
      is_causal: causal,
    }).output;
    return { q, k, v, exact };
  });
  // Sums of numbers with few bits are exact in any order.
  if (sum !== shape.checksum) {
    throw new AssertionError(`${shape.name}: the operands add up to ${sum}, recorded are ${shape.checksum}`);
  }
  return questions;
}

/** The mask a shape needs where `is_causal` cannot say it. */
function maskOf(name: string, { Q, K, causal }: AccuracyShape): Tensor | null {
  if (!causal || name.startsWith("flash") || (name === "sdpa" && Q === K)) return null;
  const format = name === "eager" ? eager_mask : sdpa_mask;
  const mask = format({
    batch_size: 1,
    q_length: Q,
    kv_length: K,
    q_offset: K - Q,
    mask_function: causal_mask_function,
    allow_is_causal_skip: false,
  });
  return mask as Tensor;
}

/** What an implementation errs over all seeds of a shape, on the engine that `configure` set. */
export async function ourErrors(
  name: string,
  shape: AccuracyShape,
  questions: readonly Question[],
): Promise<Errors> {
  const { H, Hkv, Q, K, D, causal } = shape;
  using mask = maskOf(name, shape);
  let [squares, count, max] = [0, 0, 0];
  for (const { q, k, v, exact } of questions) {
    using query = Tensor.from(q, { shape: [1, H, Q, D] });
    using key = Tensor.from(k, { shape: [1, Hkv, K, D] });
    using value = Tensor.from(v, { shape: [1, Hkv, K, D] });
    const { attn_output, attn_weights } = await attention(query, key, value, {
      attn_implementation: name,
      ...(mask === null ? { is_causal: causal } : { attention_mask: mask }),
    });
    attn_weights?.[Symbol.dispose]();
    using output = attn_output;
    const got = await output.data() as Float32Array;
    exact.forEach((x, i) => {
      const error = Math.abs(got[i]! - x);
      squares += error * error;
      if (!(error <= max)) max = error;
    });
    count += exact.length;
  }
  return { rms: Math.sqrt(squares / count), max };
}
