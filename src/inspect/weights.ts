/**
 * The attention weights of a text, and of an answer to it, over one sequence of positions.
 *
 * @module
 */
import { DynamicCache } from "../cache/dynamic.ts";
import { InvalidArgument } from "../errors.ts";
import { disposeOutput } from "../models/inputs.ts";
import type { PreTrainedModel } from "../models/pretrained.ts";
import { argmax } from "../ops/reduce.ts";
import { Tensor } from "../tensor.ts";
import { visibleIn } from "./mask_at.ts";
import { type AttentionTrace, trace_attention } from "./trace.ts";

/** How heads become one matrix; a number is that head. */
export type HeadChoice = number | "mean" | "max" | "all";

/** What is wanted. */
export interface WeightsOptions {
  /** Row of `attention_report()`, or all of them. */
  readonly layer: number | "all";
  readonly head: HeadChoice;
  /** Tokens to generate after the prompt; all but the last are queries, too. */
  readonly new_tokens: number;
  readonly signal?: AbortSignal;
}

/** One matrix of weights. */
export interface WeightMatrix {
  readonly layer: string;
  readonly layer_index: number;
  readonly head: number | "mean" | "max";
  /** (Q, K), row-major, over positions of the sequence; 0 where a query does not reach a key. */
  readonly weights: Float64Array<ArrayBuffer>;
  /** 1 where the mask, the window or the order of tokens hides the key. */
  readonly hidden: Uint8Array<ArrayBuffer>;
  readonly queries: number;
  readonly keys: number;
  /** Whether rows and columns are tokens of the text; else they are patches of an image. */
  readonly text: boolean;
}

/** Matrices and the tokens they are of. */
export interface Weights {
  readonly tokens: readonly number[];
  readonly matrices: readonly WeightMatrix[];
}

/** Rows of one forward. */
interface Rows {
  readonly trace: Pick<AttentionTrace, "layer" | "layer_index" | "q_offset" | "kv_offset">;
  readonly text: boolean;
  readonly head: WeightMatrix["head"];
  readonly values: Float64Array<ArrayBuffer>;
  readonly hidden: Uint8Array<ArrayBuffer>;
  readonly keys: number;
}

/**
 * Runs a prompt, and greedily the tokens after it, and collects the attention weights every query was given.
 *
 * @throws {InvalidArgument} for a layer or head that is not there, or an implementation that returns no weights
 */
export async function attention_weights(
  model: PreTrainedModel,
  prompt: readonly number[],
  options: WeightsOptions,
): Promise<Weights> {
  const { layer, new_tokens, signal } = options;
  const count = model.attention_layers.length;
  if (layer !== "all" && layer >= count) {
    throw new InvalidArgument(`Cannot show attention layer ${layer}: the model has layers 0…${count - 1}`);
  }
  if (new_tokens > 0 && !model.can_generate()) {
    throw new InvalidArgument("Cannot generate with a model that has no language-modelling head");
  }
  const tokens = [...prompt];
  const parts = new Map<string, Rows[]>();
  using cache = model.is_encoder
    ? null
    : new DynamicCache({ config: model.text_config, kv_dtype: model.kv_dtype });
  for (let done = 0, step = 0; step <= new_tokens; step++) {
    // The last token is nobody's query: it is only the answer's.
    if (step > 0 && step === new_tokens) break;
    using input_ids = Tensor.from([tokens.slice(done)], { dtype: "int32" });
    const output = await trace_attention(model, {
      input_ids,
      output_attentions: true,
      ...(cache === null ? {} : { past_key_values: cache }),
      ...(signal === undefined ? {} : { signal }),
      ...(model.can_generate() ? { logits_to_keep: 1 } : {}),
    }, async (trace) => {
      if (layer !== "all" && trace.layer_index !== layer) return;
      for (const rows of await rowsOf(trace, options.head, trace.module.config === model.text_config)) {
        const key = `${trace.layer_index} ${rows.head}`;
        parts.set(key, [...parts.get(key) ?? [], rows]);
      }
    });
    try {
      done = tokens.length;
      if (new_tokens > 0) {
        using best = argmax(output.logits!);
        tokens.push(Number((await best.data())[0]));
      }
    } finally {
      disposeOutput(output);
    }
  }
  return { tokens, matrices: [...parts.values()].map(assemble) };
}

async function rowsOf(trace: AttentionTrace, choice: HeadChoice, text: boolean): Promise<Rows[]> {
  const { attn_weights, implementation, layer, layer_index, q_offset, kv_offset } = trace;
  if (attn_weights === null) {
    throw new InvalidArgument(
      `Cannot show the attention of "${implementation}": it returned no weights for ${layer} although ` +
        "output_attentions asked for them",
    );
  }
  const [, heads, queries, keys] = attn_weights.shape as [number, number, number, number];
  if (typeof choice === "number" && choice >= heads) {
    throw new InvalidArgument(`Cannot show head ${choice} of ${layer}: it has heads 0…${heads - 1}`);
  }
  const all = await attn_weights.data() as Float32Array;
  const visible = visibleIn(trace);
  const size = queries * keys;
  const one = (head: WeightMatrix["head"], of: readonly number[]): Rows => {
    const values = new Float64Array(size), hidden = new Uint8Array(size);
    for (let i = 0; i < size; i++) {
      const x = of.map((h) => all[h * size + i]!);
      values[i] = head === "mean" ? x.reduce((a, b) => a + b, 0) / x.length : Math.max(...x);
      // A weight that is there is shown, whatever the mask said.
      hidden[i] = values[i] === 0 &&
          of.every((h) => visible !== null && !visible(0, h, Math.floor(i / keys), i % keys))
        ? 1
        : 0;
    }
    return { trace: { layer, layer_index, q_offset, kv_offset }, text, head, values, hidden, keys };
  };
  const each = Array.from({ length: heads }, (_, h) => h);
  if (choice === "all") return each.map((h) => one(h, [h]));
  return [typeof choice === "number" ? one(choice, [choice]) : one(choice, each)];
}

/** One matrix over all positions of the rows of several forwards. */
function assemble(parts: readonly Rows[]): WeightMatrix {
  const { trace: { layer, layer_index }, head, text } = parts[0]!;
  const last = parts.at(-1)!;
  const queries = last.trace.q_offset + last.values.length / last.keys;
  const keys = Math.max(...parts.map((p) => p.trace.kv_offset + p.keys));
  const weights = new Float64Array(queries * keys), hidden = new Uint8Array(queries * keys).fill(1);
  for (const { trace: { q_offset, kv_offset }, values, hidden: unseen, keys: columns } of parts) {
    for (let row = 0; row < values.length / columns; row++) {
      const from = row * columns, to = (q_offset + row) * keys + kv_offset;
      weights.set(values.subarray(from, from + columns), to);
      hidden.set(unseen.subarray(from, from + columns), to);
    }
  }
  return { layer, layer_index, head, weights, hidden, queries, keys, text };
}
