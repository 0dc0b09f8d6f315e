/**
 * The examples of Transformers' "Attention backends" page, translated line by line. Models are the small ones of
 * this repository; everything else is what a user would write.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  type AttentionFunction,
  AttentionInterface,
  AttentionMaskInterface,
  AutoConfig,
  AutoModel,
  AutoModelForCausalLM,
  AutoModelForImageTextToText,
  AutoTokenizer,
  create_causal_mask,
  InvalidArgument,
  liveBuffers,
  type MaskFormatter,
  ops,
  sdpa_attention_forward,
  sdpa_kernel,
  sdpa_mask,
  SDPBackend,
  Tensor,
} from "../mod.ts";
import { assertClose, toleranceOf } from "./support/tolerance.ts";

const LLAMA = new URL("./models/demo", import.meta.url);
const TINY = new URL("./golden/models/llama", import.meta.url);
const LLAVA = new URL("./golden/models/llava", import.meta.url);

/** One example; nothing it made may stay alive. */
function example(name: string, run: () => Promise<void>): void {
  Deno.test(`page: ${name}`, async () => {
    await run();
    assertEquals(liveBuffers(), 0);
  });
}

const ones = () => Tensor.from([[1, 1, 1, 1, 1]], { dtype: "int64" });

async function lastState(output: Promise<{ last_hidden_state?: Tensor }>): Promise<number[]> {
  const { last_hidden_state, ...rest } = await output as Record<string, unknown> & {
    last_hidden_state: Tensor;
  };
  (rest["past_key_values"] as Disposable | undefined)?.[Symbol.dispose]();
  using state = last_hidden_state;
  return Array.from(await state.data() as Float32Array);
}

example("attn_implementation in from_pretrained", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA, {
    attn_implementation: "flash_attention_2",
  });
  assertEquals(model.config._attn_implementation, "flash_attention_2");
});

example("every implementation of the table of backends", async () => {
  const names = ["flash_attention_3", "flash_attention_2", "flex_attention", "sdpa", "eager"];
  const paged = ["flash_attention_3", "flash_attention_2", "sdpa", "eager"].map((name) => `paged|${name}`);
  using input_ids = ones();
  await using model = await AutoModel.from_pretrained(TINY, { attn_implementation: "sdpa" });
  const expected = await lastState(model.forward({ input_ids }));
  for (const name of [...names, ...paged]) {
    await model.set_attn_implementation(name);
    assertEquals(model.config._attn_implementation, name);
    const actual = await lastState(model.forward({ input_ids }));
    assertClose(actual, expected, toleranceOf("hidden", "wasm"), name);
  }
});

example("set_attn_implementation at run time", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA, {
    attn_implementation: "flash_attention_2",
  });
  await model.set_attn_implementation("sdpa");
  assertEquals(model.config._attn_implementation, "sdpa");
});

// A gap, and it expires: when kernels load from a hub, this fails and the example takes its place.
example("gap: a kernel from the hub is refused by name until kernel packages can be loaded", async () => {
  const load = AutoModelForCausalLM.from_pretrained(LLAMA, {
    attn_implementation: "kernels-community/flash-attn2",
  });
  await assertRejects(() => load, InvalidArgument, "kernel packages cannot be loaded yet");
});

example("the sdpa_kernel context manager", async () => {
  const tokenizer = await AutoTokenizer.from_pretrained(LLAMA);
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA, { attn_implementation: "sdpa" });
  const inputs = tokenizer("In the beginning");
  const free = await model.generate({ ...inputs, max_new_tokens: 5 });
  {
    using _ = sdpa_kernel(SDPBackend.FLASH_ATTENTION);
    using outputs = await model.generate({ ...inputs, max_new_tokens: 5 });
    assertEquals(await outputs.tolist(), await free.tolist());
  }
});

example("an implementation per backbone", async () => {
  const attention_implementation_per_backbone = { vision_config: "sdpa", text_config: "flash_attention_2" };
  const config = await AutoConfig.from_pretrained(LLAVA);
  for (const key of Object.keys(attention_implementation_per_backbone)) {
    assert(key in config.sub_configs, "Invalid key in `attention_implementation`");
  }
  await using model = await AutoModelForImageTextToText.from_pretrained(LLAVA, {
    attn_implementation: attention_implementation_per_backbone,
  });
  assertEquals(model.config.sub_configs["vision_config"]!._attn_implementation, "sdpa");
  assertEquals(model.config.sub_configs["text_config"]!._attn_implementation, "flash_attention_2");
});

example("backbones left out use the default", async () => {
  await using model = await AutoModelForImageTextToText.from_pretrained(LLAVA, {
    attn_implementation: { text_config: "flash_attention_2" },
  });
  assertEquals(model.config.sub_configs["vision_config"]!._attn_implementation, "sdpa");
  assertEquals(model.config.sub_configs["text_config"]!._attn_implementation, "flash_attention_2");
});

example("a single string is for all backbones", async () => {
  await using model = await AutoModelForImageTextToText.from_pretrained(LLAVA, {
    attn_implementation: "eager",
  });
  for (const part of [model.config, ...Object.values(model.config.sub_configs)]) {
    assertEquals(part._attn_implementation, "eager");
  }
});

example("an empty key is global", async () => {
  await using model = await AutoModelForImageTextToText.from_pretrained(LLAVA, {
    attn_implementation: { "": "eager" },
  });
  for (const part of [model.config, ...Object.values(model.config.sub_configs)]) {
    assertEquals(part._attn_implementation, "eager");
  }
});

example("a new attention function with sdpa's mask", async () => {
  let entered = 0;
  const my_new_sdpa: AttentionFunction = (...args) => {
    entered++;
    return sdpa_attention_forward(...args);
  };
  AttentionInterface.register("my_new_sdpa", my_new_sdpa);
  AttentionMaskInterface.register("my_new_sdpa", sdpa_mask);
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA, {
    attn_implementation: "my_new_sdpa",
  });
  const { logits, past_key_values } = await model.forward({ input_ids: ones() });
  logits![Symbol.dispose]();
  past_key_values![Symbol.dispose]();
  assertEquals(entered, 6);
});

example("new arguments reach a custom attention function", async () => {
  const seen: unknown[] = [];
  const custom_attention: AttentionFunction = (module, query, key, value, attention_mask, kwargs) => {
    const { a_new_kwargs = null, another_new_kwargs = null, ...rest } = kwargs;
    seen.push([a_new_kwargs, another_new_kwargs]);
    const [attn_output, attn_weights] = sdpa_attention_forward(
      module,
      query,
      key,
      value,
      attention_mask,
      rest,
    );
    return [attn_output, attn_weights];
  };
  AttentionInterface.register("custom", custom_attention);
  AttentionMaskInterface.register("custom", sdpa_mask);
  await using model = await AutoModelForCausalLM.from_pretrained(TINY, { attn_implementation: "custom" });
  const outputs = await model.forward({ input_ids: ones(), a_new_kwargs: 1, another_new_kwargs: "two" });
  outputs.logits![Symbol.dispose]();
  outputs.past_key_values![Symbol.dispose]();
  assertEquals(seen, [[1, "two"], [1, "two"]]);
});

example("a new mask formatter", async () => {
  let entered = 0;
  const my_new_sdpa_mask: MaskFormatter = (args) => {
    entered++;
    return sdpa_mask(args);
  };
  AttentionInterface.register("my_masked_sdpa", sdpa_attention_forward);
  AttentionMaskInterface.register("my_masked_sdpa", my_new_sdpa_mask);
  await using model = await AutoModel.from_pretrained(TINY, { attn_implementation: "my_masked_sdpa" });
  await lastState(model.forward({ input_ids: ones() }));
  assertEquals(entered, 1);
});

example("the signature of a mask formatter", async () => {
  const custom_attention_mask: MaskFormatter = (
    {
      batch_size,
      q_length,
      kv_length,
      q_offset = 0,
      kv_offset = 0,
      mask_function,
      attention_mask = null,
      ...kwargs
    },
  ) => {
    assertEquals([batch_size, q_length, kv_length, q_offset, kv_offset, attention_mask], [
      1,
      5,
      5,
      0,
      0,
      null,
    ]);
    assert("config" in kwargs, "the model's config is always passed");
    const keep = Array.from(
      { length: q_length },
      (_, q) => Array.from({ length: kv_length }, (_, kv) => mask_function!(0, 0, q, kv)),
    );
    return Tensor.from([[keep]]);
  };
  AttentionInterface.register("custom_masked", sdpa_attention_forward);
  AttentionMaskInterface.register("custom_masked", custom_attention_mask);
  await using model = await AutoModel.from_pretrained(TINY, { attn_implementation: "sdpa" });
  const expected = await lastState(model.forward({ input_ids: ones() }));
  await model.set_attn_implementation("custom_masked");
  const actual = await lastState(model.forward({ input_ids: ones() }));
  assertClose(actual, expected, toleranceOf("hidden", "wasm"));
});

example("create_causal_mask in a forward", async () => {
  const config = await AutoConfig.from_pretrained(TINY, { attn_implementation: "eager" });
  using inputs_embeds = ops.zeros([1, 4, 32]);
  const attention_mask = create_causal_mask({
    config,
    inputs_embeds,
    attention_mask: null,
    past_key_values: null,
  });
  assert(attention_mask instanceof Tensor);
  assertEquals(attention_mask.shape, [1, 1, 4, 4]);
  attention_mask[Symbol.dispose]();
});

example("an or_mask_function that is always true makes a causal mask bidirectional", async () => {
  const config = await AutoConfig.from_pretrained(TINY, { attn_implementation: "sdpa" });
  using inputs_embeds = ops.zeros([1, 4, 32]);
  const mask_kwargs = {
    config,
    inputs_embeds,
    attention_mask: null,
    past_key_values: null,
    position_ids: null,
    or_mask_function: () => true,
  };
  const attention_mask = create_causal_mask(mask_kwargs);
  assert(attention_mask instanceof Tensor);
  assertEquals(await attention_mask.tolist(), [[Array.from({ length: 4 }, () => [true, true, true, true])]]);
  attention_mask[Symbol.dispose]();
});

example("is_causal in the config", async () => {
  const config = await AutoConfig.from_pretrained(TINY);
  config.is_causal = false;
  await using model = await AutoModel.from_pretrained(TINY, { config });
  await using causal = await AutoModel.from_pretrained(TINY);
  const outputs = await lastState(model.forward({ input_ids: ones() }));
  const usual = await lastState(causal.forward({ input_ids: ones(), is_causal: false }));
  assertEquals(outputs, usual);
});

example("is_causal for one forward", async () => {
  await using model = await AutoModel.from_pretrained(TINY);
  using input_ids = Tensor.from([[5, 6, 7, 8]], { dtype: "int64" });
  const before = await lastState(model.forward({ input_ids }));
  const bidirectional = await lastState(model.forward({ input_ids, is_causal: false }));
  const after = await lastState(model.forward({ input_ids }));
  assert(bidirectional.some((x, i) => Math.abs(x - before[i]!) > 1e-3), "the first token now sees the last");
  assertEquals(after, before);
  assertEquals(model.config.is_causal, null);
});
