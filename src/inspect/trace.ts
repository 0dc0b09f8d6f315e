/**
 * Looking at the attention of a model while it runs: every call of its attention functions, with what they were given
 * and what they returned.
 *
 * @module
 */
import type { AttentionFunction, AttentionKwargs, AttentionModule } from "../attention/types.ts";
import type { PretrainedConfig } from "../config.ts";
import type { AttentionMask } from "../masks/types.ts";
import type { ForwardInputs, ForwardOutput } from "../models/inputs.ts";
import { ATTENTION_TAP, type Tapped } from "../models/plans.ts";
import type { PreTrainedModel } from "../models/pretrained.ts";
import { Tensor } from "../tensor.ts";

/** One call of an attention function. Its tensors are lent until the visitor returns; `data()` copies them. */
export interface AttentionTrace {
  /** Name of the layer, as in `attention_report()`. */
  readonly layer: string;
  /** Its row in `attention_report()`. */
  readonly layer_index: number;
  /** Name of the implementation. */
  readonly implementation: string;
  /** The function that was called. */
  readonly attend: AttentionFunction;
  /** The layer, as the function sees it. */
  readonly module: AttentionModule;
  /** (B, H, Q, D). */
  readonly query: Tensor;
  /** (B, Hkv, K, D), the past included. */
  readonly key: Tensor;
  /** (B, Hkv, K, Dv). */
  readonly value: Tensor;
  /** In the form this implementation takes. */
  readonly attention_mask: AttentionMask;
  /** Everything else it was given. */
  readonly kwargs: AttentionKwargs;
  /** (B, Q, H, Dv). */
  readonly attn_output: Tensor;
  /** (B, H, Q, K) where the function returned them; all built-in ones do with `output_attentions`. */
  readonly attn_weights: Tensor | null;
  /** Position of the first query in the sequence. */
  readonly q_offset: number;
  /** Position of the first key in the sequence: not 0 where a cache has dropped what a window passed. */
  readonly kv_offset: number;
}

/**
 * Runs a forward and calls `visit` after every call of an attention function, layer by layer; the forward goes on when
 * it has returned. Only one layer's tensors are alive at a time, so weights asked for by `output_attentions` go to the
 * visitor and not into the output. The visitor must not use the model, which is busy.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { AutoModelForCausalLM, Tensor, trace_attention } from "../../mod.ts";
 *
 * await using model = await AutoModelForCausalLM.from_pretrained("./tests/models/demo");
 * using input_ids = Tensor.from([[5, 6, 7]], { dtype: "int64" });
 * const shapes: (readonly number[])[] = [];
 * const { logits, past_key_values } = await trace_attention(model, { input_ids }, ({ query }) => {
 *   shapes.push(query.shape); // (B, H, Q, D)
 * });
 * assertEquals([shapes.length, shapes[0]], [6, [1, 4, 3, 64]]);
 * logits![Symbol.dispose]();
 * past_key_values![Symbol.dispose]();
 * ```
 *
 * @throws {InvalidArgument} as `model.forward` does
 * @throws whatever the visitor throws; the cache is then as it was before
 */
export async function trace_attention(
  model: PreTrainedModel,
  inputs: ForwardInputs,
  visit: (trace: AttentionTrace) => void | Promise<void>,
): Promise<ForwardOutput> {
  const past = inputs.past_key_values?.get_query_offset() ?? 0;
  const layers = layersByConfig(model);
  const tap = (attend: AttentionFunction, implementation: string): AttentionFunction => async (...given) => {
    const result = await attend(...given);
    const [module, query, key, value, attention_mask, kwargs] = given;
    const [attn_output, attn_weights = null] = Array.isArray(result) ? result : [];
    // The layer refuses what is no result, and says so better.
    if (!(attn_output instanceof Tensor) || attn_output.shape.length !== 4) return result;
    const q_offset = module.config === model.text_config ? past : 0;
    try {
      await visit({
        ...layers.get(module.config)![module.layer_idx]!,
        implementation,
        attend,
        module,
        query,
        key,
        value,
        attention_mask,
        kwargs,
        attn_output,
        attn_weights,
        q_offset,
        kv_offset: q_offset - (kwargs.query_offset ?? key.shape[2]! - query.shape[2]!),
      });
      inputs.signal?.throwIfAborted();
    } catch (error) {
      attn_output[Symbol.dispose]();
      attn_weights?.[Symbol.dispose]();
      throw error;
    }
    attn_weights?.[Symbol.dispose]();
    return [attn_output, null];
  };
  const tapped: ForwardInputs & Tapped = { ...inputs, [ATTENTION_TAP]: tap };
  const { attentions: _visited, ...output } = await model.forward(tapped);
  return output;
}

/** The attention layers of every part of a model, in order; a part's modules count their own from 0. */
function layersByConfig(
  model: PreTrainedModel,
): ReadonlyMap<PretrainedConfig, { layer: string; layer_index: number }[]> {
  const layers = new Map<PretrainedConfig, { layer: string; layer_index: number }[]>();
  model.attention_layers.forEach(({ layer, config }, layer_index) => {
    const own = layers.get(config) ?? [];
    layers.set(config, [...own, { layer, layer_index }]);
  });
  return layers;
}
