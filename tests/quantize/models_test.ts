/**
 * Quantised models: loaded, run, saved, loaded again, refused.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import {
  AutoConfig,
  AutoModel,
  AutoModelForCausalLM,
  AutoTokenizer,
  InvalidArgument,
  ModelFileError,
  type PreTrainedModel,
  Tensor,
} from "../../mod.ts";
import { inFolder } from "../support/folders.ts";
import { goldenPath } from "../support/golden.ts";
import { DEMO, disposeAll, ids, liveTest, reportSkipped, rowsOf, withGpu } from "../models/support.ts";

const PROMPT = [[3, 14, 15, 9, 26, 5]];

async function logitsOf(
  model: PreTrainedModel,
  tokens: readonly (readonly number[])[],
): Promise<Float32Array> {
  using input_ids = ids(tokens);
  const output = await model.forward({ input_ids, use_cache: false });
  const values = await output.logits!.data();
  disposeAll(output);
  return values as Float32Array;
}

for (const quantization of ["int8", "int4"] as const) {
  liveTest(
    `${quantization}: less memory, logits near those of the model, and its tokens repeat`,
    async () => {
      const tokenizer = await AutoTokenizer.from_pretrained(DEMO);
      await using whole = await AutoModelForCausalLM.from_pretrained(DEMO);
      await using model = await AutoModelForCausalLM.from_pretrained(DEMO, { quantization });
      assertEquals(model.num_parameters, whole.num_parameters);
      assert(model.memory.bytes < whole.memory.bytes * (quantization === "int8" ? 0.65 : 0.45));
      using input_ids = tokenizer("In the beginning God created the heaven and the earth.").input_ids;
      const tokens = await rowsOf(input_ids.view(input_ids.shape, input_ids.strides));
      const [a, b] = [await logitsOf(whole, tokens), await logitsOf(model, tokens)];
      let error = 0, size = 0;
      a.forEach((x, i) => (error += (x - b[i]!) ** 2, size += x * x));
      // What was measured over held-out text is 0.013 and 0.055.
      assert(Math.sqrt(error / size) < (quantization === "int8" ? 0.03 : 0.12), `${Math.sqrt(error / size)}`);
      using first = await model.generate({ input_ids, max_new_tokens: 12 });
      using second = await model.generate({ input_ids, max_new_tokens: 12 });
      assertEquals(await first.tolist(), await second.tolist());
    },
  );

  liveTest(`${quantization}: what is saved is read back without the option, bit for bit`, async () => {
    for (const arch of ["llama", "mistral", "gemma2", "llama4"]) {
      await inFolder(async (to) => {
        await using model = await AutoModelForCausalLM.from_pretrained(goldenPath(`models/${arch}`), {
          quantization,
        });
        await model.save_pretrained(to);
        const config = JSON.parse(await Deno.readTextFile(`${to}/config.json`));
        assertEquals(config.quantization_config, {
          quant_method: "attune",
          format_version: 1,
          formats: [quantization],
        });
        await using again = await AutoModelForCausalLM.from_pretrained(to);
        assertEquals(await logitsOf(again, PROMPT), await logitsOf(model, PROMPT), arch);
        await inFolder(async (twice) => {
          await again.save_pretrained(twice, { max_shard_size: 4000 });
          await using third = await AutoModelForCausalLM.from_pretrained(twice);
          assertEquals(await logitsOf(third, PROMPT), await logitsOf(model, PROMPT), arch);
        });
        const other = quantization === "int8" ? "int4" : "int8";
        const error = await assertRejects(
          () => AutoModelForCausalLM.from_pretrained(to, { quantization: other }),
          InvalidArgument,
        );
        assertStringIncludes(error.message, `stored as ${quantization}`);
      });
    }
  });

  liveTest(`${quantization}: an encoder and a new model`, async () => {
    await using bert = await AutoModel.from_pretrained(goldenPath("models/bert"), { quantization });
    disposeAll(await bert.forward({ input_ids: Tensor.from(PROMPT, { dtype: "int64" }) }));
    const config = await AutoConfig.from_pretrained(goldenPath("models/llama"));
    await using first = await AutoModelForCausalLM.from_config(config, { quantization, seed: 5 });
    await inFolder(async (to) => {
      await using floats = await AutoModelForCausalLM.from_config(config.clone(), {
        seed: 5,
        dtype: "float32",
      });
      await floats.save_pretrained(to);
      await using second = await AutoModelForCausalLM.from_pretrained(to, { quantization });
      assertEquals(await logitsOf(first, PROMPT), await logitsOf(second, PROMPT));
    });
  });

  liveTest(`${quantization}: an abort leaves nothing behind`, async () => {
    const controller = new AbortController();
    await assertRejects(
      () =>
        AutoModelForCausalLM.from_pretrained(DEMO, {
          quantization,
          signal: controller.signal,
          progress_callback: ({ loaded, total }) => {
            if (loaded > total / 2) controller.abort(new Error("enough"));
          },
        }),
      Error,
      "enough",
    );
  });

  withGpu(`${quantization}: refused, and the model stays where it was`, async () => {
    await assertRejects(
      () => AutoModelForCausalLM.from_pretrained(DEMO, { quantization, device: "webgpu" }),
      InvalidArgument,
      "expected wasm",
    );
    await using model = await AutoModelForCausalLM.from_pretrained(DEMO, { quantization });
    await assertRejects(() => model.to("webgpu"), InvalidArgument, "expected wasm");
    assertEquals(model.device, "wasm");
    await logitsOf(model, PROMPT);
  });
}

liveTest("what is no quantisation, or does not say which, is refused", async () => {
  await assertRejects(
    () => AutoModelForCausalLM.from_pretrained(DEMO, { quantization: "int2" as "int4" }),
    InvalidArgument,
    "int8 or int4",
  );
  await inFolder(async (to) => {
    await using model = await AutoModelForCausalLM.from_pretrained(goldenPath("models/llama"), {
      quantization: "int4",
    });
    await model.save_pretrained(to);
    const config = JSON.parse(await Deno.readTextFile(`${to}/config.json`));
    const refuse = async (field: unknown, ...words: string[]) => {
      await Deno.writeTextFile(
        `${to}/config.json`,
        JSON.stringify({ ...config, quantization_config: field }),
      );
      const error = await assertRejects(() => AutoModelForCausalLM.from_pretrained(to), ModelFileError);
      for (const word of words) assertStringIncludes(error.message, word);
    };
    await refuse(undefined, "no quantization_config");
    await refuse({ quant_method: "gptq" }, "quant_method attune");
    await refuse({ ...config.quantization_config, format_version: 2 }, "format_version 1");
    await refuse({ ...config.quantization_config, formats: ["int3"] }, "int8_g32");
  });
});

reportSkipped();
