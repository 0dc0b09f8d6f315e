/**
 * Saving models: what is written is what was loaded, bit for bit, whole or not at all.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import {
  type AttuneError,
  type AutoClass,
  AutoConfig,
  AutoModel,
  AutoModelForCausalLM,
  AutoModelForImageTextToText,
  InvalidArgument,
  ModelFileError,
  PretrainedConfig,
  type SaveProgress,
} from "../../mod.ts";
import { inFolder, namesIn, tensorsIn } from "../support/folders.ts";
import { goldenPath } from "../support/golden.ts";
import { DEMO, everywhere, ids, LLAMA, liveTest, reportSkipped, rowsOf, writeTinyLlama } from "./support.ts";

const RECORDED: readonly (readonly [arch: string, auto: AutoClass])[] = [
  ["bert", AutoModel],
  ["gemma2", AutoModelForCausalLM],
  ["llama", AutoModelForCausalLM],
  ["llama4", AutoModelForCausalLM],
  ["llava", AutoModelForImageTextToText],
  ["mistral", AutoModelForCausalLM],
];

const PROMPT = [[3, 14, 15, 9, 26, 5]];

/** Takes longer than a timer. */
function busy(): void {
  const until = performance.now() + 5;
  while (performance.now() < until);
}

async function json(path: string): Promise<Record<string, unknown>> {
  return JSON.parse(await Deno.readTextFile(path));
}

for (const [arch, auto] of RECORDED) {
  const folder = goldenPath(`models/${arch}`);

  everywhere(`${arch}: what is saved is what was loaded, bit for bit`, async (device) => {
    await inFolder(async (to) => {
      await using model = await auto.from_pretrained(folder, { device });
      await model.save_pretrained(to);
      assertEquals(
        await Deno.readFile(`${to}/model.safetensors`),
        await Deno.readFile(`${folder}/model.safetensors`),
      );
      for (const name of namesIn(to).filter((name) => name.endsWith(".json"))) {
        assertEquals(await Deno.readTextFile(`${to}/${name}`), await Deno.readTextFile(`${folder}/${name}`));
      }
      await using again = await auto.from_pretrained(to, { device });
      if (!model.can_generate()) return;
      using input_ids = ids(PROMPT);
      assertEquals(
        await rowsOf(await again.generate({ input_ids, max_new_tokens: 5 })),
        await rowsOf(await model.generate({ input_ids, max_new_tokens: 5 })),
      );
    });
  });
}

for (const dtype of ["float16", "bfloat16"] as const) {
  everywhere(`vectors are widened in memory and saved as the ${dtype} they were`, async (device) => {
    await using tiny = await writeTinyLlama({ dtype });
    await inFolder(async (to) => {
      await using model = await AutoModelForCausalLM.from_pretrained(tiny.folder, { device });
      await model.save_pretrained(to);
      assertEquals(tensorsIn(`${to}/model.safetensors`), tensorsIn(`${tiny.folder}/model.safetensors`));
      assertEquals((await json(`${to}/config.json`)).dtype, dtype);
    });
  });

  everywhere(`a model loaded as ${dtype} is saved as ${dtype}`, async (device) => {
    await inFolder(async (to) => {
      await using model = await AutoModelForCausalLM.from_pretrained(LLAMA, { device, dtype });
      await model.save_pretrained(to);
      const spelling = { float16: "F16", bfloat16: "BF16" }[dtype];
      assertEquals(
        new Set([...tensorsIn(`${to}/model.safetensors`).values()].map((t) => t.dtype)),
        new Set([spelling]),
      );
      assertEquals((await json(`${to}/config.json`)).dtype, dtype);
      await using again = await AutoModelForCausalLM.from_pretrained(to, { device });
      using input_ids = ids(PROMPT);
      const rows = await rowsOf(await again.generate({ input_ids, max_new_tokens: 4 }));
      assertEquals(rows[0]!.length, PROMPT[0]!.length + 4);
    });
  });
}

liveTest("a model without its head is saved without it, under its own name", async () => {
  await inFolder(async (to) => {
    await using model = await AutoModel.from_pretrained(LLAMA);
    await model.save_pretrained(to);
    assertEquals((await json(`${to}/config.json`)).architectures, ["LlamaModel"]);
    assertEquals([...tensorsIn(`${to}/model.safetensors`).keys()].some((n) => n.startsWith("lm_head")), false);
    await using again = await AutoModel.from_pretrained(to);
    assertEquals(again.num_parameters, model.num_parameters);
  });
});

liveTest("the settings of a trained model survive, its tied weights are written once", async () => {
  await inFolder(async (to) => {
    await using model = await AutoModelForCausalLM.from_pretrained(DEMO);
    await model.save_pretrained(to);
    assertEquals(
      await Deno.readFile(`${to}/model.safetensors`),
      await Deno.readFile(`${DEMO}/model.safetensors`),
    );
    assertEquals(tensorsIn(`${to}/model.safetensors`).has("lm_head.weight"), false);
  });
});

liveTest("a model is saved in shards of at most the size asked for, and read from them", async () => {
  await inFolder(async (to) => {
    await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
    await model.save_pretrained(to, { max_shard_size: "20KB" });
    const index = await json(`${to}/model.safetensors.index.json`) as {
      metadata: { total_size: number; total_parameters: number };
      weight_map: Record<string, string>;
    };
    const original = tensorsIn(`${LLAMA}/model.safetensors`);
    const files = [...new Set(Object.values(index.weight_map))].sort();
    assert(files.length > 2);
    const count = String(files.length).padStart(5, "0");
    assertEquals(files[0], `model-00001-of-${count}.safetensors`);
    assertEquals(namesIn(to).filter((name) => name.endsWith(".safetensors")), files);
    for (const file of files) {
      const tensors = tensorsIn(`${to}/${file}`);
      const bytes = [...tensors.values()].reduce((sum, t) => sum + t.bytes.length, 0);
      assert(bytes <= 20_000 || tensors.size === 1, `${file} has ${bytes} bytes`);
      for (const [name, tensor] of tensors) {
        assertEquals(index.weight_map[name], file);
        assertEquals(tensor, original.get(name));
      }
    }
    assertEquals(Object.keys(index.weight_map).sort(), [...original.keys()].sort());
    assertEquals(index.metadata.total_parameters, model.num_parameters);
    assertEquals(index.metadata.total_size, model.num_parameters * 4);
    await using again = await AutoModelForCausalLM.from_pretrained(to);
    assertEquals(again.num_parameters, model.num_parameters);
  });
});

liveTest("nothing of an earlier save stays where it would be loaded", async () => {
  await inFolder(async (to) => {
    await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
    await Deno.writeTextFile(`${to}/notes.txt`, "mine");
    await model.save_pretrained(to, { max_shard_size: 20_000 });
    const sharded = namesIn(to);
    await model.save_pretrained(to);
    assertEquals(namesIn(to), ["config.json", "generation_config.json", "model.safetensors", "notes.txt"].filter(
      (name) => name !== "generation_config.json" || sharded.includes(name),
    ));
    await model.save_pretrained(to, { max_shard_size: 30_000 });
    await model.save_pretrained(to, { max_shard_size: 20_000 });
    assertEquals(namesIn(to), sharded);
  });
});

everywhere("an abort in the middle leaves the folder as it was", async (device) => {
  await inFolder(async (to) => {
    await using old = await AutoModelForCausalLM.from_pretrained(LLAMA, { device });
    await old.save_pretrained(to);
    const before = new Map(namesIn(to).map((name) => [name, Deno.readFileSync(`${to}/${name}`)]));
    await using model = await AutoModelForCausalLM.from_pretrained(goldenPath("models/mistral"), { device });
    const reason = new Error("enough");
    for (const after of [1, 5]) {
      const controller = new AbortController();
      let events = 0;
      const thrown = await assertRejects(() =>
        model.save_pretrained(to, {
          signal: controller.signal,
          max_shard_size: "20KB",
          progress_callback: () => {
            if (++events === after) controller.abort(reason);
          },
        })
      );
      assertEquals(thrown, reason);
      assertEquals(events, after);
      assertEquals(new Map(namesIn(to).map((name) => [name, Deno.readFileSync(`${to}/${name}`)])), before);
    }
    const signal = AbortSignal.timeout(0);
    await assertRejects(() => model.save_pretrained(`${to}/new`, { signal, progress_callback: busy }));
    assertEquals(namesIn(to), [...before.keys()]);
    using input_ids = ids(PROMPT);
    // The model goes on working.
    assertEquals((await rowsOf(await model.generate({ input_ids, max_new_tokens: 2 })))[0]!.length, 8);
  });
});

liveTest("progress counts the bytes of the weights and ends with them", async () => {
  await inFolder(async (to) => {
    await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
    const events: SaveProgress[] = [];
    await model.save_pretrained(to, { max_shard_size: "40KB", progress_callback: (e) => events.push(e) });
    const total = model.num_parameters * 4;
    assertEquals(events.at(-1), { status: "done", file: to, loaded: total, total });
    assert(events.every((e, i) => e.total === total && e.loaded >= (events[i - 1]?.loaded ?? 1)));
  });
});

liveTest("a folder or options that do not fit are refused before anything is written", async () => {
  await inFolder(async (to) => {
    await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
    const refused = async (folder: string, options: object, kind: new (message: string) => AttuneError, ...words: string[]) => {
      const error = await assertRejects(() => model.save_pretrained(folder, options), kind);
      for (const word of words) assertStringIncludes(error.message, word);
    };
    await refused(to, { shards: 2 }, InvalidArgument, '"shards"', "max_shard_size");
    for (const max_shard_size of [0, -1, NaN, "5", "5GiB", "GB", {}]) {
      await refused(to, { max_shard_size }, InvalidArgument, "max_shard_size", "5GB");
    }
    await refused("", {}, InvalidArgument, "path is empty");
    await refused("https://example.org/model", {}, InvalidArgument, "file: URL");
    assertEquals(namesIn(to), []);
    await Deno.writeTextFile(`${to}/file`, "");
    await refused(`${to}/file`, {}, ModelFileError, "it is a file");
    await Deno.mkdir(`${to}/folder/config.json`, { recursive: true });
    await refused(`${to}/folder`, {}, ModelFileError, "a folder has that name");
    assertEquals(namesIn(`${to}/folder`), ["config.json"]);
    await model.dispose();
    await refused(to, {}, InvalidArgument, "disposed");
  });
});

Deno.test({
  name: "without leave to write, the error names the flag",
  permissions: { read: true, write: false },
  fn: async () => {
    await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
    const error = await assertRejects(() => model.save_pretrained("./somewhere"), ModelFileError);
    assertStringIncludes(error.message, "--allow-write");
    const config = new PretrainedConfig({ model_type: "llama" });
    await assertRejects(() => config.save_pretrained("./somewhere"), ModelFileError, "--allow-write");
  },
});

liveTest("a config is saved with its parts and read again, without its choice of attention", async () => {
  await inFolder(async (to) => {
    const folder = goldenPath("models/llava");
    const config = await AutoConfig.from_pretrained(folder, { attn_implementation: "eager" });
    await config.save_pretrained(`${to}/new/folder`);
    assertEquals(await json(`${to}/new/folder/config.json`), await json(`${folder}/config.json`));
    const again = await AutoConfig.from_pretrained(`${to}/new/folder`);
    assertEquals([again._attn_implementation, again.sub_configs["text_config"]!._attn_implementation], [
      null,
      null,
    ]);
  });
});

reportSkipped();
