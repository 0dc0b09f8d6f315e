/**
 * llama.cpp behind a line of JSON in and a line of JSON out, for llama_cpp.ts: as WebAssembly (wllama) or as machine
 * code (node-llama-cpp); or this library, in a process like theirs.
 *
 *     deno run -A bench/peers/llama_child.ts wllama THREADS
 *     deno run -A bench/peers/llama_child.ts attune THREADS
 *     deno run -A --no-config --node-modules-dir=manual bench/peers/llama_child.ts node-llama-cpp THREADS FOLDER
 *
 * wllama is written for browsers: what it looks for there and does not need here is stood in for, which is why it has a
 * process of its own.
 *
 * @module
 */
import process from "node:process";
import { createInterface } from "node:readline";
import type { OwnOptions } from "../own_llama.ts";

/** Generates greedily after a prompt. */
export interface Request {
  readonly prompt: readonly number[];
  readonly count: number;
  /** Log-probabilities of this many best candidates for the first token. */
  readonly top?: number;
}

/** What came of it. */
export interface Generated {
  readonly tokens: readonly number[];
  /** Id and log-probability; empty where they were not asked for or cannot be had. */
  readonly top: readonly (readonly [id: number, logprob: number])[];
  /** As the library times them: the prompt, and a token after the first. */
  readonly prefill_ms: number;
  readonly decode_ms: number;
}

/** Memory of a process and, of ours, of the model's engine: the most there was, in bytes; null where it cannot be had. */
export interface Memory {
  readonly process: number | null;
  readonly engine: { readonly bytes: number; readonly peak: number } | null;
}

interface Model {
  readonly description: string;
  /** Of our engine. */
  readonly memory?: () => { bytes: number; peak: number };
  /** Bytes of its WASM module. */
  readonly module_bytes?: number;
  generate(request: Request): Promise<Generated>;
}

/** Tokens a context has room for. */
const CONTEXT = 1024;

/** The text of a prompt's tokens, and back: see `tokenText` of llama_gguf.ts. */
const textOf = (tokens: readonly number[]) => tokens.map((id) => `<${id}>`).join("");
const tokensOf = (text: string) => Array.from(text.matchAll(/<(\d+)>/g), ([, id]) => Number(id));

/** The part of wllama that is used. */
interface Wllama {
  loadModel(files: readonly Blob[], options: object): Promise<void>;
  createCompletion(options: object): Promise<{
    choices: {
      text: string;
      logprobs: { content: { top_logprobs: { id: number; logprob: number }[] }[] } | null;
    }[];
    timings: { prompt_ms: number; predicted_ms: number; predicted_n: number };
  }>;
}

/** What wllama's workers need before their own code: nested workers that are modules, and no sign of Node. */
const IN_WORKER = `
const Plain = Worker;
globalThis.Worker = class extends Plain { constructor(url, options) { super(url, { ...options, type: "module" }); } };
Object.defineProperty(globalThis, "process", { value: undefined, configurable: true, writable: true });
globalThis.window = undefined;
`;

/** Loads a GGUF file into wllama, in this process. */
export async function loadWllama(path: string, threads: number): Promise<Model> {
  const PACKAGE = "npm:@wllama/wllama@3.8.1/esm/index.js";
  const storage = { getDirectory: () => Promise.resolve({ getDirectoryHandle: () => Promise.resolve({}) }) };
  Object.defineProperty(navigator, "storage", { value: storage, configurable: true });
  Object.assign(globalThis, { document: { baseURI: "file:///models/" } });
  const Plain = Blob;
  globalThis.Blob = class extends Plain {
    constructor(parts: BlobPart[] = [], options: BlobPropertyBag = {}) {
      super(options.type?.endsWith("/javascript") ? [IN_WORKER, ...parts] : parts, options);
    }
  };
  const { Wllama } = await import(PACKAGE) as { Wllama: new (paths: object, options: object) => Wllama };
  const wasm = await Deno.readFile(new URL("wasm/wllama.wasm", import.meta.resolve(PACKAGE)));
  const url = URL.createObjectURL(new Plain([wasm], { type: "application/wasm" }));
  const logger = { debug() {}, log() {}, warn() {}, error: console.error };
  const wllama = new Wllama({ default: url }, { logger, suppressNativeLog: true });
  await wllama.loadModel([new Plain([await Deno.readFile(path)])], {
    n_ctx: CONTEXT,
    n_threads: threads,
    n_gpu_layers: 0,
    n_parallel: 1,
    // Without float16 arithmetic a float32 cache is twice as fast here as its default.
    cache_type_k: "f32",
    cache_type_v: "f32",
    flash_attn: true,
  });
  return {
    module_bytes: wasm.length,
    description: `wllama ${/@([\d.]+)\//.exec(PACKAGE)![1]}`,
    async generate({ prompt, count, top = 0 }) {
      const { choices: [choice], timings } = await wllama.createCompletion({
        prompt: textOf(prompt),
        max_tokens: count,
        temperature: 0,
        top_k: 1,
        cache_prompt: false,
        ignore_eos: true,
        ...(top > 0 ? { n_probs: top } : {}),
      });
      const first = choice!.logprobs?.content[0]?.top_logprobs ?? [];
      return {
        tokens: tokensOf(choice!.text),
        top: first.map(({ id, logprob }) => [id, logprob] as const),
        prefill_ms: timings.prompt_ms,
        decode_ms: timings.predicted_ms / Math.max(1, timings.predicted_n - 1),
      };
    },
  };
}

/** The part of node-llama-cpp that is used. */
interface NodeLlamaCpp {
  getLlama(options: object): Promise<{
    loadModel(options: object): Promise<{
      createContext(options: object): Promise<{
        getSequence(): {
          clearHistory(): Promise<void>;
          evaluate(tokens: readonly number[], options: object): AsyncGenerator<number>;
        };
      }>;
    }>;
  }>;
}

async function loadNative(path: string, threads: number, folder: string): Promise<Model> {
  const entry = new URL("node_modules/node-llama-cpp/dist/index.js", `file://${folder}/`).href;
  const { getLlama } = await import(entry) as NodeLlamaCpp;
  const llama = await getLlama({ gpu: false, build: "never", logLevel: "error", maxThreads: threads });
  const model = await llama.loadModel({ modelPath: path, gpuLayers: 0 });
  const context = await model.createContext({
    contextSize: CONTEXT,
    batchSize: 512,
    threads,
    flashAttention: true,
  });
  const sequence = context.getSequence();
  const { version } = JSON.parse(
    await Deno.readTextFile(new URL("../package.json", entry)),
  ) as { version: string };
  return {
    description: `node-llama-cpp ${version}`,
    async generate({ prompt, count }) {
      await sequence.clearHistory();
      const tokens: number[] = [];
      const start = performance.now();
      let first = start;
      for await (const token of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
        tokens.push(token);
        if (tokens.length === 1) first = performance.now();
        if (tokens.length === count) break;
      }
      const decode_ms = (performance.now() - first) / Math.max(1, count - 1);
      return { tokens, top: [], prefill_ms: first - start, decode_ms };
    },
  };
}

/** Our own model, in a process like those of the others. */
async function loadAttune(name: string, options: OwnOptions, threads: number): Promise<Model> {
  const { configure } = await import("../../mod.ts");
  await configure({ threads });
  const { loadOwn } = await import("../own_llama.ts");
  const own = await loadOwn(name, options);
  return { description: "attune", memory: () => own.memory, generate: (request) => own.generate(request) };
}

/** The most memory this process ever had. */
function peakOfProcess(): number | null {
  try {
    const [, kB] = /^VmHWM:\s*(\d+) kB$/m.exec(Deno.readTextFileSync("/proc/self/status")) ?? [];
    return kB === undefined ? null : Number(kB) * 1024;
  } catch {
    return null; // not Linux
  }
}

/** What a child is asked. */
type Ask = { readonly load: string; readonly options?: OwnOptions } | { readonly memory: true } | Request;

async function serve([library, threads = "1", folder = ""]: readonly string[]): Promise<void> {
  let model: Model | null = null;
  const loaders: Readonly<Record<string, (path: string, options: OwnOptions) => Promise<Model>>> = {
    "attune": (path, options) => loadAttune(path, options, Number(threads)),
    "wllama": (path) => loadWllama(path, Number(threads)),
    "node-llama-cpp": (path) => loadNative(path, Number(threads), folder),
  };
  const answer = async (ask: Ask): Promise<object> => {
    if ("memory" in ask) {
      return { process: peakOfProcess(), engine: model?.memory?.() ?? null } satisfies Memory;
    }
    if (!("load" in ask)) return await model!.generate(ask);
    const start = performance.now();
    model = await loaders[library!]!(ask.load, ask.options ?? {});
    return { description: model.description, load_ms: performance.now() - start };
  };
  for await (const line of createInterface({ input: process.stdin })) {
    let result: object;
    try {
      result = await answer(JSON.parse(line));
    } catch (error) {
      result = { error: error instanceof Error ? error.message : String(error) };
    }
    console.log(JSON.stringify(result));
  }
}

if (import.meta.main) {
  await serve(Deno.args);
  Deno.exit(0);
}
