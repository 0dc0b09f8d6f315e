/**
 * What a token costs on WebGPU: launches, submits, readbacks and buffers, counted.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { AutoModelForCausalLM } from "../../mod.ts";
import type { WebGpuDevice } from "../../src/devices/webgpu/device.ts";
import { DEMO, ids, reportSkipped, rowsOf, withGpu } from "../models/support.ts";

const PROMPT = [[21, 6, 49, 10, 35, 11, 23]];
const LAYERS = 6;

/** Launches of a token outside of layers: embedding, norm, head, argmax. */
const OUTSIDE = 10;
/** Most launches of a layer by implementation; attention is one of flash, or product, softmax and product. */
const IN_LAYER: Readonly<Record<string, number>> = { eager: 18, sdpa: 18, flash_attention_2: 16 };

interface Cost {
  readonly dispatches: number;
  readonly submits: number;
  readonly readbacks: number;
}

/** Linear layers in a layer: with quantised weights each also rounds its rows. */
const LINEAR = 7;
const CASES = [
  ...Object.entries(IN_LAYER).map(([name, most]) => [name, {}, most] as const),
  ["sdpa", { quantization: "int8" }, IN_LAYER["sdpa"]! + LINEAR],
  ["flash_attention_2", { quantization: "int4", kv_dtype: "int8" }, IN_LAYER["flash_attention_2"]! + LINEAR],
] as const;

for (const [attn_implementation, types, most] of CASES) {
  const name = [attn_implementation, ...Object.entries(types).map(String)].join(" ");
  withGpu(`${name}: launches, submits and readbacks of a token are bounded`, async () => {
    await using model = await AutoModelForCausalLM.from_pretrained(DEMO, {
      attn_implementation,
      device: "webgpu",
      ...types,
    });
    const device = model.deviceHandle as WebGpuDevice;
    for (
      const options of [{}, { do_sample: true, seed: 3, top_k: 5, top_p: 0.9, temperature: 0.8, min_p: 0.01 }]
    ) {
      const steps: Cost[] = [];
      const buffers: number[] = [];
      const streamer = {
        put: () => {
          steps.push({ ...device.stats });
          buffers.push(device.buffers);
        },
        end: () => {},
      };
      using input_ids = ids(PROMPT);
      const chosen = await rowsOf(
        await model.generate({ input_ids, max_new_tokens: 10, eos_token_id: null, streamer, ...options }),
      );
      assertEquals(chosen[0]!.length, PROMPT[0]!.length + 10);
      const costs = steps.slice(1).map((now, i) => ({
        dispatches: now.dispatches - steps[i]!.dispatches,
        submits: now.submits - steps[i]!.submits,
        readbacks: now.readbacks - steps[i]!.readbacks,
      }));
      // The first tokens have one more reading, which looks for NaN, and kernels of their own.
      const settled = costs.slice(2);
      for (const { dispatches, submits, readbacks } of settled) {
        assert(dispatches <= LAYERS * most + OUTSIDE, `${dispatches} launches`);
        assertEquals(submits, 1, "a step and the reading of its result go together");
        assertEquals(readbacks, 1, "nothing but the choice of a token is read");
      }
      // What loading has left in the pool may still go meanwhile.
      assert(buffers.at(-1)! <= buffers[4]!, `buffers ${buffers}`);
    }
  });
}

reportSkipped();
