/**
 * Masks: what building one costs beside the forward it is for, by pattern and by the form an implementation takes.
 *
 * @module
 */
import {
  AutoModelForCausalLM,
  create_causal_mask,
  create_sliding_window_causal_mask,
  type DType,
  type MaskArgs,
  type MaskFunction,
  type PreTrainedModel,
  Tensor,
} from "../mod.ts";
import { writeSafetensors } from "../src/hub/safetensors_write.ts";
import { BlockMask } from "../src/masks/block_mask.ts";
import { fastUniform } from "./compare.ts";
import type { BenchContext, Row, Section } from "./report.ts";
import { type Contestant, type Effort, interleave } from "./timing.ts";

/** A Llama of the 135M class, but for its vocabulary. */
const CONFIG = {
  model_type: "llama",
  vocab_size: 1024,
  hidden_size: 576,
  intermediate_size: 1536,
  num_hidden_layers: 1,
  num_attention_heads: 9,
  num_key_value_heads: 3,
  head_dim: 64,
  max_position_embeddings: 16384,
  tie_word_embeddings: true,
};

/** Layers of the whole model: one is measured. */
const LAYERS = 30;

const FORMS = ["eager", "sdpa", "flash_attention_2", "flex_attention"] as const;

/** Largest additive mask that is built, in elements: 2 GiB would not fit beside the rest. */
const EAGER_LIMIT = 2 ** 28;

/** A strided pattern as a user writes it: nothing is known of it but its answers. */
const strided: MaskFunction = (_b, _h, q, kv) => (q - kv) % 4 === 0 || q - kv < 64;

/** Patterns by name, as what a builder is given for a length. */
const PATTERNS: Readonly<Record<string, (S: number) => Partial<MaskArgs>>> = {
  causal: () => ({}),
  "sliding 512": () => ({ config: { sliding_window: 512 } }),
  "left-padded": (S) => ({ attention_mask: [Array.from({ length: S }, (_, i) => i < S / 8 ? 0 : 1)] }),
  "packed, 8 sequences": (S) => ({ position_ids: [Array.from({ length: S }, (_, i) => i % (S / 8))] }),
  "user's predicate": () => ({ and_mask_function: strided }),
};

function argsOf(pattern: string, form: string, S: number): MaskArgs {
  const { config = {}, ...rest } = PATTERNS[pattern]!(S);
  return {
    config: { num_attention_heads: CONFIG.num_attention_heads, ...config, _attn_implementation: form },
    inputs_embeds: { shape: [1, S, 0], dtype: "float32" },
    past_key_values: null,
    ...rest,
  };
}

/** Builds a mask as a model does, and gives it back. */
function build(args: MaskArgs): void {
  const create = "sliding_window" in args.config ? create_sliding_window_causal_mask : create_causal_mask;
  const mask = create(args);
  if (mask !== null && Symbol.dispose in mask) (mask as Disposable)[Symbol.dispose]();
}

/** Compares the elements of every form with those of `eager`. */
async function compare(pattern: string, S: number): Promise<void> {
  const create = pattern.startsWith("sliding") ? create_sliding_window_causal_mask : create_causal_mask;
  using additive = create(argsOf(pattern, "eager", S)) as Tensor;
  const expected = await additive.data() as Float32Array;
  for (const form of ["sdpa", "flex_attention"]) {
    const mask = create({ ...argsOf(pattern, form, S), allow_is_causal_skip: false });
    using dense = mask instanceof BlockMask ? mask.to_dense() : mask as Tensor;
    const bits = await dense.data() as Uint8Array;
    const at = bits.findIndex((bit, i) => (bit === 1) !== (expected[i] === 0));
    if (at >= 0) throw new Error(`${pattern}: ${form} and eager differ at element ${at}`);
    if (mask instanceof BlockMask) mask[Symbol.dispose]();
  }
}

/** One layer with random weights. */
async function oneLayer(): Promise<PreTrainedModel> {
  const { hidden_size: e, intermediate_size: f, head_dim: d, vocab_size } = CONFIG;
  const kv = CONFIG.num_key_value_heads * d;
  const layer = "model.layers.0.";
  const shapes: Readonly<Record<string, readonly number[]>> = {
    "model.embed_tokens.weight": [vocab_size, e],
    "model.norm.weight": [e],
    [`${layer}input_layernorm.weight`]: [e],
    [`${layer}post_attention_layernorm.weight`]: [e],
    [`${layer}self_attn.q_proj.weight`]: [e, e],
    [`${layer}self_attn.k_proj.weight`]: [kv, e],
    [`${layer}self_attn.v_proj.weight`]: [kv, e],
    [`${layer}self_attn.o_proj.weight`]: [e, e],
    [`${layer}mlp.gate_proj.weight`]: [f, e],
    [`${layer}mlp.up_proj.weight`]: [f, e],
    [`${layer}mlp.down_proj.weight`]: [e, f],
  };
  const file: Record<string, { dtype: DType; shape: readonly number[]; data: Float32Array }> = {};
  for (const [name, shape] of Object.entries(shapes)) {
    const data = fastUniform(shape.reduce((a, b) => a * b, 1), name.length).map((x) => x * e ** -0.5);
    file[name] = { dtype: "float32", shape, data };
  }
  const folder = await Deno.makeTempDir({ prefix: "mask_bench_" });
  try {
    await Deno.writeFile(`${folder}/model.safetensors`, writeSafetensors(file));
    await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify(CONFIG));
    return await AutoModelForCausalLM.from_pretrained(folder, { attn_implementation: "sdpa" });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Times all masks of one length and the forward they are for, in the same rounds. */
async function runLength(context: BenchContext, model: PreTrainedModel, S: number): Promise<Row[]> {
  using input_ids = Tensor.from(Int32Array.from({ length: S }, (_, i) => i % CONFIG.vocab_size), {
    shape: [1, S],
  });
  const cases = Object.keys(PATTERNS).flatMap((pattern) =>
    FORMS.map((form) => ({ pattern, form, name: `${S}, ${pattern}, ${form}` }))
  ).filter(({ pattern, form }) =>
    // Flash has no form for a predicate; an additive mask must fit.
    !(pattern.startsWith("user") && form === "flash_attention_2") &&
    !(form === "eager" && S * S > EAGER_LIMIT)
  );
  const contestants: Contestant[] = [
    {
      name: "forward",
      run: async () => {
        const { logits } = await model.forward({ input_ids, use_cache: false, logits_to_keep: 1 });
        logits![Symbol.dispose]();
      },
    },
    ...cases.map(({ pattern, form, name }) => {
      const args = argsOf(pattern, form, S);
      return { name, run: () => build(args) };
    }),
  ];
  const effort: Effort = S > 1024 ? { warmups: 1, rounds: 3 } : context.effort;
  const timings = await interleave(contestants, effort, (text) => context.progress(`${S}: ${text}`));
  const forward = timings.get("forward")!.cpu * LAYERS;
  return cases.map(({ pattern, form, name }): Row => {
    const { cpu } = timings.get(name)!;
    return {
      case: `${S}, ${pattern}`,
      implementation: form,
      "mask cpu ms": cpu,
      "forward cpu ms": forward,
      "mask / forward": cpu / forward,
    };
  });
}

/** Runs the bench. */
export async function benchMasks(context: BenchContext): Promise<Section> {
  const rows: Row[] = [];
  for (const pattern of Object.keys(PATTERNS)) {
    context.progress(`comparing ${pattern}`);
    await compare(pattern, 512);
    rows.push({ case: `512, ${pattern}`, implementation: "sdpa and flex_attention beside eager" });
  }
  if (context.depth !== "check") {
    rows.length = 0;
    await using model = await oneLayer();
    for (const S of context.depth === "quick" ? [512, 4096] : [512, 4096, 16384]) {
      rows.push(...await runLength(context, model, S));
    }
  }
  return {
    title: "Masks",
    rows,
    notes: [
      `The forward is one of ${LAYERS} layers, hidden 576, 9/3 heads of 64, feed-forward 1536, random float32 weights, under causal sdpa: one layer is timed and multiplied, embedding and head beside it included.`,
      "A model builds a mask once a forward and layer type; masks and the forward are timed in the same rounds.",
      "“user's predicate”: an and_mask_function of which nothing is known, on top of the causal pattern; every head is asked, to find out whether heads differ.",
      "Each pattern was compared element by element between the forms first, at 512 tokens.",
    ],
  };
}
