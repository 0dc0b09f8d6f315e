/**
 * Models of real sizes, in every format, one after another and each in a process of its own: how long they load, what
 * memory they take and how fast they are, beside llama.cpp with the same weights. Only run by name: it writes gigabytes
 * of random weights first, and removes them, unless `ATTUNE_BENCH_FILES` names a folder they stay in.
 *
 * @module
 */
import { GGML_TYPES } from "../tests/support/gguf.ts";
import { type LlamaConfig, openCheckpoint, shapesOfLlama, writeRandomCheckpoint } from "./checkpoint.ts";
import { type Format, FORMATS, SMALL } from "./llama.ts";
import { type LlamaSession, own } from "./peers/llama_cpp.ts";
import { type LastTokens, writeLlamaGguf } from "./peers/llama_gguf.ts";
import type { BenchContext, Row, Section } from "./report.ts";

/** The sizes of Llama-3.2-1B. */
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

/** A size, and the formats of ours that fit into the memory of WebAssembly. */
interface Size {
  readonly title: string;
  readonly config: LlamaConfig;
  readonly formats: readonly string[];
  readonly prompt: number;
  readonly count: number;
}

const SIZES = {
  "135M": {
    title: "SmolLM2 shape, 135 M",
    config: SMALL,
    formats: ["float32", "bfloat16", "int8", "int4"],
    prompt: 128,
    count: 16,
  },
  "1B": {
    title: "Llama-3.2 shape, 1 B",
    config: LARGE,
    formats: ["bfloat16", "int8", "int4"],
    prompt: 32,
    count: 6,
  },
} as const satisfies Record<string, Size>;

/** Largest file wllama takes. */
const WLLAMA_BYTES = 2 ** 31 - 1;

/** Timed generations, after one that warms up. */
const ROUNDS = 2;

/** Bytes of keys and values of so many tokens, in float32. */
function cacheBytes(
  { num_hidden_layers, num_key_value_heads, head_dim }: LlamaConfig,
  tokens: number,
): number {
  return 2 * num_hidden_layers * num_key_value_heads * head_dim * tokens * 4;
}

/** Bytes of the matrices as a type. */
function bytesOf(config: LlamaConfig, type: Format["gguf"]): number {
  const { block, bytes } = GGML_TYPES[type];
  const numbers = Object.values(shapesOfLlama(config)).map((shape) => shape.reduce((a, b) => a * b, 1));
  return numbers.reduce((a, b) => a + b, 0) / block * bytes;
}

/** Files of one size; those that were written are kept for the next format. */
class Files {
  constructor(readonly folder: string, readonly name: string, readonly config: LlamaConfig) {}

  /** URL of our checkpoint's folder. */
  checkpoint(): URL {
    const folder = new URL(`file://${this.folder}/${this.name}/`);
    if (!exists(new URL("written", folder))) {
      Deno.mkdirSync(folder, { recursive: true });
      writeRandomCheckpoint(folder, this.config);
      Deno.writeTextFileSync(new URL("written", folder), "");
    }
    return folder;
  }

  /** Path of a GGUF file of it. */
  gguf(type: Format["gguf"], last: LastTokens): string {
    const path = `${this.folder}/${this.name}-${type}-${last}.gguf`;
    if (!exists(path)) {
      using checkpoint = openCheckpoint(this.checkpoint());
      writeLlamaGguf(`${path}.part`, checkpoint, type, last);
      Deno.renameSync(`${path}.part`, path);
    }
    return path;
  }
}

function exists(path: string | URL): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** What generates, and how it is loaded. */
interface Contestant {
  readonly name: string;
  readonly weights: string;
  readonly kind: "ours" | "rival" | "native";
  load(): Promise<LlamaSession>;
}

function contestants(files: Files, format: Format, context: BenchContext, notes: Set<string>): Contestant[] {
  const { name: weights, options, gguf } = format;
  const quantised = options.quantization !== undefined;
  const list: Contestant[] = [{
    name: "attune",
    weights,
    kind: "ours",
    load: () => own(files.checkpoint().href, options, context.threads),
  }];
  const ours = () => own(files.gguf(gguf, "texts"), {}, context.threads);
  if (quantised) list.push({ name: "attune, the GGUF file", weights: gguf, kind: "ours", load: ours });
  for (const { name, native, load } of context.peers.llama) {
    const path = () => files.gguf(gguf, native ? "bytes" : "texts");
    if (!native && bytesOf(files.config, gguf) > WLLAMA_BYTES) {
      notes.add(`wllama takes no file of ${gguf} of this size: at most 2 GB.`);
      continue;
    }
    list.push({
      name: native ? `${name} (native)` : name,
      weights: gguf,
      kind: native ? "native" : "rival",
      load: () => load(path()),
    });
  }
  return list;
}

/** Loads and times one. */
async function measure(
  one: Contestant,
  { config, prompt, count }: Size,
  context: BenchContext,
): Promise<{ tokens: readonly number[]; row: Row }> {
  const ids = Array.from({ length: prompt }, (_, i) => 3 + i * 37 % 2000);
  context.progress(`loading ${one.name} ${one.weights}`);
  const session = await one.load();
  try {
    const loaded = await session.memory();
    let [prefill, decode] = [Infinity, Infinity];
    let tokens: readonly number[] = [];
    for (let round = 0; round <= ROUNDS; round++) {
      context.progress(`${one.name} ${one.weights}: round ${round}/${ROUNDS}`);
      const found = await session.generate({ prompt: ids, count });
      if (round > 0 && found.tokens.join() !== tokens.join()) {
        throw new Error(`${one.name} ${one.weights} gives other tokens the second time`);
      }
      tokens = found.tokens;
      if (round === 0) continue;
      prefill = Math.min(prefill, found.prefill_ms);
      decode = Math.min(decode, found.decode_ms);
    }
    const { engine, process } = await session.memory();
    const MiB = 2 ** 20;
    const needed = (loaded.engine?.bytes ?? NaN) + cacheBytes(config, prompt + count);
    return {
      tokens,
      row: {
        implementation: one.name,
        weights: one.weights,
        "load s": session.load_ms / 1000,
        "weights MiB": loaded.engine === null ? null : loaded.engine.bytes / MiB,
        "peak MiB": engine === null ? null : engine.peak / MiB,
        "peak / (weights + cache)": engine === null ? null : engine.peak / needed,
        "process MiB": process === null ? null : process / MiB,
        [`prefill ${prompt} tokens/s`]: prompt / prefill * 1000,
        "decode tokens/s": 1000 / decode,
      },
    };
  } finally {
    session.close();
  }
}

/** The bench of a size, with one of its formats or with all. */
export function benchLarge(
  size: keyof typeof SIZES,
  only?: string,
): (context: BenchContext) => Promise<Section> {
  return async (context) => {
    const sized: Size = SIZES[size];
    const { title, config, count } = sized;
    if (context.depth === "check") return { title, rows: [], notes: [] };
    const notes = new Set<string>();
    const kept = Deno.env.get("ATTUNE_BENCH_FILES");
    const folder = kept ?? await Deno.makeTempDir({ prefix: "large_" });
    try {
      const files = new Files(folder, size, config);
      const rows: Row[] = [];
      const formats = FORMATS.filter(({ name }) => sized.formats.includes(name) && (only ?? name) === name);
      for (const format of formats) {
        context.progress("writing random weights");
        const all: { kind: Contestant["kind"]; row: Row; tokens: readonly number[] }[] = [];
        for (const one of contestants(files, format, context, notes)) {
          all.push({ kind: one.kind, ...await measure(one, sized, context) });
        }
        const rival = all.find(({ kind }) => kind === "rival")?.row;
        const beside = (row: Row, column: string) => {
          const [a, b] = [row[column], rival?.[column]];
          return typeof a === "number" && typeof b === "number" ? a / b : null;
        };
        const first = all[0]!.tokens;
        for (const { row, tokens } of all) {
          const other = tokens.findIndex((token, i) => token !== first[i]);
          rows.push({
            model: title,
            ...row,
            "prefill × wllama": beside(row, `prefill ${sized.prompt} tokens/s`),
            "decode × wllama": beside(row, "decode tokens/s"),
            "equal tokens": `${other === -1 ? tokens.length : other}/${count}`,
          });
        }
      }
      return {
        title: `${title}: memory, loading and speed`,
        rows,
        notes: [
          "Random weights, the same for all, from local files; each in a process of its own, one after another.",
          "Peak: what our engine's allocator held at most, exact. Process: the most memory the process ever had, with files that are mapped, and of wllama with the file, which it is given as a Blob.",
          `After a prompt of ${sized.prompt} and ${count} tokens, the best of ${ROUNDS} runs after one that warms up. “equal tokens”: greedy tokens equal to those of our first row of the same kind before the first that is not.`,
          ...notes,
        ],
      };
    } finally {
      if (kept === undefined) await Deno.remove(folder, { recursive: true });
    }
  };
}
