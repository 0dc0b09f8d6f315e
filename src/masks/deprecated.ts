/**
 * Mask helpers of old models, which put 0/1 masks into additive form. Each warns once; the `create_*_mask` family
 * makes what the active implementation takes.
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import { convertTo, type DType, minOf, present } from "../dtype.ts";
import { InvalidArgument } from "../errors.ts";
import { warnOnce } from "../notice.ts";
import { releasing } from "../release.ts";
import { hostData, Tensor } from "../tensor.ts";
import type { MatrixInput } from "./types.ts";

/** Options of {@linkcode get_extended_attention_mask}. */
export interface ExtendedMaskOptions {
  /** dtype of the result; default float32. */
  dtype?: DType;
  /** Config of the model: with `is_decoder` a 2-D mask becomes causal. */
  config?: { readonly is_decoder?: unknown } | PretrainedConfig;
}

/**
 * Turns a 0/1 mask around and makes it additive: (B, N) → (B, 1, 1, N) or (B, Q, N) → (B, 1, Q, N), 0 where it was 1
 * and the most negative value of `dtype` where it was 0.
 *
 * @deprecated Use {@linkcode create_bidirectional_mask} with `encoder_hidden_states`.
 *
 * @throws {InvalidArgument} for another rank or dtype.
 */
export function invert_attention_mask(
  encoder_attention_mask: MatrixInput,
  dtype: DType = "float32",
): Tensor {
  deprecated("invert_attention_mask", "create_bidirectional_mask");
  return additive(spread(read(encoder_attention_mask, "invert_attention_mask")), dtype);
}

/**
 * Joins a padding mask (B, N) with causality over `input_shape` (B, Q): (B, 1, Q, N) of the mask's dtype, 1 = visible.
 * Where the mask is longer than the queries, the keys before them are a past that all of them see.
 *
 * @deprecated Use {@linkcode create_causal_mask}.
 *
 * @throws {InvalidArgument} for a mask of another rank or shorter than the queries.
 */
export function create_extended_attention_mask_for_decoder(
  input_shape: readonly number[],
  attention_mask: MatrixInput,
): Tensor {
  deprecated("create_extended_attention_mask_for_decoder", "create_causal_mask");
  const { shape, values, dtype } = decoder(
    input_shape,
    read(attention_mask, "create_extended_attention_mask_for_decoder"),
  );
  return Tensor.ofHost(convertTo(dtype, values), dtype, shape, "wasm");
}

/**
 * Makes a 0/1 mask additive: (B, Q, N) → (B, 1, Q, N); (B, N) → (B, 1, 1, N), or for a decoder what
 * {@linkcode create_extended_attention_mask_for_decoder} gives.
 *
 * @deprecated Use {@linkcode create_causal_mask} or {@linkcode create_bidirectional_mask}.
 *
 * @throws {InvalidArgument} for another rank or dtype.
 */
export function get_extended_attention_mask(
  attention_mask: MatrixInput,
  input_shape: readonly number[],
  options: ExtendedMaskOptions = {},
): Tensor {
  deprecated("get_extended_attention_mask", "create_causal_mask or create_bidirectional_mask");
  const mask = read(attention_mask, "get_extended_attention_mask");
  const causal = mask.shape.length === 2 && options.config?.["is_decoder"] === true;
  return additive(causal ? decoder(input_shape, mask) : spread(mask), options.dtype ?? "float32");
}

/** Host values of a mask. */
interface Values {
  readonly shape: readonly number[];
  readonly values: readonly number[];
  readonly dtype: DType;
}

function deprecated(name: string, instead: string): void {
  warnOnce(`deprecated ${name}`, `${name} is deprecated: use ${instead}`);
}

function read(mask: MatrixInput, name: string): Values {
  if (!(mask instanceof Tensor)) return releasing(Tensor.from(mask), (made) => read(made, name));
  if (mask.shape.length !== 2 && mask.shape.length !== 3) {
    throw new InvalidArgument(
      `Cannot use a mask of shape [${mask.shape}] in ${name}: expected (B, N) or (B, Q, N)`,
    );
  }
  return {
    shape: mask.shape,
    values: Array.from(present(mask.dtype, hostData(mask)), Number),
    dtype: mask.dtype,
  };
}

/** (B, N) → (B, 1, 1, N), (B, Q, N) → (B, 1, Q, N). */
function spread({ shape, ...rest }: Values): Values {
  const [batch, ...inner] = shape;
  return { ...rest, shape: [batch!, 1, ...(inner.length === 1 ? [1] : []), ...inner] };
}

function decoder(input_shape: readonly number[], { shape, values, dtype }: Values): Values {
  const [batch, queries] = input_shape, [rows, keys] = shape;
  if (
    shape.length !== 2 || rows === undefined || keys === undefined || queries === undefined ||
    rows !== batch ||
    keys < queries
  ) {
    throw new InvalidArgument(
      `Cannot make a mask of shape [${shape}] causal for inputs (B, Q) = [${input_shape}]: expected (B, N) with N ≥ Q`,
    );
  }
  const past = keys - queries;
  const causal: number[] = [];
  for (let b = 0; b < rows; b++) {
    for (let q = 0; q < queries; q++) {
      for (let kv = 0; kv < keys; kv++) causal.push(kv <= q + past ? values[b * keys + kv]! : 0);
    }
  }
  return { shape: [rows, 1, queries, keys], values: causal, dtype };
}

function additive({ shape, values }: Values, dtype: DType): Tensor {
  const min = minOf(dtype);
  // Adding 0 turns −0 into 0.
  return Tensor.ofHost(convertTo(dtype, values.map((x) => (1 - x) * min + 0)), dtype, shape, "wasm");
}
