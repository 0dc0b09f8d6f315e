/**
 * BERT against recordings of Transformers, and what an encoder does not do.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { AutoModel, DynamicCache, InvalidArgument, type PreTrainedModel, Tensor } from "../../mod.ts";
import { goldenPath } from "../support/golden.ts";
import { assertClose, EXACT, toleranceOf } from "../support/tolerance.ts";
import { hostileConfigs, hostileInputs } from "./hostile.ts";
import { recordedTests } from "./recorded.ts";
import { disposeAll, everywhere, ids, liveTest, reportSkipped } from "./support.ts";

recordedTests({ arch: "bert" });

hostileConfigs("bert", AutoModel, [
  [{ is_decoder: true }, "is_decoder", "encoder"],
  [{ add_cross_attention: true }, "add_cross_attention"],
  [{ position_embedding_type: "relative_key" }, "position_embedding_type"],
  [{ num_attention_heads: 5 }, "num_attention_heads", "divisor"],
  [{ num_attention_heads: 0 }, "num_attention_heads"],
  [{ type_vocab_size: 0 }, "type_vocab_size"],
  [{ max_position_embeddings: 0 }, "max_position_embeddings"],
  [{ max_position_embeddings: 65 }, "position_embeddings", "[65,32]"],
  [{ layer_norm_eps: 0 }, "layer_norm_eps"],
  [{ hidden_act: "relu6" }, "hidden_act"],
  [{ num_hidden_layers: 4 }, "encoder.layer.3."],
]);

const PROMPT = [21, 38, 15, 7, 35, 34];
const load = async (attn_implementation = "sdpa"): Promise<PreTrainedModel> =>
  await AutoModel.from_pretrained(goldenPath("models/bert"), { attn_implementation });

async function statesOf(model: PreTrainedModel, inputs: Record<string, unknown>): Promise<Float32Array> {
  const output = await model.forward(inputs);
  assertEquals(output.past_key_values, undefined, "an encoder keeps no cache");
  const values = await output.last_hidden_state!.data() as Float32Array;
  disposeAll(output);
  return values;
}

everywhere("is_causal does not turn an encoder into a decoder", async (device) => {
  await using model = await load();
  await model.to(device);
  using input_ids = ids([PROMPT]);
  for (const name of ["eager", "sdpa", "flash_attention_2"]) {
    await model.set_attn_implementation(name);
    const plain = await statesOf(model, { input_ids });
    for (const is_causal of [true, false]) {
      assertClose(
        await statesOf(model, { input_ids, is_causal }),
        plain,
        EXACT,
        `${name} is_causal ${is_causal}`,
      );
    }
    model.config.is_causal = true;
    assertClose(await statesOf(model, { input_ids }), plain, EXACT, `${name} config.is_causal`);
    model.config.is_causal = null;
  }
});

liveTest("segments and positions change the result, and their defaults do not", async () => {
  await using model = await load();
  using input_ids = ids([PROMPT]);
  const plain = await statesOf(model, { input_ids });
  const zero = new Array(PROMPT.length).fill(0);
  const places = PROMPT.map((_, i) => i);
  assertClose(
    await statesOf(model, { input_ids, token_type_ids: [zero], position_ids: [places] }),
    plain,
    EXACT,
  );
  using types = Tensor.from([[0, 0, 0, 1, 1, 1]]);
  const marked = await statesOf(model, { input_ids, token_type_ids: types });
  assert(marked.some((x, i) => x !== plain[i]));
});

liveTest("weights come back from every layer under every implementation", async () => {
  await using model = await load();
  using input_ids = ids([PROMPT]);
  const all: Float32Array[][] = [];
  for (const name of ["eager", "sdpa", "flash_attention_2"]) {
    await model.set_attn_implementation(name);
    const output = await model.forward({ input_ids, output_attentions: true, output_hidden_states: true });
    assertEquals(output.hidden_states!.length, 4);
    all.push(await Promise.all(output.attentions!.map(async (t) => await t.data() as Float32Array)));
    disposeAll(output);
  }
  const within = toleranceOf("attention_flash", "wasm");
  for (const weights of all.slice(1)) {
    weights.forEach((w, i) => assertClose(w, all[0]![i]!, within, `layer ${i}`));
  }
});

liveTest("a report names the layers as checkpoints do, and generate is refused", async () => {
  await using model = await load("eager");
  assertEquals(
    model.attention_report().map((r) => [r.layer, r.implementation]),
    [0, 1, 2].map((i) => [
      `encoder.layer.${i}.attention.self`,
      "eager",
    ]),
  );
  using input_ids = ids([PROMPT]);
  await assertRejects(() => model.generate({ input_ids }), InvalidArgument, "language-modelling head");
});

hostileInputs("bert", load, () => ({ input_ids: ids([PROMPT]) }), [
  [
    "a cache",
    () => ({ input_ids: ids([PROMPT]), past_key_values: new DynamicCache() }),
    "past_key_values",
    "bert",
  ],
  ["a text longer than its positions", () => ({ input_ids: ids([new Array(65).fill(1)]) }), "64", "0…63"],
  ["a position beyond them", () => ({ input_ids: ids([[1]]), position_ids: [[64]] }), "64"],
  [
    "segments of another length",
    () => ({ input_ids: ids([PROMPT]), token_type_ids: [[0]] }),
    "token_type_ids",
  ],
  ["a segment it lacks", () => ({ input_ids: ids([[1]]), token_type_ids: [[2]] }), "0…1"],
  ["a negative segment", () => ({ input_ids: ids([[1]]), token_type_ids: [[-1]] }), "0…1"],
  ["images", () => ({ input_ids: ids([[1]]), pixel_values: Tensor.from([1.5]) }), "pixel_values"],
]);

reportSkipped();
