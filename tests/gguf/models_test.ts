/**
 * Models of GGUF files: the same tokens as of the safetensors they were made of, the same numbers as of their blocks.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  AutoConfig,
  AutoModelForCausalLM,
  AutoTokenizer,
  InvalidArgument,
  ModelFileError,
  type PreTrainedModel,
} from "../../mod.ts";
import { inFolder } from "../support/folders.ts";
import { type GgmlType, writeGguf } from "../support/gguf.ts";
import { DEMO, disposeAll, ids, liveTest, LLAMA, rowsOf } from "../models/support.ts";
import { bytePairMetadata, llamaParts } from "../support/llama_gguf.ts";

/** Writes the demo model. */
function writeDemo(path: string, type: GgmlType): void {
  const { metadata, tensors } = llamaParts(DEMO, type);
  writeGguf(path, { ...metadata, ...bytePairMetadata(DEMO) }, tensors);
}

async function logitsOf(model: PreTrainedModel, tokens: readonly number[]): Promise<Float32Array> {
  using input_ids = ids([tokens]);
  const output = await model.forward({ input_ids, use_cache: false });
  const values = await output.logits!.data();
  disposeAll(output);
  return values as Float32Array;
}

/** Root mean square of a difference, relative to that of `a`. */
function difference(a: Float32Array, b: Float32Array): number {
  let error = 0, size = 0;
  a.forEach((x, i) => (error += (x - b[i]!) ** 2, size += x * x));
  return Math.sqrt(error / size);
}

const TEXT = "And God said, Let there be light: and there was light. 12 lamps; <s>don't\n\n  stop</s>";

liveTest("bfloat16: config, tokens and every number are those of the safetensors", async () => {
  await inFolder(async (folder) => {
    const path = `${folder}/demo.gguf`;
    writeDemo(path, "BF16");
    const [config, expected] = [
      await AutoConfig.from_pretrained(path),
      await AutoConfig.from_pretrained(DEMO),
    ];
    for (
      const name of [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
      ]
        .concat(
          "num_key_value_heads",
          "head_dim",
          "max_position_embeddings",
          "tie_word_embeddings",
          "model_type",
        )
        .concat("bos_token_id", "eos_token_id", "pad_token_id", "attention_bias", "mlp_bias", "dtype")
    ) assertEquals(config[name], expected[name], name);
    assert(Math.abs(Number(config["rms_norm_eps"]) / 1e-6 - 1) < 1e-6);
    const [tokenizer, theirs] = [
      await AutoTokenizer.from_pretrained(path),
      await AutoTokenizer.from_pretrained(DEMO),
    ];
    const tokens = tokenizer.encode(TEXT);
    assertEquals(tokens, theirs.encode(TEXT));
    assertEquals(tokenizer.decode(tokens), theirs.decode(tokens));
    assertEquals(
      [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id],
      [theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id],
    );
    await using model = await AutoModelForCausalLM.from_pretrained(path);
    await using whole = await AutoModelForCausalLM.from_pretrained(DEMO);
    assertEquals(await logitsOf(model, tokens), await logitsOf(whole, tokens));
    using input_ids = ids([tokens.slice(0, 12)]);
    assertEquals(
      await rowsOf(await model.generate({ input_ids, max_new_tokens: 24 })),
      await rowsOf(await whole.generate({ input_ids, max_new_tokens: 24 })),
    );
    assertEquals(model.memory.bytes, whole.memory.bytes);
  });
});

liveTest("float32 and float16: the recorded llama, its head not tied", async () => {
  for (const type of ["F32", "F16"] as const) {
    await inFolder(async (folder) => {
      const { metadata, tensors } = llamaParts(LLAMA, type);
      writeGguf(`${folder}/a.gguf`, metadata, tensors);
      await using model = await AutoModelForCausalLM.from_pretrained(folder, { gguf_file: "a.gguf" });
      await using whole = await AutoModelForCausalLM.from_pretrained(LLAMA, {
        dtype: type === "F32" ? "float32" : "float16",
      });
      assertEquals(await logitsOf(model, [3, 41, 19, 10]), await logitsOf(whole, [3, 41, 19, 10]));
    });
  }
});

for (const [type, bound] of [["Q8_0", 0.03], ["Q4_0", 0.12]] as const) {
  liveTest(`${type}: near the model, saved as integers, and loaded again to the same numbers`, async () => {
    await inFolder(async (folder) => {
      const path = `${folder}/demo.gguf`;
      writeDemo(path, type);
      const tokenizer = await AutoTokenizer.from_pretrained(path);
      const tokens = tokenizer.encode(TEXT);
      await using model = await AutoModelForCausalLM.from_pretrained(path);
      await using whole = await AutoModelForCausalLM.from_pretrained(DEMO);
      const logits = await logitsOf(model, tokens);
      const error = difference(await logitsOf(whole, tokens), logits);
      assert(error > 0 && error < bound, String(error));
      const format = type === "Q8_0" ? "int8_g32" : "int4";
      const config = await AutoConfig.from_pretrained(path);
      assertEquals(config["quantization_config"], {
        quant_method: "attune",
        format_version: 1,
        formats: [format],
      });
      await inFolder(async (to) => {
        await model.save_pretrained(to);
        await tokenizer.save_pretrained(to);
        await using again = await AutoModelForCausalLM.from_pretrained(to);
        assertEquals(await logitsOf(again, tokens), logits);
        assertEquals((await AutoTokenizer.from_pretrained(to)).encode(TEXT), tokens);
      });
      await assertRejects(
        () => AutoModelForCausalLM.from_pretrained(path, { quantization: type === "Q8_0" ? "int4" : "int8" }),
        InvalidArgument,
        `stored as ${format}`,
      );
    });
  });
}

liveTest(
  "loading: progress counts every byte once, an abort leaves nothing, memory holds the weights",
  async () => {
    await inFolder(async (folder) => {
      const path = `${folder}/demo.gguf`;
      writeDemo(path, "Q8_0");
      const events: [number, number][] = [];
      const options = {
        progress_callback: ({ loaded, total }: { loaded: number; total: number }) =>
          void events.push([loaded, total]),
      };
      await using model = await AutoModelForCausalLM.from_pretrained(path, options);
      const [loaded, total] = events.at(-1)!;
      assertEquals(loaded, total);
      assert(events.every(([now], i) => now >= (events[i - 1]?.[0] ?? 0)));
      // One tensor is staged beside what is there already.
      assert(
        model.memory.peak < model.memory.bytes + 2 ** 20,
        `${model.memory.peak} of ${model.memory.bytes}`,
      );
      for (const after of [1, 20, 60]) {
        const abort = new AbortController();
        let n = 0;
        const stop = () => ++n === after && abort.abort(new Error("enough"));
        await assertRejects(
          () => AutoModelForCausalLM.from_pretrained(path, { progress_callback: stop, signal: abort.signal }),
          Error,
          "enough",
        );
      }
    });
  },
);

liveTest("names: a file among others, a file URL, and what is not there", async () => {
  await inFolder(async (folder) => {
    const { metadata, tensors } = llamaParts(LLAMA, "F32");
    writeGguf(`${folder}/my model.gguf`, metadata, tensors);
    const url = new URL(`file://${folder}/my%20model.gguf`);
    for (const name of [url, url.href, `${folder}/my model.gguf`]) {
      assertEquals((await AutoConfig.from_pretrained(name))["hidden_size"], 32);
    }
    await assertRejects(
      () => AutoConfig.from_pretrained(`${folder}/other.gguf`),
      ModelFileError,
      "my model.gguf",
    );
    await assertRejects(
      () => AutoConfig.from_pretrained(folder, { gguf_file: "../my model.gguf" }),
      ModelFileError,
      "relative name",
    );
    await assertRejects(
      () => AutoTokenizer.from_pretrained(url),
      ModelFileError,
      "expected tokenizer.ggml.model to be gpt2 or llama, found nothing; load one from the model it was made of",
    );
    const options = { gguf_file: 3 } as unknown as { gguf_file: string };
    await assertRejects(() => AutoConfig.from_pretrained(folder, options), InvalidArgument, "gguf_file");
  });
});
