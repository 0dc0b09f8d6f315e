/**
 * Our own model as the benches beside llama.cpp drive it.
 *
 * @module
 */
import { AutoModelForCausalLM, type PreTrainedModel, Tensor } from "../mod.ts";
import type { Generated, Request } from "./peers/llama_child.ts";

/** How weights are held. */
export interface OwnOptions {
  readonly dtype?: "float32" | "bfloat16";
  readonly quantization?: "int8" | "int4";
}

/** A model that is loaded. */
export interface OwnLlama extends AsyncDisposable {
  readonly load_ms: number;
  /** Bytes its engine holds now, and held at most. */
  readonly memory: { readonly bytes: number; readonly peak: number };
  generate(request: Request): Promise<Generated>;
}

/** The best candidates after a prompt. */
async function topOf(model: PreTrainedModel, input_ids: Tensor, n: number): Promise<Generated["top"]> {
  const { logits } = await model.forward({ input_ids, use_cache: false, logits_to_keep: 1 });
  using last = logits!;
  const values = await last.data() as Float32Array;
  const most = values.reduce((a, b) => Math.max(a, b), -Infinity);
  const norm = most + Math.log(values.reduce((sum, x) => sum + Math.exp(x - most), 0));
  return Array.from(values, (x, id) => [id, x - norm] as const).sort((a, b) => b[1] - a[1]).slice(0, n);
}

/** Loads a folder, a URL of one, or a GGUF file. */
export async function loadOwn(name: string, options: OwnOptions): Promise<OwnLlama> {
  const start = performance.now();
  const model = await AutoModelForCausalLM.from_pretrained(name, options);
  return {
    load_ms: performance.now() - start,
    get memory() {
      return model.memory;
    },
    async generate({ prompt, count, top = 0 }) {
      using input_ids = Tensor.from([...prompt], { dtype: "int32", shape: [1, prompt.length] });
      const best = top === 0 ? [] : await topOf(model, input_ids, top);
      const times: number[] = [];
      const streamer = { put: () => void times.push(performance.now()), end: () => {} };
      const start = performance.now();
      using out = await model.generate({ input_ids, max_new_tokens: count, eos_token_id: null, streamer });
      return {
        tokens: Array.from(await out.data(), Number).slice(prompt.length),
        top: best,
        prefill_ms: times[0]! - start,
        decode_ms: (times.at(-1)! - times[0]!) / Math.max(1, count - 1),
      };
    },
    [Symbol.asyncDispose]: () => model.dispose(),
  };
}
