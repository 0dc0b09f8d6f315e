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
  assertStringIncludes(refused.said, "paged|flash_attention_2");
  assertEquals((await run("--q", "0")).code, 2);
});

Deno.test("attune mask: padding is drawn with the pattern it goes with", async () => {
  const grid = (text: string) => text.split("\n").filter((line) => line.startsWith("q "));
  for (const pattern of ["causal", "sliding", "bidirectional"]) {
    const args = ["--q", "6", "--left-padding", "2", "--past", "1", "--pattern", pattern];
    const flash = await run("--impl", "flash_attention_2", ...args);
    assertStringIncludes(flash.text, "shape [1,7], true = real token; the flags of the call say the rest");
    // The dense mask says all of it, but for queries of padding, which see nothing here and something there.
    const eager = await run("--impl", "eager", ...args);
    assertEquals(grid(flash.text).slice(1), grid(eager.text).slice(1));
  }
  const { text } = await run("--impl", "flash_attention_2", "--q", "4", "--left-padding", "2");
  assertEquals(grid(text), ["q 0  ⬚ ⬚ ⬚ ⬚", "q 1  ⬚ ⬚ ⬚ ⬚", "q 2  ⬚ ⬚ ■ ⬚", "q 3  ⬚ ⬚ ■ ■"]);
});

Deno.test("attune mask: lengths that do not go together are wrong usage", async () => {
  const usage = async (...args: string[]) => {
    const { code, text, said } = await run(...args);
    assertEquals({ args, code, text }, { args, code: 2, text: "" });
    return said;
  };
  assertStringIncludes(await usage("--q", "8", "--left-padding", "20"), "expected less than the 8 keys");
  assertStringIncludes(await usage("--q", "3", "--kv", "2", "--past", "3"), "expected at least 6");
  assertStringIncludes(await usage("--q", "3", "--kv", "2"), "expected at least 3");
  // Queries may look at fewer keys of another sequence.
  assertEquals((await run("--pattern", "bidirectional", "--q", "3", "--kv", "2")).code, 0);
});
