/**
 * Quantised weights widened to floats, beside the definition of every format.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { AutoModelForCausalLM } from "../../mod.ts";
import type { QuantizedFormat } from "../../src/devices/quantized.ts";
import { convertTo, hostView, present } from "../../src/dtype.ts";
import { fileTensors } from "../../src/quantize/stored.ts";
import { widened } from "../../src/quantize/widen.ts";
import { DEMO, liveTest } from "../models/support.ts";
import { inFolder, tensorsIn } from "../support/folders.ts";
import { writeGguf } from "../support/gguf.ts";
import { llamaParts } from "../support/llama_gguf.ts";
import { seeded } from "../support/random.ts";

for (const format of ["int8", "int8_g32", "int4"] as const satisfies readonly QuantizedFormat[]) {
  Deno.test(`${format}: integers times their scales, wherever a chunk begins`, () => {
    // 40 columns end in a part of a group.
    for (const shape of [[3, 40], [1, 32], [5, 64], [7, 2]] as const) {
      const random = seeded(`${format} ${shape}`);
      const [rows, columns] = shape;
      const groups = fileTensors({ format, shape }).scales.shape[1] ?? 1;
      const [low, high] = format === "int4" ? [-8, 8] : [-128, 128];
      const integers = random.ints(rows * columns, low, high);
      const scales = random.uniform(rows * groups, -0.1, 0.1);
      const bytes = format === "int4"
        ? Uint8Array.from(
          { length: integers.length / 2 },
          (_, i) => integers[2 * i]! + 8 | integers[2 * i + 1]! + 8 << 4,
        )
        : Uint8Array.from(integers, (q) => q & 255);
      const expected = Float32Array.from(
        integers,
        (q, i) => q * scales[Math.floor(i / columns) * groups + (groups === 1 ? 0 : i % columns >> 5)]!,
      );
      const halves = format === "int4" ? 2 : 1;
      for (let from = 0; from < bytes.length; from += 1 + from % 3) {
        for (const to of [from + 1, bytes.length]) {
          const found = widened({ format, shape }, bytes.subarray(from, to), from * halves, scales);
          assertEquals(found, expected.slice(from * halves, to * halves));
        }
      }
    }
  });
}

liveTest("a loaded embedding: what is stored quantised is rounded once, in every type", async () => {
  const { metadata, tensors } = llamaParts(DEMO, "Q8_0");
  await inFolder(async (folder) => {
    writeGguf(`${folder}/a.gguf`, metadata, tensors);
    const table = await embedding(`${folder}/a.gguf`, "float32");
    // The blocks' own scales give back what was rounded to them.
    const original = tensors.find(({ name }) => name === "token_embd.weight")!.values();
    const worst = table.reduce((most, x, i) => Math.max(most, Math.abs(x - original[i]!)), 0);
    const largest = original.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    assert(worst > 0 && worst < largest / 200, `${worst} of ${largest}`);
    for (const dtype of ["float16", "bfloat16"] as const) {
      const rounded = present(dtype, convertTo(dtype, table)) as ArrayLike<number>;
      assertEquals(await embedding(`${folder}/a.gguf`, dtype), Float32Array.from(rounded));
    }
  });
});

/** The embedding table of a model as it is in memory. */
async function embedding(path: string, dtype: "float32" | "float16" | "bfloat16"): Promise<Float32Array> {
  await using model = await AutoModelForCausalLM.from_pretrained(path, { dtype });
  let values = new Float32Array(0);
  await inFolder(async (folder) => {
    await model.save_pretrained(folder);
    const { dtype, bytes } = tensorsIn(`${folder}/model.safetensors`).get("model.embed_tokens.weight")!;
    const type = ({ F32: "float32", F16: "float16", BF16: "bfloat16" } as const)[dtype]!;
    values = Float32Array.from(present(type, hostView(type, bytes.slice().buffer)) as ArrayLike<number>);
  });
  return values;
}
