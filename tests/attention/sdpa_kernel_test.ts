import { assertEquals, assertInstanceOf, assertRejects, assertThrows } from "@std/assert";
import {
  attention,
  AttentionRefused,
  InvalidArgument,
  liveBuffers,
  sdpa_kernel,
  SDPBackend,
  Tensor,
} from "../../mod.ts";
import { enabledSdpaBackends } from "../../src/attention/sdpa_kernel.ts";
import { goldenCases } from "../support/golden.ts";

const names = (list: readonly SDPBackend[]) => list.map((b) => SDPBackend[b]);
const backend = (name: string) => SDPBackend[name as keyof typeof SDPBackend];

/** What a call gives under the selection that holds. */
async function call(options: { masked?: boolean; value_dim?: boolean } = {}): Promise<string> {
  using q = Tensor.from(new Float32Array(24).fill(0.5), { shape: [1, 2, 3, 4] });
  using v = Tensor.from(new Float32Array(options.value_dim ? 12 : 24).fill(1), {
    shape: [1, 2, 3, options.value_dim ? 2 : 4],
  });
  using mask = options.masked
    ? Tensor.from(new Uint8Array(9).fill(1), { shape: [1, 1, 3, 3], dtype: "bool" })
    : null;
  try {
    const { attn_output } = await attention(q, q, v, { attention_mask: mask });
    attn_output[Symbol.dispose]();
    return "ok";
  } catch (error) {
    assertInstanceOf(error, AttentionRefused);
    return "refused";
  }
}

for (const c of goldenCases("sdpa_kernel")) {
  const { op, params } = c;
  const expect = c.expect as Record<string, unknown>;
  if (op === "members") {
    Deno.test(`golden ${c.id}`, () => {
      for (const [name, value] of Object.entries(expect["values"] as Record<string, number>)) {
        assertEquals(backend(name), value);
      }
      assertEquals(names(enabledSdpaBackends()), expect["default_priority"]);
    });
  } else if (op === "context") {
    Deno.test(`golden ${c.id}`, async () => {
      const levels = expect["levels"] as { priority: string[] }[];
      const held: Disposable[] = [];
      for (const [i, [list, set_priority]] of (params["stack"] as [string | string[], boolean][]).entries()) {
        held.push(sdpa_kernel(Array.isArray(list) ? list.map(backend) : backend(list), { set_priority }));
        assertEquals(names(enabledSdpaBackends()), levels[i]!.priority);
      }
      // The reference refuses flash for values of another width; the kernel here takes them, so what decides is
      // whether any enabled backend exists. Dropout is refused everywhere (decisions L24 and L25).
      const calls = expect["calls"] as Record<string, string>;
      const viable = calls["plain"] === "ok" ? "ok" : "refused";
      assertEquals([await call(), await call({ masked: true }), await call({ value_dim: true })], [
        viable,
        viable,
        viable,
      ]);
      for (const h of held.reverse()) h[Symbol.dispose]();
      assertEquals(names(enabledSdpaBackends()), expect["restored_priority"]);
      // Back to the default order for the next case: the reference, too, leaves a changed order behind.
      sdpa_kernel([1, 2, 0, 3, 4], { set_priority: true });
    });
  } else {
    Deno.test(`golden ${c.id}`, () => {
      const value = String(params["value"]);
      const given: unknown = value === "'math'"
        ? "math"
        : value === "('MATH',)"
        ? ["MATH"]
        : value === "None"
        ? null
        : 0;
      // 0 is SDPBackend.MATH in TypeScript (decision L25).
      if (given === 0) sdpa_kernel(given as SDPBackend)[Symbol.dispose]();
      else assertThrows(() => sdpa_kernel(given as SDPBackend), InvalidArgument, "SDPBackend");
    });
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
