/**
 * Checkpoints of Llama decoders for the benches: read tensor by tensor, and made with random weights.
 *
 * @module
 */
import { convertTo, type DType } from "../src/dtype.ts";
import { layoutSafetensors } from "../src/hub/safetensors_write.ts";

/** The fields of a Llama's config.json that the benches use. */
export interface LlamaConfig {
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly head_dim: number;
  readonly num_hidden_layers: number;
  readonly rms_norm_eps: number;
  readonly vocab_size: number;
  readonly max_position_embeddings: number;
  readonly rope_parameters: { readonly rope_theta: number; readonly rope_type: "default" };
  readonly tie_word_embeddings: true;
}

/** A checkpoint that is open for reading. */
export interface Checkpoint extends Disposable {
  readonly config: LlamaConfig;
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  /** The values of a tensor, widened. */
  read(name: string): Float32Array<ArrayBuffer>;
}

/** Opens the bfloat16 checkpoint in `folder` (with a slash at its end). */
export function openCheckpoint(folder: URL): Checkpoint {
  const config: LlamaConfig = JSON.parse(Deno.readTextFileSync(new URL("config.json", folder)));
  const file = Deno.openSync(new URL("model.safetensors", folder));
  const readAt = (at: number, length: number) => {
    file.seekSync(at, Deno.SeekMode.Start);
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length;) {
      const n = file.readSync(bytes.subarray(done));
      if (n === null) throw new Error(`model.safetensors ends ${length - done} bytes early`);
      done += n;
    }
    return bytes;
  };
  const length = Number(new DataView(readAt(0, 8).buffer).getBigUint64(0, true));
  const header: Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }> = JSON
    .parse(new TextDecoder().decode(readAt(8, length)));
  delete header["__metadata__"];
  return {
    config,
    shapes: new Map(Object.entries(header).map(([name, { shape }]) => [name, shape])),
    read(name) {
      const { dtype, data_offsets: [begin, end] } = header[name]!;
      if (dtype !== "BF16") throw new Error(`${name} is ${dtype}; this reader knows BF16 only`);
      const narrow = new Uint16Array(readAt(8 + length + begin, end - begin).buffer);
      const wide = new Uint32Array(narrow.length);
      for (let i = 0; i < narrow.length; i++) wide[i] = narrow[i]! << 16;
      return new Float32Array(wide.buffer);
    },
    [Symbol.dispose]: () => file.close(),
  };
}

/** Shapes of a Llama's tensors. */
export function shapesOfLlama(config: LlamaConfig): Record<string, readonly number[]> {
  const { hidden_size: e, intermediate_size: f, head_dim: d } = config;
  const [q, kv] = [config.num_attention_heads * d, config.num_key_value_heads * d];
  const layer = (i: number): Record<string, readonly number[]> => ({
    [`model.layers.${i}.input_layernorm.weight`]: [e],
    [`model.layers.${i}.post_attention_layernorm.weight`]: [e],
    [`model.layers.${i}.self_attn.q_proj.weight`]: [q, e],
    [`model.layers.${i}.self_attn.k_proj.weight`]: [kv, e],
    [`model.layers.${i}.self_attn.v_proj.weight`]: [kv, e],
    [`model.layers.${i}.self_attn.o_proj.weight`]: [e, q],
    [`model.layers.${i}.mlp.gate_proj.weight`]: [f, e],
    [`model.layers.${i}.mlp.up_proj.weight`]: [f, e],
    [`model.layers.${i}.mlp.down_proj.weight`]: [e, f],
  });
  return Object.assign(
    { "model.embed_tokens.weight": [config.vocab_size, e], "model.norm.weight": [e] },
    ...Array.from({ length: config.num_hidden_layers }, (_, i) => layer(i)),
  );
}

/**
 * Weights that every format of the comparison holds exactly: 16 levels, and in each block of 32 one value of largest
 * magnitude, so that the blocks of Q4_0 have the scale we chose. What differs between two programs is arithmetic then.
 * The scale is a power of two near `deviation`.
 */
function levels(n: number, deviation: number, seed: number): Float32Array<ArrayBuffer> {
  const LEVEL_DEVIATION = 4.4;
  const scale = 2 ** Math.round(Math.log2(deviation / LEVEL_DEVIATION));
  const out = new Float32Array(n);
  let x = Math.imul(seed, 0x9e3779b1) | 1;
  for (let i = 0; i < n; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    const level = i % 32 === 0 ? (x > 0 ? 8 : -8) : (x >>> 8) % 15 - 7;
    out[i] = level * scale;
  }
  return out;
}

/** Writes a checkpoint with random weights, the same every time, into `folder`. */
export function writeRandomCheckpoint(folder: URL, config: LlamaConfig): void {
  const dtype: DType = "bfloat16";
  const shapes = shapesOfLlama(config);
  const { head, order } = layoutSafetensors(
    Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, { dtype, shape }])),
  );
  const fields = { architectures: ["LlamaForCausalLM"], model_type: "llama", hidden_act: "silu", dtype };
  Deno.writeTextFileSync(new URL("config.json", folder), JSON.stringify({ ...fields, ...config }));
  using file = Deno.openSync(new URL("model.safetensors", folder), { write: true, createNew: true });
  const write = (view: ArrayBufferView) => {
    const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
  };
  write(head);
  order.forEach((name, i) => {
    const shape = shapes[name]!;
    const n = shape.reduce((a, b) => a * b, 1);
    // Variance 1 after a product, as initialised models have it.
    const values = shape.length === 1
      ? new Float32Array(n).fill(1)
      : levels(n, config.hidden_size ** -0.5, i + 1);
    write(convertTo(dtype, values));
  });
}
