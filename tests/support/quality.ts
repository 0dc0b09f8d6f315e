/**
 * What few bits cost: the demo model over chapters it was not trained on, beside its float32 weights and cache.
 *
 * @module
 */
import {
  AutoModelForCausalLM,
  AutoTokenizer,
  type Cache,
  type FromPretrainedOptions,
  type PreTrainedModel,
  Tensor,
} from "../../mod.ts";
import { inFolder } from "./folders.ts";
import { type GgmlType, writeGguf } from "./gguf.ts";
import { llamaParts } from "./llama_gguf.ts";

const DEMO = decodeURIComponent(new URL("../models/demo", import.meta.url).pathname);

/** Tokens the model was trained to see at once. */
const CONTEXT = 512;

/** A way to keep weights, or keys and values. */
export interface Format {
  readonly name: string;
  readonly options: Pick<FromPretrainedOptions, "dtype" | "quantization" | "kv_dtype">;
  /** Weights of a GGUF file that is written first. */
  readonly gguf?: GgmlType;
  /** What it may cost at most. */
  readonly limits: Cost;
}

/** What a format costs, beside float32 weights with a float32 cache. */
export interface Cost {
  /** Bits a byte of text more. */
  readonly bits: number;
  /** Root mean square of the logits' differences, in parts of that of the logits. */
  readonly rms: number;
  /** Largest difference of a logit. */
  readonly max: number;
  /** Share of positions whose best token is another. */
  readonly other: number;
}

/** What was measured of a format. */
export interface Quality extends Cost {
  readonly name: string;
  readonly bits_per_byte: number;
  /** Bytes of the weights in memory. */
  readonly weights: number;
}

const EXACT: Cost = { bits: 0, rms: 0, max: 0, other: 0 };
/** Exact values of another type may take another kernel, which adds in another order. */
const REORDERED: Cost = { bits: 1e-6, rms: 1e-6, max: 5e-5, other: 1e-3 };

/**
 * All formats. Limits are one and a half to two times what was measured over all chapters (bench/NOTES.md), those of bits
 * wider, which a small part of the text scatters most.
 */
export const FORMATS: readonly Format[] = [
  { name: "float32", options: { dtype: "float32" }, limits: EXACT },
  { name: "bfloat16, as shipped", options: {}, limits: REORDERED },
  { name: "float16", options: { dtype: "float16" }, limits: REORDERED },
  {
    name: "int8",
    options: { quantization: "int8" },
    limits: { bits: 0.003, rms: 0.02, max: 1.5, other: 0.035 },
  },
  {
    name: "int4",
    options: { quantization: "int4" },
    limits: { bits: 0.006, rms: 0.085, max: 8, other: 0.14 },
  },
  { name: "Q8_0", options: {}, gguf: "Q8_0", limits: { bits: 0.003, rms: 0.014, max: 1.2, other: 0.03 } },
  { name: "Q4_0", options: {}, gguf: "Q4_0", limits: { bits: 0.012, rms: 0.11, max: 7, other: 0.16 } },
  {
    name: "cache bfloat16",
    options: { kv_dtype: "bfloat16" },
    limits: { bits: 3e-4, rms: 1.5e-3, max: 0.15, other: 0.005 },
  },
  {
    name: "cache float16",
    options: { kv_dtype: "float16" },
    limits: { bits: 5e-5, rms: 2e-4, max: 0.02, other: 0.003 },
  },
  {
    name: "cache int8",
    options: { kv_dtype: "int8" },
    limits: { bits: 1e-3, rms: 4.5e-3, max: 0.35, other: 0.012 },
  },
];

/** A piece of text as the model sees it. */
interface Piece {
  /** Token ids, of which the first begins a text and is not predicted. */
  readonly ids: readonly number[];
  /** Bytes of the others. */
  readonly bytes: number;
}

/** The held-out chapters in pieces of at most `length` tokens, the first `most` of each chapter. */
async function pieces(length: number, most: number): Promise<Piece[]> {
  const tokenizer = await AutoTokenizer.from_pretrained(DEMO);
  const text = await Deno.readTextFile(`${DEMO}/held_out.txt`);
  return text.split("\n\n").flatMap((chapter) => {
    const tokens = tokenizer.encode(chapter);
    const count = Math.min(most, Math.ceil(tokens.length / (length - 1)));
    return Array.from({ length: count }, (_, i): Piece => {
      const own = tokens.slice(i * (length - 1), (i + 1) * (length - 1));
      const bytes = new TextEncoder().encode(tokenizer.decode(own)).length;
      return { ids: [tokenizer.bos_token_id!, ...own], bytes };
    });
  });
}

/**
 * Logits (N, vocabulary) of a piece. Its second half is computed after the first is in the cache, so that every position
 * there reads keys and values as they are kept.
 */
async function logitsOf(model: PreTrainedModel, ids: readonly number[]): Promise<Float32Array[]> {
  const half = Math.ceil(ids.length / 2);
  const parts: Float32Array[] = [];
  let cache: Cache | null = null;
  try {
    for (const part of [ids.slice(0, half), ids.slice(half)].filter(({ length }) => length > 0)) {
      using input_ids = Tensor.from([part], { dtype: "int32" });
      const output = await model.forward({ input_ids, past_key_values: cache });
      cache = output.past_key_values!;
      using logits = output.logits!;
      parts.push(await logits.data() as Float32Array);
    }
  } finally {
    cache?.[Symbol.dispose]();
  }
  return parts;
}

/** Sums over positions. */
class Sums {
  nats = 0;
  error = 0;
  size = 0;
  max = 0;
  other = 0;
  positions = 0;

  add(logits: readonly Float32Array[], reference: readonly Float32Array[], ids: readonly number[]): void {
    let position = 0;
    logits.forEach((part, p) => {
      const beside = reference[p]!;
      const vocabulary = part.length / Math.ceil(p === 0 ? ids.length / 2 : Math.floor(ids.length / 2));
      for (let from = 0; from < part.length; from += vocabulary, position++) {
        let best = 0, theirs = 0;
        for (let i = 0; i < vocabulary; i++) {
          const a = part[from + i]!, b = beside[from + i]!;
          const difference = Math.abs(a - b);
          this.error += difference ** 2;
          this.size += b ** 2;
          if (!(difference <= this.max)) this.max = difference;
          if (a > part[from + best]!) best = i;
          if (b > beside[from + theirs]!) theirs = i;
        }
        this.positions++;
        if (best !== theirs) this.other++;
        const next = ids[position + 1];
        if (next === undefined) continue;
        const most = part[from + best]!;
        let sum = 0;
        for (let i = 0; i < vocabulary; i++) sum += Math.exp(part[from + i]! - most);
        this.nats += most + Math.log(sum) - part[from + next]!;
      }
    });
  }
}

/** How much text is taken. */
export interface Amount {
  /** Tokens of a piece. */
  readonly length: number;
  /** Pieces of a chapter. */
  readonly most: number;
}

/** Everything there is. */
export const ALL: Amount = { length: CONTEXT, most: Infinity };

/** Measures formats, the first of which the others stand beside. */
export async function measureQuality(
  formats: readonly Format[],
  amount: Amount,
  progress: (text: string) => void = () => {},
): Promise<{ qualities: Quality[]; tokens: number; bytes: number }> {
  const text = await pieces(amount.length, amount.most);
  const bytes = text.reduce((n, piece) => n + piece.bytes, 0);
  const models: PreTrainedModel[] = [];
  try {
    for (const { name, options, gguf } of formats) {
      progress(`loading ${name}`);
      if (gguf === undefined) models.push(await AutoModelForCausalLM.from_pretrained(DEMO, options));
      else {
        await inFolder(async (folder) => {
          const { metadata, tensors } = llamaParts(DEMO, gguf);
          writeGguf(`${folder}/a.gguf`, metadata, tensors);
          models.push(await AutoModelForCausalLM.from_pretrained(`${folder}/a.gguf`, options));
        });
      }
    }
    const sums = formats.map(() => new Sums());
    for (const [i, { ids }] of text.entries()) {
      progress(`piece ${i + 1} of ${text.length}`);
      const reference = await logitsOf(models[0]!, ids);
      for (const [m, model] of models.entries()) {
        sums[m]!.add(m === 0 ? reference : await logitsOf(model, ids), reference, ids);
      }
    }
    const bits = sums.map(({ nats }) => nats / Math.LN2 / bytes);
    const qualities = formats.map(({ name }, i): Quality => {
      const { error, size, max, other, positions } = sums[i]!;
      return {
        name,
        bits_per_byte: bits[i]!,
        bits: bits[i]! - bits[0]!,
        rms: Math.sqrt(error / size),
        max,
        other: other / positions,
        weights: models[i]!.memory.bytes,
      };
    });
    return { qualities, tokens: text.reduce((n, { ids }) => n + ids.length - 1, 0), bytes };
  } finally {
    for (const model of models) await model.dispose();
  }
}

/** What exceeds its limit, in words; empty where nothing does. NaN exceeds every limit. */
export function tooDear(qualities: readonly Quality[], formats: readonly Format[]): string[] {
  return qualities.flatMap((quality) => {
    const { limits } = formats.find(({ name }) => name === quality.name)!;
    return (["bits", "rms", "max", "other"] as const)
      .filter((cost) => !(quality[cost] <= limits[cost]))
      .map((cost) => `${quality.name}: ${cost} ${quality[cost]}, at most ${limits[cost]}`);
  });
}
