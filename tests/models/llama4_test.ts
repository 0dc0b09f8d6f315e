/**
 * Llama 4 against recordings of Transformers, the reordering of its weights, chunks under flash, and what it must refuse.
 *
 * @module
 */
import { assertEquals, assertRejects } from "@std/assert";
import {
  AttentionRefused,
  AutoModelForCausalLM,
  type DeviceName,
  PretrainedConfig,
  type PreTrainedModel,
  Tensor,
} from "../../mod.ts";
import { Parameters } from "../../src/layers/parameter.ts";
import { Llama4Decoder } from "../../src/models/llama4.ts";
import { goldenFile, goldenPath } from "../support/golden.ts";
import { assertClose, assertSameBits, toleranceOf } from "../support/tolerance.ts";
import { hostileConfigs } from "./hostile.ts";
import { recordedTests } from "./recorded.ts";
import { disposeAll, everywhere, ids, liveTest, reportSkipped } from "./support.ts";

// The recorded prompts are longer than a chunk, which flash masks cannot say.
recordedTests({ arch: "llama4", refuses: ["flash_attention_2"] });

hostileConfigs("llama4", AutoModelForCausalLM, [
  [{ attention_chunk_size: 0 }, "attention_chunk_size", "at least 1"],
  [{ attention_chunk_size: -5 }, "attention_chunk_size"],
  [{ attention_chunk_size: null }, "attention_chunk_size", "chunked_attention"],
  [{ layer_types: ["full_attention"] }, "layer_types", "4 layers"],
  [{ layer_types: new Array(4).fill("sliding_attention") }, "layer_types"],
  [{ no_rope_layers: [1, 1] }, "no_rope_layers", "4 layers"],
  [{ no_rope_layers: [1, 1, 1, 2] }, "no_rope_layers"],
  [{ no_rope_layers: [], no_rope_layer_interval: 0 }, "no_rope_layer_interval"],
  [{ floor_scale: 0 }, "floor_scale", "above 0"],
  [{ floor_scale: NaN }, "floor_scale"],
  [{ attn_scale: -1 }, "attn_scale"],
  [{ attn_temperature_tuning: "yes" }, "attn_temperature_tuning"],
  [{ use_qk_norm: 1 }, "use_qk_norm"],
  [{ moe_layers: [1] }, "moe_layers", "experts"],
  [{ moe_layers: undefined, interleave_moe_layer_step: 1 }, "experts"],
  [{ head_dim: 7 }, "head_dim"],
]);

const PROMPT = [13, 17, 13, 31, 10, 25, 6, 25];
const load = async (attn_implementation: string, device: DeviceName = "wasm"): Promise<PreTrainedModel> =>
  await AutoModelForCausalLM.from_pretrained(goldenPath("models/llama4"), { attn_implementation, device });

async function logitsOf(model: PreTrainedModel, inputs: Record<string, unknown>): Promise<Float32Array> {
  const output = await model.forward(inputs);
  const values = await output.logits!.data() as Float32Array;
  disposeAll(output);
  return values;
}

everywhere(
  "flash takes chunks as far as one reaches, and refuses the forward beyond, not the model",
  async (device) => {
    await using model = await load("flash_attention_2", device);
    using short = ids([PROMPT.slice(0, 5)]);
    using long = ids([PROMPT]);
    const flash = await logitsOf(model, { input_ids: short });
    await assertRejects(() => model.forward({ input_ids: long }), AttentionRefused, "attention_chunk_size");
    await model.set_attn_implementation("sdpa");
    assertClose(
      flash,
      await logitsOf(model, { input_ids: short }),
      toleranceOf("logits", device),
      "one chunk",
    );
    await logitsOf(model, { input_ids: long });
  },
);

everywhere(
  "is_causal: false opens full layers and leaves chunks causal, the same under every implementation",
  async (device) => {
    await using model = await load("eager", device);
    for (const length of [4, 8]) {
      using input_ids = ids([PROMPT.slice(0, length)]);
      await model.set_attn_implementation("eager");
      const eager = await logitsOf(model, { input_ids, is_causal: false });
      for (const name of length === 4 ? ["sdpa", "flash_attention_2"] : ["sdpa"]) {
        await model.set_attn_implementation(name);
        assertClose(
          await logitsOf(model, { input_ids, is_causal: false }),
          eager,
          toleranceOf("logits", device),
          name,
        );
      }
    }
  },
);

everywhere(
  "a prompt in two parts gives the logits of the whole, temperature and chunks included",
  async (device) => {
    await using model = await load("sdpa", device);
    using input_ids = ids([PROMPT]);
    const whole = await logitsOf(model, { input_ids });
    using first = ids([PROMPT.slice(0, 3)]);
    using rest = ids([PROMPT.slice(3)]);
    const { past_key_values, logits } = await model.forward({ input_ids: first });
    logits![Symbol.dispose]();
    using cache = past_key_values!;
    const second = await logitsOf(model, { input_ids: rest, past_key_values: cache });
    assertClose(second, whole.subarray(3 * 64), toleranceOf("logits", device), "second part");
  },
);

liveTest("reordered weights can be put back, bit for bit", async () => {
  const file = goldenFile("models/llama4/model.safetensors");
  const tensors = new Map([...file].map(([name, { data, shape }]) => [
    name,
    { tensor: Tensor.from(Float32Array.from(data), { shape }) },
  ]));
  const parameters = new Parameters(tensors, "model.");
  const config = new PretrainedConfig(
    JSON.parse(await Deno.readTextFile(goldenPath("models/llama4/config.json"))),
  );
  using _decoder = new Llama4Decoder(config, parameters);
  let changed = 0;
  for (const { name, tensor, restore } of parameters) {
    if (restore === undefined) {
      assertSameBits(await tensor.data() as Float32Array, Float32Array.from(file.get(name)!.data), name);
      continue;
    }
    changed++;
    using back = restore(tensor);
    assertSameBits(await back.data() as Float32Array, Float32Array.from(file.get(name)!.data), name);
  }
  // Queries and keys of the three layers with rotation.
  assertEquals(changed, 6);
  for (const p of parameters) p.tensor[Symbol.dispose]();
});

reportSkipped();
