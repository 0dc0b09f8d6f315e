import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { decode } from "npm:fast-png@8.0.0";
import { AutoModelForCausalLM, AutoTokenizer, liveBuffers } from "../../mod.ts";
import { viridis } from "../../src/draw/colour.ts";
import { DEMO, disposeAll } from "../models/support.ts";
import { attune } from "./fake_io.ts";

const run = (...args: string[]) => attune(["attention", DEMO, ...args]);

Deno.test("attune attention: a heatmap with the tokens on its axes, the answer's rows included", async () => {
  const { code, stdout } = await run("In the beginning", "--layer", "2", "--head", "1", "--new-tokens", "3");
  assertEquals(code, 0);
  const lines = stdout.split("\n");
  assertEquals(lines[0], "layers.2, head 1");
  const first = lines.findIndex((line) => line.startsWith("0 In"));
  assertStringIncludes(lines[first]!, "██ · · · ·");
  assertStringIncludes(lines[first + 1]!, "1 ␣the");
  assertStringIncludes(lines[first + 2]!, "2 ␣beginning");
  // The last of three new tokens is nobody's query.
  assert(/^4 /.test(lines[first + 4]!) && lines[first + 5] === "", stdout);
  assert(!stdout.includes("\x1b"), "no colours where there is no terminal");
  assertEquals(liveBuffers(), 0);
});

Deno.test("attune attention: colours go to terminals that may have them", async () => {
  const on = { terminal: { stdout: true }, color: true };
  const args = ["attention", DEMO, "In the"];
  assertStringIncludes((await attune(args, on)).stdout, "\x1b[48;");
  assert(!(await attune(args, { ...on, color: false })).stdout.includes("\x1b"));
  assert(!(await attune(["--no-color", ...args], on)).stdout.includes("\x1b"));
});

Deno.test("attune attention: JSON has the weights forward gives, to the last bit", async () => {
  const { stdout } = await run(
    "And God said",
    "--layer",
    "all",
    "--head",
    "all",
    "--attn",
    "eager",
    "--json",
  );
  const { tokens, attention, ...rest } = JSON.parse(stdout);
  assertEquals(rest, { model: DEMO, implementation: "eager", device: "wasm" });
  assertEquals(attention.length, 6 * 4);
  const tokenizer = await AutoTokenizer.from_pretrained(DEMO);
  {
    await using model = await AutoModelForCausalLM.from_pretrained(DEMO, { attn_implementation: "eager" });
    const encoded = tokenizer("And God said");
    assertEquals(tokens.map(({ id }: { id: number }) => id), tokenizer.encode("And God said"));
    const output = await model.forward({ input_ids: encoded.input_ids, output_attentions: true });
    for (const { layer_index, head, weights } of attention) {
      const all = await output.attentions![layer_index]!.tolist() as number[][][][];
      const causal = all[0]![head]!.map((row, q) => row.map((w, k) => k > q ? null : w));
      assertEquals(weights, causal);
    }
    disposeAll(output);
    disposeAll(encoded);
  }
  assertEquals(liveBuffers(), 0);
});

Deno.test("attune attention: --top names the keys with most weight, in order", async () => {
  const { stdout } = await run("In the beginning God", "--top", "2");
  const { attention: [{ weights }] } = JSON.parse((await run("In the beginning God", "--json")).stdout);
  const last = weights[3] as number[];
  const best = last.map((_, k) => k).sort((i, j) => last[j]! - last[i]!).slice(0, 2);
  const shown = stdout.split("\n").find((line) => line.includes("3 ␣God ←"))!;
  assertEquals([...shown.matchAll(/\((\d+) /g)].map((m) => Number(m[1])), best);
});

Deno.test("attune attention: pictures", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const [png, svg] = [`${folder}/a.png`, `${folder}/a.svg`];
    const { code } = await run("In the\n", "--head", "all", "--png", png, "--svg", svg);
    assertEquals(code, 0);
    const { width, height, data, channels } = decode(await Deno.readFile(png));
    assertEquals([channels, data.length], [3, width * height * 3]);
    // The first token sees itself only: the whole weight, the brightest colour.
    const bright = viridis(1).join();
    let found = 0;
    for (let i = 0; i < data.length; i += 3) if (data.subarray(i, i + 3).join() === bright) found++;
    assert(found >= 4 * 17 * 17, `${found} pixels have the colour of weight 1`);
    const text = await Deno.readTextFile(svg);
    for (const label of ["In", "␣the", "\\n", "layers.0, head 3"]) {
      assertStringIncludes(text, `>${label}</text>`);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("attune attention: what is not there is code 1, wrong usage code 2", async () => {
  const layer = await run("In", "--layer", "9");
  assertEquals([layer.code, layer.stderr], [1, "Cannot show attention layer 9: the model has layers 0…5\n"]);
  assertEquals((await run("In", "--head", "first")).code, 2);
  assertEquals((await run("In", "--top", "0")).code, 2);
  assertEquals(liveBuffers(), 0);
});
