/**
 * What the documentation promises of masks and `is_causal`, where no other test holds it.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  attention,
  type AttentionFunction,
  AttentionInterface,
  AttentionMaskInterface,
  create_bidirectional_mask,
  create_causal_mask,
  DynamicCache,
  eager_mask,
  flex_attention_mask,
  InvalidArgument,
  type MaskFunction,
  sdpa_attention_forward,
  sdpa_kernel,
  sdpa_mask,
  SDPBackend,
  Tensor,
} from "../../mod.ts";
import { reference_attention } from "../../src/attention/reference.ts";
import { BlockMask } from "../../src/masks/block_mask.ts";
import { maskFunction } from "../masks/golden_run.ts";
import { disposeAll, ids, liveTest } from "../models/support.ts";
import fc from "../support/fast_check.ts";
import { assertClose, toleranceOf } from "../support/tolerance.ts";
import { load, numbers, operands, valuesOf } from "./point.ts";

const WITHIN = toleranceOf("attention_flash", "wasm");

liveTest("is_causal: concurrent calls on one model each keep their own, and the config none", async () => {
  await using model = await load("llama");
  using input_ids = ids([[5, 6, 7, 8, 9]]);
  const of = (is_causal?: boolean) =>
    valuesOf(model, { input_ids, ...(is_causal === undefined ? {} : { is_causal }) });
  const [causal, both] = [await of(), await of(false)];
  assert(causal.some((x, i) => Math.abs(x - both[i]!) > 1e-3));
  const together = await Promise.all([of(false), of(), of(true), of(false), of()]);
  assertEquals(together, [both, causal, causal, both, causal]);
  assertEquals(model.config.is_causal, null);
});

liveTest("is_causal: what a failed call asked for is gone with it", async () => {
  const fails: AttentionFunction = () => {
    throw new Error("on purpose");
  };
  AttentionInterface.register("claims_fails", fails);
  AttentionMaskInterface.register("claims_fails", sdpa_mask);
  await using model = await load("llama");
  using input_ids = ids([[5, 6, 7]]);
  const before = await valuesOf(model, { input_ids });
  await model.set_attn_implementation("claims_fails");
  await assertRejects(() => model.forward({ input_ids, is_causal: false }), Error, "on purpose");
  await model.set_attn_implementation("sdpa");
  assertEquals(model.config.is_causal, null);
  assertEquals(await valuesOf(model, { input_ids }), before);
});

liveTest(
  "sdpa_kernel: concurrent generations each see their own selection, nested ones the inner",
  async () => {
    await using model = await load("llama");
    using input_ids = ids([[5, 6, 7]]);
    const run = () =>
      model.generate({ input_ids, max_new_tokens: 3 }).then((tokens) => tokens[Symbol.dispose]());
    const outcomes = await Promise.allSettled([
      sdpa_kernel(SDPBackend.CUDNN_ATTENTION, run),
      sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH], run, { set_priority: true }),
      run(),
      sdpa_kernel(SDPBackend.CUDNN_ATTENTION, () => sdpa_kernel(SDPBackend.MATH, run)),
      sdpa_kernel(SDPBackend.MATH, () => sdpa_kernel(SDPBackend.CUDNN_ATTENTION, run)),
      model.generate({ input_ids, max_new_tokens: 3, sdpa_backends: [SDPBackend.MATH] }).then((t) =>
        t[Symbol.dispose]()
      ),
    ]);
    const states = outcomes.map(({ status }) => status === "fulfilled");
    assertEquals(states, [false, true, true, true, false, true]);
  },
);

liveTest(
  "cross attention: masks are of the encoder's states, as wide as they and padded as they are",
  async () => {
    const rows = [[1, 1, 1, 0], [1, 1, 1, 1]];
    for (const name of ["eager", "sdpa", "flash_attention_2", "flex_attention"]) {
      const mask = create_bidirectional_mask({
        config: { _attn_implementation: name },
        inputs_embeds: { shape: [2, 3, 8] },
        attention_mask: rows,
        encoder_hidden_states: { shape: [2, 4, 8] },
      });
      const dense = mask instanceof BlockMask ? mask.to_dense() : mask as Tensor;
      const expected = name.startsWith("flash") ? [2, 4] : [2, 1, 3, 4];
      assertEquals(dense.shape, expected, name);
      const visible = (await dense.tolist() as unknown[]).flat(3).map((x) => x === true || x === 0 ? 1 : 0);
      const wanted = name.startsWith("flash") ? rows.flat() : rows.flatMap((row) => [row, row, row].flat());
      assertEquals(visible, wanted, name);
      disposeAll({ mask, dense });
    }
  },
);

/** Predicates of the recordings' language, nested. */
const predicates = fc.letrec<{ tree: Record<string, unknown> }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 2 },
    fc.record({ op: fc.constant("causal") }),
    fc.record({ op: fc.constant("bidirectional") }),
    fc.record({ op: fc.constant("sliding_causal"), window: fc.integer({ min: 1, max: 6 }) }),
    fc.record({ op: fc.constant("sliding_bidirectional"), window: fc.integer({ min: 1, max: 4 }) }),
    fc.record({ op: fc.constant("kv_mod"), m: fc.constant(3), r: fc.integer({ min: 0, max: 2 }) }),
    fc.record({ op: fc.constant("dist_lt"), n: fc.integer({ min: 1, max: 5 }) }),
    fc.record({
      op: fc.constantFrom("and", "or"),
      args: fc.array(tie("tree"), { minLength: 1, maxLength: 3 }),
    }),
    fc.record({ op: fc.constant("not"), arg: tie("tree") }),
  ),
})).tree;

liveTest(
  "property: every backend under its own form of a mask computes what the oracle does under the predicate",
  async () => {
    using given = operands();
    await fc.assert(
      fc.asyncProperty(predicates, async (spec) => {
        const mask_function = maskFunction(spec as never);
        const expected = reference_attention({ ...given.oracle, query_offset: 0, mask: mask_function });
        for (const attn_implementation of ["eager", "sdpa", "flex_attention", "paged|eager"]) {
          const result = await attention(...given.tensors, {
            attn_implementation,
            mask_function,
            output_attentions: true,
          });
          const [output, weights] = [await result.attn_output.data(), await result.attn_weights!.data()];
          disposeAll(result);
          assertClose(output as Float32Array, expected.output, WITHIN, attn_implementation);
          assertClose(weights as Float32Array, expected.weights, WITHIN, attn_implementation);
        }
      }),
      { numRuns: 40 },
    );
  },
);

/** A predicate, and how often it was asked. */
function counted(see: MaskFunction): { fn: MaskFunction; calls: () => number } {
  let calls = 0;
  return { fn: (...at) => (calls++, see(...at)), calls: () => calls };
}

liveTest("a user's predicate is asked once about each place that everything else leaves open", () => {
  const heads = 3, N = 20, room = N * (N + 1) / 2;
  const config = { num_attention_heads: heads };
  const ask = (name: string) => {
    const { fn, calls } = counted((_b, _h, q, kv) => (q + kv) % 3 !== 0);
    const mask = create_causal_mask({
      config: { ...config, _attn_implementation: name },
      inputs_embeds: { shape: [1, N, 8] },
      and_mask_function: fn,
    })!;
    const built = calls();
    // What layers expand of a block mask costs no further call.
    if (mask instanceof BlockMask) {
      for (let layer = 0; layer < 3; layer++) mask.to_dense()[Symbol.dispose]();
    }
    disposeAll({ mask });
    return [built, calls()];
  };
  for (const name of ["eager", "sdpa", "flex_attention"]) {
    assertEquals(ask(name), [heads * room, heads * room], name);
  }
  const { fn, calls } = counted((_b, _h, q, kv) => q >= kv);
  for (const format of [eager_mask, sdpa_mask, flex_attention_mask]) {
    const before = calls();
    const sizes = {
      batch_size: 1,
      q_length: N,
      kv_length: N,
      mask_function: fn,
      allow_is_causal_skip: false,
    };
    disposeAll({ mask: format(sizes) });
    assertEquals(calls() - before, N * N);
  }
});

liveTest("a step of a generation asks a user's predicate about the new token only", () => {
  const { fn, calls } = counted((_b, _h, q, kv) => (q + kv) % 3 !== 0);
  using cache = new DynamicCache();
  const step = (name: string, n: number) => {
    const before = calls();
    const mask = create_causal_mask({
      config: { _attn_implementation: name },
      inputs_embeds: { shape: [1, n, 8] },
      past_key_values: cache,
      and_mask_function: fn,
    });
    disposeAll({ mask });
    using states = numbers("states", 1, n).tensor;
    disposeAll(cache.update(states, states, 0));
    return calls() - before;
  };
  assertEquals(step("sdpa", 12), 12 * 13 / 2);
  assertEquals(["eager", "sdpa", "flex_attention"].map((name) => step(name, 1)), [13, 14, 15]);
});

liveTest(
  "bad masks and positions are refused before any layer computes, and the model lives on",
  async () => {
    let entered = 0;
    const counting: AttentionFunction = (...args) => (entered++, sdpa_attention_forward(...args));
    await using model = await load("llama");
    using input_ids = ids([[1, 2, 3, 4, 5]]);
    const four = (shape: number[], dtype: "bool" | "int64" | "float32" = "bool") =>
      Tensor.from(new Array(shape.reduce((a, b) => a * b, 1)).fill(1), { shape, dtype });
    const inputs: readonly (readonly [what: string, inputs: Record<string, unknown>, word: string])[] = [
      ["a mask of rank 1", { attention_mask: four([5]) }, "(B, length)"],
      ["a mask of rank 3", { attention_mask: four([1, 1, 5]) }, "(B, length)"],
      ["a mask that is longer than the tokens", { attention_mask: [[1, 1, 1, 1, 1, 1]] }, "at most 5"],
      ["a mask of another batch", { attention_mask: [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1]] }, "batch of 1"],
      ["a mask of halves", { attention_mask: [[1, 1, 1, 1, 0.5]] }, "0.5"],
      ["a mask with NaN", { attention_mask: [[1, 1, 1, 1, NaN]] }, "NaN"],
      ["a finished mask of integers", { attention_mask: four([1, 1, 5, 5], "int64") }, "int64"],
      ["a finished mask of another batch", { attention_mask: four([2, 1, 5, 5]) }, "B = 1"],
      ["a finished mask of other queries", { attention_mask: four([1, 1, 4, 5]) }, "Q = 5"],
      [
        "a finished mask of fewer keys",
        { attention_mask: four([1, 1, 5, 4]), use_cache: false },
        "[1,1,5,4]",
      ],
      ["a function as a mask", { attention_mask: () => true }, "mask"],
      ["NaN positions", { position_ids: [[0, 1, NaN, 3, 4]] }, "NaN"],
      ["negative positions", { position_ids: [[0, 1, -2, 3, 4]] }, "-2"],
      ["positions of another length", { position_ids: [[0, 1]] }, "[1,2]"],
      ["is_causal that is a string", { is_causal: "no" }, "is_causal"],
    ];
    AttentionInterface.register("sdpa", counting);
    try {
      for (const [what, given, word] of inputs) {
        // Finished masks are checked for built-in functions only: those are tried without the counter.
        AttentionInterface.register("sdpa", what.includes("finished") ? sdpa_attention_forward : counting);
        const error = await assertRejects(() => model.forward({ input_ids, ...given }), InvalidArgument);
        assert(error.message.includes(word), `${what}: ${error.message}`);
        if (given["attention_mask"] instanceof Tensor) given["attention_mask"][Symbol.dispose]();
      }
    } finally {
      AttentionInterface.register("sdpa", sdpa_attention_forward);
    }
    assertEquals(entered, 0);
    assert((await valuesOf(model, { input_ids })).every(Number.isFinite));
  },
);
