/**
 * Gemma 2 against recordings of Transformers, masks by layer type, and what it must refuse.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import {
  type AttentionMask,
  AutoModelForCausalLM,
  create_masks_for_generate,
  type DeviceName,
  type PreTrainedModel,
  Tensor,
} from "../../mod.ts";
import { goldenFile, goldenPath } from "../support/golden.ts";
import { assertClose, EXACT, toleranceOf } from "../support/tolerance.ts";
import { hostileConfigs, hostileInputs } from "./hostile.ts";
import { recordedTests } from "./recorded.ts";
import { disposeAll, everywhere, ids, liveTest, reportSkipped } from "./support.ts";

recordedTests({ arch: "gemma2" });

hostileConfigs("gemma2", AutoModelForCausalLM, [
  [{ sliding_window: 0 }, "sliding_window"],
  [{ sliding_window: -1 }, "sliding_window", "found -1"],
  [{ sliding_window: null }, "sliding_window", "sliding_attention"],
  [{ layer_types: ["full_attention"] }, "layer_types", "4 layers"],
  [
    { layer_types: ["full_attention", "full_attention", "full_attention", "chunked_attention"] },
    "layer_types",
  ],
  [{ layer_types: ["__proto__", "full_attention", "full_attention", "full_attention"] }, "layer_types"],
  [{ layer_types: "full_attention" }, "layer_types"],
  [{ layer_types: new Array(100_000).fill("full_attention") }, "layer_types"],
  [{ query_pre_attn_scalar: 0 }, "query_pre_attn_scalar", "above 0"],
  [{ query_pre_attn_scalar: -8 }, "query_pre_attn_scalar"],
  [{ query_pre_attn_scalar: NaN }, "query_pre_attn_scalar"],
  [{ attn_logit_softcapping: 0 }, "attn_logit_softcapping", "above 0"],
  [{ attn_logit_softcapping: NaN }, "attn_logit_softcapping"],
  [{ final_logit_softcapping: -30 }, "final_logit_softcapping"],
  [{ final_logit_softcapping: Infinity }, "final_logit_softcapping"],
  [{ use_bidirectional_attention: true }, "use_bidirectional_attention", "is_causal"],
  [{ hidden_activation: "gelu2" }, "hidden_activation"],
]);

const PROMPT = [3, 41, 19, 10, 47, 6, 12, 36];
const load = async (
  attn_implementation: string,
  device: DeviceName = "wasm",
  arch = "gemma2",
): Promise<PreTrainedModel> =>
  await AutoModelForCausalLM.from_pretrained(goldenPath(`models/${arch}`), { attn_implementation, device });

async function logitsOf(model: PreTrainedModel, inputs: Record<string, unknown>): Promise<Float32Array> {
  const output = await model.forward(inputs);
  const values = await output.logits!.data() as Float32Array;
  disposeAll(output);
  return values;
}

for (const name of ["eager", "sdpa", "flash_attention_2", "flex_attention"]) {
  everywhere(`masks by layer type give what the 2-D mask gives: ${name}`, async (device) => {
    await using model = await load(name, device);
    using input_ids = ids([PROMPT, PROMPT.toReversed()]);
    using attention_mask = Tensor.from([[0, 0, 1, 1, 1, 1, 1, 1], new Array(8).fill(1)], { dtype: "int64" });
    const expected = await logitsOf(model, { input_ids, attention_mask });
    const masks = create_masks_for_generate({
      config: model.config,
      inputs_embeds: { shape: [2, PROMPT.length, 0], device },
      attention_mask,
      past_key_values: null,
    }) as Record<string, AttentionMask>;
    assertEquals(Object.keys(masks).sort(), ["full_attention", "sliding_attention"]);
    assertClose(await logitsOf(model, { input_ids, attention_mask: masks }), expected, EXACT, "logits");
    disposeAll(masks);
  });
}

everywhere(
  "without a cap of scores every implementation agrees, and differs from the capped model",
  async (device) => {
    await using eager = await load("eager", device, "gemma2_nocap");
    using input_ids = ids([PROMPT]);
    const expected = await logitsOf(eager, { input_ids });
    for (const name of ["sdpa", "flash_attention_2"]) {
      await eager.set_attn_implementation(name);
      assertClose(await logitsOf(eager, { input_ids }), expected, toleranceOf("logits", device), name);
    }
    assertEquals(eager.config["attn_logit_softcapping"], null);
    assert(expected.every((x) => Math.abs(x) <= 20), "logits are capped at 20");
  },
);

liveTest("embeddings a caller gives are scaled like those of ids", async () => {
  await using model = await load("sdpa");
  using input_ids = ids([PROMPT]);
  const table = goldenFile("models/gemma2/model.safetensors").get("model.embed_tokens.weight")!;
  const width = table.shape[1]!;
  using inputs_embeds = Tensor.from(
    Float32Array.from(PROMPT.flatMap((id) => [...table.data.subarray(id * width, (id + 1) * width)])),
    { shape: [1, PROMPT.length, width] },
  );
  assertClose(
    await logitsOf(model, { inputs_embeds }),
    await logitsOf(model, { input_ids }),
    EXACT,
    "logits",
  );
});

const mask = () => Tensor.from([[[[true]]]], { dtype: "bool" });
hostileInputs("gemma2", () => load("sdpa"), () => ({ input_ids: ids([PROMPT]) }), [
  [
    "a mask for one layer type only",
    () => ({ input_ids: ids([[1]]), attention_mask: { full_attention: mask() } }),
    "sliding_attention",
  ],
  ["a mask for a layer type it lacks", () => ({
    input_ids: ids([[1]]),
    attention_mask: { full_attention: null, sliding_attention: null, chunked_attention: null },
  }), "full_attention, sliding_attention, chunked_attention"],
  ["no layer types at all", () => ({ input_ids: ids([[1]]), attention_mask: {} }), "no types"],
  ["rows instead of finished masks", () => ({
    input_ids: ids([[1]]),
    attention_mask: { full_attention: [[1]], sliding_attention: [[1]] },
  }), "finished mask"],
]);

reportSkipped();
