/**
 * Generation beside llama.cpp: the same weights in our checkpoint and in GGUF files, compared by log-probabilities and
 * greedy tokens, then timed in turn.
 *
 * @module
 */
import { InvalidArgument } from "../mod.ts";
import { assertClose, toleranceOf } from "../tests/support/tolerance.ts";
import { type LlamaConfig, openCheckpoint, writeRandomCheckpoint } from "./checkpoint.ts";
import { DEMO } from "./generate.ts";
import type { GgmlType } from "../tests/support/gguf.ts";
import { loadOwn, type OwnOptions } from "./own_llama.ts";
import type { Generated } from "./peers/llama_child.ts";
import type { LlamaSession } from "./peers/llama_cpp.ts";
import { writeLlamaGguf } from "./peers/llama_gguf.ts";
import type { BenchContext, Row, Section } from "./report.ts";
import { median } from "./timing.ts";

/** The sizes of SmolLM2-135M. */
export const SMALL: LlamaConfig = {
  hidden_size: 576,
  intermediate_size: 1536,
  num_attention_heads: 9,
  num_key_value_heads: 3,
  head_dim: 64,
  num_hidden_layers: 30,
  rms_norm_eps: 1e-5,
  vocab_size: 49152,
  max_position_embeddings: 8192,
  rope_parameters: { rope_theta: 100000, rope_type: "default" },
  tie_word_embeddings: true,
};

/** A way we hold weights, and the one of llama.cpp that stands beside it. */
export interface Format {
  readonly name: string;
  readonly options: OwnOptions;
  readonly gguf: GgmlType;
}
/** All of them, the first of which the others are compared with. */
export const FORMATS: readonly Format[] = [
  { name: "float32", options: { dtype: "float32" }, gguf: "F32" },
  { name: "bfloat16", options: { dtype: "bfloat16" }, gguf: "F16" },
  { name: "int8", options: { quantization: "int8" }, gguf: "Q8_0" },
  { name: "int4", options: { quantization: "int4" }, gguf: "Q4_0" },
];

/** Candidates whose log-probabilities are compared. */
const TOP = 10;

/** Something that generates, with weights in some format. */
interface Generator extends AsyncDisposable {
  readonly name: string;
  readonly format: string;
  readonly gguf: GgmlType;
  readonly kind: "ours" | "rival" | "native";
  readonly load_ms: number;
  generate(prompt: readonly number[], count: number, top?: number): Promise<Generated>;
}

/** Our model in a format; null where this version has not the format. */
async function ours(folder: URL, { name, options, gguf }: Format): Promise<Generator | null> {
  try {
    const own = await loadOwn(folder.href, options);
    return {
      name: "attune",
      format: name,
      gguf,
      kind: "ours",
      load_ms: own.load_ms,
      generate: (prompt, count, top = 0) => own.generate({ prompt, count, top }),
      [Symbol.asyncDispose]: () => own[Symbol.asyncDispose](),
    };
  } catch (error) {
    if (options.quantization !== undefined && error instanceof InvalidArgument) return null;
    throw error;
  }
}

/** What a model is asked to do. */
interface Task {
  readonly title: string;
  readonly folder: URL;
  readonly prompt: number;
  readonly count: number;
  readonly rounds: number;
}

/** All generators of a task; what has no format here is named in `notes`. */
async function openAll(context: BenchContext, { folder }: Task, notes: Set<string>): Promise<Generator[]> {
  const generators: Generator[] = [];
  const temporary = await Deno.makeTempDir({ prefix: "gguf_" });
  try {
    for (const format of FORMATS) {
      context.progress(`loading ${format.name}`);
      const model = await ours(folder, format);
      if (model === null) {
        notes.add(`This version has no ${format.name} weights: ${format.gguf} stands alone.`);
      } else generators.push(model);
    }
    for (const { gguf } of FORMATS) {
      for (const { name, native, load } of context.peers.llama) {
        // One format of each kind is enough to see where machine code stands.
        if (native && gguf !== "F16" && gguf !== "Q4_0") continue;
        context.progress(`loading ${name} ${gguf}`);
        const path = `${temporary}/${name}.gguf`;
        using checkpoint = openCheckpoint(folder);
        writeLlamaGguf(path, checkpoint, gguf, native ? "bytes" : "texts");
        let session: LlamaSession;
        try {
          session = await load(path);
        } catch (cause) {
          if (!native) {
            throw new Error(`Cannot load the required peer ${name}; --no-peers runs without peers`, {
              cause,
            });
          }
          notes.add(`${name} is not here: ${cause instanceof Error ? cause.message : cause}.`);
          continue;
        }
        const { description, load_ms, generate, close } = session;
        notes.add(`${name}: ${description}.`);
        generators.push({
          name: native ? `${name} (native)` : name,
          format: gguf,
          gguf,
          kind: native ? "native" : "rival",
          load_ms,
          generate: (prompt, count, top = 0) => generate({ prompt, count, top }),
          // deno-lint-ignore require-await -- asynchronous by contract
          [Symbol.asyncDispose]: async () => close(),
        });
        await Deno.remove(path);
      }
    }
    return generators;
  } catch (error) {
    for (const g of generators) await g[Symbol.asyncDispose]();
    throw error;
  } finally {
    await Deno.remove(temporary, { recursive: true });
  }
}

/** How a generator's answer differs from that of our float32 model. */
interface Difference {
  /** Greedy tokens that are equal before the first that is not. */
  readonly equal: number;
  /** Of the log-probabilities of the best candidates; null where they cannot be had. */
  readonly logprob: number | null;
}

/** @throws {AssertionError | Error} where the same arithmetic gives another answer */
function compare({ name, format, gguf, kind }: Generator, found: Generated, first: Generated): Difference {
  const label = `${name} ${format}`;
  const differing = found.tokens.findIndex((token, i) => token !== first.tokens[i]);
  const equal = differing === -1 ? first.tokens.length : differing;
  const known = new Map(found.top);
  const pairs = first.top.flatMap(([id, p]) => known.has(id) ? [[known.get(id)!, p] as const] : []);
  const exact = gguf === "F32" && kind !== "native";
  if (exact) {
    assertClose(
      pairs.map(([p]) => p),
      first.top.map(([, p]) => p),
      toleranceOf("logits", "wasm", "float16"), // its fused attention is not float32 throughout
      `log-probabilities of ${label}`,
    );
  }
  if (equal < (exact ? first.tokens.length : gguf === "F16" ? 1 : 0)) {
    throw new Error(`Greedy tokens of ${label} differ: ${found.tokens} instead of ${first.tokens}`);
  }
  const logprob = pairs.reduce((worst, [a, b]) => Math.max(worst, Math.abs(a - b)), 0);
  return { equal, logprob: pairs.length === 0 ? null : logprob };
}

/** Compares all generators of a task, then times them in turn. */
async function runTask(context: BenchContext, task: Task, notes: Set<string>): Promise<Row[]> {
  const { title, count } = task;
  // Ids that the vocabulary of the GGUF files writes as text and finds again.
  const prompt = Array.from({ length: task.prompt }, (_, i) => 3 + i * 37 % 2000);
  const generators = await openAll(context, task, notes);
  try {
    const differences: Difference[] = [];
    let first: Generated | null = null;
    for (const g of generators) {
      context.progress(`${title}: comparing ${g.name} ${g.format}`);
      const found = await g.generate(prompt, count, TOP);
      first ??= found;
      differences.push(compare(g, found, first));
    }
    if (context.depth === "check") {
      return generators.map(({ name, format }) => ({ model: title, implementation: name, weights: format }));
    }
    const took = generators.map(() => [] as Generated[]);
    for (let round = -1; round < task.rounds; round++) {
      for (let i = 0; i < generators.length; i++) {
        const at = (i + round + 1) % generators.length;
        const g = generators[at]!;
        context.progress(`${title}: round ${round + 1}/${task.rounds}: ${g.name} ${g.format}`);
        const found = await g.generate(prompt, count);
        if (round >= 0) took[at]!.push(found); // the first also warms up
      }
    }
    return (["prefill", "decode"] as const).flatMap((figure) => {
      const all = took.map((found) => found.map((g) => figure === "prefill" ? g.prefill_ms : g.decode_ms));
      const least = all.map((times) => Math.min(...times));
      return generators.map((g, i): Row => {
        const rival = generators.findIndex((r) => r.kind === "rival" && r.gguf === g.gguf);
        return {
          model: title,
          figure: figure === "prefill" ? `prefill ${task.prompt}` : `decode ${count} after ${task.prompt}`,
          implementation: g.name,
          weights: g.format,
          "wall ms": least[i]!,
          "median ms": median(all[i]!),
          rounds: all[i]!.length,
          "tokens/s": (figure === "prefill" ? task.prompt : 1) / least[i]! * 1000,
          "× wllama": rival === -1 ? null : least[rival]! / least[i]!,
          "load ms": g.load_ms,
          "equal tokens": `${differences[i]!.equal}/${count}`,
          "Δ log p": differences[i]!.logprob,
        };
      });
    });
  } finally {
    for (const g of generators) await g[Symbol.asyncDispose]();
  }
}

/** Runs the bench. */
export async function benchLlama(context: BenchContext): Promise<Section> {
  const notes = new Set<string>();
  const rows: Row[] = [];
  const full = context.depth === "full";
  if (context.depth !== "check" || context.peers.llama.length > 0) {
    const demo = { title: "demo, 5.1 M", folder: DEMO, prompt: 64, count: 32, rounds: full ? 6 : 5 };
    rows.push(...await runTask(context, demo, notes));
  }
  // Slow peers need minutes for it: once is enough.
  if (full && context.threads === 1) {
    const folder = await Deno.makeTempDir({ prefix: "small_" });
    try {
      const at = new URL(`file://${folder}/`);
      context.progress("writing random weights");
      writeRandomCheckpoint(at, SMALL);
      const small = { title: "SmolLM2 shape, 135 M", folder: at, prompt: 64, count: 12, rounds: 2 };
      rows.push(...await runTask(context, small, notes));
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  }
  return {
    title: "Generation beside llama.cpp",
    rows,
    notes: [
      "Wall time as each library tells it: the prompt, and a token after the first, everything in it.",
      `All have the same weights; those of the 135 M are random, on a grid that F32, F16, bfloat16 and Q4_0 hold exactly.`,
      "“equal tokens”: greedy tokens equal to those of our float32 before the first that is not; “Δ log p”: the largest difference of log-probabilities among its ten best candidates for the first token. F32 must agree in both, F16 in the first token; Q8_0 and Q4_0 also round activations, and only report.",
      "“× wllama”: the time of wllama on the same kind of weights (float32 F32, bfloat16 F16, int8 Q8_0, int4 Q4_0) divided by this time.",
      "wllama has its best case: a float32 cache and fused attention; rows whose length is no multiple of 32 stay F16 in Q8_0 and Q4_0 (down projections of the demo model).",
      ...notes,
    ],
  };
}
