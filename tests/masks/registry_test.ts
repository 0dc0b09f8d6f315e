/**
 * The registry of mask formatters: global entries, local overlays, and what happens without an entry.
 *
 * @module
 */
import { assertEquals, assertStrictEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { InvalidArgument } from "../../src/errors.ts";
import { create_causal_mask } from "../../src/masks/create.ts";
import { sdpa_mask } from "../../src/masks/format_sdpa.ts";
import { ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface } from "../../src/masks/interface.ts";
import type { MaskFormatter } from "../../src/masks/types.ts";
import { Tensor } from "../../src/tensor.ts";
import "./golden_run.ts"; // registers the built-in formatters

const formatter = (): MaskFormatter => () => null;

/** Runs `fn` and returns what it wrote to `console.warn`. */
function warnings(fn: () => void): string[] {
  const lines: string[] = [];
  const warn = console.warn;
  console.warn = (...args: unknown[]) => lines.push(args.join(" "));
  try {
    fn();
  } finally {
    console.warn = warn;
  }
  return lines;
}

Deno.test("registry: register is global, set is local and wins, delete is local", () => {
  const [first, second] = [formatter(), formatter()];
  const [a, b] = [new AttentionMaskInterface(), new AttentionMaskInterface()];
  AttentionMaskInterface.register("registry_test", first);
  assertStrictEquals(a.get("registry_test"), first);
  a.set("registry_test", second);
  a.set("registry_test_local", second);
  assertStrictEquals(a.get("registry_test"), second);
  assertStrictEquals(b.get("registry_test"), first);
  assertEquals(b.has("registry_test_local"), false);
  assertEquals(a.valid_keys().filter((k) => k.startsWith("registry_test")), [
    "registry_test",
    "registry_test_local",
  ]);
  assertEquals(a.delete("registry_test"), true);
  assertStrictEquals(a.get("registry_test"), first);
  assertEquals(a.delete("registry_test"), false);
  assertEquals(a.has("registry_test"), true);
});

Deno.test("registry: names are non-empty strings and values functions", () => {
  const all = new AttentionMaskInterface();
  assertThrows(() => all.set("", formatter()), InvalidArgument, "non-empty");
  assertThrows(
    () => AttentionMaskInterface.register("x", null as unknown as MaskFormatter),
    InvalidArgument,
    "null",
  );
  assertThrows(() => all.set(1 as unknown as string, formatter()), InvalidArgument, "number");
});

Deno.test("registry: paged|X is X unless registered itself; names are case-sensitive", () => {
  const all = new AttentionMaskInterface();
  assertStrictEquals(all.resolve("paged|sdpa"), sdpa_mask);
  assertEquals(all.resolve("SDPA"), undefined);
  const own = formatter();
  all.set("paged|sdpa", own);
  assertStrictEquals(all.resolve("paged|sdpa"), own);
  assertThrows(() => all.get_interface("nope", sdpa_mask), InvalidArgument, "nope");
});

Deno.test("registry: an implementation without a formatter gets null, and one warning names the missing call", () => {
  const args = { config: { _attn_implementation: "no_formatter_here" }, inputs_embeds: { shape: [1, 4, 8] } };
  const lines = warnings(() => {
    assertEquals(create_causal_mask({ ...args, attention_mask: [[0, 1, 1, 1]] }), null);
    assertEquals(create_causal_mask(args), null);
  });
  assertEquals(lines.length, 1);
  assertStringIncludes(lines[0]!, 'AttentionMaskInterface.register("no_formatter_here"');
});

Deno.test("registry: a finished 4-D mask passes through whatever the implementation", () => {
  const mask = Tensor.from([[[[1, 0], [1, 1]]]], { dtype: "bool" });
  const args = { inputs_embeds: { shape: [1, 2, 8] }, attention_mask: mask };
  for (const name of ["sdpa", "flash_attention_2", "no_such_thing", null]) {
    assertStrictEquals(create_causal_mask({ ...args, config: { _attn_implementation: name } }), mask);
  }
  const blocks = { shape: [1, 1, 2, 2], kv_num_blocks: [], kv_indices: [] };
  assertStrictEquals(
    create_causal_mask({ ...args, attention_mask: blocks, config: { _attn_implementation: "sdpa" } }),
    blocks,
  );
});

Deno.test("registry: a user's formatter receives the whole story", () => {
  let seen: Parameters<MaskFormatter>[0] | undefined;
  ALL_MASK_ATTENTION_FUNCTIONS.set("spy", (args) => {
    seen = args;
    return args.attention_mask ?? null;
  });
  const config = { _attn_implementation: "spy" };
  const mask = create_causal_mask({
    config,
    inputs_embeds: { shape: [1, 2, 8], dtype: "bfloat16" },
    attention_mask: [[0, 1, 1]],
    past_key_values: {
      is_sliding: [false],
      is_compileable: false,
      get_mask_sizes: (q) => [q + 1, 0],
      get_query_offset: () => 1,
    },
    or_mask_function: (_b, _h, _q, kv) => kv === 0,
  });
  ALL_MASK_ATTENTION_FUNCTIONS.delete("spy");
  const { mask_function, attention_mask, ...rest } = seen!;
  assertEquals(rest, {
    batch_size: 1,
    q_length: 2,
    kv_length: 3,
    q_offset: 1,
    kv_offset: 0,
    config,
    dtype: "bfloat16",
    device: "wasm",
    allow_is_causal_skip: false,
    constraints: ["or_mask_function"],
  });
  assertEquals(mask_function!(0, 0, 1, 0), true);
  // A formatter may return the padding it was given: it then belongs to the caller.
  assertStrictEquals(mask, attention_mask);
  assertEquals((mask as Tensor).isDisposed, false);
});
