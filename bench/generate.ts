/**
 * Generation with the demo model: time to first token, prefill and decode rates for every implementation, beside
 * the same decoder, from the same weights, in the peer.
 *
 * @module
 */
import { AutoModelForCausalLM, AutoTokenizer, type PreTrainedModel, Tensor } from "../mod.ts";
import { assertClose, toleranceOf } from "../tests/support/tolerance.ts";
import { decoderGraph, PeerDecoder } from "./peers/llama_onnx.ts";
import type { BenchContext, Row, Section } from "./report.ts";
import { type Contestant, cpuNow, Elapsed, interleave, median } from "./timing.ts";

/** The folder of the demo model. */
export const DEMO = new URL("../tests/models/demo/", import.meta.url);

const IMPLEMENTATIONS = ["eager", "sdpa", "flash_attention_2"] as const;

/** Genesis 1, King James Bible: the kind of text the demo model was trained on. */
const PASSAGE =
  "In the beginning God created the heaven and the earth. And the earth was without form, and void; and " +
  "darkness was upon the face of the deep. And the Spirit of God moved upon the face of the waters. And God said, " +
  "Let there be light: and there was light. And God saw the light, that it was good: and God divided the light " +
  "from the darkness. And God called the light Day, and the darkness he called Night. And the evening and the " +
  "morning were the first day.";

/** Something that generates greedily. */
interface Generator {
  readonly name: string;
  /** The tokens after `prompt`; `onToken` is called when each is known. */
  generate(prompt: readonly number[], count: number, onToken?: () => void): Promise<number[]>;
  /** Logits of the last token of `prompt`. */
  logits(prompt: readonly number[]): Promise<Float32Array>;
}

/** The model with one implementation as a {@linkcode Generator}: it is swapped in before each call. */
function generatorOf(name: string, model: PreTrainedModel): Generator {
  const ids = (prompt: readonly number[]) =>
    Tensor.from([...prompt], { dtype: "int32", shape: [1, prompt.length] });
  return {
    name,
    async generate(prompt, count, onToken = () => {}) {
      await model.set_attn_implementation(name);
      using input_ids = ids(prompt);
      const streamer = { put: onToken, end: () => {} };
      using out = await model.generate({ input_ids, max_new_tokens: count, eos_token_id: null, streamer });
      return Array.from(await out.data(), Number).slice(prompt.length);
    },
    async logits(prompt) {
      await model.set_attn_implementation(name);
      using input_ids = ids(prompt);
      const { logits } = await model.forward({ input_ids, use_cache: false, logits_to_keep: 1 });
      using last = logits!;
      return await last.data() as Float32Array;
    },
  };
}

function generatorOfPeer(name: string, decoder: PeerDecoder): Generator {
  return {
    name,
    generate: (prompt, count, onToken) => decoder.generate(prompt, count, onToken),
    logits: async (prompt) => (await decoder.forward(prompt, 0, null)).logits,
  };
}

/** `n` tokens of the passage, repeated as often as needed. */
async function promptOf(n: number): Promise<number[]> {
  const tokenizer = await AutoTokenizer.from_pretrained(DEMO);
  const { input_ids } = tokenizer(PASSAGE);
  const tokens = Array.from(await input_ids.data(), Number);
  return Array.from({ length: n }, (_, i) => tokens[i % tokens.length]!);
}

/** Times one figure of all generators. */
async function measure(
  context: BenchContext,
  figure: string,
  generators: readonly Generator[],
  tokens: number,
  run: (g: Generator) => Promise<unknown>,
): Promise<Row[]> {
  const contestants: Contestant[] = generators.map((g) => ({ name: g.name, run: () => run(g) }));
  const timings = await interleave(contestants, context.effort, (t) => context.progress(`${figure}: ${t}`));
  const { clock, peers: { onnx } } = context;
  const rival = onnx === null ? null : timings.get(onnx.name)![clock];
  return generators.map((g): Row => {
    const { cpu, wall, median: middle, rounds } = timings.get(g.name)!;
    return {
      figure,
      implementation: g.name,
      "cpu ms": cpu,
      "wall ms": wall,
      "median ms": middle,
      rounds,
      "tokens/s": tokens / { cpu, wall }[clock] * 1000,
      "× peer": rival === null ? null : rival / { cpu, wall }[clock],
    };
  });
}

/** All generators must agree on logits within the tolerance and on every greedy token. */
async function compare(
  context: BenchContext,
  generators: readonly Generator[],
  prompt: readonly number[],
  count: number,
): Promise<number> {
  const [first, ...others] = generators;
  const logits = await first!.logits(prompt);
  const tokens = await first!.generate(prompt, count);
  let worst = 0;
  for (const g of others) {
    context.progress(`comparing ${g.name}`);
    const label = `${g.name} beside ${first!.name}`;
    const theirs = await g.logits(prompt);
    assertClose(theirs, logits, toleranceOf("logits", "wasm"), `logits of ${label}`);
    worst = theirs.reduce((w, x, i) => Math.max(w, Math.abs(x - logits[i]!)), worst);
    const found = await g.generate(prompt, count);
    if (found.join() !== tokens.join()) {
      throw new Error(`Greedy tokens of ${label} differ: ${found} instead of ${tokens}`);
    }
  }
  return worst;
}

/** Most engine memory a fresh model uses for a prompt of 512, by implementation. */
async function peakMemory(prompt: readonly number[]): Promise<Row[]> {
  const rows: Row[] = [];
  for (const implementation of IMPLEMENTATIONS) {
    await using model = await AutoModelForCausalLM.from_pretrained(DEMO, {
      attn_implementation: implementation,
    });
    await generatorOf(implementation, model).generate(prompt, 1);
    rows.push({ figure: "peak engine memory", implementation, MiB: model.memory.peak / 2 ** 20 });
  }
  return rows;
}

/** Runs the bench. */
export async function benchGenerate(context: BenchContext): Promise<Section> {
  const { peers: { onnx: peer }, depth } = context;
  const decoder = peer === null ? null : await PeerDecoder.open(peer, decoderGraph(DEMO), DEMO);
  const count = depth === "check" ? 12 : 48;
  const rows: Row[] = [];
  let error: number;
  const [prompt, prompt512] = [await promptOf(64), await promptOf(512)];
  try {
    await using model = await AutoModelForCausalLM.from_pretrained(DEMO);
    const generators = IMPLEMENTATIONS.map((name) => generatorOf(name, model));
    if (decoder !== null) generators.push(generatorOfPeer(peer!.name, decoder));
    error = await compare(context, generators, prompt, count);
    if (depth === "check") {
      const figure = `greedy tokens equal (${count})`;
      rows.push(...generators.map((g) => ({ figure, implementation: g.name })));
    } else {
      rows.push(
        ...await measure(
          context,
          "time to first token, prompt 64",
          generators,
          64,
          (g) => g.generate(prompt, 1),
        ),
        ...await measure(context, "prefill 512", generators, 512, (g) => g.generate(prompt512, 1)),
        ...await measure(context, "decode 48 after 64", generators, 1, async (g) => {
          const times: [wall: number, cpu: number][] = [];
          await g.generate(prompt, count, () => times.push([performance.now(), cpuNow()]));
          // The middle interval of a call stands for all: 47 steps in a row are seldom left alone.
          const interval = (of: 0 | 1) => median(times.slice(1).map((t, i) => t[of] - times[i]![of]));
          return new Elapsed(interval(0), interval(1));
        }),
      );
    }
  } finally {
    await decoder?.close();
  }
  if (depth !== "check") rows.push(...await peakMemory(prompt512));
  return {
    title: "Generation (demo model: 5.1 M parameters, bfloat16)",
    rows,
    notes: [
      `Greedy tokens (${count} after a prompt of 64) are equal in all of them; logits differ by at most ${
        error.toExponential(1)
      }.`,
      "Ours is one model whose implementation is swapped before each call.",
      "The peer runs the same decoder from the same weights, widened to float32 (it has no bfloat16 products), with SkipSimplifiedLayerNormalization, RotaryEmbedding, QuickGelu and Attention-23; its cache goes in and out of every call, as this runtime does on this execution provider.",
      "Decode: the median interval between two tokens of a call; least and median are over the calls.",
      "Peak engine memory: weights, cache and workspace of a fresh model after a prompt of 512.",
    ],
  };
}
