import { assertEquals, assertStringIncludes } from "@std/assert";
import { decode } from "npm:fast-png@8.0.0";
import { liveBuffers } from "../../mod.ts";
import { attune } from "./fake_io.ts";

async function run(...args: string[]): Promise<{ code: number; text: string; said: string }> {
  const { code, stdout, stderr } = await attune(["mask", ...args]);
  return { code, text: stdout, said: stderr };
}

Deno.test("attune mask: says and draws what each implementation receives", async () => {
  const eager = await run("--impl", "eager", "--pattern", "sliding", "--window", "2", "--q", "3");
  assertEquals(eager.code, 0);
  assertStringIncludes(eager.text, "a float32 tensor of shape [1,1,3,3]");
  assertStringIncludes(eager.text, "q 2  ⬚ ■ ■");
  assertStringIncludes((await run("--impl", "sdpa", "--q", "3")).text, "null");
  assertStringIncludes(
    (await run("--impl", "flash_attention_2", "--q", "3", "--left-padding", "1")).text,
    "[1,3]",
  );
  assertStringIncludes((await run("--impl", "flex_attention", "--q", "300")).text, "BlockMask [1,1,300,300]");
  assertEquals(liveBuffers(), 0);
});

Deno.test("attune mask: JSON is one object, with the past on the axes", async () => {
  const { text } = await run("--impl", "eager", "--q", "1", "--past", "4", "--json");
  assertEquals(JSON.parse(text).shape, [1, 1, 1, 5]);
  assertStringIncludes(JSON.parse(text).drawing, "q 4");
});

Deno.test("attune mask: the picture has a dark cell where a key is visible", async () => {
  const file = await Deno.makeTempFile({ suffix: ".png" });
  await run("--q", "2", "--png", file);
  const { width, height, data } = decode(await Deno.readFile(file));
  await Deno.remove(file);
  assertEquals([width, height], [32, 32]);
  const middle = (q: number, kv: number) => data[(q * 16 + 8) * width + kv * 16 + 8];
  assertEquals([middle(0, 0), middle(0, 1), middle(1, 0), middle(1, 1)], [40, 245, 40, 40]);
});

Deno.test("attune mask: wrong usage is code 2, a refused name code 1", async () => {
  const refused = await run("--impl", "nope");
  assertEquals(refused.code, 1);
  assertStringIncludes(refused.said, "flex_attention");
  assertEquals((await run("--q", "0")).code, 2);
});
