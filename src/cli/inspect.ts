/**
 * `attune inspect`: what a model is and what it will take, from its small files and the headers of its weights.
 *
 * @module
 */
import { Command, Option } from "npm:commander@14.0.3";
import { AutoConfig } from "../auto_config.ts";
import type { AttnImplementation } from "../config.ts";
import { isRecord } from "../config_fields.ts";
import type { DType } from "../dtype.ts";
import { AttuneError } from "../errors.ts";
import type { Quantization } from "../from_pretrained.ts";
import { MAX_TOKENIZER_BYTES, type ModelFiles } from "../hub/files.ts";
import type { Weights } from "../hub/safetensors.ts";
import { openFiles } from "../hub/open.ts";
import { openWeights } from "../hub/weights.ts";
import { applyImplementation } from "../models/plans.ts";
import { drawn } from "./inspect_text.ts";
import { type DryRun, dryRun } from "./dry_run.ts";
import type { Io } from "./io.ts";
import {
  implementation,
  importModule,
  number,
  progressBar,
  sourceOf,
  type SourceOptions,
  withLoading,
  withSource,
} from "./model.ts";

interface InspectFlags extends SourceOptions {
  readonly attn?: AttnImplementation;
  readonly dtype: DType | "auto";
  readonly quantization?: Quantization;
  readonly context?: number;
  readonly import?: readonly string[];
  readonly json?: true;
}

/** The command. */
export function inspectCommand(io: Io): Command {
  return withLoading(withSource(new Command("inspect")))
    .description("Say what a model is, how its layers attend and what memory it takes.")
    .option("-a, --attn <name>", "attention implementation, as for generate (repeatable)", implementation)
    .option(
      "-n, --context <n>",
      "tokens to plan memory for (default: all the model was trained for)",
      number({ min: 1, max: 2 ** 30, integer: true }),
    )
    .addOption(
      new Option("--quantization <name>", "keep the matrices of linear layers in few bits").choices([
        "int8",
        "int4",
      ]),
    )
    .option("--json", "print JSON")
    .addHelpText(
      "after",
      "\nOf weights only the headers are read, and fetched from a hub or URL: a model may be larger than memory and disk.\n" +
        "\nExamples:\n  deno task attune inspect tests/models/demo\n" +
        "  deno task attune inspect tests/models/demo --attn flash_attention_2 --context 400 --dtype float32 --json",
    )
    .action(async (model: string, options: InspectFlags) => {
      const found = await inspect(io, model, options);
      io.print(options.json === true ? JSON.stringify(found, null, 2) : drawn(found));
    });
}

/** What is stored, by type. */
interface Stored {
  readonly dtype: string;
  readonly tensors: number;
  readonly numbers: number;
  readonly bytes: number;
}

/** All that is found. */
export interface Inspection {
  readonly model: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly files: readonly { readonly name: string; readonly bytes: number }[];
  readonly stored: readonly Stored[];
  readonly tokenizer: Readonly<Record<string, unknown>> | null;
  readonly generation_config: Readonly<Record<string, unknown>> | null;
  /** Null where the model cannot be built here; `problem` says why. */
  readonly run: DryRun | null;
  readonly problem: string | null;
}

async function inspect(io: Io, name: string, options: InspectFlags): Promise<Inspection> {
  for (const path of options.import ?? []) await importModule(path);
  using bar = progressBar(io);
  const source = { ...sourceOf(io, options), progress_callback: bar.show };
  const files = await openFiles(name, source);
  const config = await AutoConfig.from_pretrained(name, source);
  // What was asked for is wrong then, not the model.
  if (options.attn !== undefined) applyImplementation(config.clone(), options.attn);
  using weights = await openWeights(files, { signal: io.signal, headers_only: true });
  let run: DryRun | null = null;
  let problem: string | null = null;
  const summary = config.toJSON();
  try {
    run = await dryRun(config, weights, {
      attn_implementation: options.attn,
      dtype: options.dtype,
      quantization: options.quantization,
      context: options.context,
      name: files.describe(),
      signal: io.signal,
    });
  } catch (error) {
    if (!(error instanceof AttuneError)) throw error;
    // What cannot be loaded can still be looked at.
    problem = error.message;
  }
  return {
    model: files.describe(),
    config: summary,
    files: await sizes(files, io.signal),
    stored: storedTypes(weights),
    tokenizer: await tokenizerFacts(files, io.signal),
    generation_config: await record(files, "generation_config.json", io.signal),
    run,
    problem,
  };
}

async function record(
  files: ModelFiles,
  name: string,
  signal: AbortSignal,
): Promise<Record<string, unknown> | null> {
  if (!await files.has(name, { signal })) return null;
  const json = await files.json(name, MAX_TOKENIZER_BYTES, { signal });
  return isRecord(json) ? json : null;
}

/** The files a model is loaded from. */
async function sizes(files: ModelFiles, signal: AbortSignal): Promise<Inspection["files"]> {
  const index = await record(files, "model.safetensors.index.json", signal);
  const shards = isRecord(index?.["weight_map"]) ? Object.values(index["weight_map"]).map(String) : [];
  const names = files.weights?.names ?? [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors",
    ...(index === null ? [] : ["model.safetensors.index.json"]),
    ...new Set(shards),
  ];
  const found: { name: string; bytes: number }[] = [];
  for (const name of names) {
    if (files.weights === undefined && !await files.has(name, { signal })) continue;
    using file = await files.source(name, { signal, beginning: /\.(?:safetensors|gguf)$/.test(name) });
    found.push({ name, bytes: file.size });
  }
  return found;
}

function storedTypes({ tensors }: Weights): Stored[] {
  return [...Map.groupBy(tensors.values(), ({ stored }) => stored)].map(([dtype, list]) => ({
    dtype,
    tensors: list.length,
    numbers: list.reduce((n, { shape }) => n + shape.reduce((a, b) => a * b, 1), 0),
    bytes: list.reduce((n, { bytes }) => n + bytes, 0),
  }));
}

async function tokenizerFacts(files: ModelFiles, signal: AbortSignal): Promise<Inspection["tokenizer"]> {
  const json = await record(files, "tokenizer.json", signal);
  if (json === null) return null;
  const config = await record(files, "tokenizer_config.json", signal) ?? {};
  const model = isRecord(json["model"]) ? json["model"] : {};
  const token = (name: string) => {
    const value = config[name];
    return (isRecord(value) ? value["content"] : value) ?? null;
  };
  const vocab = model["vocab"];
  return {
    model: model["type"] ?? null,
    tokens: Array.isArray(vocab) ? vocab.length : Object.keys(isRecord(vocab) ? vocab : {}).length,
    added_tokens: Array.isArray(json["added_tokens"]) ? json["added_tokens"].length : 0,
    bos_token: token("bos_token"),
    eos_token: token("eos_token"),
    pad_token: token("pad_token"),
    model_max_length: config["model_max_length"] ?? null,
    chat_template: config["chat_template"] !== undefined && config["chat_template"] !== null ||
      await files.has("chat_template.jinja", { signal }),
  };
}
