/**
 * The attention kernels under `deno bench`, for a quick look: no comparison here, bench/run.ts does that.
 *
 *     deno bench -A bench/attention_bench.ts
 *
 * @module
 */
import { attention, Tensor } from "../mod.ts";
import { ATTENTION_SHAPES } from "./cases.ts";
import { fastUniform } from "./compare.ts";

const NAMES = ["sdpa", "flash_attention_2"] as const;

for (const shape of ATTENTION_SHAPES) {
  const { B, H, Hkv, Q, K, D, causal = false, window } = shape;
  if (shape.compareOnly || shape.depth === "full" || window !== undefined || shape.see !== undefined) {
    continue;
  }
  for (const attn_implementation of NAMES) {
    Deno.bench({
      name: attn_implementation,
      group: shape.name,
      baseline: attn_implementation === "sdpa",
      async fn(b) {
        using q = Tensor.from(fastUniform(B * H * Q * D, 1), { shape: [B, H, Q, D] });
        using k = Tensor.from(fastUniform(B * Hkv * K * D, 2), { shape: [B, Hkv, K, D] });
        using v = Tensor.from(fastUniform(B * Hkv * K * D, 3), { shape: [B, Hkv, K, D] });
        // Uploads the operands before the clock starts.
        for (const timed of [false, true]) {
          if (timed) b.start();
          const { attn_output } = await attention(q, k, v, { attn_implementation, is_causal: causal });
          using output = attn_output;
          await output.data();
        }
        b.end();
      },
    });
  }
}
