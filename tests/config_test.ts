import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { AutoConfig } from "../src/auto_config.ts";
import { type AttnImplementation, modelType, PretrainedConfig } from "../src/config.ts";
import { AttuneError, InvalidArgument, ModelFileError } from "../src/errors.ts";
import { llamaConfig } from "../src/models/llama_config.ts";

const golden = new URL("golden/models/", import.meta.url);

/** A config with two parts, one of which has a part of its own. */
function nested(attn_implementation?: AttnImplementation): PretrainedConfig {
  return new PretrainedConfig(
    {
      model_type: "outer",
      text_config: { model_type: "inner", decoder: { hidden_size: 8 } },
      vision_config: { hidden_size: 4 },
    },
    attn_implementation === undefined ? {} : { attn_implementation },
  );
}

/** [top, text, text.decoder, vision] */
function chosen(config: PretrainedConfig): (string | null | undefined)[] {
  const { text_config, vision_config } = config.sub_configs;
  return [
    config._attn_implementation,
    text_config?._attn_implementation,
    text_config?.sub_configs["decoder"]?._attn_implementation,
    vision_config?._attn_implementation,
  ];
}

Deno.test("config: fields are properties, parts are configs", () => {
  const config = nested();
  assertEquals(config["model_type"], "outer");
  assertEquals(Object.keys(config.sub_configs), ["text_config", "vision_config"]);
  assert(config["text_config"] === config.sub_configs["text_config"]);
  config["sliding_window"] = 4;
  assertEquals(config.read.integer("sliding_window"), 4);
  assertEquals(config.toJSON()["sliding_window"], 4);
});

Deno.test("config: attn_implementation reaches the parts it names (A2, L1, L23)", () => {
  const rows: [AttnImplementation | undefined, (string | null)[]][] = [
    [undefined, [null, null, null, null]],
    [null, [null, null, null, null]],
    [{}, [null, null, null, null]],
    ["eager", ["eager", "eager", "eager", "eager"]],
    ["no/such kernel", Array(4).fill("no/such kernel")],
    [{ "": "eager" }, ["eager", "eager", "eager", "eager"]],
    [{ text_config: "eager" }, [null, "eager", "eager", null]],
    [{ "": "sdpa", text_config: "eager" }, ["sdpa", "eager", "eager", "sdpa"]],
    [{ "": "sdpa", text_config: null }, ["sdpa", null, null, "sdpa"]],
    [{ "": null, vision_config: "eager" }, [null, null, null, "eager"]],
    [{ text_config: { decoder: "eager" } }, [null, null, "eager", null]],
    [{ "": "sdpa", text_config: { decoder: "eager" } }, ["sdpa", "sdpa", "eager", "sdpa"]],
    [{ text_config: { "": "sdpa" }, vision_config: "eager" }, [null, "sdpa", "sdpa", "eager"]],
  ];
  for (const [value, expected] of rows) {
    assertEquals(chosen(nested(value)), expected, JSON.stringify(value));
    const later = nested();
    if (value !== undefined) later._attn_implementation = value;
    assertEquals(chosen(later), expected, JSON.stringify(value));
  }
  // A part that is not named keeps what it had, also below.
  const config = nested({ text_config: "sdpa", vision_config: "eager" });
  config._attn_implementation = { text_config: { decoder: "flex_attention" } };
  assertEquals(chosen(config), [null, "sdpa", "flex_attention", "eager"]);
});

Deno.test("config: an unknown part is an error that lists the parts, and changes nothing (L2, L3)", () => {
  const config = nested("sdpa");
  const rows: [unknown, string][] = [
    [{ "": "eager", txt_config: "eager" }, `(text_config, vision_config)`],
    [
      { text_config: { text: "eager" } },
      `attn_implementation.text_config for "text": expected "" or a sub-config name (decoder)`,
    ],
    [{ vision_config: { x: "eager" } }, "this config has none"],
    [{ "": "eager", vision_config: 3 }, "expected a name or null, found 3"],
    [{ "": { text_config: "eager" } }, "expected a name or null, found an object"],
    [7, "found 7"],
    [["eager"], "found a list of 1"],
  ];
  for (const [value, says] of rows) {
    assertThrows(() => Reflect.set(config, "_attn_implementation", value), InvalidArgument, says);
    assertEquals(chosen(config), ["sdpa", "sdpa", "sdpa", "sdpa"]);
  }
  assertThrows(
    () => new PretrainedConfig({}, { attn_implementation: { x: "eager" } }),
    InvalidArgument,
    "has none",
  );
});

Deno.test("config: the choice is never saved; the public key of a file is honoured", () => {
  const config = new PretrainedConfig({
    attn_implementation: { "": "eager", text_config: "sdpa" },
    _attn_implementation: "ignored",
    _attn_implementation_internal: "ignored",
    text_config: { _attn_implementation: "ignored" },
  });
  assertEquals(config._attn_implementation, "eager");
  assertEquals(config.sub_configs["text_config"]?._attn_implementation, "sdpa");
  assertEquals(JSON.stringify(config), `{"text_config":{}}`);
  const part = new PretrainedConfig({ text_config: { attn_implementation: "eager" } });
  assertEquals(part.sub_configs["text_config"]?._attn_implementation, "eager");
  // What the caller asks for wins over the file.
  const asked = new PretrainedConfig({ attn_implementation: "eager" }, { attn_implementation: "sdpa" });
  assertEquals(asked._attn_implementation, "sdpa");
});

Deno.test("config: a clone is deep and keeps the choices", () => {
  const config = nested({ "": "sdpa", text_config: "eager" });
  config.is_causal = false;
  config.output_attentions = true;
  const copy = config.clone();
  assertEquals([chosen(copy), copy.is_causal, copy.output_attentions], [chosen(config), false, true]);
  copy._attn_implementation = "flex_attention";
  copy.sub_configs["text_config"]!["hidden_size"] = 99;
  assertEquals(chosen(config), ["sdpa", "eager", "eager", "sdpa"]);
  assertEquals(config.sub_configs["text_config"]!["hidden_size"], undefined);
  // Nothing of the caller's object is shared either.
  const fields = { rope_parameters: { rope_theta: 1 }, text_config: { hidden_size: 1 } };
  const built = new PretrainedConfig(fields);
  fields.rope_parameters.rope_theta = 2;
  fields.text_config.hidden_size = 2;
  assertEquals(built.toJSON(), { rope_parameters: { rope_theta: 1 }, text_config: { hidden_size: 1 } });
});

Deno.test("config: is_causal and output_attentions are booleans", () => {
  const config = new PretrainedConfig({ is_causal: false });
  assertEquals([config.is_causal, config.output_attentions], [false, false]);
  config.is_causal = null;
  assertEquals(config.toJSON(), {});
  // Weights are available from every implementation, so asking for them forces none (L14).
  const asked = new PretrainedConfig({ output_attentions: true }, { attn_implementation: "sdpa" });
  assertEquals([asked.output_attentions, asked._attn_implementation], [true, "sdpa"]);
  assertThrows(() => new PretrainedConfig({ is_causal: "yes" }), InvalidArgument, "expected true or false");
  assertThrows(
    () => new PretrainedConfig({ output_attentions: 1 }),
    InvalidArgument,
    "expected true or false",
  );
});

Deno.test("config: what is not plain JSON is refused", () => {
  let deep: unknown = {};
  for (let i = 0; i < 10_000; i++) deep = i % 2 === 0 ? [deep] : { text_config: deep };
  const cycle: Record<string, unknown> = {};
  cycle["self"] = cycle;
  const rows: [unknown, string][] = [
    [JSON.parse(`{"__proto__": {"x": 1}}`), "reserved"],
    [JSON.parse(`{"a": [{"constructor": 1}]}`), "reserved"],
    [JSON.parse(`{"text_config": {"__proto__": 1}}`), "reserved"],
    [{ toString: "x" }, "belongs to the config itself"],
    [{ sub_configs: {} }, "belongs to the config itself"],
    [{ a: () => 1 }, "found a function"],
    [{ a: 1n }, "plain JSON"],
    [{ a: new Date() }, "an object of a class"],
    [{ a: deep }, "nested deeper than 32"],
    [{ text_config: deep }, "nested deeper than 32"],
    [cycle, "nested deeper than 32"],
    ["text", "expected fields"],
    [[1], "expected fields"],
  ];
  for (const [fields, says] of rows) {
    const error = assertThrows(() => Reflect.construct(PretrainedConfig, [fields]), InvalidArgument, says);
    assertInstanceOf(error, Error);
    assert(error.message.length < 400);
  }
  assertThrows(
    () => Reflect.construct(PretrainedConfig, [{}, { attn: "sdpa" }]),
    InvalidArgument,
    "option attn",
  );
});

const LLAMA = {
  model_type: "llama",
  vocab_size: 64,
  hidden_size: 32,
  intermediate_size: 56,
  num_hidden_layers: 2,
  num_attention_heads: 4,
};
const llama = (fields: Record<string, unknown>) => llamaConfig(new PretrainedConfig({ ...LLAMA, ...fields }));

Deno.test("llama config: defaults and the forms in use", () => {
  assertEquals(llama({}), {
    vocab_size: 64,
    hidden_size: 32,
    intermediate_size: 56,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 4,
    head_dim: 8,
    rms_norm_eps: 1e-6,
    rope: { rope_type: "default", rope_theta: 10000 },
    attention_bias: false,
    mlp_bias: false,
    tie_word_embeddings: false,
    hidden_act: "silu",
    max_position_embeddings: 2048,
    sliding_window: null,
    attention_dropout: 0,
    bos_token_id: null,
    eos_token_ids: [],
    pad_token_id: null,
    is_causal: null,
  });
  assertEquals(llama({ eos_token_id: 7 }).eos_token_ids, [7]);
  assertEquals(llama({ eos_token_id: [7, 9], pad_token_id: -1 }).eos_token_ids, [7, 9]);
  assertEquals(llama({ pad_token_id: -1 }).pad_token_id, null);
  assertEquals(llama({ hidden_act: "gelu_pytorch_tanh" }).hidden_act, "gelu_tanh");
  const scaling = {
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
  };
  const llama3 = { rope_type: "llama3", rope_theta: 500000, ...scaling } as const;
  assertEquals(llama({ rope_parameters: llama3 }).rope, llama3);
  assertEquals(llama({ rope_theta: 500000, rope_scaling: { rope_type: "llama3", ...scaling } }).rope, llama3);
  assertEquals(llama({ rope_scaling: { type: "linear", factor: 2 } }).rope, {
    rope_type: "linear",
    rope_theta: 10000,
    factor: 2,
  });
  assertEquals(llama({ rope_scaling: null, rope_theta: 5 }).rope, { rope_type: "default", rope_theta: 5 });
});

Deno.test("llama config: hostile values are typed errors within a second", async (t) => {
  const rope = (fields: Record<string, unknown>) => ({ rope_parameters: { rope_theta: 10000, ...fields } });
  const llama3 = { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
  const rows: [Record<string, unknown>, string][] = [
    [
      { num_attention_heads: 0 },
      "num_attention_heads: expected an integer of at least 1 and at most 4096, found 0",
    ],
    [{ num_attention_heads: -4 }, "found -4"],
    [{ num_attention_heads: null }, "found null"],
    [{ num_attention_heads: "4" }, `found "4"`],
    [{ num_attention_heads: [4] }, "found a list of 1"],
    [{ num_attention_heads: 3 }, "hidden_size / num_attention_heads"],
    [{ num_key_value_heads: 3 }, "a divisor of num_attention_heads, 4"],
    [{ num_key_value_heads: 0 }, "at least 1"],
    [{ num_key_value_heads: 8 }, "a divisor"],
    [{ head_dim: 0 }, "a multiple of 2 of at least 2"],
    [{ head_dim: 1e9 }, "at most 1024"],
    [{ head_dim: 7 }, "a multiple of 2"],
    [{ head_dim: NaN }, "found NaN"],
    [{ hidden_size: 4 }, "is 1"],
    [{ hidden_size: 2 ** 40 }, "at most 1048576"],
    [{ num_hidden_layers: 1e6 }, "at most 1024"],
    [{ num_hidden_layers: 0 }, "at least 1"],
    [{ num_hidden_layers: 1.5 }, "an integer"],
    [{ vocab_size: 1e12 }, "vocab_size"],
    [{ vocab_size: {} }, "found an object"],
    [{ intermediate_size: undefined }, "found nothing"],
    [{ rms_norm_eps: NaN }, "found NaN"],
    [{ rms_norm_eps: 0 }, "above 0"],
    [{ rms_norm_eps: -1e-6 }, "above 0"],
    [{ rms_norm_eps: "1e-6" }, `found "1e-6"`],
    [{ rope_theta: 0 }, "above 0"],
    [rope({ rope_theta: 0 }), "rope_parameters.rope_theta"],
    [rope({ rope_theta: NaN }), "found NaN"],
    [rope({ rope_theta: "big" }), `found "big"`],
    [rope({ rope_type: "yarn" }), "one of default, linear, llama3"],
    [rope({ rope_type: ["default"] }), "found a list of 1"],
    [rope({ rope_type: "linear" }), "rope_parameters.factor"],
    [rope({ rope_type: "linear", factor: 0 }), "at least 1"],
    [rope({ rope_type: "linear", factor: Infinity }), "found Infinity"],
    [rope({ ...llama3, high_freq_factor: 1 }), "above 1"],
    [rope({ ...llama3, low_freq_factor: 0 }), "above 0"],
    [rope({ ...llama3, original_max_position_embeddings: 0 }), "at least 1"],
    [rope({ partial_rotary_factor: 0.5 }), "partial_rotary_factor"],
    [{ rope_parameters: "default" }, "expected an object"],
    [{ rope_scaling: [] }, "expected an object"],
    [{ max_position_embeddings: 0 }, "at least 1"],
    [{ sliding_window: 0 }, "at least 1"],
    [{ sliding_window: -1 }, "found -1"],
    [{ sliding_window: 1e300 }, "at most"],
    [{ attention_bias: "false" }, "true or false"],
    [{ mlp_bias: 1 }, "true or false"],
    [{ tie_word_embeddings: {} }, "true or false"],
    [{ hidden_act: "mish" }, "one of silu, swish, gelu"],
    [{ hidden_act: "toString" }, "one of silu"],
    [{ attention_dropout: 2 }, "at most 1"],
    [{ eos_token_id: "2" }, "a list of up to"],
    [{ eos_token_id: [1, "2"] }, "a list of up to"],
    [{ eos_token_id: Array(5000).fill(1) }, "a list of up to"],
    [{ bos_token_id: -2 }, "at least -1"],
    [{ pad_token_id: 0.5 }, "an integer"],
    [{ is_causal: 0 }, "true or false"],
  ];
  for (const [fields, says] of rows) {
    await t.step(JSON.stringify(fields).slice(0, 70), () => {
      const start = performance.now();
      const error = assertThrows(() => llama(fields), AttuneError, says);
      assertInstanceOf(error, Error);
      assert(performance.now() - start < 1000 && error.message.length < 400);
      // The same values in a file are an error of that file.
      const inFile = assertThrows(() =>
        llamaConfig(PretrainedConfig.from_json({ ...LLAMA, ...fields }, "m/config.json"))
      );
      assertInstanceOf(inFile, ModelFileError);
      assertStringIncludes(inFile.message, "m/config.json");
    });
  }
});

Deno.test("config: an unknown model type lists the known ones", () => {
  const known = ["llama", "mistral"];
  assertEquals(modelType(new PretrainedConfig(LLAMA), known), "llama");
  assertThrows(
    () => modelType(new PretrainedConfig({ model_type: "lama" }), known),
    InvalidArgument,
    `expected one of llama, mistral, found "lama"`,
  );
  assertThrows(() => modelType(new PretrainedConfig({}), known), InvalidArgument, "found nothing");
});

Deno.test("AutoConfig: reads real folders", async () => {
  const config = await AutoConfig.from_pretrained(new URL("llama", golden), { attn_implementation: "eager" });
  assertEquals(config._attn_implementation, "eager");
  assertEquals(llamaConfig(config).num_key_value_heads, 2);
  const json = JSON.parse(await Deno.readTextFile(new URL("llama/config.json", golden)));
  assertEquals(config.toJSON(), json);

  const llava = await AutoConfig.from_pretrained(new URL("llava", golden), {
    attn_implementation: { "": "sdpa", vision_config: "eager" },
  });
  assertEquals(Object.keys(llava.sub_configs), ["text_config", "vision_config"]);
  assertEquals(chosen(llava), ["sdpa", "sdpa", undefined, "eager"]);
  assertEquals(llamaConfig(llava.sub_configs["text_config"]!).head_dim, 8);

  const demo = await AutoConfig.from_pretrained(new URL("models/demo", import.meta.url));
  assertEquals([llamaConfig(demo).head_dim, llamaConfig(demo).eos_token_ids], [64, [1]]);
  assertEquals(demo._attn_implementation, null);
});

Deno.test("AutoConfig: failures are typed and say where", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await assertRejects(() => AutoConfig.from_pretrained(folder), ModelFileError, "holds nothing");
    const write = (text: string) => Deno.writeTextFile(`${folder}/config.json`, text);
    await write("[]");
    await assertRejects(() => AutoConfig.from_pretrained(folder), ModelFileError, "expected an object");
    await write("{");
    await assertRejects(() => AutoConfig.from_pretrained(folder), ModelFileError, "as JSON");
    await write(`{"a":`.repeat(50_000) + "1" + "}".repeat(50_000));
    await assertRejects(() => AutoConfig.from_pretrained(folder), ModelFileError, "nested deeper");
    await write(`{"text_config": {"hidden_size": "32"}}`);
    const config = await AutoConfig.from_pretrained(folder);
    assertThrows(
      () => config.sub_configs["text_config"]!.read.number("hidden_size"),
      ModelFileError,
      "config.json",
    );
    await assertRejects(
      () => AutoConfig.from_pretrained(folder, { attn_implementation: { vision_config: "eager" } }),
      InvalidArgument,
      "(text_config)",
    );
    await assertRejects(
      () => Reflect.apply(AutoConfig.from_pretrained, AutoConfig, [folder, { attn: "x" }]),
      InvalidArgument,
      "option attn",
    );
    await assertRejects(
      () => AutoConfig.from_pretrained(folder, { signal: AbortSignal.abort() }),
      DOMException,
    );
    await Deno.truncate(`${folder}/config.json`, 17 * 2 ** 20);
    await assertRejects(() => AutoConfig.from_pretrained(folder), ModelFileError, "at most 16777216 bytes");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
