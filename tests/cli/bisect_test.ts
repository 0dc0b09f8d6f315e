import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { decode } from "npm:fast-png@8.0.0";
import { liveBuffers } from "../../mod.ts";
import { heatmapsToPixels } from "../../src/draw/raster.ts";
import { DEMO, DEVICES } from "../models/support.ts";
import { deviceTest, reportSkips } from "../support/devices.ts";
import { panels } from "../../src/cli/bisect.ts";
import { type Io, main } from "../../src/cli/main.ts";
import { attune, FakeIo } from "./fake_io.ts";

const run = (...args: string[]) => attune(["bisect", DEMO, ...args]);

/** A file with a module as users write it: right but for head 2 of layer 1, from token 5 on. */
async function faulty(): Promise<{ file: string } & AsyncDisposable> {
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(
    file,
    `import { AttentionInterface, AttentionMaskInterface, ops, sdpa_attention_forward, sdpa_mask, Tensor } from ${
      JSON.stringify(new URL("../../mod.ts", import.meta.url).href)
    };
AttentionInterface.register("faulty", (module, query, key, value, mask, kwargs) => {
  const right = sdpa_attention_forward(module, query, key, value, mask, kwargs);
  if (module.layer_idx !== 1) return right;
  const [wrong] = sdpa_attention_forward(module, query, key, value, mask, { ...kwargs, scaling: 0.3 });
  const first = key.shape[2]! - query.shape[2]!;
  const where = Array.from({ length: query.shape[2]! }, (_, q) => [0, 1, 2, 3].map((h) => [first + q >= 5 && h === 2]));
  return [ops.where(Tensor.from([where]), wrong, right[0]), right[1]];
});
AttentionMaskInterface.register("faulty", sdpa_mask);
`,
  );
  return { file, [Symbol.asyncDispose]: () => Deno.remove(file) };
}

Deno.test("attune bisect: says that two implementations agree, and within what", async () => {
  const { code, stdout, stderr } = await run("--a", "eager", "--b", "flash_attention_2", "--new-tokens", "2");
  assertEquals([code, stderr], [0, ""]);
  assertStringIncludes(stdout, "a: eager on wasm\nb: flash_attention_2 on wasm\n");
  assertStringIncludes(stdout, "tolerance over the same inputs: 2.0e-5·max|value| + 2.0e-5·|element|");
  assertStringIncludes(stdout, "AGREE: 14 tokens in 3 forwards, 6 layers, all heads");
  assertStringIncludes(stdout, "both choose the same tokens");
  assertEquals(stdout.match(/^layers\.\d\.self_attn .* agrees$/gm)?.length, 6);
  assertEquals(liveBuffers(), 0);
});

Deno.test("attune bisect: finds the token, layer and head of a fault in a module of the user's", async () => {
  await using module = await faulty();
  const { file } = module, png = `${file}.png`;
  const found = await run("--a", "eager", "--b", "faulty", "--import", file, "--png", png);
  assertEquals(found.code, 3);
  assertStringIncludes(
    found.stdout,
    "DIFFER first at token 5 (ed), layers.1.self_attn, head 2, in the prompt",
  );
  assertStringIncludes(found.stdout, "Made by this layer's attention");
  assertStringIncludes(
    found.stdout,
    "a received a float32 tensor of shape [1,1,12,12], added to the scores",
  );
  assertStringIncludes(found.stdout, "b received null");
  assert(/^q +5 .*← here$/m.test(found.stdout));
  const verdicts = [...found.stdout.matchAll(/^layers\.\d.* (\w+)$/gm)].map((m) => m[1]);
  assertEquals(verdicts, ["agrees", "differs", ...new Array(4).fill("inherited")]);
  const { width, height, data } = decode(await Deno.readFile(png));
  assertEquals(data.length, 3 * width * height);
  await Deno.remove(png);
  const json = await run(
    "--a",
    "sdpa",
    "--b",
    "faulty",
    "--json",
    "--prompt",
    "And God said, Let there be",
  );
  const { agree, divergence, layers } = JSON.parse(json.stdout);
  assertEquals([json.code, agree, layers.length], [3, false, 6]);
  assertEquals([divergence.position, divergence.layer_index, divergence.head], [5, 1, 2]);
  assertEquals(liveBuffers(), 0);
});

Deno.test("attune bisect: the picture says of the masks what the text says", async () => {
  await using module = await faulty();
  const args = ["--a", "eager", "--b", "faulty", "--import", module.file];
  const { stdout } = await run(...args);
  const found = JSON.parse((await run(...args, "--json")).stdout);
  const titles = panels(found, String).slice(1).map(({ title }) => title);
  assertEquals(titles, stdout.split("\n").filter((line) => / received /.test(line)));
  assertStringIncludes(titles[1]!, "b received null: the flags of the call say the rest (is_causal=true)");
  // What nobody else can read has a title and no cells.
  found.divergence.mask_b = { words: "a mask of its own", drawing: null, window: null, visible: null };
  const hidden = panels(found, String)[2]!;
  assertEquals(hidden.title, "b received a mask of its own (only its receiver can read it)");
  assertEquals(hidden.values.length, 0);
  assert(heatmapsToPixels(panels(found, String)).height > 0);
});

Deno.test("attune bisect: a tolerance that is given counts", async () => {
  await using module = await faulty();
  const args = [
    "--a",
    "sdpa",
    "--b",
    "faulty",
    "--import",
    module.file,
    "--atol",
    "1000",
    "--new-tokens",
    "0",
  ];
  const wide = await run(...args);
  assertEquals(wide.code, 0);
  assertStringIncludes(wide.stdout, "tolerance over the same inputs: 1.0e+3 + 2.0e-5·|element|\n");
  assertStringIncludes(wide.stdout, "AGREE: 12 tokens in 1 forwards");
});

Deno.test("attune bisect: what cannot be compared is code 1, wrong usage code 2; the help names all codes", async () => {
  const unknown = await run("--b", "nope");
  assertEquals(unknown.code, 1);
  assertStringIncludes(unknown.stderr, 'attn_implementation="nope"');
  assertEquals((await run("--atol", "-1")).code, 2);
  assertEquals((await run("--device-a", "abacus")).code, 2);
  assertStringIncludes(
    (await run("--help")).stdout,
    "0 they agree, 3 they differ, 1 they could not be compared",
  );
  assertEquals(liveBuffers(), 0);
});

Deno.test("attune bisect: Ctrl-C ends it with code 130, and nothing stays behind", async () => {
  const io = new FakeIo({ terminal: { stderr: true } });
  const watched: Io = {
    ...io,
    width: io.width,
    signal: io.signal,
    onInterrupt: (handler) => io.onInterrupt(handler),
    lines: () => io.lines(),
    writeNote(text) {
      io.writeNote(text);
      if (text.includes("forward 2 of 5, side b")) io.interrupt();
    },
  };
  const code = await main(["bisect", DEMO, "--a", "eager", "--b", "flash_attention_2"], watched);
  assertEquals([code, io.stdout, io.signal.aborted], [130, "", true]);
  assertEquals(liveBuffers(), 0);
});

const gpu = DEVICES.find(({ name }) => name === "webgpu")!;
deviceTest(gpu, "attune bisect: the CPU and the GPU agree", async () => {
  const { code, stdout } = await run("--device-a", "wasm", "--device-b", "webgpu", "--new-tokens", "1");
  assertEquals(code, 0, stdout);
  assertStringIncludes(stdout, "b: sdpa on webgpu");
});

reportSkips();
