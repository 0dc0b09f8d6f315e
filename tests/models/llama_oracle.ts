/**
 * A Llama in float64, written from the papers and not from `src`: slow, for small models only.
 *
 * @module
 */
import type { PretrainedConfig } from "../../mod.ts";
import { reference_attention } from "../../src/attention/reference.ts";

/** Values of the weights by their name in the checkpoint. */
export type OracleWeights = ReadonlyMap<string, Float64Array<ArrayBuffer>>;

/** Frequencies of the rotary embedding, with the rescaling of Llama 3.1 or by a factor. */
function frequencies(config: PretrainedConfig, D: number): number[] {
  const rope = (config["rope_parameters"] ?? config["rope_scaling"] ?? {}) as Record<string, number | string>;
  const theta = Number(rope["rope_theta"] ?? config["rope_theta"] ?? 10000), factor = Number(rope["factor"]);
  return Array.from({ length: D / 2 }, (_, i) => {
    const f = theta ** (-2 * i / D);
    if (rope["rope_type"] === "linear") return f / factor;
    if (rope["rope_type"] !== "llama3") return f;
    const context = Number(rope["original_max_position_embeddings"]);
    const [low, high] = [Number(rope["low_freq_factor"]), Number(rope["high_freq_factor"])];
    const turns = context * f / (2 * Math.PI);
    if (turns < low) return f / factor;
    if (turns > high) return f;
    const share = (turns - low) / (high - low);
    return f * (share + (1 - share) / factor);
  });
}

/** y = x · Wᵀ + b for rows of length `inner`. */
function linear(x: Float64Array, weight: Float64Array, bias: Float64Array | undefined, inner: number): Float64Array {
  const out = weight.length / inner, rows = x.length / inner;
  return Float64Array.from({ length: rows * out }, (_, at) => {
    const [r, o] = [Math.floor(at / out), at % out];
    let sum = bias?.[o] ?? 0;
    for (let i = 0; i < inner; i++) sum += x[r * inner + i]! * weight[o * inner + i]!;
    return sum;
  });
}

function norm(x: Float64Array, weight: Float64Array, eps: number): Float64Array {
  const n = weight.length;
  return x.map((v, at) => {
    const row = x.subarray(at - at % n, at - at % n + n);
    return v / Math.sqrt(row.reduce((s, y) => s + y * y, 0) / n + eps) * weight[at % n]!;
  });
}

/** Logits (N, V) of one sequence, flat. */
export function llamaLogits(config: PretrainedConfig, weights: OracleWeights, ids: readonly number[]): Float64Array {
  const size = (name: string) => Number(config[name]);
  const w = (name: string): Float64Array => {
    const found = weights.get(name);
    if (found === undefined) throw new Error(`the oracle has no weight ${name}`);
    return found;
  };
  const [E, H, D, N] = [size("hidden_size"), size("num_attention_heads"), size("head_dim"), ids.length];
  const Hkv = size("num_key_value_heads"), eps = Number(config["rms_norm_eps"] ?? 1e-6);
  const freq = frequencies(config, D);
  /** (N, heads · D) → (1, heads, N, D), rotated by position where asked. */
  const split = (x: Float64Array, heads: number, rotated: boolean) => {
    const data = new Float64Array(x.length);
    for (let h = 0; h < heads; h++) {
      for (let n = 0; n < N; n++) {
        for (let d = 0; d < D; d++) {
          const at = (n * heads + h) * D, half = D / 2, angle = n * freq[d % half]!;
          const partner = d < half ? -x[at + d + half]! : x[at + d - half]!;
          data[(h * N + n) * D + d] = rotated
            ? x[at + d]! * Math.cos(angle) + partner * Math.sin(angle)
            : x[at + d]!;
        }
      }
    }
    return { data, shape: [1, heads, N, D] };
  };
  const embedding = w("model.embed_tokens.weight");
  let hidden = Float64Array.from(ids.flatMap((id) => [...embedding.subarray(id * E, id * E + E)]));
  const plus = (a: Float64Array, b: Float64Array) => a.map((x, i) => x + b[i]!) as Float64Array<ArrayBuffer>;
  for (let i = 0; i < size("num_hidden_layers"); i++) {
    const at = `model.layers.${i}`;
    const project = (name: string, x: Float64Array, inner: number) =>
      linear(x, w(`${at}.${name}.weight`), weights.get(`${at}.${name}.bias`), inner);
    const x = norm(hidden, w(`${at}.input_layernorm.weight`), eps);
    const { output } = reference_attention({
      query: split(project("self_attn.q_proj", x, E), H, true),
      key: split(project("self_attn.k_proj", x, E), Hkv, true),
      value: split(project("self_attn.v_proj", x, E), Hkv, false),
      is_causal: true,
    });
    hidden = plus(hidden, project("self_attn.o_proj", output, H * D));
    const y = norm(hidden, w(`${at}.post_attention_layernorm.weight`), eps);
    const gate = project("mlp.gate_proj", y, E), up = project("mlp.up_proj", y, E);
    const inner = gate.map((g, j) => g / (1 + Math.exp(-g)) * up[j]!);
    hidden = plus(hidden, project("mlp.down_proj", inner, size("intermediate_size")));
  }
  const head = config["tie_word_embeddings"] === true ? embedding : w("lm_head.weight");
  return linear(norm(hidden, w("model.norm.weight"), eps), head, undefined, E);
}
