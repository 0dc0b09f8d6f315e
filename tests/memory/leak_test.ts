/**
 * Memory over a long life: generation and swaps leave nothing, and a model's memory serves the next one.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { PretrainedConfig } from "../../mod.ts";
import { layoutSafetensors } from "../../src/hub/safetensors_write.ts";
import { DEVICES, LLAMA, llamaShapes } from "../models/support.ts";

/** Most bytes a step may add. */
const BYTES_A_STEP = 1024;
/** Most resident memory after many loads, relative to that after one. */
const GROWTH = 1.2;

async function run(script: string, flags: string[], args: string[]): Promise<Record<string, number>[]> {
  const url = decodeURIComponent(new URL(script, import.meta.url).pathname);
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", ...flags, url, ...args],
  });
  const { success, stdout, stderr } = await command.output();
  const text = new TextDecoder();
  assert(success, text.decode(stderr));
  return text.decode(stdout).trim().split("\n").map((line) => JSON.parse(line) as Record<string, number>);
}

/** Slope of a line through points, by least squares. */
function slope(points: readonly (readonly [x: number, y: number])[]): number {
  const n = points.length, mean = (i: 0 | 1) => points.reduce((s, p) => s + p[i], 0) / n;
  const [mx, my] = [mean(0), mean(1)];
  const covariance = points.reduce((s, [x, y]) => s + (x - mx) * (y - my), 0);
  return covariance / points.reduce((s, [x]) => s + (x - mx) ** 2, 0);
}

/** Tokens of a run. */
const STEPS = 1000;
/** Until then code is compiled and pools fill. */
const WARMUP = 200;

for (const { name: device, skip } of DEVICES) {
  Deno.test({
    name: `${device}: ${STEPS} steps and ${STEPS / 5} swaps add less than 1 KB a step and leave nothing`,
    ignore: skip !== undefined,
    fn: async () => {
      const lines = await run("leak_run.ts", ["--v8-flags=--expose-gc"], [LLAMA, device, String(STEPS)]);
      const last = lines.pop()!;
      assertEquals([last["step"], last["swaps"], last["live"]], [STEPS, STEPS / 5, 0]);
      const warm = lines.filter((l) => l["step"]! > WARMUP);
      assertEquals(new Set(warm.map((l) => l["live"])).size, 1, "the number of live tensors changes");
      const [heap, engine] = (["heap", "engine"] as const).map((of) =>
        slope(warm.map((l) => [l["step"]!, l[of]!]))
      );
      console.log(
        `${device}: ${heap!.toFixed(0)} bytes of heap and ${engine!.toFixed(0)} of device memory a step`,
      );
      assert(heap! + engine! < BYTES_A_STEP, `${heap} + ${engine} bytes a step`);
    },
  });
}

Deno.test("tensors that nobody disposes are given back once they are collected", async () => {
  const [before, after] = await run("dropped_run.ts", ["--v8-flags=--expose-gc"], []);
  assert(before!["live"]! > 0);
  assertEquals(after, { live: 0 });
});

Deno.test("20 loads of a model of 800 MB need little more memory than one", async () => {
  const folder = await Deno.makeTempDir({ prefix: "large_llama_" });
  try {
    const fields = {
      model_type: "llama",
      vocab_size: 390_000,
      hidden_size: 1024,
      intermediate_size: 256,
      num_hidden_layers: 1,
      num_attention_heads: 8,
      tie_word_embeddings: true,
    };
    const shapes = [...llamaShapes(new PretrainedConfig(fields))];
    const { head } = layoutSafetensors(
      Object.fromEntries(shapes.map(([name, shape]) => [name, { dtype: "bfloat16", shape }] as const)),
    );
    const bytes = shapes.reduce((n, [, shape]) => n + 2 * shape.reduce((a, b) => a * b, 1), 0);
    assert(bytes >= 800e6 && bytes < 900e6, `${bytes} bytes`);
    // Zeros that take no disk: a file of holes.
    await Deno.writeFile(`${folder}/model.safetensors`, head);
    await Deno.truncate(`${folder}/model.safetensors`, head.length + bytes);
    await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify(fields));
    const lines = await run("reload_run.ts", [], [folder, "20"]);
    const rss = lines.map((l) => l["rss"]!), most = Math.max(...rss);
    const mb = (n: number) => `${(n / 1e6).toFixed(0)} MB`;
    console.log(`resident after one load ${mb(rss[0]!)}, at most ${mb(most)} in ${rss.length} loads`);
    assertEquals([lines.length, lines.at(-1)!["live"]], [20, 0]);
    assert(rss[0]! > bytes, "the weights are in memory");
    assert(most <= GROWTH * rss[0]!, `${mb(most)} against ${mb(rss[0]!)}`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
