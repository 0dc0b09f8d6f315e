/**
 * One start in a fresh process, for start.ts: prints one line of JSON.
 *
 *     deno run -A bench/start_child.ts attune FOLDER
 *     deno run -A bench/start_child.ts onnxruntime-web FOLDER MODEL.onnx
 *     deno run -A bench/start_child.ts wllama FOLDER MODEL.gguf
 *
 * Times count from the start of the process (`performance.now()`), before any module of the bench was loaded:
 * what is measured is imported dynamically.
 *
 * @module
 */

import { cpuNow } from "./timing.ts";

/** What a start reports; milliseconds since the process began, except `compile_ms`. */
export interface Start {
  /** Bytes of all WASM modules compiled until the first token. */
  readonly module_bytes: number;
  /** Compiling and instantiating them; null where another thread does it. */
  readonly compile_ms: number | null;
  readonly imported_ms: number;
  readonly loaded_ms: number;
  readonly first_token_ms: number;
  /** Processor time of all threads until then. */
  readonly cpu_ms: number;
  readonly token: number;
}

/** Tokens 3…18: any fixed prompt does, the work does not depend on it. */
const PROMPT = Array.from({ length: 16 }, (_, i) => 3 + i);

/**
 * Counts the modules that are compiled and the time that takes, at the platform's door: where a library does it is
 * its own business.
 */
function listen(): { bytes: number; ms: number } {
  const heard = { bytes: 0, ms: 0 };
  const construct = <T extends typeof WebAssembly.Module | typeof WebAssembly.Instance>(original: T) =>
    new Proxy(original, {
      construct(target, args: [BufferSource | WebAssembly.Module, ...unknown[]]) {
        const start = performance.now();
        const made: object = Reflect.construct(target, args);
        heard.ms += performance.now() - start;
        if (!(args[0] instanceof original) && "byteLength" in args[0]) heard.bytes += args[0].byteLength;
        return made;
      },
    });
  const instantiate = WebAssembly.instantiate.bind(WebAssembly) as (
    bytes: BufferSource,
    imports: WebAssembly.Imports,
  ) => Promise<unknown>;
  const listening = async (bytes: BufferSource, imports: WebAssembly.Imports) => {
    const start = performance.now();
    const result = await instantiate(bytes, imports);
    heard.ms += performance.now() - start;
    heard.bytes += bytes.byteLength;
    return result;
  };
  Object.defineProperties(WebAssembly, {
    Module: { value: construct(WebAssembly.Module), configurable: true },
    Instance: { value: construct(WebAssembly.Instance), configurable: true },
    instantiate: { value: listening, configurable: true },
  });
  return heard;
}

async function attune(folder: string): Promise<Start> {
  const heard = listen();
  const { AutoModelForCausalLM, Tensor } = await import("../mod.ts");
  const imported_ms = performance.now();
  const model = await AutoModelForCausalLM.from_pretrained(folder);
  const loaded_ms = performance.now();
  const input_ids = Tensor.from(PROMPT, { dtype: "int32", shape: [1, PROMPT.length] });
  const out = await model.generate({ input_ids, max_new_tokens: 1, eos_token_id: null });
  const [first_token_ms, cpu_ms] = [performance.now(), cpuNow()];
  const token = Number((await out.data()).at(-1));
  return {
    module_bytes: heard.bytes,
    compile_ms: heard.ms,
    imported_ms,
    loaded_ms,
    first_token_ms,
    cpu_ms,
    token,
  };
}

async function onnxRuntimeWeb(folder: string, file: string): Promise<Start> {
  const heard = listen();
  const [{ loadOnnxRuntime }, { PeerDecoder }] = await Promise.all([
    import("./peers/onnxruntime.ts"),
    import("./peers/llama_onnx.ts"),
  ]);
  const peer = await loadOnnxRuntime("web", 1);
  const imported_ms = performance.now();
  const decoder = await PeerDecoder.open(peer, Deno.readFileSync(file), new URL(folder));
  const loaded_ms = performance.now();
  const [token] = await decoder.generate(PROMPT, 1);
  const [first_token_ms, cpu_ms] = [performance.now(), cpuNow()];
  return {
    module_bytes: heard.bytes,
    compile_ms: heard.ms,
    imported_ms,
    loaded_ms,
    first_token_ms,
    cpu_ms,
    token: token!,
  };
}

async function wllama(file: string): Promise<Start> {
  const { loadWllama } = await import("./peers/llama_child.ts");
  const imported_ms = performance.now();
  const { module_bytes = 0, generate } = await loadWllama(file, 1);
  const loaded_ms = performance.now();
  const { tokens } = await generate({ prompt: PROMPT, count: 1 });
  const [first_token_ms, cpu_ms] = [performance.now(), cpuNow()];
  return {
    module_bytes,
    compile_ms: null,
    imported_ms,
    loaded_ms,
    first_token_ms,
    cpu_ms,
    token: tokens[0]!,
  };
}

if (import.meta.main) {
  const [what, folder = "", file = ""] = Deno.args;
  const start = what === "attune"
    ? await attune(folder)
    : what === "wllama"
    ? await wllama(file)
    : await onnxRuntimeWeb(folder, file);
  console.log(JSON.stringify(start));
  Deno.exit(0);
}
