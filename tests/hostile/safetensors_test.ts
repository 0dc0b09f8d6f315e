/**
 * Weights nobody should load: malformed files are in tests/hub/safetensors_test.ts; here is what they cost, and
 * what weights that are no numbers do.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import {
  AutoModelForCausalLM,
  type GenerateOptions,
  InvalidArgument,
  ModelFileError,
  type PreTrainedModel,
} from "../../mod.ts";
import { openSafetensors } from "../../src/hub/safetensors.ts";
import { bytesSource } from "../../src/hub/source.ts";
import { ids, liveTest, LLAMA, rowsOf } from "../models/support.ts";
import { inFolder } from "../support/folders.ts";
import { assertRefused } from "./refusal.ts";

/** A file with `header` and `dataBytes` of zeros. */
function fileOf(header: string, dataBytes: number): Uint8Array {
  const json = new TextEncoder().encode(header);
  const bytes = new Uint8Array(8 + json.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes;
}

const entry = (i: number) => `{"dtype":"U8","shape":[1],"data_offsets":[${i},${i + 1}]}`;
const tensors = (n: number, name: (i: number) => string) =>
  `{${Array.from({ length: n }, (_, i) => `"${name(i)}":${entry(i)}`).join(",")}}`;

/** Files that are large where they should be small. */
const LARGE: readonly (readonly [name: string, bytes: () => Uint8Array, ...words: string[]])[] = [
  ["a million tiny tensors", () => fileOf(tensors(1_000_000, String), 1_000_000), "131072 tensors"],
  ["a million objects in one", () => fileOf(`{"a":${"{".repeat(1_000_000)}`, 0), "131072 tensors"],
  ["braces in a million names", () => fileOf(`{"${"{".repeat(1_000_000)}":${entry(0)}}`, 1), "1024"],
  ["a header of spaces", () => fileOf(`{${" ".repeat(20_000_000)}`, 0)],
  [
    "a shape of a million ones",
    () => fileOf(`{"a":{"dtype":"U8","shape":[${"1,".repeat(1_000_000)}1],"data_offsets":[0,1]}}`, 1),
    "32",
  ],
  [
    "a number of a million digits",
    () => fileOf(`{"a":{"dtype":"U8","shape":[${"1".repeat(1_000_000)}],"data_offsets":[0,1]}}`, 1),
  ],
  ["a long metadata that never ends", () => fileOf(`{"__metadata__":{"a":"${"x".repeat(20_000_000)}`, 0)],
];

for (const [name, make, ...words] of LARGE) {
  Deno.test(`safetensors with ${name}: refused soon, in little more than its own size`, async () => {
    const bytes = make();
    const error = await assertRefused(() => openSafetensors(bytesSource(bytes)), words, 3 * bytes.length);
    assert(error instanceof ModelFileError);
  });
}

/** The weights of the recorded Llama with `value` (as float32 bits) in every `step`-th element from `from` on. */
async function poisoned(folder: string, bits: number, step: number): Promise<void> {
  await Deno.copyFile(`${LLAMA}/config.json`, `${folder}/config.json`);
  const bytes = await Deno.readFile(`${LLAMA}/model.safetensors`);
  const start = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const data = new DataView(bytes.buffer, start);
  const count = Math.floor(data.byteLength / 4);
  for (let i = 0; i < count; i += step) data.setUint32(4 * i, bits, true);
  await Deno.writeFile(`${folder}/model.safetensors`, bytes);
}

const PROMPT = [3, 41, 19, 10];

/** The tokens, or token 0 where the model refuses to choose among scores that are no numbers. */
async function generated(model: PreTrainedModel, options: GenerateOptions): Promise<number[][]> {
  try {
    return await rowsOf(await model.generate(options));
  } catch (error) {
    assert(error instanceof InvalidArgument && error.message.includes("not finite"), String(error));
    return [[0]];
  }
}

for (
  const [name, bits] of [
    ["NaN", 0x7fc00000],
    ["+Inf", 0x7f800000],
    ["−Inf", 0xff800000],
    ["denormal", 0x00000001],
    ["largest", 0x7f7fffff],
  ] as const
) {
  for (const step of [1, 1009]) {
    liveTest(
      `weights that are ${name}, every ${step}: tokens in range, the model beside lives on`,
      async () => {
        await using good = await AutoModelForCausalLM.from_pretrained(LLAMA);
        using input_ids = ids([PROMPT]);
        const before = await rowsOf(await good.generate({ input_ids, max_new_tokens: 6 }));
        await inFolder(async (folder) => {
          await poisoned(folder, bits, step);
          await using model = await AutoModelForCausalLM.from_pretrained(folder);
          for (const attn of ["eager", "sdpa", "flash_attention_2"]) {
            await model.set_attn_implementation(attn);
            for (const do_sample of [false, true]) {
              const tokens = await generated(model, { input_ids, max_new_tokens: 4, do_sample, seed: 1 });
              assert(tokens.flat().every((t) => Number.isInteger(t) && t >= 0 && t < 64), String(tokens));
            }
          }
        });
        assertEquals(await rowsOf(await good.generate({ input_ids, max_new_tokens: 6 })), before);
      },
    );
  }
}
