/**
 * `attune attention`: who looks at whom, as a heatmap.
 *
 * @module
 */
import { Command, InvalidArgumentError } from "npm:commander@14.0.3";
import { encode } from "npm:fast-png@8.0.0";
import { axis, brief, type Heatmap } from "../draw/heatmap.ts";
import { tokenLabel } from "../draw/label.ts";
import { heatmapsToPixels } from "../draw/raster.ts";
import { heatmapsToSvg } from "../draw/svg.ts";
import { heatmapsToText, type TerminalStyle } from "../draw/terminal.ts";
import { attention_weights, type HeadChoice, type WeightMatrix, type Weights } from "../inspect/weights.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { Io } from "./io.ts";
import { loadModel, type ModelOptions, number, withModel } from "./model.ts";
import { checkOutputs, writeOutput } from "./output.ts";
import { promptOf } from "./prompt.ts";

/** Options of the command. */
interface AttentionOptions extends ModelOptions {
  readonly layer: number | "all";
  readonly head: HeadChoice;
  readonly newTokens: number;
  readonly top?: number;
  readonly png?: string;
  readonly svg?: string;
  readonly width?: number;
  readonly log?: true;
  readonly json?: true;
}

const count = (min: number) => number({ min, integer: true });

/** The command. */
export function attentionCommand(io: Io): Command {
  return withModel(new Command("attention"))
    .description("Show what each token attends to, as a heatmap.")
    .argument("[prompt]", "the text; without it, or as -, it is read from stdin")
    .option(
      "-l, --layer <n>",
      'attention layer, or "all"',
      (text) => text === "all" ? text : count(0)(text),
      0,
    )
    .option("-H, --head <n>", 'head, "mean", "max", or "all"', head, "mean")
    .option("-n, --new-tokens <n>", "also generate n tokens and show their rows", count(0), 0)
    .option("--top <k>", "per query, the k keys with most weight, as text instead of a heatmap", count(1))
    .option("--png <file>", "also write a picture of pixels")
    .option("--svg <file>", "also write a picture with the exact weights as tooltips")
    .option(
      "--width <columns>",
      "columns of the terminal to use",
      number({ min: 20, max: 4096, integer: true }),
    )
    .option(
      "--log",
      "a step of colour is a factor, not a difference: for long texts, where weights are small",
    )
    .option("--json", "print JSON: tokens and weights as they were computed")
    .addHelpText(
      "after",
      "\nExamples:\n" +
        '  deno task attune attention tests/models/demo "In the beginning God created" --layer 2 --head 1\n' +
        '  deno task attune attention tests/models/demo "And God said" --head all --new-tokens 6 --svg attention.svg\n' +
        '  deno task attune attention tests/models/demo "And God said" --layer 3 --top 3',
    )
    .action((model: string, prompt: string | undefined, options: AttentionOptions) =>
      run(io, model, prompt, options)
    );
}

async function run(
  io: Io,
  name: string,
  given: string | undefined,
  options: AttentionOptions,
): Promise<void> {
  await checkOutputs(options.png, options.svg);
  const prompt = await promptOf(io, given);
  await using loaded = await loadModel(io, name, options);
  const { model, tokenizer } = loaded;
  const { layer, head, newTokens: new_tokens } = options;
  const weights = await attention_weights(model, tokenizer.encode(prompt), {
    layer,
    head,
    new_tokens,
    signal: io.signal,
  });
  const labels = weights.tokens.map((id) => tokenLabel(tokenizer.decode([id]), id));
  const maps = weights.matrices.map((matrix) => heatmapOf(matrix, labels));
  const layers = new Set(weights.matrices.map((m) => m.layer_index)).size;
  // A row a layer, where there are several of both; else as near to a square as it gets.
  const each = maps.length / layers;
  const columns = layers > 1 && each > 1 ? each : Math.ceil(Math.sqrt(maps.length));
  const scale = options.log === true ? "log" : "linear";
  if (options.png !== undefined) {
    const { width, height, data } = heatmapsToPixels(maps, columns, scale);
    await writeOutput(options.png, encode({ width, height, data, channels: 3 }));
  }
  if (options.svg !== undefined) await writeOutput(options.svg, heatmapsToSvg(maps, columns, scale));
  if (options.json === true) {
    io.print(JSON.stringify({
      model: name,
      implementation: model.attention_report()[0]!.implementation,
      device: model.device,
      ...jsonOf(weights, tokenizer),
    }));
  } else if (options.top !== undefined) {
    io.print(weights.matrices.map((matrix) => topKeys(matrix, labels, options.top!)).join("\n\n"));
  } else {
    const width = options.width ?? io.width;
    io.print(heatmapsToText(maps, { width, colours: coloursOf(io), columns, scale }));
  }
}

function head(text: string): HeadChoice {
  if (text === "mean" || text === "max" || text === "all") return text;
  if (/^\d+$/.test(text)) return Number(text);
  throw new InvalidArgumentError('expected a number, "mean", "max" or "all"');
}

/** What the terminal shows, by the convention that COLORTERM says 24 bits. */
export function coloursOf(io: Io): TerminalStyle["colours"] {
  if (!io.color || !io.terminal.stdout) return "none";
  const variable = "COLORTERM";
  const granted = Deno.permissions.querySync({ name: "env", variable }).state === "granted";
  const value = granted ? Deno.env.get(variable) ?? "" : "";
  return /truecolor|24bit/.test(value) ? "24-bit" : "256";
}

function titleOf({ layer, head }: WeightMatrix): string {
  const name = layer.replace(/\.self_attn$/, "");
  return `${name}, ${typeof head === "number" ? `head ${head}` : `${head} of heads`}`;
}

function heatmapOf(matrix: WeightMatrix, labels: readonly string[]): Heatmap {
  const { queries, keys, weights: values, hidden, text } = matrix;
  const along = (n: number) => axis(Array.from({ length: n }, (_, i) => text ? labels[i]! : ""));
  return { title: titleOf(matrix), rows: along(queries), columns: along(keys), values, hidden };
}

/** Per query, the keys with most weight. */
function topKeys(matrix: WeightMatrix, labels: readonly string[], k: number): string {
  const { queries, keys, weights, hidden, text } = matrix;
  const shown = (i: number) => text ? `${i} ${labels[i]!}` : `patch ${i}`;
  const lines = Array.from({ length: queries }, (_, q) => {
    const best = Array.from({ length: keys }, (_, kv) => kv)
      .filter((kv) => hidden[q * keys + kv] === 0)
      .sort((i, j) => weights[q * keys + j]! - weights[q * keys + i]! || i - j)
      .slice(0, k)
      .map((kv) => `${brief(weights[q * keys + kv]!)} (${shown(kv)})`);
    return `  ${shown(q)} ← ${best.length === 0 ? "nothing" : best.join(", ")}`;
  });
  return [titleOf(matrix), ...lines].join("\n");
}

/** Weights by query; null where the mask hides the key. */
function jsonOf({ tokens, matrices }: Weights, tokenizer: Tokenizer): Record<string, unknown> {
  return {
    tokens: tokens.map((id) => ({ id, text: tokenizer.decode([id]) })),
    attention: matrices.map(({ layer, layer_index, head, weights, hidden, queries, keys }) => ({
      layer,
      layer_index,
      head,
      weights: Array.from(
        { length: queries },
        (_, q) =>
          Array.from({ length: keys }, (_, k) => hidden[q * keys + k] === 1 ? null : weights[q * keys + k]!),
      ),
    })),
  };
}
