/**
 * The deprecated mask helpers: their values, what they refuse, and that each warns once.
 *
 * @module
 */
import { assertEquals, assertThrows } from "@std/assert";
import { minOf } from "../../src/dtype.ts";
import { InvalidArgument } from "../../src/errors.ts";
import {
  create_extended_attention_mask_for_decoder,
  get_extended_attention_mask,
  invert_attention_mask,
} from "../../src/masks/deprecated.ts";
import { PretrainedConfig } from "../../src/config.ts";
import { Tensor } from "../../src/tensor.ts";

const MIN = minOf("float32");

/** Runs `fn` and returns what it warned of. */
async function warnings(fn: () => Promise<void>): Promise<string[]> {
  const said: string[] = [];
  const warn = console.warn;
  console.warn = (text: string) => void said.push(text);
  try {
    await fn();
  } finally {
    console.warn = warn;
  }
  return said;
}

// Before any test, whose order is shuffled: a warning is given once per process.
const said = await warnings(async () => {
  for (let i = 0; i < 2; i++) {
    await invert_attention_mask([[1, 0]]).data();
    await create_extended_attention_mask_for_decoder([1, 2], [[1, 1]]).data();
    await get_extended_attention_mask([[1, 0]], [1, 2]).data();
  }
});

Deno.test("each helper warns once, by its name", () => {
  const names = [
    "invert_attention_mask",
    "create_extended_attention_mask_for_decoder",
    "get_extended_attention_mask",
  ];
  assertEquals(said.map((text) => names.find((name) => text.includes(`${name} is deprecated`))), names);
});

Deno.test("invert_attention_mask: (B, N) and (B, Q, N)", async () => {
  const flat = invert_attention_mask([[1, 0, 1]]);
  assertEquals([flat.shape, flat.dtype], [[1, 1, 1, 3], "float32"]);
  assertEquals(await flat.tolist(), [[[[0, MIN, 0]]]]);
  const full = invert_attention_mask(Tensor.from([[[1, 0], [1, 1]]], { dtype: "int64" }));
  assertEquals(await full.tolist(), [[[[0, MIN], [0, 0]]]]);
  const half = invert_attention_mask([[true, false]], "float16");
  assertEquals([half.dtype, await half.tolist()], ["float16", [[[[0, minOf("float16")]]]]]);
});

Deno.test("create_extended_attention_mask_for_decoder: causal times padding, the past seen by all", async () => {
  const same = create_extended_attention_mask_for_decoder([1, 3], [[0, 1, 1]]);
  assertEquals(same.dtype, "int32");
  assertEquals(await same.tolist(), [[[[0, 0, 0], [0, 1, 0], [0, 1, 1]]]]);
  const past = create_extended_attention_mask_for_decoder([1, 2], [[1, 0, 1, 1]]);
  assertEquals(await past.tolist(), [[[[1, 0, 1, 0], [1, 0, 1, 1]]]]);
});

Deno.test("get_extended_attention_mask: additive, causal for a decoder", async () => {
  assertEquals(await get_extended_attention_mask([[1, 0]], [1, 2]).tolist(), [[[[0, MIN]]]]);
  assertEquals(await get_extended_attention_mask([[[1, 0], [1, 1]]], [1, 2]).tolist(), [[[[0, MIN], [
    0,
    0,
  ]]]]);
  const config = new PretrainedConfig({ is_decoder: true });
  assertEquals(await get_extended_attention_mask([[1, 1]], [1, 2], { config }).tolist(), [[[[0, MIN], [
    0,
    0,
  ]]]]);
});

Deno.test("other ranks, shapes and dtypes are refused", () => {
  assertThrows(() => invert_attention_mask([1, 0]), InvalidArgument, "[2]");
  assertThrows(() => get_extended_attention_mask([[[[1]]]], [1, 1]), InvalidArgument, "[1,1,1,1]");
  assertThrows(() => create_extended_attention_mask_for_decoder([1, 3], [[1, 1]]), InvalidArgument, "N ≥ Q");
  assertThrows(() => create_extended_attention_mask_for_decoder([2, 2], [[1, 1]]), InvalidArgument, "[2,2]");
  assertThrows(() => invert_attention_mask([[1]], "int32"), InvalidArgument, "int32");
});
