/**
 * A model's own create_masks_for_generate: when generate calls it, with what, and that it is obeyed.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  type AttentionMask,
  AutoModelForCausalLM,
  create_causal_mask,
  create_masks_for_generate,
  create_sliding_window_causal_mask,
  InvalidArgument,
  type MaskArgs,
  type MaskFunction,
  type PreTrainedModel,
  Tensor,
} from "../../mod.ts";
import { ids, liveTest, LLAMA, rowsOf } from "../models/support.ts";
import { goldenPath } from "../support/golden.ts";

const PROMPT = [3, 41, 19, 10, 47, 6, 12, 36];
const STEPS = 5;

type Masks = AttentionMask | Record<string, AttentionMask>;

/** Lets a model build its masks by `build`, and notes what it is asked. */
function override(model: PreTrainedModel, build: (args: MaskArgs) => Masks): MaskArgs[] {
  const calls: MaskArgs[] = [];
  model.create_masks_for_generate = (args) => {
    calls.push(args);
    return build(args);
  };
  return calls;
}

async function generate(model: PreTrainedModel, options: Record<string, unknown> = {}): Promise<number[]> {
  using input_ids = ids([PROMPT]);
  return (await rowsOf(await model.generate({ input_ids, max_new_tokens: STEPS, ...options })))[0]!;
}

/** Hides the third token. */
const forgetful: MaskFunction = (_batch, _head, _q, kv) => kv !== 2;

/** Greedy decoding by whole forwards, with the third token hidden by a finished mask. */
async function expectedTokens(model: PreTrainedModel): Promise<number[]> {
  const row = [...PROMPT];
  for (let step = 0; step < STEPS; step++) {
    using input_ids = ids([row]);
    const mask = create_causal_mask({
      config: model.config,
      inputs_embeds: { shape: [1, row.length, 0], dtype: "float32", device: "wasm" },
      and_mask_function: forgetful,
    });
    using attention_mask = mask as Tensor;
    const { logits } = await model.forward({
      input_ids,
      attention_mask,
      use_cache: false,
      logits_to_keep: 1,
    });
    using owned = logits!;
    const values = await owned.data() as Float32Array;
    row.push(values.indexOf(Math.max(...values)));
  }
  return row;
}

for (const name of ["eager", "sdpa", "flex_attention"]) {
  liveTest(`${name}: with a static cache an override is called at every step, and obeyed`, async () => {
    await using model = await AutoModelForCausalLM.from_pretrained(LLAMA, { attn_implementation: name });
    const plain = await generate(model, { cache_implementation: "static" });
    await using dense = await AutoModelForCausalLM.from_pretrained(LLAMA, { attn_implementation: "sdpa" });
    const expected = await expectedTokens(dense);
    const calls = override(model, (args) => create_causal_mask({ ...args, and_mask_function: forgetful }));
    assertEquals(await generate(model, { cache_implementation: "static" }), expected);
    assert(String(plain) !== String(expected), "the override changes what is generated");
    assertEquals(calls.map((c) => [c.inputs_embeds.shape, c.attention_mask]), [
      [[1, 8, 0], null],
      ...Array.from({ length: STEPS - 1 }, () => [[1, 1, 0], null]),
    ]);
    assert(calls.every((c) => c.past_key_values!.is_compileable));
  });
}

liveTest("an override of a model whose layers differ gives masks by layer type", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(goldenPath("models/gemma2"));
  const plain = await generate(model, { cache_implementation: "static" });
  const calls = override(model, create_masks_for_generate);
  assertEquals(await generate(model, { cache_implementation: "static" }), plain);
  assertEquals(calls.length, STEPS);
  override(model, (args) => ({
    full_attention: create_causal_mask({ ...args, and_mask_function: forgetful }),
    sliding_attention: create_sliding_window_causal_mask({ ...args, and_mask_function: forgetful }),
  }));
  assert(String(await generate(model, { cache_implementation: "static" })) !== String(plain));
  override(model, (args) => ({ full_attention: create_causal_mask(args) }));
  const partial = generate(model, { cache_implementation: "static" });
  await assertRejects(() => partial, InvalidArgument, "with full_attention: expected");
});

liveTest("an override is given the 2-D mask of padded prompts", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  using attention_mask = Tensor.from([[0, 0, 1, 1, 1, 1, 1, 1]]);
  const plain = await generate(model, { cache_implementation: "static", attention_mask });
  const lengths: number[] = [];
  override(model, (args) => {
    lengths.push((args.attention_mask as Tensor).shape[1]!);
    return create_masks_for_generate(args);
  });
  assertEquals(await generate(model, { cache_implementation: "static", attention_mask }), plain);
  assertEquals(lengths, Array.from({ length: STEPS }, (_, i) => PROMPT.length + i));
});

liveTest("with a dynamic cache forward makes its masks itself", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  const plain = await generate(model);
  const calls = override(model, () => {
    throw new Error("not asked for");
  });
  assertEquals(await generate(model), plain);
  assertEquals(calls.length, 0);
});

liveTest("an override that throws ends the generation with its error", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  const plain = await generate(model);
  let calls = 0;
  override(model, (args) => {
    if (++calls === 3) throw new Error("told to");
    return create_masks_for_generate(args);
  });
  await assertRejects(() => generate(model, { cache_implementation: "static" }), Error, "told to");
  assertEquals(await generate(model), plain);
});
