/**
 * `precision`: int8 where it was asked for and exists, a typed error elsewhere.
 *
 * @module
 */
import { assertEquals, assertRejects } from "@std/assert";
import { attention, AttentionRefused, configure, InvalidArgument, liveBuffers, Tensor } from "../../mod.ts";
import { BACKENDS } from "../../src/attention/builtin.ts";
import { seeded } from "../support/random.ts";
import { assertClose, assertSameBits, toleranceOf } from "../support/tolerance.ts";

const SHAPE = [1, 2, 70, 32];

/** Query, key and value, the same in every call. */
function operands(): readonly [Tensor, Tensor, Tensor] {
  const random = seeded("precision");
  const one = () => Tensor.from(random.normal(SHAPE.reduce((a, b) => a * b, 1)), { shape: SHAPE });
  return [one(), one(), one()];
}

async function outputOf(attn_implementation: string, precision: "float32" | "int8"): Promise<Float32Array> {
  const [q, k, v] = operands();
  try {
    const result = await attention(q, k, v, { attn_implementation, precision, is_causal: true });
    using output = result.attn_output;
    result.attn_weights?.[Symbol.dispose]();
    return await output.data() as Float32Array;
  } finally {
    for (const t of [q, k, v]) t[Symbol.dispose]();
  }
}

Deno.test("precision: flash_attention_3 has int8, near float32 and not the same", async () => {
  const [exact, quantised] = [
    await outputOf("flash_attention_3", "float32"),
    await outputOf("flash_attention_3", "int8"),
  ];
  assertClose(quantised, exact, toleranceOf("attention_int8", "wasm"), "int8 beside float32");
  assertEquals(quantised.some((x, i) => Math.abs(x - exact[i]!) > 1e-4), true);
  assertEquals(liveBuffers(), 0);
});

Deno.test("precision: the sums of int8 are integers, so both builds stay within float32 of each other", async () => {
  const relaxed = await outputOf("flash_attention_3", "int8");
  await configure({ deterministic: true });
  try {
    const plain = await outputOf("flash_attention_3", "int8");
    assertClose(plain, relaxed, toleranceOf("attention_flash", "wasm"), "plain beside relaxed build");
    assertSameBits(await outputOf("flash_attention_3", "int8"), plain);
  } finally {
    await configure({ deterministic: false });
  }
});

Deno.test("precision: every other implementation takes float32 and refuses int8", async () => {
  for (const { name } of BACKENDS.filter(({ name }) => !name.endsWith("flash_attention_3"))) {
    assertEquals((await outputOf(name, "float32")).length, 70 * 2 * 32);
    await assertRejects(() => outputOf(name, "int8"), AttentionRefused, "int8");
  }
  assertEquals(liveBuffers(), 0);
});

Deno.test("precision: a name that is none is an error", async () => {
  const [q, k, v] = operands();
  const options = { precision: "int4" } as unknown as { precision: "int8" };
  await assertRejects(() => attention(q, k, v, options), InvalidArgument, '"int4"');
  for (const t of [q, k, v]) t[Symbol.dispose]();
});
