/**
 * Attention without a model: one call on three tensors.
 *
 * @module
 */
import { PretrainedConfig } from "../config.ts";
import type { AttentionPrecision } from "../devices/device.ts";
import { AttentionRefused, InvalidArgument } from "../errors.ts";
import { ALL_MASK_ATTENTION_FUNCTIONS } from "../masks/interface.ts";
import type { MaskFunction } from "../masks/types.ts";
import { tidy, tidySettled } from "../scope.ts";
import { Tensor } from "../tensor.ts";
import { attentionFunction, builtinOf, withoutPages } from "./builtin.ts";
import { checkOperands } from "./attend.ts";
import type { SDPBackend } from "./sdpa_kernel.ts";
import type { AttentionMask } from "./types.ts";

/** Options of {@linkcode attention}. */
export interface AttentionOptions {
  /** Name of the implementation; default `"sdpa"`. */
  attn_implementation?: string;
  /** A mask in the form the implementation takes. */
  attention_mask?: AttentionMask;
  /** A predicate, formatted for the implementation. Not together with `attention_mask`. */
  mask_function?: MaskFunction;
  /** Factor of q·k; default D^-0.5. */
  scaling?: number;
  /** Default false. */
  is_causal?: boolean;
  /** Keys a query sees, itself included (flash only: elsewhere the mask carries the window). */
  sliding_window?: number;
  /** Scores become `c·tanh(score / c)`. */
  softcap?: number;
  /** Sink logits (H). */
  s_aux?: Tensor;
  /** Must be 0. */
  dropout?: 0;
  /** Return the weights (B, H, Q, K), whatever the implementation. */
  output_attentions?: boolean;
  /** Return log Σ exp of the scores (B, H, Q). */
  return_lse?: boolean;
  /** How queries and keys are multiplied; default `"float32"`. `"int8"` is `flash_attention_3` on WASM alone. */
  precision?: AttentionPrecision;
  /** Kernels `sdpa` may use, the preferred one first. */
  sdpa_backends?: readonly SDPBackend[];
}

const OPTIONS = [
  "attn_implementation",
  "attention_mask",
  "mask_function",
  "scaling",
  "is_causal",
  "sliding_window",
  "softcap",
  "s_aux",
  "dropout",
  "output_attentions",
  "return_lse",
  "precision",
  "sdpa_backends",
];

/**
 * Scaled dot-product attention of query (B, H, Q, D), key (B, Hkv, K, D) and value (B, Hkv, K, Dv).
 *
 * @returns attn_output (B, Q, H, Dv); attn_weights (B, H, Q, K) where the implementation has them or
 * `output_attentions` asked; lse (B, H, Q) where `return_lse` asked.
 * @throws {InvalidArgument} for operands, masks or options that do not fit
 * @throws {AttentionRefused} when the implementation cannot return the log-sum-exp, or has no such precision
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { attention, Tensor } from "../../mod.ts";
 * using q = Tensor.from([[[[1, 0]]]], { dtype: "float32" });
 * using v = Tensor.from([[[[3, 4]]]], { dtype: "float32" });
 * const { attn_output } = await attention(q, q, v);
 * assertEquals(await attn_output.tolist(), [[[[3, 4]]]]);
 * attn_output[Symbol.dispose]();
 * ```
 */
export async function attention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  options: AttentionOptions = {},
): Promise<{ attn_output: Tensor; attn_weights: Tensor | null; lse?: Tensor }> {
  for (const name of Object.keys(options)) {
    if (!OPTIONS.includes(name)) {
      throw new InvalidArgument(
        `Cannot attend with option "${name}": known options are ${OPTIONS.join(", ")}`,
      );
    }
  }
  for (const t of [query, key, value]) {
    if (!(t instanceof Tensor)) {
      throw new InvalidArgument("Cannot attend: query, key and value must be tensors");
    }
  }
  checkOperands(query, key, value);
  const { attn_implementation: requested = "sdpa", mask_function, attention_mask = null, ...others } =
    options;
  const { return_lse = false, ...rest } = others;
  const attn_implementation = withoutPages(requested);
  const [b, h, q, d] = query.shape as [number, number, number, number];
  const hkv = key.shape[1]!;
  const module = {
    config: new PretrainedConfig({ num_attention_heads: h, num_key_value_heads: hkv }, {
      attn_implementation,
    }),
    layer_idx: 0,
    is_causal: false,
    scaling: d ** -0.5,
    num_key_value_groups: h / hkv,
  };
  const fn = attentionFunction(attn_implementation);
  const built = builtinOf(attn_implementation);
  if (return_lse && built === undefined) {
    throw new AttentionRefused(
      `Cannot return the log-sum-exp of "${attn_implementation}": only built-in implementations have it`,
    );
  }
  let mask = attention_mask;
  if (mask_function !== undefined) {
    if (mask !== null) {
      throw new InvalidArgument("Cannot attend with both attention_mask and mask_function: pass one of them");
    }
    const format = ALL_MASK_ATTENTION_FUNCTIONS.resolve(attn_implementation);
    if (format === undefined) {
      throw new AttentionRefused(
        `Cannot format mask_function for "${attn_implementation}": register a formatter with AttentionMaskInterface.register`,
      );
    }
    const sizes = { batch_size: b, q_length: q, kv_length: key.shape[2]!, device: query.device };
    mask = format({
      ...sizes,
      mask_function,
      config: module.config,
      allow_is_causal_skip: false,
      constraints: ["mask_function"],
    });
  }
  const kwargs = { is_causal: false, ...rest, return_lse };
  try {
    if (built !== undefined) {
      const { attn_output, attn_weights, lse } = tidy(() => ({
        ...built.attend(module, query, key, value, mask, kwargs),
      }));
      return lse === null ? { attn_output, attn_weights } : { attn_output, attn_weights, lse };
    }
    const [attn_output, attn_weights] = await tidySettled(() => fn(module, query, key, value, mask, kwargs));
    return { attn_output, attn_weights };
  } finally {
    if (mask !== attention_mask && mask !== null && Symbol.dispose in mask) {
      (mask as Disposable)[Symbol.dispose]();
    }
  }
}
