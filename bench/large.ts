/**
 * A model of the shape of Llama-3.2-1B in bfloat16: whether it loads in the memory WebAssembly has, what it peaks at,
 * and how fast it is. Only run by name: it writes 2.5 GB of random weights first.
 *
 * @module
 */
import { AutoModelForCausalLM, Tensor } from "../mod.ts";
import { type LlamaConfig, shapesOfLlama, writeRandomCheckpoint } from "./checkpoint.ts";
import type { BenchContext, Section } from "./report.ts";

const LARGE: LlamaConfig = {
  hidden_size: 2048,
  intermediate_size: 8192,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  head_dim: 64,
  num_hidden_layers: 16,
  rms_norm_eps: 1e-5,
  vocab_size: 128256,
  max_position_embeddings: 131072,
  rope_parameters: { rope_theta: 500000, rope_type: "default" },
  tie_word_embeddings: true,
};

const PROMPT = 32;
const COUNT = 6;

/** Bytes of the weights in memory: matrices in bfloat16, vectors in float32. */
function weightBytes(): number {
  return Object.values(shapesOfLlama(LARGE)).reduce(
    (sum, shape) => sum + shape.reduce((a, b) => a * b, 1) * (shape.length === 1 ? 4 : 2),
    0,
  );
}

/** Bytes of keys and values of so many tokens, in float32. */
const cacheBytes = (tokens: number) =>
  2 * LARGE.num_hidden_layers * LARGE.num_key_value_heads * LARGE.head_dim * tokens * 4;

/** Runs the bench. */
export async function benchLarge(context: BenchContext): Promise<Section> {
  if (context.depth === "check") return { title: "1 B shape", rows: [], notes: [] };
  const folder = await Deno.makeTempDir({ prefix: "large_" });
  try {
    const at = new URL(`file://${folder}/`);
    context.progress("writing 2.5 GB of random weights");
    writeRandomCheckpoint(at, LARGE);
    context.progress("loading");
    const start = performance.now();
    await using model = await AutoModelForCausalLM.from_pretrained(at.href, { dtype: "bfloat16" });
    const load_ms = performance.now() - start;
    const loaded = model.memory.peak;
    const ids = Int32Array.from({ length: PROMPT }, (_, i) => 3 + i * 37 % 2000);
    const prefills: number[] = [], decodes: number[] = [];
    for (let round = 0; round < 3; round++) {
      context.progress(`round ${round + 1}/3`);
      using input_ids = Tensor.from(ids, { shape: [1, PROMPT] });
      const times: number[] = [];
      const streamer = { put: () => void times.push(performance.now()), end: () => {} };
      const began = performance.now();
      using _out = await model.generate({ input_ids, max_new_tokens: COUNT, eos_token_id: null, streamer });
      if (round === 0) continue; // warms up
      prefills.push(times[0]! - began);
      decodes.push((times.at(-1)! - times[0]!) / (COUNT - 1));
    }
    const MiB = 2 ** 20;
    const needed = weightBytes() + cacheBytes(PROMPT + COUNT);
    return {
      title: "Llama-3.2-1B shape, bfloat16",
      rows: [{
        figure: "1 B, bfloat16",
        implementation: "attune",
        "load ms": load_ms,
        "weights MiB": weightBytes() / MiB,
        "cache MiB": cacheBytes(PROMPT + COUNT) / MiB,
        "peak after loading MiB": loaded / MiB,
        "peak MiB": model.memory.peak / MiB,
        "peak / (weights + cache)": model.memory.peak / needed,
        [`prefill ${PROMPT} tokens/s`]: PROMPT / Math.min(...prefills) * 1000,
        "decode tokens/s": 1000 / Math.min(...decodes),
      }],
      notes: [
        "Random weights; loaded from a local file. Peak: what the engine's allocator held at most, exact.",
        `After a prompt of ${PROMPT} and ${COUNT} tokens, the best of two runs after one that warms up.`,
      ],
    };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
