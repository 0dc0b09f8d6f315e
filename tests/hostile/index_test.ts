/**
 * Indexes of shards that lead astray: nothing outside of the model's folder is opened, and nothing is loaded twice
 * or not at all. The reader's own rows are in tests/hub/files_test.ts; here a whole model is loaded.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { AutoModelForCausalLM, ModelFileError } from "../../mod.ts";
import { goldenPath } from "../support/golden.ts";
import { inFolder } from "../support/folders.ts";
import { ids, liveTest, rowsOf } from "../models/support.ts";
import { assertRefused } from "./refusal.ts";

const LLAMA = goldenPath("models/llama");
const bytes = await Deno.readFile(`${LLAMA}/model.safetensors`);
const headerBytes = Number(new DataView(bytes.buffer).getBigUint64(0, true));
const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + headerBytes)));
const names = Object.keys(header).filter((name) => name !== "__metadata__");
const all = (shard: unknown) => Object.fromEntries(names.map((name) => [name, shard]));
const one = (shard: unknown) => ({ ...all("a.safetensors"), [names[0]!]: shard });

const ROWS: readonly (readonly [name: string, index: unknown, ...words: string[]])[] = [
  ...[
    "../a.safetensors",
    "../../etc/passwd",
    "/etc/passwd",
    "/tmp/a.safetensors",
    "file:///etc/passwd",
    "http://169.254.169.254/a.safetensors",
    "https://example.com/a.safetensors",
    "//host/a.safetensors",
    "\\\\host\\a.safetensors",
    "..\\a.safetensors",
    "C:\\a.safetensors",
    "%2e%2e/a.safetensors",
    "%2e%2e%2fa.safetensors",
    "a.safetensors\0",
    "a.safetensors?x",
    "a.safetensors#x",
    ".safetensors",
    "a/b.safetensors",
    `${"a".repeat(10_000)}.safetensors`,
    "a.bin",
    "",
  ].map((shard) => [`the shard ${shard.slice(0, 40)}`, { weight_map: one(shard) }, "a plain name"] as const),
  ...[7, null, {}, ["a.safetensors"], true].map((shard) =>
    [`the shard ${JSON.stringify(shard)}`, { weight_map: one(shard) }, "a plain name"] as const
  ),
  ["a missing shard", { weight_map: one("b.safetensors") }, "b.safetensors"],
  [
    "a tensor no shard has",
    { weight_map: { ...all("a.safetensors"), x: "a.safetensors" } },
    "does not hold it",
  ],
  ["a tensor in no shard's list", { weight_map: { [names[0]!]: "a.safetensors" } }, "does not list it"],
  [
    "a tensor in two shards",
    { weight_map: { ...all("a.safetensors"), x: "copy.safetensors" } },
    "copy.safetensors",
  ],
  ["swapped shards", { weight_map: { ...all("empty.safetensors") } }, "does not hold it"],
  ["a shard that is a folder", { weight_map: one("folder.safetensors") }, "folder.safetensors"],
  ["a shard that is no safetensors", { weight_map: one("text.safetensors") }, "text.safetensors"],
  ["no map", {}, "weight_map"],
  ["a list", [], "weight_map"],
  ["a map that is a list", { weight_map: [] }, "weight_map"],
  ["an empty map", { weight_map: {} }, "empty"],
  ["a thousand shards", {
    weight_map: Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`t${i}`, `s${i}.safetensors`])),
  }, "512 shards"],
  ["too many tensors", {
    weight_map: Object.fromEntries(Array.from({ length: 300_000 }, (_, i) => [`t${i}`, "a.safetensors"])),
  }, "262144 tensors"],
  [
    "a name of JavaScript's own",
    JSON.parse(`{"__proto__": {"weight_map": {"a": "a.safetensors"}}}`),
    "weight_map",
  ],
];

liveTest("indexes that lead astray are refused, and the right one loads", async (t) => {
  await inFolder(async (folder) => {
    await Deno.copyFile(`${LLAMA}/config.json`, `${folder}/config.json`);
    await Deno.writeFile(`${folder}/a.safetensors`, bytes);
    await Deno.writeFile(`${folder}/copy.safetensors`, bytes);
    await Deno.writeFile(`${folder}/empty.safetensors`, Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0x7d));
    await Deno.writeTextFile(`${folder}/text.safetensors`, "hello, world");
    await Deno.mkdir(`${folder}/folder.safetensors`);
    const load = async (index: string) => {
      await Deno.writeTextFile(`${folder}/model.safetensors.index.json`, index);
      await using model = await AutoModelForCausalLM.from_pretrained(folder);
      using input_ids = ids([[3, 41, 19]]);
      return await rowsOf(await model.generate({ input_ids, max_new_tokens: 4 }));
    };
    const right = JSON.stringify({ weight_map: all("a.safetensors") });
    const good = await load(right);
    for (const [name, index, ...words] of ROWS) {
      await t.step(name, async () => {
        const text = JSON.stringify(index);
        assert(await assertRefused(() => load(text), words) instanceof ModelFileError);
      });
    }
    assertEquals(await load(right), good);
  });
});
