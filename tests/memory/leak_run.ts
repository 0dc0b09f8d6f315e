/**
 * Run by leak_test.ts in a process of its own, with the garbage collector within reach: steps of generation, with a
 * swap every fifth. Prints JSON lines of the memory in use, every 20 steps.
 *
 * @module
 */
import { AutoModelForCausalLM, type DeviceName, liveBuffers, type Streamer, Tensor } from "../../mod.ts";

const [folder, device, count] = Deno.args as [string, DeviceName, string];
const gc = (globalThis as { gc?: () => void }).gc;
if (gc === undefined) throw new Error("run with --v8-flags=--expose-gc");

const NAMES = ["sdpa", "eager", "flash_attention_2"];
const STEPS = Number(count), STEPS_A_CALL = 20, STEPS_A_SWAP = 5;

const model = await AutoModelForCausalLM.from_pretrained(folder, { device });
let step = 0;
const streamer: Streamer = {
  put: async () => {
    if (++step % STEPS_A_SWAP === 0) {
      await model.set_attn_implementation(NAMES[step / STEPS_A_SWAP % NAMES.length]!);
    }
  },
  end: () => {},
};
while (step < STEPS) {
  using input_ids = Tensor.from([[3, 41, 19, 10, 47, 6, 12, 36]], { dtype: "int64" });
  (await model.generate({ input_ids, max_new_tokens: STEPS_A_CALL, streamer }))[Symbol.dispose]();
  // Twice, with a turn between: finalizers run on the first.
  gc();
  await new Promise((resolve) => setTimeout(resolve, 0));
  gc();
  const { heapUsed, external } = Deno.memoryUsage();
  console.log(
    JSON.stringify({ step, heap: heapUsed + external, engine: model.memory.bytes, live: liveBuffers() }),
  );
}
await model.dispose();
console.log(JSON.stringify({ step, swaps: step / STEPS_A_SWAP, live: liveBuffers() }));
