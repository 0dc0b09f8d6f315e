/**
 * One backend's figures.
 *
 * @module
 */
import { type PreTrainedModel, Tensor } from "../mod.ts";

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

/** Measures the model as it is configured now: speed once it is warm, memory, error, and whether the tokens agree. */
export async function measure(model: PreTrainedModel, task: Task): Promise<Row> {
  const { prompt, expected } = task;
  const { tokens, perSecond } = await generate(model, prompt, expected.length - prompt.length);
  const long = Array.from({ length: PREFILL }, (_, i) => expected[i % expected.length]!);
  const prefill = await shortest(() => forwardOnce(model, long)) / 1000;
  return {
    implementation: model.config._attn_implementation ?? "",
    device: model.device,
    prefill: PREFILL / prefill,
    decode: perSecond,
    peak: model.memory.peak,
    difference: await maxDifference(model, task),
    sameTokens: tokens.every((t, i) => t === expected[i]) && tokens.length === expected.length,
  };
}

/** Generates `count` tokens; the speed is that of the second half, when kernels are compiled and optimised. */
async function generate(
  model: PreTrainedModel,
  prompt: readonly number[],
  count: number,
): Promise<{ tokens: number[]; perSecond: number }> {
  using ids = Tensor.from([prompt], { dtype: "int32" });
  const times: number[] = [];
  const streamer = { put: () => void times.push(performance.now()), end: () => {} };
  using output = await model.generate({
    input_ids: ids,
    max_new_tokens: count,
    eos_token_id: null,
    streamer,
  });
  const late = times.slice(Math.floor(times.length / 2));
  const perSecond = (late.length - 1) / ((late.at(-1)! - late[0]!) / 1000);
  return { tokens: Array.from(await output.data(), Number), perSecond };
}

async function forwardOnce(model: PreTrainedModel, prompt: readonly number[]): Promise<void> {
  using ids = Tensor.from([prompt], { dtype: "int32" });
  const { logits } = await model.forward({ input_ids: ids, use_cache: false, logits_to_keep: 1 });
  // Reading is what waits for a GPU.
  await logits!.data();
  logits![Symbol.dispose]();
}

/** Shortest of up to four runs within two seconds, in milliseconds. The first one warms up. */
async function shortest(run: () => Promise<void>): Promise<number> {
  const began = performance.now();
  let least = Infinity;
  for (let i = 0; i < 4 && (i < 2 || performance.now() - began < 2000); i++) {
    const start = performance.now();
    await run();
    least = Math.min(least, performance.now() - start);
  }
  return least;
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
