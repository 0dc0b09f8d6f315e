/**
 * Attention functions that are right but for one place, and models to run them on.
 *
 * @module
 */
import {
  type AttentionFunction,
  AttentionInterface,
  AttentionMaskInterface,
  AutoModel,
  AutoModelForCausalLM,
  AutoModelForImageTextToText,
  type DeviceName,
  ops,
  type PreTrainedModel,
  sdpa_attention_forward,
  sdpa_mask,
  Tensor,
} from "../../mod.ts";
import { goldenPath } from "../support/golden.ts";

/** Where a function is wrong. Positions are those of a sequence that a growing cache holds from its beginning. */
export interface Fault {
  readonly layer: number;
  readonly heads: readonly number[];
  /** Whether the token at a position gets the wrong result. */
  readonly at: (position: number) => boolean;
  /** Default: the scores are scaled wrongly. */
  readonly wrong?: AttentionFunction;
}

/** The usual mistake. */
export const unscaled: AttentionFunction = (module, query, key, value, mask, kwargs) =>
  sdpa_attention_forward(module, query, key, value, mask, { ...kwargs, scaling: 2.5 * module.scaling });

/** Everything is NaN. */
export const nan: AttentionFunction = (module, query, key, value, mask, kwargs) => {
  const [output] = sdpa_attention_forward(module, query, key, value, mask, kwargs);
  return [ops.mul(output, NaN), null];
};

/** A causal mask in which no query sees itself, but for the first. */
export const shortsighted: AttentionFunction = (module, query, key, value, _mask, kwargs) => {
  const [queries, keys] = [query.shape[2]!, key.shape[2]!];
  const sees = Array.from({ length: queries }, (_, q) => {
    const position = q + keys - queries;
    return Array.from({ length: keys }, (_, kv) => kv < Math.max(1, position));
  });
  return sdpa_attention_forward(module, query, key, value, Tensor.from([[sees]]), kwargs);
};

let registered = 0;

/** Registers a function that is `sdpa` but at the faults. Returns its name. */
export function broken(...faults: readonly Fault[]): string {
  const name = `broken ${++registered}`;
  AttentionInterface.register(name, (module, query, key, value, mask, kwargs) => {
    const [right, weights] = sdpa_attention_forward(module, query, key, value, mask, kwargs);
    const [batch, queries, heads] = right.shape as [number, number, number];
    const first = key.shape[2]! - queries;
    let output = right;
    for (const { layer, heads: wrongHeads, at, wrong = unscaled } of faults) {
      if (layer !== module.layer_idx) continue;
      const [bad] = wrong(module, query, key, value, mask, kwargs) as [Tensor, null];
      const where = Array.from(
        { length: batch },
        () =>
          Array.from(
            { length: queries },
            (_, q) => Array.from({ length: heads }, (_, h) => [at(first + q) && wrongHeads.includes(h)]),
          ),
      );
      output = ops.where(Tensor.from(where, { device: query.device }), bad, output);
    }
    return [output, weights];
  });
  AttentionMaskInterface.register(name, sdpa_mask);
  return name;
}

const LOADERS = { bert: AutoModel, llava: AutoModelForImageTextToText } as const;

/** A recorded model by architecture. */
export async function golden(
  arch: string,
  attn_implementation = "sdpa",
  device: DeviceName = "wasm",
): Promise<PreTrainedModel> {
  const loader = arch in LOADERS ? LOADERS[arch as keyof typeof LOADERS] : AutoModelForCausalLM;
  return await loader.from_pretrained(goldenPath(`models/${arch}`), { attn_implementation, device });
}

/** Token ids for a prompt of `n` tokens. */
export function prompt(n: number): number[] {
  return Array.from({ length: n }, (_, i) => 3 + (7 * i) % 50);
}
