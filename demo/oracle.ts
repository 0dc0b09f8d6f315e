/**
 * A Llama forward in plain float64 loops: what every backend's logits are measured against.
 *
 * @module
 */
import { AutoConfig } from "../mod.ts";
import { present } from "../src/dtype.ts";
import { hostView } from "../src/dtype.ts";
import { openFolder } from "../src/hub/files.ts";
import { openWeights } from "../src/hub/weights.ts";
import { llamaConfig } from "../src/models/llama_config.ts";

/** Logits (N, V) of a Llama checkpoint with a tied head, for one sequence of token ids. */
export async function oracleLogits(folder: string | URL, ids: readonly number[]): Promise<Float64Array[]> {
  const c = llamaConfig(await AutoConfig.from_pretrained(folder));
  const weights = await readWeights(folder);
  const w = (name: string) => weights.get(`model.${name}`)!;
  const [h, hkv, d] = [c.num_attention_heads, c.num_key_value_heads, c.head_dim];
  const embedding = w("embed_tokens.weight");
  let x: Float64Array[] = ids.map((id) =>
    Float64Array.from(embedding.subarray(id * c.hidden_size, (id + 1) * c.hidden_size))
  );
  for (let layer = 0; layer < c.num_hidden_layers; layer++) {
    const p = (name: string) => w(`layers.${layer}.${name}.weight`);
    const normed = x.map((row) => rmsNorm(row, p("input_layernorm"), c.rms_norm_eps));
    const q = normed.map((row, t) => rotate(linear(row, p("self_attn.q_proj")), t, d, c.rope.rope_theta));
    const k = normed.map((row, t) => rotate(linear(row, p("self_attn.k_proj")), t, d, c.rope.rope_theta));
    const v = normed.map((row) => linear(row, p("self_attn.v_proj")));
    x = x.map((row, t) => {
      const heads = new Float64Array(h * d);
      for (let head = 0; head < h; head++) {
        const kv = Math.floor(head / (h / hkv)) * d;
        const scores = Array.from(
          { length: t + 1 },
          (_, j) => dot(q[t]!, head * d, k[j]!, kv, d) / Math.sqrt(d),
        );
        const top = Math.max(...scores);
        const e = scores.map((s) => Math.exp(s - top));
        const sum = e.reduce((a, b) => a + b, 0);
        for (let j = 0; j <= t; j++) {
          for (let i = 0; i < d; i++) heads[head * d + i]! += e[j]! / sum * v[j]![kv + i]!;
        }
      }
      const middle = plus(row, linear(heads, p("self_attn.o_proj")));
      const inner = rmsNorm(middle, p("post_attention_layernorm"), c.rms_norm_eps);
      const gate = linear(inner, p("mlp.gate_proj"));
      const up = linear(inner, p("mlp.up_proj"));
      return plus(middle, linear(gate.map((g, i) => g / (1 + Math.exp(-g)) * up[i]!), p("mlp.down_proj")));
    });
  }
  return x.map((row) => linear(rmsNorm(row, w("norm.weight"), c.rms_norm_eps), embedding));
}

async function readWeights(folder: string | URL): Promise<Map<string, Float32Array>> {
  using file = await openWeights(await openFolder(folder));
  const all = new Map<string, Float32Array>();
  for (const name of file.tensors.keys()) {
    const t = file.tensor(name);
    const bytes = new Uint8Array(t.bytes);
    await file.stream(name, (chunk, at) => bytes.set(chunk, at));
    all.set(name, Float32Array.from(present(t.dtype, hostView(t.dtype, bytes.buffer)), Number));
  }
  return all;
}

function linear(x: Float64Array, weight: Float32Array): Float64Array {
  const inner = x.length;
  return Float64Array.from({ length: weight.length / inner }, (_, o) => dot(x, 0, weight, o * inner, inner));
}

function dot(a: Float64Array, i: number, b: Float64Array | Float32Array, j: number, n: number): number {
  let sum = 0;
  for (let k = 0; k < n; k++) sum += a[i + k]! * b[j + k]!;
  return sum;
}

function plus(a: Float64Array, b: Float64Array): Float64Array {
  return a.map((x, i) => x + b[i]!);
}

function rmsNorm(x: Float64Array, weight: Float32Array, eps: number): Float64Array {
  const scale = 1 / Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / x.length + eps);
  return x.map((v, i) => v * scale * weight[i]!);
}

/** Half-split rotation of every head at `position`. */
function rotate(x: Float64Array, position: number, d: number, theta: number): Float64Array {
  const out = new Float64Array(x.length);
  for (let head = 0; head < x.length; head += d) {
    for (let i = 0; i < d / 2; i++) {
      const angle = position * theta ** (-2 * i / d);
      const [a, b] = [x[head + i]!, x[head + d / 2 + i]!];
      out[head + i] = a * Math.cos(angle) - b * Math.sin(angle);
      out[head + d / 2 + i] = b * Math.cos(angle) + a * Math.sin(angle);
    }
  }
  return out;
}
