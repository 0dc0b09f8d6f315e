/**
 * The demo: loads the shipped model, generates, swaps the attention backend in the middle, and shows that every
 * backend gives the same tokens.
 *
 * @module
 */
import { Command, InvalidArgumentError } from "npm:commander@14.0.3";
import {
  type AttentionFunction,
  AttentionInterface,
  AttentionMaskInterface,
  AutoModelForCausalLM,
  AutoTokenizer,
  device,
  DeviceUnavailable,
  eager_mask,
  ops,
  type PreTrainedModel,
  Tensor,
  TextStreamer,
  type Tokenizer,
} from "../mod.ts";
import { measure, type Row, showTable } from "./measure.ts";
import { oracleLogits } from "./oracle.ts";
import { drawAttention, drawMask } from "./draw.ts";

const MODEL = new URL("../tests/models/demo", import.meta.url);

/** An attention function of our own, written in TypeScript: it runs on the CPU and on the GPU. */
const my_attention: AttentionFunction = (module, query, key, value, attention_mask, { scaling }) => {
  const k = ops.repeat_kv(key, module.num_key_value_groups);
  const v = ops.repeat_kv(value, module.num_key_value_groups);
  let scores = ops.mul(ops.matmul(query, k, { transpose_b: true }), scaling ?? module.scaling);
  if (attention_mask instanceof Tensor) scores = ops.add(scores, attention_mask);
  const weights = ops.softmax(scores);
  return [ops.transpose(ops.matmul(weights, v), 1, 2), weights];
};
AttentionInterface.register("my_attention", my_attention);
AttentionMaskInterface.register("my_attention", eager_mask);

/** Where the generation goes, leg by leg. */
interface Leg {
  readonly implementation: string;
  readonly device: "wasm" | "webgpu";
}

const color = (code: number, text: string) =>
  Deno.noColor || !Deno.stdout.isTerminal() ? text : `\x1b[${code}m${text}\x1b[0m`;

function print(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(text));
}

async function main(options: { prompt: string; tokens: number; gpu: boolean }): Promise<void> {
  const started = performance.now();
  const tokenizer = await AutoTokenizer.from_pretrained(MODEL);
  await using model = await AutoModelForCausalLM.from_pretrained(MODEL, { attn_implementation: "eager" });
  const { description } = await device("wasm");
  console.log(
    `Loaded ${(model.num_parameters / 1e6).toFixed(1)} M parameters in ${
      (performance.now() - started).toFixed(0)
    } ms (${description}).`,
  );
  const gpu = options.gpu ? await probeGpu() : "left out by --no-gpu.";
  const legs: Leg[] = ["eager", "sdpa", "flash_attention_2", "my_attention"].map((implementation) => ({
    implementation,
    device: "wasm",
  }));
  if (gpu === null) legs.push({ implementation: "flash_attention_2", device: "webgpu" });
  else console.log(`No WebGPU leg: ${gpu}`);

  const tokens = await relay(model, tokenizer, legs, options);
  const { input_ids } = tokenizer(options.prompt);
  using ids = input_ids;
  const prompt = Array.from(await ids.data(), Number);
  const oracle = await oracleLogits(MODEL, prompt);
  console.log("\nEach backend alone, from the same prompt:\n");
  const rows: Row[] = [];
  for (const leg of legs) {
    await model.set_attn_implementation(leg.implementation);
    await model.to(leg.device);
    rows.push(await measure(model, { prompt, expected: tokens, oracle }));
  }
  showTable(rows);
  await model.to("wasm");
  await drawAttention(model, tokenizer, prompt);
  drawMask(prompt.length);
  if (rows.some((row) => !row.sameTokens)) {
    throw new Error('The backends disagree: see the column "same tokens"');
  }
  console.log(`\nAll ${rows.length} backends generated the same ${tokens.length - prompt.length} tokens.`);
}

/** One generation that changes its backend after every leg, keeping the cache. Returns prompt and new tokens. */
async function relay(
  model: PreTrainedModel,
  tokenizer: Tokenizer,
  legs: readonly Leg[],
  options: { prompt: string; tokens: number },
): Promise<number[]> {
  const { input_ids } = tokenizer(options.prompt);
  using ids = input_ids;
  const text = new TextStreamer(tokenizer, { write: print });
  const perLeg = Math.ceil(options.tokens / legs.length);
  let made = 0;
  console.log(`\n${color(36, `[${legs[0]!.implementation}]`)} ${color(1, options.prompt)}`);
  const streamer = {
    async put(step: number[]) {
      await text.put(step);
      made++;
      const leg = legs[made / perLeg];
      if (leg === undefined || made === options.tokens) return;
      await model.to(leg.device);
      await model.set_attn_implementation(leg.implementation);
      print(`\n${color(36, `[${leg.implementation} on ${leg.device}]`)}`);
    },
    end: () => text.end(),
  };
  using output = await model.generate({
    input_ids: ids,
    max_new_tokens: options.tokens,
    eos_token_id: null,
    streamer,
  });
  console.log();
  await model.to("wasm");
  return Array.from(await output.data(), Number);
}

/** Null when a GPU answers, else why not. */
async function probeGpu(): Promise<string | null> {
  try {
    console.log(`WebGPU adapter: ${(await device("webgpu")).description}.`);
    return null;
  } catch (error) {
    if (error instanceof DeviceUnavailable) return error.message;
    throw error;
  }
}

const program = new Command("demo")
  .description(
    "Generates with the shipped model while the attention backend changes, and compares the backends.",
  )
  .option("-p, --prompt <text>", "what to continue", "In the beginning God created")
  .option("-n, --tokens <number>", "tokens to generate", (text) => {
    const n = Number(text);
    if (!Number.isInteger(n) || n < 5 || n > 400) {
      throw new InvalidArgumentError("expected an integer from 5 to 400");
    }
    return n;
  }, 60)
  .option("--no-gpu", "leave WebGPU out")
  .addHelpText(
    "after",
    '\nExamples:\n  deno task demo\n  deno task demo --prompt "And it came to pass" --tokens 100',
  );
program.parse(Deno.args, { from: "user" });
await main(program.opts<{ prompt: string; tokens: number; gpu: boolean }>());
