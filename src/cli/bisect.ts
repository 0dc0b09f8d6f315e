/**
 * `attune bisect`: where two implementations of attention, or two devices, begin to differ.
 *
 * @module
 */
import { Command, Option } from "npm:commander@14.0.3";
import { encode } from "npm:fast-png@8.0.0";
import { ATTENTION_TOLERANCE, type Tolerance } from "../attention/tolerance.ts";
import type { AttnImplementation } from "../config.ts";
import type { DeviceName } from "../devices/device.ts";
import { axis, type Heatmap } from "../draw/heatmap.ts";
import { tokenLabel } from "../draw/label.ts";
import { heatmapsToPixels } from "../draw/raster.ts";
import { bisect_attention } from "../inspect/bisect.ts";
import type { AttentionBisection } from "../inspect/bisect_types.ts";
import type { ReceivedMask } from "../inspect/mask_at.ts";
import { bisectionText, receivedText } from "./bisect_text.ts";
import { dim, Finished, type Io } from "./io.ts";
import { implementation, loadModel, type ModelOptions, number, withLoading, withSource } from "./model.ts";
import { checkOutputs, writeOutput } from "./output.ts";
import { promptOf } from "./prompt.ts";

/** Exit code of a divergence: neither agreement nor a failure to compare. */
const DIVERGED = 3;
const PROMPT = "In the beginning God created the heaven and the earth.";

/** Options of the command. */
interface BisectFlags extends Omit<ModelOptions, "attn" | "device"> {
  readonly a?: AttnImplementation;
  readonly b?: AttnImplementation;
  readonly deviceA: DeviceName;
  readonly deviceB: DeviceName;
  readonly prompt: string;
  readonly newTokens?: number;
  readonly atol?: number;
  readonly rtol?: number;
  readonly json?: true;
  readonly png?: string;
}

/** The command. */
export function bisectCommand(io: Io): Command {
  const device = (side: string) =>
    new Option(`--device-${side} <name>`, `where side ${side} computes`).choices(["wasm", "webgpu"])
      .default("wasm");
  const float = number({ min: 0 });
  return withLoading(withSource(new Command("bisect")))
    .description("Find the first token, layer and head in which two implementations or devices differ.")
    .option("--a <name>", "attention implementation of side a (default: the model's)", implementation)
    .option("--b <name>", "attention implementation of side b (default: the model's)", implementation)
    .addOption(device("a"))
    .addOption(device("b"))
    .option("-p, --prompt <text>", "the text to run, - is stdin", PROMPT)
    .option(
      "-n, --new-tokens <n>",
      "greedy tokens after it; side a chooses them for both (default: 4)",
      number({ min: 0, integer: true }),
    )
    .option(
      "--atol <x>",
      "absolute tolerance (default: what the devices' kernels may be off, times the layer's largest value)",
      float,
    )
    .option("--rtol <x>", "tolerance relative to the larger of two elements (default: likewise)", float)
    .option(
      "--png <file>",
      "also write a picture: how far every layer is off at every token, and the masks where they differ",
    )
    .option("--json", "print JSON")
    .addHelpText(
      "after",
      `\nExit codes: 0 they agree, ${DIVERGED} they differ, 1 they could not be compared, 2 wrong usage.\n` +
        "\nExamples:\n" +
        "  deno task attune bisect tests/models/demo --a eager --b flash_attention_2\n" +
        "  deno task attune bisect tests/models/demo --device-a wasm --device-b webgpu --new-tokens 8\n" +
        '  deno task attune bisect tests/models/demo --a sdpa --b mine --import ./my_attention.ts --prompt "And God said"',
    )
    .action((model: string, options: BisectFlags) => run(io, model, options));
}

async function run(io: Io, name: string, options: BisectFlags): Promise<void> {
  const { a, b, deviceA, deviceB, newTokens, signal = io.signal } = { ...options, signal: io.signal };
  await checkOutputs(options.png);
  const prompt = await promptOf(io, options.prompt);
  // The names are checked, and switched to, by the comparison.
  await using first = await loadModel(io, name, { ...options, device: deviceA });
  await using second = deviceA === deviceB
    ? null
    : await loadModel(io, name, { ...options, device: deviceB });
  const { tokenizer } = first;
  const { input_ids, attention_mask } = tokenizer(prompt);
  using ids = input_ids;
  using _all = attention_mask;
  const tolerance = toleranceOf(options);
  using status = progress(io);
  const found = await bisect_attention(
    { model: first.model, ...(a === undefined ? {} : { attn_implementation: a }) },
    { model: (second ?? first).model, ...(b === undefined ? {} : { attn_implementation: b }) },
    { input_ids: ids },
    {
      ...(newTokens === undefined ? {} : { max_new_tokens: newTokens }),
      ...(tolerance === null ? {} : { tolerance, run_tolerance: tolerance }),
      signal,
      progress_callback: ({ step, steps, side }) =>
        status.say(`forward ${step + 1} of ${steps}, side ${side}`),
    },
  );
  status.clear();
  const label = (id: number) => tokenLabel(tokenizer.decode([id]), id);
  if (options.png !== undefined) {
    const { width, height, data } = heatmapsToPixels(panels(found, label));
    await writeOutput(options.png, encode({ width, height, data, channels: 3 }));
  }
  if (options.json === true) {
    // JSON has no word for numbers that are none.
    const exact = (_key: string, x: unknown) => typeof x === "number" && !Number.isFinite(x) ? String(x) : x;
    io.print(JSON.stringify({ model: name, agree: found.divergence === null, ...found }, exact, 2));
  } else io.print(bisectionText(found, label));
  if (found.divergence !== null) throw new Finished(DIVERGED);
}

/** What the user gave; the part that was not given is that of the library, as it stands. */
function toleranceOf({ atol, rtol, deviceA, deviceB }: BisectFlags): Tolerance | null {
  if (atol === undefined && rtol === undefined) return null;
  const sum = (part: keyof Tolerance) =>
    ATTENTION_TOLERANCE[deviceA][part] + ATTENTION_TOLERANCE[deviceB][part];
  return { atol: atol ?? sum("atol"), rtol: rtol ?? sum("rtol") };
}

/** A line on stderr that replaces itself, where there is a terminal. */
function progress(io: Io): { say(text: string): void; clear(): void } & Disposable {
  const line = (text: string) => io.terminal.stderr ? io.writeNote(`\r\x1b[K${text}`) : undefined;
  return {
    say: (text) => line(dim(io, text)),
    clear: () => line(""),
    [Symbol.dispose]: () => line(""),
  };
}

/** The profile, and where the sides differ their masks: said as in the text, visible keys in the first colour. */
export function panels(found: AttentionBisection, label: (id: number) => string): Heatmap[] {
  const { divergence: at } = found;
  const masks = at === null ? [] : [["a", at.mask_a], ["b", at.mask_b]] as const;
  return [
    profile(found, label),
    ...masks.map(([side, received]) => maskMap(side, received, at!.position)),
  ];
}

/** A mask that only its receiver can read has no cells. */
function maskMap(side: string, received: ReceivedMask, position: number): Heatmap {
  const { visible, q_offset, kv_offset } = received.window ?? { visible: [], q_offset: 0, kv_offset: 0 };
  const cells = visible.flat();
  const labels = visible.map((_, q) => `${q + q_offset === position ? "here " : ""}${q + q_offset}`);
  return {
    title: receivedText(side, received),
    rows: axis(labels, q_offset),
    columns: axis((visible[0] ?? []).map((_, kv) => `${kv + kv_offset}`), kv_offset),
    values: new Float64Array(cells.length),
    hidden: Uint8Array.from(cells, (seen) => seen ? 0 : 1),
  };
}

/** How far each layer's attention is off at each token, in parts of what is allowed. */
function profile({ layers, tokens }: AttentionBisection, label: (id: number) => string): Heatmap {
  const columns = Math.max(0, ...layers.map(({ by_position }) => by_position.length));
  const values = new Float64Array(layers.length * columns), hidden = new Uint8Array(values.length);
  layers.forEach(({ by_position }, row) => {
    for (let column = 0; column < columns; column++) {
      const ratio = by_position[column];
      values[row * columns + column] = ratio === Infinity ? NaN : ratio ?? 0;
      hidden[row * columns + column] = ratio === undefined ? 1 : 0;
    }
  });
  return {
    title: "isolated difference / tolerance, by layer and token",
    rows: axis(layers.map(({ layer }) => layer.replace(/\.self_attn$/, ""))),
    columns: axis(
      Array.from({ length: columns }, (_, i) => tokens[0]![i] === undefined ? "" : label(tokens[0]![i]!)),
    ),
    values,
    hidden,
  };
}
