/**
 * Decisions about results: masked rows, sinks, windows, weights. Each test is named after the point of the decision;
 * those about names and masks are in choice_test.ts.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  attention,
  AttentionRefused,
  create_causal_mask,
  DynamicCache,
  eager_mask,
  flash_attention_forward,
  flex_attention_mask,
  InvalidArgument,
  type MaskFunction,
  paged_mask_function,
  PretrainedConfig,
  sdpa_kernel,
  sdpa_mask,
  SDPBackend,
  Tensor,
} from "../../mod.ts";
import { reference_attention } from "../../src/attention/reference.ts";
import { states, tokens } from "../cache/states.ts";
import { disposeAll, everywhere, ids, liveTest, reportSkipped } from "../models/support.ts";
import { assertClose, EXACT, toleranceOf } from "../support/tolerance.ts";
import { attend, callFunction, FUNCTIONS, load, numbers, operands, valuesOf } from "./point.ts";

const WITHIN = toleranceOf("attention_flash", "wasm");
const KINDS = ["eager", "sdpa", "flash_attention_2", "flex_attention"];

/** Query 2 sees nothing. */
const blank: MaskFunction = (_b, _h, q, kv) => q !== 2 && kv <= q;
const sizes = { batch_size: 1, q_length: 5, kv_length: 5, mask_function: blank, allow_is_causal_skip: false };

liveTest("L9: a fully masked row gives zeros everywhere, with sinks too", async () => {
  using s_aux = Tensor.from([0.5, 1], { dtype: "float32" });
  using half = Tensor.from(Array.from({ length: 25 }, (_, i) => Math.floor(i / 5) === 2 ? -1.8e38 : 0), {
    shape: [1, 1, 5, 5],
    dtype: "float32",
  });
  const masks = {
    eager: eager_mask(sizes)!,
    sdpa: sdpa_mask(sizes)!,
    flex_attention: flex_attention_mask(sizes),
  };
  for (const name of ["eager", "sdpa", "flex_attention", "paged|eager", "paged|sdpa"]) {
    const own = masks[name.split("|").at(-1)! as keyof typeof masks];
    for (const mask of name.includes("flex") ? [own] : [own, half]) {
      for (const sinks of [{}, { s_aux }]) {
        const { output, weights } = await callFunction(name, mask, { ...sinks, output_attentions: true });
        assertEquals(Array.from(output.subarray(16, 24)), new Array(8).fill(0), name);
        assertEquals(
          [0, 1].flatMap((h) => Array.from(weights!.subarray((h * 5 + 2) * 5, (h * 5 + 3) * 5))),
          new Array(10).fill(0),
          name,
        );
        assert(output.every(Number.isFinite));
      }
    }
  }
  using padding = Tensor.from([[false, false, true, true, true]]);
  const { output } = await callFunction("flash_attention_2", padding, { s_aux });
  assertEquals(Array.from(output.subarray(0, 16)), new Array(16).fill(0), "padded queries of flash");
  disposeAll(masks);
});

liveTest("L10: softcap and sinks count in every backend", async () => {
  using given = operands();
  using s_aux = Tensor.from([0.5, -1], { dtype: "float32" });
  const expected = reference_attention({
    ...given.oracle,
    softcap: 0.7,
    sinks: { data: [0.5, -1], shape: [2] },
    is_causal: true,
  }).output;
  const see = { ...sizes, mask_function: paged_mask_function([0, 5], [0, 5], null) };
  for (const name of Object.keys(FUNCTIONS)) {
    const mask = name.includes("flash")
      ? null
      : name.includes("flex")
      ? flex_attention_mask(see)
      : eager_mask(see);
    const { output } = await callFunction(name, mask, { softcap: 0.7, s_aux });
    assertClose(output, expected, WITHIN, name);
    disposeAll({ mask });
  }
});

liveTest("L11: a window to both sides is |q − kv| ≤ w in every backend", async () => {
  using given = operands();
  const mask_function: MaskFunction = (_b, _h, q, kv) => Math.abs(q - kv) <= 2;
  const expected = reference_attention({ ...given.oracle, mask: mask_function }).output;
  for (const name of KINDS) {
    const { output } = name.includes("flash")
      ? await callFunction(name, null, { is_causal: false, sliding_window: 2 })
      : await attend({ attn_implementation: name, mask_function });
    assertClose(output, expected, WITHIN, name);
  }
});

liveTest(
  "L13: an encoder ignores is_causal; packing survives is_causal = false, block ids do not",
  async () => {
    await using model = await load("bert");
    using input_ids = ids([[21, 38, 15, 7]]);
    const plain = await valuesOf(model, { input_ids });
    assertEquals(await valuesOf(model, { input_ids, is_causal: true }), plain);
    using mask = create_causal_mask({
      config: { _attn_implementation: "sdpa", is_causal: false },
      inputs_embeds: { shape: [1, 4, 8] },
      position_ids: [[0, 1, 0, 1]],
      block_sequence_ids: [[0, 0, 0, 0]],
    }) as Tensor;
    const [a, b] = [[true, true, false, false], [false, false, true, true]];
    assertEquals(await mask.tolist(), [[[a, a, b, b]]]);
  },
);

liveTest("L14: output_attentions works with every backend", async () => {
  const causal: MaskFunction = (_b, _h, q, kv) => kv <= q;
  const expected = await attend({ attn_implementation: "eager", mask_function: causal });
  for (const name of KINDS) {
    const mask = name.includes("flash") ? { is_causal: true } : { mask_function: causal };
    const { weights } = await attend({ attn_implementation: name, ...mask, output_attentions: true });
    assertClose(weights!, expected.weights!, WITHIN, name);
  }
});

everywhere("L15: a window of 1 stores nothing", async (device) => {
  using cache = new DynamicCache({
    config: new PretrainedConfig({ sliding_window: 1, num_hidden_layers: 1 }),
  });
  for (const seen of [0, 1, 2]) {
    using token = states(seen + 1, 1, { device });
    using minus = states(-seen - 1, 1, { device });
    assertEquals(await tokens(cache.update(token, minus, 0)), [seen + 1]);
    assertEquals(cache.get_seq_length(), seen + 1);
  }
});

liveTest("L18: flash keeps packing in every row of a batch", async () => {
  const one = [numbers("q", 2, 6), numbers("k", 2, 6), numbers("v", 2, 6)];
  const two = [numbers("a", 2, 6), numbers("b", 2, 6), numbers("c", 2, 6)];
  const positions = [[0, 1, 2, 0, 1, 2], [0, 1, 0, 1, 2, 3]];
  const module = {
    config: new PretrainedConfig({}),
    layer_idx: 0,
    is_causal: true,
    scaling: 0.5,
    num_key_value_groups: 1,
  };
  const batch = one.map(({ array }, i) =>
    Tensor.from([...array.data, ...two[i]!.array.data], { shape: [2, 2, 6, 4], dtype: "float32" })
  );
  const run = async (tensors: readonly Tensor[], rows: number[][]) => {
    using position_ids = Tensor.from(rows);
    const [q, k, v] = tensors as [Tensor, Tensor, Tensor];
    const [output] = flash_attention_forward(module, q, k, v, null, { position_ids });
    using owned = output;
    return Array.from(await owned.data() as Float32Array);
  };
  const alone = [
    ...await run(one.map((n) => n.tensor), [positions[0]!]),
    ...await run(two.map((n) => n.tensor), [positions[1]!]),
  ];
  assertClose(await run(batch, positions), alone, EXACT);
  disposeAll({ all: [...batch, ...[...one, ...two].map((n) => n.tensor)] });
});

liveTest("L22: flex returns weights only when asked, and its log-sum-exp by return_lse", async () => {
  using given = operands();
  const { lse, weights } = reference_attention({ ...given.oracle, query_offset: 0 });
  const plain = await attend({ attn_implementation: "flex_attention" });
  assertEquals([plain.weights, plain.lse], [null, null]);
  const asked = await attend({
    attn_implementation: "flex_attention",
    output_attentions: true,
    return_lse: true,
  });
  assertClose(asked.weights!, weights, WITHIN);
  assertClose(asked.lse!, lse, WITHIN);
});

liveTest("L24: every attention function refuses dropout", async () => {
  for (const name of Object.keys(FUNCTIONS)) {
    await assertRejects(() => callFunction(name, null, { dropout: 0.1 }), InvalidArgument, "dropout 0.1");
  }
});

liveTest(
  "L25: which SDPA backends there are; the call is the error, not the context, and only sdpa's",
  async () => {
    using x = numbers("x", 1, 3).tensor;
    const call = async (attn_implementation: string, sdpa_backends?: SDPBackend[]) =>
      disposeAll(
        await attention(x, x, x, { attn_implementation, ...(sdpa_backends ? { sdpa_backends } : {}) }),
      );
    for (const backend of [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION]) {
      using _ = sdpa_kernel(backend);
      await call("sdpa");
    }
    for (
      const backend of [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.OVERRIDEABLE]
    ) {
      using _ = sdpa_kernel(backend);
      await assertRejects(() => call("sdpa"), AttentionRefused, "no viable backend");
      await call("eager");
      await call("flash_attention_2");
      await call("sdpa", [SDPBackend.MATH]);
    }
    using _ = sdpa_kernel(0);
    await call("sdpa");
    assertThrows(() => sdpa_kernel("math" as never), InvalidArgument, "SDPBackend");
  },
);

Deno.test("every point of the decisions has a test named after it", async () => {
  const files = ["choice_test.ts", "results_test.ts"];
  const texts = await Promise.all(files.map((file) => Deno.readTextFile(new URL(file, import.meta.url))));
  const found = texts.flatMap((text) =>
    [...text.matchAll(/^\w+(?:\.test)?\(\s*"L(\d+): /gm)].map((m) => Number(m[1]))
  );
  assertEquals(found.sort((a, b) => a - b), Array.from({ length: 25 }, (_, i) => i + 1));
});

reportSkipped();
