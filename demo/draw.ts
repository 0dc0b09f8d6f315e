/**
 * Pictures in the terminal.
 *
 * @module
 */
import { causal_mask_function, maskToString, type PreTrainedModel, Tensor, type Tokenizer } from "../mod.ts";

const SHADES = [" ", "·", "░", "▒", "▓", "█"];

/** Draws which tokens one head attends to: rows are queries, columns keys. */
export async function drawAttention(
  model: PreTrainedModel,
  tokenizer: Tokenizer,
  prompt: readonly number[],
  layer = 2,
  head = 1,
): Promise<void> {
  using ids = Tensor.from([prompt], { dtype: "int32" });
  await model.set_attn_implementation("flash_attention_2");
  const { logits, attentions } = await model.forward({
    input_ids: ids,
    use_cache: false,
    output_attentions: true,
  });
  logits![Symbol.dispose]();
  const n = prompt.length;
  const all = await attentions![layer]!.data() as Float32Array;
  for (const t of attentions!) t[Symbol.dispose]();
  const words = prompt.map((id) => tokenizer.decode([id]).trim() || "␣");
  const width = Math.max(...words.map((w) => w.length));
  console.log(
    `\nAttention of layer ${layer}, head ${head} (rows look at columns; asked of flash_attention_2, which never stores it):\n`,
  );
  for (let q = 0; q < n; q++) {
    const row = all.subarray((head * n + q) * n, (head * n + q + 1) * n);
    const cells = Array.from(
      row,
      (w, k) =>
        k > q ? "  " : SHADES[Math.min(SHADES.length - 1, Math.ceil(w * (SHADES.length - 1)))]!.repeat(2),
    );
    console.log(`${words[q]!.padStart(width)} ${cells.join("")}`);
  }
}

/** Draws the causal mask of the prompt as a predicate, before any backend formats it. */
export function drawMask(length: number): void {
  console.log(`\nThe mask of the prompt (■ visible, ⬚ hidden):\n`);
  console.log(maskToString(causal_mask_function, length, length));
}
