/**
 * Configurations nobody should load, for every architecture: refused before anything is allocated from them. What
 * only one architecture has is in its own tests under tests/models/.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, ModelFileError } from "../../mod.ts";
import { goldenPath } from "../support/golden.ts";
import { inFolder } from "../support/folders.ts";
import { ids, liveTest } from "../models/support.ts";
import { assertRefused } from "./refusal.ts";

const ARCHITECTURES = {
  llama: AutoModelForCausalLM,
  mistral: AutoModelForCausalLM,
  gemma2: AutoModelForCausalLM,
  llama4: AutoModelForCausalLM,
  bert: AutoModel,
  llava: AutoModelForImageTextToText,
} as const;

type Json = Record<string, unknown>;

/** Sizes that every architecture has, and values none may have. NaN and Infinity are no JSON; strings come instead. */
const SIZES = [
  "hidden_size",
  "num_hidden_layers",
  "num_attention_heads",
  "intermediate_size",
  "vocab_size",
  "max_position_embeddings",
];
const NO_SIZES: readonly unknown[] = [0, -1, 0.5, 1e9, 1e300, "4", "NaN", true, [], [4], {}, null];
/** For these a missing value or a large one is no error. */
const FINE = new Set([
  "max_position_embeddings:1000000000",
  ...SIZES.map((name) => `${name}:null`),
]);

/** Other fields of decoders. */
const DECODERS: readonly Json[] = [
  ...[0, -2, 3, 1e9, 0.5, "2", [], {}].map((num_key_value_heads) => ({ num_key_value_heads })),
  ...[0, -2, 7, 1e9, 0.5, "8", []].map((head_dim) => ({ head_dim })),
  ...[0, -1, "1e-5", [], 1e300].map((rms_norm_eps) => ({ rms_norm_eps })),
  ...[0, -1, "x", [], 1e300].map((rope_theta) => ({ rope_parameters: { rope_type: "default", rope_theta } })),
  { rope_parameters: { rope_type: "nonsense", rope_theta: 1e4 } },
  { rope_parameters: { rope_type: "linear", rope_theta: 1e4, factor: 0 } },
  { rope_parameters: [] },
  { rope_parameters: "x" },
  { eos_token_id: "x" },
  { eos_token_id: [1, {}] },
  { pad_token_id: 1e300 },
  { tie_word_embeddings: "yes" },
  { num_hidden_layers: 1e6 },
];

/** Fields that some architectures read. */
const OTHERS: readonly (readonly [architectures: string, fields: Json])[] = [
  ["llama mistral gemma2 llama4", { layer_types: 7 }],
  ["llama mistral gemma2 llama4", { layer_types: new Array(1e5).fill("full_attention") }],
  ["llama mistral gemma2", { sliding_window: "x" }],
  ["llama mistral gemma2", { sliding_window: -1 }],
  ["llama mistral gemma2", { sliding_window: 1e300 }],
  ["llama4", { attention_chunk_size: 0 }],
  ["llama4", { attention_chunk_size: "x" }],
  ["gemma2", { attn_logit_softcapping: "NaN" }],
  ["gemma2", { query_pre_attn_scalar: 0 }],
];

/** Refused whatever the architecture. */
const ALWAYS: readonly Json[] = [
  { model_type: "nonsense" },
  { model_type: "__proto__" },
  { model_type: "constructor" },
  { model_type: 7 },
  { model_type: null },
  { model_type: [] },
  { sub_configs: {} },
  JSON.parse(`{"deep": ${"[".repeat(1000)}${"]".repeat(1000)}}`),
  JSON.parse(`{"__proto__": {"hidden_size": 4}}`),
  JSON.parse(`{"text_config": {"__proto__": 1}}`),
];

/** The decoder's part of a config, which is where a model of several parts keeps its sizes. */
function changed(json: Json, fields: Json): Json {
  const inner = json["text_config"] as Json | undefined;
  const outer = Object.keys(fields).some((key) =>
    key === "model_type" || !Object.hasOwn(json, "text_config")
  );
  return outer || inner === undefined
    ? { ...json, ...fields }
    : { ...json, text_config: { ...inner, ...fields } };
}

for (const [arch, auto] of Object.entries(ARCHITECTURES)) {
  const rows: Json[] = [
    ...SIZES.flatMap((name) =>
      NO_SIZES.filter((value) => !FINE.has(`${name}:${String(value)}`)).map((value) => ({ [name]: value }))
    ),
    ...(arch === "bert" ? [] : DECODERS),
    ...OTHERS.flatMap(([of, fields]) => of.includes(arch) ? [fields] : []),
    ...ALWAYS,
  ];
  liveTest(`${arch}: ${rows.length} hostile configs are refused, and the next load is fine`, async (t) => {
    const golden = goldenPath(`models/${arch}`);
    const json = JSON.parse(await Deno.readTextFile(`${golden}/config.json`)) as Json;
    await inFolder(async (folder) => {
      await Deno.copyFile(`${golden}/model.safetensors`, `${folder}/model.safetensors`);
      const load = async (config: string) => {
        await Deno.writeTextFile(`${folder}/config.json`, config);
        await using model = await auto.from_pretrained(folder);
        // What the architecture does not read itself, its caches and masks may.
        using input_ids = ids([[3, 4]]);
        if (auto === AutoModelForCausalLM) {
          (await model.generate({ input_ids, max_new_tokens: 2 }))[Symbol.dispose]();
        }
        return model.config["model_type"];
      };
      assertEquals(await load(JSON.stringify(json)), json["model_type"]);
      for (const fields of rows) {
        await t.step(JSON.stringify(fields).slice(0, 70), async () => {
          await assertRefused(() => load(JSON.stringify(changed(json, fields))));
        });
      }
      for (const text of ["", "{", "[]", "null", "7", '"x"', "{}", `{"a":`.repeat(100_000)]) {
        await t.step(`the text ${text.slice(0, 20)}`, async () => {
          assert(await assertRefused(() => load(text)) instanceof ModelFileError);
        });
      }
      assertEquals(await load(JSON.stringify(json)), json["model_type"]);
    });
  });
}

liveTest("a config of a huge model is refused before memory is taken", async () => {
  const golden = goldenPath("models/llama");
  const json = JSON.parse(await Deno.readTextFile(`${golden}/config.json`)) as Json;
  await inFolder(async (folder) => {
    await Deno.copyFile(`${golden}/model.safetensors`, `${folder}/model.safetensors`);
    const huge = {
      hidden_size: 2 ** 20,
      intermediate_size: 2 ** 20,
      vocab_size: 2 ** 20,
      num_hidden_layers: 1024,
    };
    const heads = { num_attention_heads: 4096, num_key_value_heads: 4096, head_dim: 256 };
    await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify({ ...json, ...huge, ...heads }));
    await assertRefused(() => AutoModelForCausalLM.from_pretrained(folder));
  });
  await using model = await AutoModelForCausalLM.from_pretrained(golden);
  using input_ids = ids([[3, 4]]);
  (await model.generate({ input_ids, max_new_tokens: 1 }))[Symbol.dispose]();
});
