/**
 * The memory plan: what cannot fit is refused before anything is read.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { AutoModelForCausalLM, OutOfMemory, PretrainedConfig } from "../../mod.ts";
import { layoutSafetensors } from "../../src/hub/safetensors_write.ts";
import { liveTest, llamaShapes, writeTinyLlama } from "../models/support.ts";

liveTest("a model beyond 4 GiB is refused before anything is read", async () => {
  await using checkpoint = await writeTinyLlama();
  const fields = {
    ...checkpoint.config.toJSON(),
    vocab_size: 2 ** 20,
    hidden_size: 4096,
    tie_word_embeddings: true,
  };
  const config = new PretrainedConfig(fields);
  const shapes = [...llamaShapes(config)].map(([name, shape]) =>
    [name, { dtype: "bfloat16" as const, shape }] as const
  );
  const { head } = layoutSafetensors(Object.fromEntries(shapes));
  const bytes = shapes.reduce((n, [, { shape }]) => n + 2 * shape.reduce((a, b) => a * b, 1), 0);
  assert(bytes > 2 ** 32);
  // A file of holes: it has the size without taking it.
  await Deno.writeFile(`${checkpoint.folder}/model.safetensors`, head);
  await Deno.truncate(`${checkpoint.folder}/model.safetensors`, head.length + bytes);
  await Deno.writeTextFile(`${checkpoint.folder}/config.json`, JSON.stringify(fields));
  let events = 0;
  const options = { progress_callback: () => void events++ };
  const refused = await assertRejects(
    () => AutoModelForCausalLM.from_pretrained(checkpoint.folder, options),
    OutOfMemory,
    "4096 MiB",
  );
  assert(refused.message.includes("weights take"), refused.message);
  assertEquals(events, 0);
  await assertRejects(
    () => AutoModelForCausalLM.from_pretrained(checkpoint.folder, { ...options, dtype: "float32" }),
    OutOfMemory,
  );
});
