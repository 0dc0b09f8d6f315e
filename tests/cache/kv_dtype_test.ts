/**
 * Caches in fewer bits: rounding, attention to it, and the same bits on every device.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import {
  AutoModelForCausalLM,
  type Cache,
  DynamicCache,
  type KvDType,
  load_cache,
  PretrainedConfig,
  save_cache,
  StaticCache,
  Tensor,
} from "../../mod.ts";
import type { Device, DeviceName, View } from "../../src/devices/device.ts";
import { DEMO, everywhere, ids, reportSkipped, withGpu } from "../models/support.ts";
import { ATTENTION_CASES, type AttentionCase, prepareAttention } from "../support/attention_cases.ts";
import { deviceTest, reportSkips, testDevices } from "../support/devices.ts";
import { inFolder } from "../support/folders.ts";
import { seeded } from "../support/random.ts";
import { assertClose, assertSameBits, toleranceOf } from "../support/tolerance.ts";
import { Bench } from "../support/views.ts";

/** Integers and scale of a row, by exact division. */
function roundedRow(row: Float64Array): { integers: number[]; scale: number } {
  const most = row.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
  const scale = Math.fround(most / 127);
  const integers = Array.from(row, (v) => {
    if (scale === 0) return 0;
    const x = Math.min(127, Math.fround(Math.abs(v) / scale)), low = Math.floor(x);
    const up = x - low > 0.5 || (x - low === 0.5 && low % 2 === 1);
    return Math.sign(v) * (low + Number(up)) + 0;
  });
  return { integers, scale };
}

/** int8 keys or values as a cache of some capacity holds them. */
function quantisedView(bench: Bench, x: View): View {
  const [b, h, n, d] = x.shape as [number, number, number, number];
  const layout = { spare: [0, 0, 5, 0] };
  const view = bench.empty([b, h, n, d], "int8", layout);
  const scales = bench.empty([b, h, n, 1], "float32", layout);
  bench.device.kernels.quantize(x, view, scales);
  return { ...view, scales };
}

/** The floats an int8 view stands for. */
function floatsOf(bench: Bench, { scales, ...view }: View): View {
  const integers = bench.empty(view.shape), out = bench.empty(view.shape);
  bench.device.kernels.unary("copy", view, integers);
  const by = { ...scales!, shape: view.shape, strides: [...scales!.strides.slice(0, 3), 0] };
  bench.device.kernels.binary("mul", integers, by, out);
  return out;
}

/** Rows of the table: all on the CPU, some of every kind on a GPU, where each is kernels to compile. */
function casesFor(device: DeviceName): AttentionCase[] {
  const whole = ATTENTION_CASES.filter((row) => row.kv === undefined || row.kv === "float32");
  return device === "wasm" ? whole : whole.filter((_, i) => i % 6 === 0);
}

for (const on of await testDevices({ every_build: true })) {
  deviceTest(on, "rows become the integers and scales of exact division, bit for bit", async (device) => {
    for (const D of [4, 33, 64, 300]) {
      for (const dtype of ["float32", "float16", "bfloat16"] as const) {
        using bench = new Bench(device);
        const shape = [2, 3, 5, D], random = seeded(`${D} ${dtype}`);
        const numbers = random.normal(30 * D).map((v, i) => v * 2 ** (Math.floor(i / D) % 13 - 6));
        numbers.fill(0, 0, D);
        // As projected: heads within tokens.
        const x = bench.place(shape, numbers, dtype, { order: [0, 2, 1, 3], offset: 2 });
        const out = bench.empty(shape, "int8", { spare: [0, 0, 3, 0], offset: D === 33 ? 1 : 0 });
        const scales = bench.empty([2, 3, 5, 1], "float32", { spare: [0, 0, 3, 0] });
        device.kernels.quantize(x.view, out, scales);
        const [q, s] = [await bench.read(out), await bench.read(scales)];
        for (let row = 0; row < 30; row++) {
          const { integers, scale } = roundedRow(x.values.subarray(row * D, row * D + D));
          assertEquals([...q.subarray(row * D, row * D + D)], integers, `${dtype}, D ${D}, row ${row}`);
          assertEquals(s[row], scale);
        }
        const around = await bench.readStorage(out);
        for (let head = 0; head < 6; head++) {
          const from = out.offset + (head * 8 + 5) * D;
          assert(around.subarray(from, from + 3 * D).every((v) => v === 77), "what is not written stays");
        }
      }
    }
  });

  deviceTest(on, "a row that is not finite has scale NaN", async (device) => {
    using bench = new Bench(device);
    const x = bench.place([1, 1, 4, 4], [1, NaN, 2, 3, 1, Infinity, 0, 0, 1, 2, 3, -Infinity, 1, 2, 3, 4]);
    const { scales, ...view } = quantisedView(bench, x.view);
    assertEquals([...await bench.read(scales!)].map(Number.isNaN), [true, true, true, false]);
    assertEquals([...await bench.read(view)].slice(0, 12), Array(12).fill(0));
  });

  for (const algorithm of ["eager", "flash"] as const) {
    for (const row of casesFor(on.name)) {
      deviceTest(on, `attention to int8, ${algorithm}: ${row.name}`, async (device: Device) => {
        using bench = new Bench(device);
        const { call } = prepareAttention(bench, algorithm, row);
        const key = quantisedView(bench, call.key), value = quantisedView(bench, call.value);
        device.kernels.attention({ ...call, key, value });
        const results = [call.out, call.lse, call.weights].filter((view) => view !== null);
        const actual: Float64Array[] = [];
        for (const view of results) actual.push(await bench.read(view));
        device.kernels.attention({ ...call, key: floatsOf(bench, key), value: floatsOf(bench, value) });
        for (const [i, view] of results.entries()) {
          assertClose(actual[i]!, await bench.read(view), toleranceOf(`attention_${algorithm}`, on.name));
        }
      });
    }
  }
}

/** Everything a cache gives out in the course of some calls. */
async function states(cache: Cache, device: DeviceName): Promise<number[]> {
  const seen: number[] = [];
  const random = seeded(5);
  const add = async (n: number, batch: number) => {
    for (let layer = 0; layer < 2; layer++) {
      using key = Tensor.from(random.normal(batch * 2 * n * 6), { shape: [batch, 2, n, 6], device });
      using value = Tensor.from(random.normal(batch * 2 * n * 6), { shape: [batch, 2, n, 6], device });
      for (const t of cache.update(key, value, layer)) {
        seen.push(...await t.data() as Float32Array);
        t[Symbol.dispose]();
      }
    }
  };
  await add(3, 2);
  await add(70, 2);
  await add(1, 2);
  using rows = Tensor.from([1, 0, 1]);
  cache.reorder_cache(rows);
  await add(2, 3);
  return seen;
}

const TOKENS = [21, 6, 49, 10, 35, 11, 23, 8];

type Model = Awaited<ReturnType<typeof AutoModelForCausalLM.from_pretrained>>;

/** Logits of some tokens, computed with what the cache has of those before. */
async function part(model: Model, cache: Cache, from: number, to: number): Promise<Float32Array> {
  using input_ids = ids([TOKENS.slice(from, to)]);
  const output = await model.forward({ input_ids, past_key_values: cache });
  using result = output.logits!;
  return await result.data() as Float32Array;
}

/** Logits of all tokens, three parts of them, each on a device; disposes the cache. */
async function logits(
  model: Model,
  cache: Cache,
  places: readonly DeviceName[] = [],
): Promise<Float32Array> {
  const all: number[] = [];
  for (const [i, [from, to]] of ([[0, 3], [3, 6], [6, 8]] as const).entries()) {
    if (places[i] !== undefined) await model.to(places[i]);
    all.push(...await part(model, cache, from, to));
  }
  cache[Symbol.dispose]();
  return Float32Array.from(all);
}

/** Asserts that logits differ by what rounding of keys and values costs, in the root mean square. */
function assertNear(actual: ArrayLike<number>, expected: Float32Array, kv_dtype: KvDType): void {
  assertEquals(actual.length, expected.length);
  let error = 0, size = 0;
  expected.forEach((x, i) => (error += (x - actual[i]!) ** 2, size += x * x));
  const most = { float32: 1e-5, float16: 1e-3, bfloat16: 1e-2, int8: 2e-2 }[kv_dtype];
  assert(Math.sqrt(error / size) < most, `${Math.sqrt(error / size)}`);
}

const config = (fields: Record<string, unknown>) => new PretrainedConfig({ num_hidden_layers: 2, ...fields });

for (const kv_dtype of ["float16", "bfloat16", "int8"] as const) {
  const caches: Readonly<Record<string, () => Cache>> = {
    dynamic: () => new DynamicCache({ kv_dtype }),
    sliding: () => new DynamicCache({ kv_dtype, config: config({ sliding_window: 40 }) }),
  };
  for (const [kind, make] of Object.entries(caches)) {
    withGpu(`${kv_dtype}, ${kind}: a cache holds the same bits on both devices`, async () => {
      using there = make();
      using here = make();
      assertSameBits(await states(there, "webgpu"), await states(here, "wasm"));
    });
  }

  everywhere(`${kv_dtype}: a model generates with it and says nearly the same`, async (device) => {
    await using model = await AutoModelForCausalLM.from_pretrained(DEMO, { device, kv_dtype });
    await using whole = await AutoModelForCausalLM.from_pretrained(DEMO, { device });
    const expected = await logits(whole, new DynamicCache());
    assertNear(await logits(model, new DynamicCache({ kv_dtype })), expected, kv_dtype);
    const room = new StaticCache({ config: model.config, max_cache_len: 16, kv_dtype });
    assertNear(await logits(model, room), expected, kv_dtype);
    using input_ids = ids([TOKENS]);
    using tokens = await model.generate({ input_ids, max_new_tokens: 70, eos_token_id: null });
    assertEquals(tokens.shape, [1, TOKENS.length + 70]);
    using beams = await model.generate({ input_ids, max_new_tokens: 4, num_beams: 2, eos_token_id: null });
    assertEquals(beams.shape, [1, TOKENS.length + 4]);
  });

  withGpu(`${kv_dtype}: a cache goes to the GPU and back with its model, and through a file`, async () => {
    await using model = await AutoModelForCausalLM.from_pretrained(DEMO, { kv_dtype });
    const expected = await logits(model, new DynamicCache({ kv_dtype }));
    const places = ["wasm", "webgpu", "wasm"] as const;
    assertNear(await logits(model, new DynamicCache({ kv_dtype }), places), expected, kv_dtype);
    await inFolder(async (folder) => {
      using cache = new DynamicCache({ kv_dtype });
      await model.to("webgpu");
      const first = await part(model, cache, 0, 5);
      await save_cache(cache, `${folder}/cache.safetensors`);
      const { past_key_values: again } = await load_cache(`${folder}/cache.safetensors`, {
        device: "webgpu",
      });
      assertEquals(again.kv_dtype, kv_dtype);
      assertNear([...first, ...await part(model, again, 5, 8)], expected, kv_dtype);
      again[Symbol.dispose]();
    });
  });
}

reportSkips();
reportSkipped();
