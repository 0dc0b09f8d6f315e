/**
 * What the tests of the single decisions share.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import {
  attention,
  type AttentionKwargs,
  type AttentionMask,
  type AttentionModule,
  type AttnImplementation,
  type BuiltinAttention,
  eager_attention_forward,
  eager_paged_attention_forward,
  flash_attention_forward,
  flash_paged_attention_forward,
  flex_attention_forward,
  ops,
  PretrainedConfig,
  type PreTrainedModel,
  sdpa_attention_forward,
  sdpa_paged_attention_forward,
  Tensor,
} from "../../mod.ts";
import { loaderOf } from "../models/recorded.ts";
import { disposeAll } from "../models/support.ts";
import { goldenPath } from "../support/golden.ts";
import { seeded } from "../support/random.ts";

/** Every built-in name. */
export const NAMES: readonly string[] = [
  "eager",
  "sdpa",
  "flash_attention_2",
  "flash_attention_3",
  "flash_attention_4",
  "flex_attention",
  "paged|eager",
  "paged|sdpa",
  "paged|flash_attention_2",
  "paged|flash_attention_3",
  "paged|flash_attention_4",
];

/** The recorded architectures. */
export const ARCHITECTURES: readonly string[] = ["llama", "mistral", "gemma2", "llama4", "bert", "llava"];

/** The attention functions, one of each kind. */
export const FUNCTIONS: Readonly<Record<string, BuiltinAttention>> = {
  eager: eager_attention_forward,
  sdpa: sdpa_attention_forward,
  flash_attention_2: flash_attention_forward,
  flex_attention: flex_attention_forward,
  "paged|eager": eager_paged_attention_forward,
  "paged|sdpa": sdpa_paged_attention_forward,
  "paged|flash_attention_2": flash_paged_attention_forward,
};

/** A tiny model of an architecture. */
export async function load(
  arch: string,
  attn_implementation: AttnImplementation = null,
): Promise<PreTrainedModel> {
  return await loaderOf(arch).from_pretrained(goldenPath(`models/${arch}`), { attn_implementation });
}

/** The implementation of every part of a model. */
export function partsOf({ config }: PreTrainedModel): Record<string, string | null> {
  const parts = Object.entries(config.sub_configs).map(([key, part]) => [key, part._attn_implementation]);
  return Object.fromEntries([["", config._attn_implementation], ...parts]);
}

/** What a model computes: logits, or the last hidden state. */
export async function valuesOf(model: PreTrainedModel, inputs: Record<string, unknown>): Promise<number[]> {
  const output = await model.forward(inputs);
  const values = Array.from(await (output.logits ?? output.last_hidden_state)!.data() as Float32Array);
  disposeAll(output);
  return values;
}

/** Seeded (1, heads, n, 4) numbers, as a tensor and for the oracle. */
export function numbers(name: string, heads: number, n: number) {
  const shape = [1, heads, n, 4], data = seeded(name).normal(heads * n * 4);
  return { tensor: Tensor.from(data, { shape }), array: { data, shape } };
}

/** Query of 2 heads, key and value of 1 head, 5 tokens. */
export function operands() {
  const [query, key, value] = [numbers("q", 2, 5), numbers("k", 1, 5), numbers("v", 1, 5)];
  return {
    tensors: [query.tensor, key.tensor, value.tensor] as const,
    oracle: { query: query.array, key: key.array, value: value.array },
    [Symbol.dispose]: () => disposeAll({ all: [query.tensor, key.tensor, value.tensor] }),
  };
}

/** Calls an attention function on {@linkcode operands}; a paged one gets a cache that holds just these keys. */
export async function callFunction(
  name: string,
  mask: AttentionMask,
  kwargs: AttentionKwargs,
): Promise<{ output: Float32Array; weights: Float32Array | null }> {
  using given = operands();
  const [query, key, value] = given.tensors;
  const module: AttentionModule = {
    config: new PretrainedConfig({ num_attention_heads: 2 }, { attn_implementation: name }),
    layer_idx: 0,
    is_causal: true,
    scaling: 0.5,
    num_key_value_groups: 2,
  };
  const update = (k: Tensor, v: Tensor) => [ops.slice(k, 2, 0), ops.slice(v, 2, 0)];
  const paged = name.startsWith("paged|") ? { cache: { update } } : {};
  const [output, weights] = FUNCTIONS[name]!(module, query, key, value, mask, { ...paged, ...kwargs });
  const found = {
    output: await output.data() as Float32Array,
    weights: weights === null ? null : await weights.data() as Float32Array,
  };
  disposeAll({ output, weights });
  return found;
}

/** {@linkcode attention} on {@linkcode operands}: its output, and whether weights and the log-sum-exp came along. */
export async function attend(options: Parameters<typeof attention>[3]) {
  using given = operands();
  const result = await attention(...given.tensors, options);
  const found = {
    output: await result.attn_output.data() as Float32Array,
    weights: result.attn_weights === null ? null : await result.attn_weights.data() as Float32Array,
    lse: result.lse === undefined ? null : await result.lse.data() as Float32Array,
  };
  disposeAll(result);
  return found;
}

/** Asserts that parts of a model have these implementations. */
export function assertParts(model: PreTrainedModel, expected: Record<string, string | null>): void {
  assertEquals(partsOf(model), expected);
}
