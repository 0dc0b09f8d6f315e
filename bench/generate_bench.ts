/**
 * Generation with the demo model under `deno bench`, for a quick look.
 *
 *     deno bench -A bench/generate_bench.ts
 *
 * @module
 */
import { AutoModelForCausalLM, Tensor } from "../mod.ts";
import { DEMO } from "./generate.ts";

const PROMPT = Array.from({ length: 64 }, (_, i) => 3 + i * 37 % 3000);

for (const attn_implementation of ["eager", "sdpa", "flash_attention_2"] as const) {
  for (const max_new_tokens of [1, 16]) {
    Deno.bench({
      name: attn_implementation,
      group: `${max_new_tokens} tokens after ${PROMPT.length}`,
      n: 20,
      warmup: 5,
      async fn(b) {
        await using model = await AutoModelForCausalLM.from_pretrained(DEMO, { attn_implementation });
        using input_ids = Tensor.from(PROMPT, { dtype: "int32", shape: [1, PROMPT.length] });
        b.start();
        using _out = await model.generate({ input_ids, max_new_tokens, eos_token_id: null });
        b.end();
      },
    });
  }
}
