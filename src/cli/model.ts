/**
 * What commands that take a model have in common: how it is named, and loading it.
 *
 * @module
 */
import { pathToFileURL } from "node:url";
import { type Command, InvalidArgumentError, Option } from "npm:commander@14.0.3";
import { SingleBar } from "npm:cli-progress@3.12.0";
import { AutoConfig } from "../auto_config.ts";
import { type AttnImplementation, modelType, type PretrainedConfig } from "../config.ts";
import type { DeviceName } from "../devices/device.ts";
import type { DType } from "../dtype.ts";
import { InvalidArgument } from "../errors.ts";
import { fromPretrained } from "../from_pretrained.ts";
import type { HubOptions } from "../hub/open.ts";
import type { LoadProgress } from "../hub/progress.ts";
import { MODELS } from "../models/mod.ts";
import type { PreTrainedModel } from "../models/pretrained.ts";
import { type Task, TASKS } from "../models/tasks.ts";
import { AutoTokenizer, type Tokenizer } from "../text/tokenizer.ts";
import type { Io } from "./io.ts";

/** Where a model's files come from. */
export interface SourceOptions {
  readonly revision?: string;
  readonly token?: string;
  readonly cacheDir?: string;
  readonly localFilesOnly?: true;
  readonly endpoint?: string;
  readonly ggufFile?: string;
}

/** How a model is loaded. */
export interface ModelOptions extends SourceOptions {
  readonly attn?: AttnImplementation;
  readonly device: DeviceName;
  readonly dtype: DType | "auto";
  readonly import?: readonly string[];
}

/** Adds the argument `<model>` and the options that say where its files come from. */
export function withSource(command: Command): Command {
  return command
    .argument("<model>", "a folder, a URL, a hub id, or a GGUF file")
    .option("--revision <name>", "branch, tag or commit of a hub model")
    .option("--token <token>", "access token of the hub")
    .option("--cache-dir <folder>", "where downloaded files are kept")
    .option("--local-files-only", "download nothing")
    .option("--endpoint <url>", "another hub")
    .option("--gguf-file <name>", "the GGUF file to take, of a folder or hub model");
}

/** Adds the argument `<model>` and the options of {@linkcode loadModel}. */
export function withModel(command: Command): Command {
  return withLoading(
    withSource(command)
      .option(
        "-a, --attn <name>",
        "attention implementation, of all parts or of one: <part>=<name> (repeatable)",
        implementation,
      )
      .addOption(
        new Option("-d, --device <name>", "where to compute").choices(["wasm", "webgpu"]).default("wasm"),
      ),
  );
}

/** Adds the options that say how weights are held, and what is imported before. */
export function withLoading(command: Command): Command {
  return command
    .addOption(
      new Option("--dtype <name>", "type of the weights in memory")
        .choices(["auto", "float32", "float16", "bfloat16"]).default("auto"),
    )
    .option(
      "--import <module>",
      "a module of yours that registers attention or mask functions (repeatable)",
      (path: string, before: readonly string[] = []) => [...before, path],
    );
}

/** `name`, or `part=name`, added to what was said before. */
export function implementation(text: string, before?: AttnImplementation): AttnImplementation {
  const [, part = "", name = ""] = /^(?:([A-Za-z]\w*)=)?(.*)$/s.exec(text)!;
  if (name === "") throw new InvalidArgumentError("expected <name> or <part>=<name>");
  if (part === "" && before === undefined) return name;
  return { ...(typeof before === "string" ? { "": before } : before), [part]: name };
}

/** A number between bounds, as commander's parsers are. */
export function number(
  rule: { min?: number; max?: number; integer?: boolean } = {},
): (text: string) => number {
  const { min = -Infinity, max = Infinity, integer = false } = rule;
  return (text) => {
    const value = text.trim() === "" ? NaN : Number(text);
    if (Number.isFinite(value) && value >= min && value <= max && (!integer || Number.isSafeInteger(value))) {
      return value;
    }
    const bounds = max < Infinity ? ` from ${min} to ${max}` : min > -Infinity ? ` of at least ${min}` : "";
    throw new InvalidArgumentError(`expected ${integer ? "an integer" : "a number"}${bounds}`);
  };
}

/** The options of a loader that say where files come from: those that were given. */
export function sourceOf(io: Io, options: SourceOptions): HubOptions {
  const { revision, token, endpoint } = options;
  const { cacheDir: cache_dir, localFilesOnly: local_files_only, ggufFile: gguf_file } = options;
  const given = Object.entries({ revision, token, cache_dir, local_files_only, endpoint, gguf_file });
  return { ...Object.fromEntries(given.filter(([, value]) => value !== undefined)), signal: io.signal };
}

/** A model and what turns text into its tokens. */
export interface Loaded extends AsyncDisposable {
  readonly model: PreTrainedModel;
  /** @throws {ModelFileError} where the model has no tokenizer */
  readonly tokenizer: Tokenizer;
}

/**
 * Imports the user's modules, then loads `name` with the head its architecture has: for the next token, after text
 * and images, or none. Progress is drawn on a terminal.
 *
 * @throws {ModelFileError | InvalidArgument | OutOfMemory | DeviceUnavailable}
 */
export async function loadModel(io: Io, name: string, options: ModelOptions): Promise<Loaded> {
  for (const path of options.import ?? []) await importModule(path);
  using bar = progressBar(io);
  const source = { ...sourceOf(io, options), progress_callback: bar.show };
  const tokenizer = await AutoTokenizer.from_pretrained(name, source);
  const model = await modelOf(name, options, source);
  return { model, tokenizer, [Symbol.asyncDispose]: () => model.dispose() };
}

/** Another model for what `options` say, without a tokenizer, e.g. an assistant. @throws as {@linkcode loadModel} */
export async function loadSecond(io: Io, name: string, options: ModelOptions): Promise<PreTrainedModel> {
  using bar = progressBar(io);
  return await modelOf(name, options, { ...sourceOf(io, options), progress_callback: bar.show });
}

async function modelOf(name: string, options: ModelOptions, source: HubOptions): Promise<PreTrainedModel> {
  const config = await AutoConfig.from_pretrained(name, source);
  return await fromPretrained(taskOf(config), name, {
    ...source,
    ...(options.attn === undefined ? {} : { attn_implementation: options.attn }),
    config,
    device: options.device,
    dtype: options.dtype,
  });
}

/**
 * The task with the most of an architecture: a head for text after images, for the next token, or none.
 *
 * @throws {ModelFileError} for an unknown model type
 */
export function taskOf(config: PretrainedConfig): Task {
  const architecture = MODELS[modelType(config, Object.keys(MODELS))]!;
  const tasks: readonly Task[] = [TASKS.image_text_to_text, TASKS.causal_lm];
  return tasks.find(({ choose }) => choose(architecture) !== undefined) ?? TASKS.base;
}

/** Imports a module of the user's. @throws {InvalidArgument} with what went wrong */
export async function importModule(path: string): Promise<void> {
  const url = /^[a-z][a-z0-9+.-]+:/i.test(path) ? path : pathToFileURL(path).href;
  try {
    await import(url);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new InvalidArgument(`Cannot import ${path}: ${why}`, { cause: error });
  }
}

/** What is used of a bar of `cli-progress`, which brings no types. */
interface Bar {
  start(total: number, value: number, payload: Record<string, string>): void;
  update(value: number, payload: Record<string, string>): void;
  setTotal(total: number): void;
  stop(): void;
}

/** A bar on stderr, gone when disposed; nothing where stderr is no terminal. */
export function progressBar(io: Io): { show(event: LoadProgress): void } & Disposable {
  let bar: Bar | null = null;
  return {
    show({ file, loaded, total }: LoadProgress) {
      if (!io.terminal.stderr) return;
      const mib = (n: number) => (n / 2 ** 20).toFixed(1);
      const payload = {
        file: file.slice(file.lastIndexOf("/") + 1),
        size: `${mib(loaded)} of ${mib(total)} MiB`,
      };
      if (bar === null) {
        bar = new SingleBar({
          format: "{file} [{bar}] {percentage} % · {size}",
          stream: { isTTY: true, columns: io.width, write: io.writeNote },
          barsize: 24,
          barCompleteChar: "█",
          barIncompleteChar: "·",
          // Nothing of the terminal is changed that a process which is killed could not put back.
          hideCursor: false,
          linewrap: true,
          gracefulExit: false,
          clearOnComplete: true,
        }) as Bar;
        bar.start(total, loaded, payload);
      } else {
        bar.setTotal(total);
        bar.update(loaded, payload);
      }
    },
    [Symbol.dispose]: () => bar?.stop(),
  };
}
