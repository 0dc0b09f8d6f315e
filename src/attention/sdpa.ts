/**
 * `sdpa`: fused scaled dot-product attention. Chooses its kernel by the shape of one sequence, never by the batch.
 *
 * @module
 */
import type { AttentionAlgorithm, DeviceName } from "../devices/device.ts";
import { slice } from "../ops/shape.ts";
import type { Tensor } from "../tensor.ts";
import { attend, type Attended, checkKwargs, precisionOf } from "./attend.ts";
import { denseMask } from "./eager.ts";
import { chooseSdpaAlgorithm } from "./sdpa_kernel.ts";
import { type Attend, type BuiltinAttention, forwardOf } from "./forward.ts";
import type { AttentionKwargs, AttentionMask, AttentionModule } from "./types.ts";

/**
 * Scaled dot-product attention with PyTorch's semantics: without a mask and with Q > 1 it is causal when
 * `is_causal` (keyword, else the module's, else true) says so, aligned to the upper left; a bool mask says what
 * may be attended, a float mask is added. Softcap and sinks work here too.
 *
 * @throws {InvalidArgument} for operands, masks or keyword arguments that do not fit
 */
export const sdpa_attention_forward: BuiltinAttention = forwardOf((...args) => sdpa(...args));

/** As {@linkcode sdpa_attention_forward}, with the log-sum-exp where `return_lse` asks for it. */
export const sdpa: Attend = (...args) => sdpaBy(algorithmByShape, ...args);

/** As {@linkcode sdpa} over a row in which requests are packed: its length says nothing of any of them. */
export const packedSdpa: Attend = (...args) => sdpaBy(() => "flash", ...args);

function sdpaBy(
  byShape: typeof algorithmByShape,
  module: AttentionModule,
  query: Tensor,
  key: Tensor,
  value: Tensor,
  attention_mask: AttentionMask,
  kwargs: AttentionKwargs,
): Attended {
  checkKwargs(kwargs, query.shape[1] ?? 0);
  precisionOf(kwargs, "sdpa", query.device);
  const mask = denseMask(attention_mask, "sdpa");
  const q = query.shape[2]!;
  const causal = q > 1 && mask === null && (kwargs.is_causal ?? module.is_causal ?? true);
  // A prefill into a longer static cache: queries start at position 0, so keys after the last query are unused slots.
  const cut = causal && key.shape[2]! > q;
  using shorterKey = cut ? slice(key, 2, 0, q) : null;
  using shorterValue = cut ? slice(value, 2, 0, q) : null;
  const k = shorterKey ?? key;
  const v = shorterValue ?? value;
  const shared = {
    scaling: kwargs.scaling ?? module.scaling,
    softcap: kwargs.softcap,
    sinks: kwargs.s_aux,
    causal,
    mask,
  };
  const result = attend(query, k, v, {
    ...shared,
    algorithm: chooseSdpaAlgorithm(
      query.device,
      kwargs.sdpa_backends,
      byShape(query.device, q, k.shape[2]!),
    ),
    lse: kwargs["return_lse"] === true,
  });
  return kwargs.output_attentions === true ? withWeights(result, query, k, v, shared) : result;
}

/** Queries the tiled WASM kernel takes together, and how much more of them than there are it may compute. */
const GROUP = 8;
const WASTE = 1.15;

/** Keys up to which a block of rows and their scores stay in the caches. */
const EAGER_KEYS = 32768;

/**
 * The fastest algorithm for the shape of one sequence; which of them where: bench/NOTES.md, "What sdpa chooses". Of the
 * tiled kernels the device takes its best.
 */
function algorithmByShape(device: DeviceName, q: number, k: number): AttentionAlgorithm {
  // Below a tile of keys the plain kernel does less bookkeeping.
  if (q * k <= 16) return "eager";
  const wasted = Math.ceil(q / GROUP) * GROUP > WASTE * q;
  return device === "wasm" && q > GROUP && wasted && k <= EAGER_KEYS ? "eager" : "flash";
}

/** Adds the weights of a fused call by a second pass over the scores; the output stays the fused one. */
export function withWeights(
  result: Attended,
  query: Tensor,
  key: Tensor,
  value: Tensor,
  options: Omit<Parameters<typeof attend>[3], "algorithm">,
): Attended {
  const second = attend(query, key, value, { ...options, algorithm: "eager", weights: true });
  second.attn_output[Symbol.dispose]();
  return { ...result, attn_weights: second.attn_weights };
}
