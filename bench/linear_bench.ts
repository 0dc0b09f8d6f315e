/**
 * Linear layers under `deno bench`, for a quick look: no comparison here, bench/run.ts does that.
 *
 *     deno bench -A bench/linear_bench.ts
 *
 * @module
 */
import { ops, Tensor } from "../mod.ts";
import { defaultDevice } from "../src/devices/mod.ts";
import { fastUniform } from "./compare.ts";

const SHAPES = [[512, 512, 512], [64, 256, 688], [1, 2048, 2048]] as const;

for (const [M, I, O] of SHAPES) {
  for (const dtype of ["float32", "bfloat16"] as const) {
    Deno.bench({
      name: dtype,
      group: `linear ${M}×${I}×${O}`,
      baseline: dtype === "float32",
      async fn(b) {
        using x = Tensor.from(fastUniform(M * I, 1), { shape: [M, I] });
        using weight = Tensor.from(fastUniform(O * I, 2), { shape: [O, I], dtype });
        const engine = defaultDevice("wasm");
        // Uploads the operands before the clock starts.
        for (const timed of [false, true]) {
          if (timed) b.start();
          using _y = ops.linear(x, weight);
          await engine.flush();
        }
        b.end();
      },
    });
  }
}
