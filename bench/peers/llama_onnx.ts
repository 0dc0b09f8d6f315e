/**
 * The Llama decoder as an ONNX graph, written by hand from the same checkpoint: the arithmetic a model runs when it
 * was exported for ONNX Runtime, with its fused operators where it has them on the CPU.
 *
 * @module
 */
import { rotaryFrequencies } from "../../src/layers/rotary.ts";
import { type Checkpoint, type LlamaConfig, openCheckpoint } from "../checkpoint.ts";
import { transposed } from "../compare.ts";
import { encodeModel, type Initializer, type Node } from "./onnx.ts";
import type { Peer, PeerSession, PeerTensor } from "./onnxruntime.ts";

/** Collects nodes and constants under fresh names. */
class Builder {
  readonly nodes: Node[] = [];
  readonly initializers: Initializer[] = [];
  readonly #checkpoint: Checkpoint;

  constructor(checkpoint: Checkpoint) {
    this.#checkpoint = checkpoint;
  }

  /** Adds a node and returns the names of its outputs. */
  add(
    op: string,
    inputs: readonly string[],
    outputs: readonly string[],
    rest: Omit<Node, "op" | "inputs" | "outputs"> = {},
  ) {
    this.nodes.push({ op, inputs, outputs, ...rest });
    return outputs[0]!;
  }

  constant(name: string, shape: readonly number[], data: Initializer["data"]): string {
    this.initializers.push({ name, shape, data });
    return name;
  }

  weight(name: string): string {
    return this.constant(name, this.#checkpoint.shapes.get(name)!, this.#checkpoint.read(name));
  }

  /** x · Wᵀ, with W stored transposed so that the runtime packs it once. */
  linear(x: string, name: string): string {
    const [o, i] = this.#checkpoint.shapes.get(name) as [number, number];
    const weight = this.constant(`${name}.T`, [i, o], transposed(this.#checkpoint.read(name), o, i));
    return this.add("MatMul", [x, weight], [`${name}.out`]);
  }
}

const MICROSOFT = { domain: "com.microsoft" };

/** Inputs ids (1, N), positions (1, N), past_k.i and past_v.i; outputs logits (1, 1, V), k.i and v.i. */
export function decoderGraph(folder: URL): Uint8Array<ArrayBuffer> {
  using checkpoint = openCheckpoint(folder);
  const { config: sizes } = checkpoint;
  const { num_attention_heads: H, num_key_value_heads: Hkv, head_dim: D, max_position_embeddings: P } = sizes;
  const b = new Builder(checkpoint);
  const frequencies = rotaryFrequencies(D, {
    rope_type: "default",
    rope_theta: sizes.rope_parameters.rope_theta,
  });
  const angles = (fn: (x: number) => number) =>
    Float32Array.from(
      { length: P * D / 2 },
      (_, at) => fn(Math.floor(at / (D / 2)) * frequencies[at % (D / 2)]!),
    );
  const cos = b.constant("cos", [P, D / 2], angles(Math.cos));
  const sin = b.constant("sin", [P, D / 2], angles(Math.sin));
  const epsilon = { epsilon: sizes.rms_norm_eps };
  const rotate = (x: string, heads: number) =>
    b.add("RotaryEmbedding", [x, "positions", cos, sin], [`${x}.rotated`], {
      ...MICROSOFT,
      attributes: { interleaved: 0n, num_heads: BigInt(heads) },
    });

  const embedding = b.weight("model.embed_tokens.weight");
  let residual = b.add("Gather", [embedding, "ids"], ["embedded"], { attributes: { axis: 0n } });
  let normed = b.add(
    "SimplifiedLayerNormalization",
    [residual, b.weight("model.layers.0.input_layernorm.weight")],
    ["normed"],
    { attributes: { ...epsilon, axis: -1n } },
  );
  /** Adds to the residual stream and normalises in one operator. */
  const addAndNorm = (x: string, weight: string) => {
    const name = `${weight}.normed`;
    b.add(
      "SkipSimplifiedLayerNormalization",
      [x, residual, b.weight(weight)],
      [name, "", "", `${name}.sum`],
      {
        ...MICROSOFT,
        attributes: epsilon,
      },
    );
    residual = `${name}.sum`;
    return name;
  };
  for (let i = 0; i < sizes.num_hidden_layers; i++) {
    const layer = `model.layers.${i}`;
    const q = rotate(b.linear(normed, `${layer}.self_attn.q_proj.weight`), H);
    const k = rotate(b.linear(normed, `${layer}.self_attn.k_proj.weight`), Hkv);
    const v = b.linear(normed, `${layer}.self_attn.v_proj.weight`);
    const attended = b.add(
      "Attention",
      [q, k, v, "", `past_k.${i}`, `past_v.${i}`],
      [`attended.${i}`, `k.${i}`, `v.${i}`],
      { attributes: { is_causal: 1n, q_num_heads: BigInt(H), kv_num_heads: BigInt(Hkv) } },
    );
    normed = addAndNorm(
      b.linear(attended, `${layer}.self_attn.o_proj.weight`),
      `${layer}.post_attention_layernorm.weight`,
    );
    const gate = b.add("QuickGelu", [b.linear(normed, `${layer}.mlp.gate_proj.weight`)], [`gate.${i}`], {
      ...MICROSOFT,
      attributes: { alpha: 1 }, // x·sigmoid(1·x), which is SiLU
    });
    const gated = b.add("Mul", [gate, b.linear(normed, `${layer}.mlp.up_proj.weight`)], [`gated.${i}`]);
    const down = b.linear(gated, `${layer}.mlp.down_proj.weight`);
    const next = i + 1 === sizes.num_hidden_layers
      ? "model.norm.weight"
      : `model.layers.${i + 1}.input_layernorm.weight`;
    normed = addAndNorm(down, next);
  }
  const last = b.constant("last", [1], BigInt64Array.of(-1n));
  const hidden = b.add("Gather", [normed, last], ["last_hidden"], { attributes: { axis: 1n } });
  b.add("Identity", [b.linear(hidden, "model.embed_tokens.weight")], ["logits"]);

  const layers = Array.from({ length: sizes.num_hidden_layers }, (_, i) => i);
  return encodeModel({
    nodes: b.nodes,
    initializers: b.initializers,
    inputs: [
      { name: "ids", type: "int64", shape: [1, "N"] },
      { name: "positions", type: "int64", shape: [1, "N"] },
      ...layers.flatMap((i) =>
        ["k", "v"].map((x) => ({ name: `past_${x}.${i}`, type: "float", shape: [1, Hkv, "P", D] } as const))
      ),
    ],
    outputs: ["logits", ...layers.flatMap((i) => [`k.${i}`, `v.${i}`])],
  });
}

/** The decoder in the peer: greedy tokens, with the cache passed in and out as this runtime does. */
export class PeerDecoder {
  readonly #session: PeerSession;
  readonly #empty: Readonly<Record<string, PeerTensor>>;

  private constructor(session: PeerSession, empty: Readonly<Record<string, PeerTensor>>) {
    this.#session = session;
    this.#empty = empty;
  }

  /** Opens the encoded graph of the model in `folder`. */
  static async open(peer: Peer, graph: Uint8Array<ArrayBuffer>, folder: URL): Promise<PeerDecoder> {
    const sizes: LlamaConfig = JSON.parse(Deno.readTextFileSync(new URL("config.json", folder)));
    const shape = [1, sizes.num_key_value_heads, 0, sizes.head_dim];
    const none: PeerTensor = { type: "float32", data: new Float32Array(0), shape };
    const names = Array.from({ length: sizes.num_hidden_layers }, (_, i) => [`past_k.${i}`, `past_v.${i}`])
      .flat();
    return new PeerDecoder(await peer.open(graph), Object.fromEntries(names.map((name) => [name, none])));
  }

  /** One forward over `ids` at `position`; returns the last token's logits and the cache for the next. */
  async forward(ids: readonly number[], position: number, past: Readonly<Record<string, PeerTensor>> | null) {
    const long = (values: readonly number[]): PeerTensor => ({
      type: "int64",
      data: BigInt64Array.from(values, BigInt),
      shape: [1, values.length],
    });
    const outputs = await this.#session.run({
      ids: long(ids),
      positions: long(ids.map((_, i) => position + i)),
      ...(past ?? this.#empty),
    });
    const cache: Record<string, PeerTensor> = {};
    for (const [name, { data, shape }] of Object.entries(outputs)) {
      if (name !== "logits") {
        cache[`past_${name}`] = { type: "float32", data: data as Float32Array<ArrayBuffer>, shape };
      }
    }
    return { logits: outputs["logits"]!.data, cache };
  }

  /** Greedy decoding: the tokens after `prompt`; `onToken` is called as each is known. */
  async generate(
    prompt: readonly number[],
    count: number,
    onToken: () => void = () => {},
  ): Promise<number[]> {
    const tokens: number[] = [];
    let { logits, cache } = await this.forward(prompt, 0, null);
    for (;;) {
      tokens.push(argmax(logits));
      onToken();
      if (tokens.length === count) return tokens;
      ({ logits, cache } = await this.forward([tokens.at(-1)!], prompt.length + tokens.length - 1, cache));
    }
  }

  close(): Promise<void> {
    return this.#session.close();
  }
}

/** Index of the largest value, the first on ties. */
export function argmax(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}
