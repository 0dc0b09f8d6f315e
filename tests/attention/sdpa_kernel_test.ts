/**
 * Which kernels `sdpa` may use. Nested contexts and what calls give in them are recorded:
 * tests/decisions/golden_test.ts.
 *
 * @module
 */
import { assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { attention, AttentionRefused, liveBuffers, sdpa_kernel, SDPBackend, Tensor } from "../../mod.ts";
import { enabledSdpaBackends } from "../../src/attention/sdpa_kernel.ts";

const names = (list: readonly SDPBackend[]) => list.map((b) => SDPBackend[b]);

/** What a call gives under the selection that holds. */
async function call(): Promise<string> {
  using q = Tensor.from(new Float32Array(24).fill(0.5), { shape: [1, 2, 3, 4] });
  try {
    const { attn_output } = await attention(q, q, q);
    attn_output[Symbol.dispose]();
    return "ok";
  } catch (error) {
    assertInstanceOf(error, AttentionRefused);
    return "refused";
  }
}

Deno.test("sdpa_kernel: the callback form is isolated between concurrent tasks", async () => {
  const seen: string[][] = [];
  const task = (b: SDPBackend, wait: number) =>
    sdpa_kernel(b, async () => {
      await new Promise((done) => setTimeout(done, wait));
      seen.push(names(enabledSdpaBackends()));
      return await call();
    });
  const results = await Promise.all([task(SDPBackend.MATH, 5), task(SDPBackend.CUDNN_ATTENTION, 1), call()]);
  assertEquals(results, ["ok", "refused", "ok"]);
  assertEquals(seen, [["CUDNN_ATTENTION"], ["MATH"]]);
});

Deno.test("sdpa_kernel: the explicit option wins, and only sdpa is affected", async () => {
  using q = Tensor.from(new Float32Array(8).fill(0.5), { shape: [1, 1, 2, 4] });
  {
    using _ = sdpa_kernel(SDPBackend.CUDNN_ATTENTION);
    const error = await assertRejects(() => attention(q, q, q), AttentionRefused, "no viable backend");
    assertEquals((error as AttentionRefused).candidates.length, 5);
    for (const attn_implementation of ["eager", "flash_attention_2"]) {
      const { attn_output, attn_weights } = await attention(q, q, q, { attn_implementation });
      for (const t of [attn_output, attn_weights]) t?.[Symbol.dispose]();
    }
    (await attention(q, q, q, { sdpa_backends: [SDPBackend.MATH] })).attn_output[Symbol.dispose]();
  }
  await assertRejects(() => attention(q, q, q, { sdpa_backends: [] }), AttentionRefused);
});

Deno.test("sdpa_kernel: nothing stays alive", () => assertEquals(liveBuffers(), 0));
