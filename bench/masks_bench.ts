/**
 * Building masks under `deno bench`, for a quick look: no comparison here, bench/run.ts does that.
 *
 *     deno bench -A bench/masks_bench.ts
 *
 * @module
 */
import { create_causal_mask, type MaskArgs, type MaskFunction } from "../mod.ts";

const strided: MaskFunction = (_b, _h, q, kv) => (q - kv) % 4 === 0;

for (const S of [512, 4096]) {
  const patterns: Readonly<Record<string, Partial<MaskArgs>>> = {
    causal: {},
    padded: { attention_mask: [Array.from({ length: S }, (_, i) => i < 7 ? 0 : 1)] },
    predicate: { and_mask_function: strided },
  };
  for (const form of ["eager", "sdpa", "flash_attention_2", "flex_attention"]) {
    for (const [name, extra] of Object.entries(patterns)) {
      if (name === "predicate" && form === "flash_attention_2") continue;
      Deno.bench({
        name: form,
        group: `${name}, ${S}`,
        fn() {
          const mask = create_causal_mask({
            config: { _attn_implementation: form },
            inputs_embeds: { shape: [1, S, 0] },
            ...extra,
          });
          if (mask !== null && Symbol.dispose in mask) (mask as Disposable)[Symbol.dispose]();
        },
      });
    }
  }
}
