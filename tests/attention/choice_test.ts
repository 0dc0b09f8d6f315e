/**
 * What `sdpa` chooses depends on the shape of one sequence, never on what else is in the batch.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { attention, configure, liveBuffers, ops, SDPBackend, Tensor } from "../../mod.ts";
import { seeded } from "../support/random.ts";
import { assertSameBits } from "../support/tolerance.ts";

const [B, H, HKV, D] = [3, 4, 2, 24];

/** Query, key and value of a batch. */
function operands(Q: number, K: number): readonly [Tensor, Tensor, Tensor] {
  const random = seeded(`choice ${Q} ${K}`);
  const one = (h: number, n: number) => Tensor.from(random.normal(B * h * n * D), { shape: [B, h, n, D] });
  return [one(H, Q), one(HKV, K), one(HKV, K)];
}

type Options = Parameters<typeof attention>[3];

async function outputOf(q: Tensor, k: Tensor, v: Tensor, options: Options): Promise<Float32Array> {
  using output = (await attention(q, k, v, options)).attn_output;
  return await output.data() as Float32Array;
}

for (const deterministic of [false, true]) {
  const build = deterministic ? "plain" : "relaxed";
  Deno.test(`sdpa on wasm, ${build} build: a sequence has the same bits alone and beside others`, async () => {
    await configure({ deterministic });
    try {
      // Sizes at which each kernel is chosen: plain, decoding, tiled.
      for (
        const [Q, K] of [[1, 9], [1, 300], [3, 5], [5, 130], [9, 70], [12, 12], [16, 16], [33, 80], [64, 64]]
      ) {
        for (const is_causal of [false, true]) {
          const tensors = operands(Q!, K!);
          const together = await outputOf(...tensors, { is_causal });
          for (let b = 0; b < B; b++) {
            const alone = tensors.map((t) => ops.slice(t, 0, b, b + 1)) as [Tensor, Tensor, Tensor];
            const size = Q! * H * D;
            assertSameBits(
              await outputOf(...alone, { is_causal }),
              together.slice(b * size, (b + 1) * size),
              `${Q} × ${K}, row ${b}`,
            );
            for (const t of alone) t[Symbol.dispose]();
          }
          for (const t of tensors) t[Symbol.dispose]();
        }
      }
      assertEquals(liveBuffers(), 0);
    } finally {
      await configure({ deterministic: false });
    }
  });
}

Deno.test("sdpa on wasm: what is chosen is one of the backends it can be forced to, bit by bit", async () => {
  const expected = [
    [3, 5, SDPBackend.MATH],
    [1, 300, SDPBackend.FLASH_ATTENTION],
    [5, 130, SDPBackend.FLASH_ATTENTION],
    [9, 70, SDPBackend.MATH],
    [20, 64, SDPBackend.MATH],
    [23, 64, SDPBackend.FLASH_ATTENTION],
    [64, 64, SDPBackend.FLASH_ATTENTION],
  ] as const;
  for (const [Q, K, backend] of expected) {
    const tensors = operands(Q, K);
    const chosen = await outputOf(...tensors, { is_causal: false });
    assertSameBits(
      chosen,
      await outputOf(...tensors, { is_causal: false, sdpa_backends: [backend] }),
      `${Q} × ${K}`,
    );
    const [math, flash] = [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION];
    const other = backend === math ? flash : math;
    const another = await outputOf(...tensors, { is_causal: false, sdpa_backends: [other] });
    assertEquals(chosen.some((x, i) => x !== another[i]), true, `${Q} × ${K}: both give the same`);
    for (const t of tensors) t[Symbol.dispose]();
  }
  assertEquals(liveBuffers(), 0);
});
