/**
 * One backend's figures.
 *
 * @module
 */
import { DynamicCache, type PreTrainedModel, Tensor } from "../mod.ts";

/** A row of the closing table. */
export interface Row {
  readonly implementation: string;
  readonly device: string;
  readonly prefill: number;
  readonly decode: number;
  readonly peak: number;
  readonly difference: number;
  readonly sameTokens: boolean;
}

/** What the backends are compared by. */
export interface Task {
  readonly prompt: readonly number[];
  /** Prompt and the tokens that should follow. */
  readonly expected: readonly number[];
  /** Logits of the prompt in float64. */
  readonly oracle: readonly Float64Array[];
}

const PREFILL = 256;

/** Measures the model as it is configured now: speed after a warm-up, memory, error, and whether the tokens agree. */
export async function measure(model: PreTrainedModel, task: Task): Promise<Row> {
  const { prompt, expected } = task;
  const count = expected.length - prompt.length;
  const tokens = await generate(model, prompt, count);
  const long = Array.from({ length: PREFILL }, (_, i) => expected[i % expected.length]!);
  const prefill = await best(3, () => forwardOnce(model, long)) / 1000;
  const decode = await decodeSpeed(model, prompt, count);
  return {
    implementation: model.config._attn_implementation ?? "",
    device: model.device,
    prefill: PREFILL / prefill,
    decode,
    peak: model.memory.peak,
    difference: await maxDifference(model, task),
    sameTokens: tokens.every((t, i) => t === expected[i]) && tokens.length === expected.length,
  };
}

async function generate(model: PreTrainedModel, prompt: readonly number[], count: number): Promise<number[]> {
  using ids = Tensor.from([prompt], { dtype: "int32" });
  using output = await model.generate({ input_ids: ids, max_new_tokens: count, eos_token_id: null });
  return Array.from(await output.data(), Number);
}

async function forwardOnce(model: PreTrainedModel, prompt: readonly number[]): Promise<void> {
  using ids = Tensor.from([prompt], { dtype: "int32" });
  const { logits } = await model.forward({ input_ids: ids, use_cache: false, logits_to_keep: 1 });
  // Reading is what waits for a GPU.
  await logits!.data();
  logits![Symbol.dispose]();
}

async function decodeSpeed(
  model: PreTrainedModel,
  prompt: readonly number[],
  count: number,
): Promise<number> {
  using ids = Tensor.from([prompt], { dtype: "int32" });
  using past_key_values = new DynamicCache();
  const times: number[] = [];
  const streamer = { put: () => void times.push(performance.now()), end: () => {} };
  using _output = await model.generate({
    input_ids: ids,
    max_new_tokens: count,
    eos_token_id: null,
    past_key_values,
    streamer,
  });
  return (times.length - 1) / ((times.at(-1)! - times[0]!) / 1000);
}

/** Shortest of several runs, in milliseconds. */
async function best(rounds: number, run: () => Promise<void>): Promise<number> {
  let shortest = Infinity;
  for (let i = 0; i < rounds; i++) {
    const start = performance.now();
    await run();
    shortest = Math.min(shortest, performance.now() - start);
  }
  return shortest;
}

async function maxDifference(model: PreTrainedModel, { prompt, oracle }: Task): Promise<number> {
  using ids = Tensor.from([prompt], { dtype: "int32" });
  const { logits } = await model.forward({ input_ids: ids, use_cache: false });
  const values = await logits!.data() as Float32Array;
  logits![Symbol.dispose]();
  const width = oracle[0]!.length;
  return oracle.reduce(
    (most, row, t) => row.reduce((m, v, i) => Math.max(m, Math.abs(v - values[t * width + i]!)), most),
    0,
  );
}

/** Prints the rows. */
export function showTable(rows: readonly Row[]): void {
  const cells = [
    [
      "backend",
      "device",
      "prefill tok/s",
      "decode tok/s",
      "peak memory",
      "max logit diff to f64",
      "same tokens",
    ],
    ...rows.map((r) => [
      r.implementation,
      r.device,
      r.prefill.toFixed(0),
      r.decode.toFixed(0),
      `${(r.peak / 2 ** 20).toFixed(1)} MiB`,
      r.difference.toExponential(1),
      r.sameTokens ? "yes" : "NO",
    ]),
  ];
  const widths = cells[0]!.map((_, c) => Math.max(...cells.map((row) => row[c]!.length)));
  const line = (row: string[]) =>
    row.map((cell, c) => c < 2 ? cell.padEnd(widths[c]!) : cell.padStart(widths[c]!)).join("  ");
  console.log(
    [line(cells[0]!), widths.map((w) => "─".repeat(w)).join("  "), ...cells.slice(1).map(line)].join("\n"),
  );
}
