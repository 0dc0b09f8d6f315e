/**
 * What few bits cost: bits a byte of held-out text, logits and greedy tokens of the demo model in every format, computed
 * by the kernels that ship.
 *
 * @module
 */
import { ALL, FORMATS, measureQuality, tooDear } from "../tests/support/quality.ts";
import type { BenchContext, Section } from "./report.ts";

/** Runs the bench. @throws {Error} where a format costs more than it may */
export async function benchQuality(context: BenchContext): Promise<Section> {
  const amount = context.depth === "full" ? ALL : { length: context.depth === "check" ? 64 : 512, most: 1 };
  const { qualities, tokens, bytes } = await measureQuality(FORMATS, amount, context.progress);
  const dear = tooDear(qualities, FORMATS);
  if (dear.length > 0) throw new Error(`Formats cost too much: ${dear.join("; ")}`);
  return {
    title: "Quality of number formats (demo model, held-out text)",
    rows: qualities.map((q) => ({
      format: q.name,
      "weights MiB": q.weights / 2 ** 20,
      "bits/byte": q.bits_per_byte.toFixed(5),
      "more than float32": q.bits,
      "logits rms": q.rms,
      "logits max": q.max,
      "same greedy token": `${(100 * (1 - q.other)).toFixed(2)} %`,
    })),
    notes: [
      `${tokens} tokens, ${bytes} bytes, of sixteen chapters the model was not trained on, in pieces of its context; the second half of a piece reads the first from the cache.`,
      "“logits rms”: root mean square of the differences from float32 in parts of the logits' own; “logits max”: the largest difference.",
      "Formats of weights are with a float32 cache, formats of the cache with bfloat16 weights. Q8_0 and Q4_0 are GGUF files, whose rows of 688 are float16.",
    ],
  };
}
