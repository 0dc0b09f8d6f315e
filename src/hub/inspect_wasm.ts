/**
 * Vets an untrusted WASM module before anything compiles or instantiates it.
 *
 * The validator is a WASM module of its own, imported only when the first kernel package is vetted.
 *
 * @module
 */
import { InvalidArgument, ModelFileError } from "../errors.ts";
import { decodeBase64, messageOf } from "./host.ts";

/** The type of a function, memory, table or global that a module imports or exports. */
export type WasmEntity =
  & { readonly name: string }
  & (
    | { readonly kind: "function"; readonly params: readonly string[]; readonly results: readonly string[] }
    | {
      readonly kind: "memory";
      readonly initial: number;
      readonly maximum: number | null;
      readonly shared: boolean;
      readonly memory64: boolean;
    }
    | {
      readonly kind: "table";
      readonly element: string;
      readonly initial: number;
      readonly maximum: number | null;
    }
    | { readonly kind: "global"; readonly type: string; readonly mutable: boolean }
  );

/** What a WASM module asks for and offers. */
export interface WasmReport {
  /** What it must be given. */
  readonly imports: readonly (WasmEntity & { readonly module: string })[];
  /** What it offers. */
  readonly exports: readonly WasmEntity[];
  /** All memories, imported ones first. */
  readonly memories: readonly WasmEntity[];
  /** All tables, imported ones first. */
  readonly tables: readonly WasmEntity[];
  /** Whether instantiating the module runs code. */
  readonly start: boolean;
  /** Number of functions, imported ones included. */
  readonly functions: number;
  /** Size of the code section. */
  readonly code_bytes: number;
  /** Size of the data section. */
  readonly data_bytes: number;
  /** Size of the custom sections, which nothing reads. */
  readonly custom_bytes: number;
}

/** What {@linkcode inspectWasm} accepts beyond the base set; everything is off by default. */
export interface InspectOptions {
  /** Accept relaxed SIMD, whose results may differ between machines. */
  readonly relaxed_simd?: boolean;
  /** Accept shared memories and atomics. */
  readonly threads?: boolean;
  /** Accept 64-bit memories. */
  readonly memory64?: boolean;
  /** Largest module in bytes; 16 MiB by default. */
  readonly max_bytes?: number;
  /** What error messages call the module. */
  readonly name?: string;
}

const FLAGS = { relaxed_simd: 1, threads: 2, memory64: 4 } as const;
const OPTIONS = [...Object.keys(FLAGS), "max_bytes", "name"];

let validator: ReturnType<typeof startValidator> | undefined;

async function startValidator() {
  const [glue, { default: base64 }] = await Promise.all([
    import("../../wasm/built/attune_inspect.js"),
    import("../../wasm/built/attune_inspect_bytes.ts"),
  ]);
  glue.initSync({ module: decodeBase64(base64) });
  return glue;
}

/**
 * Validates a WASM module and lists what it imports and exports. Accepted are WebAssembly 2.0 features (SIMD,
 * bulk memory, sign extension, mutable globals, multi-value, reference types) and what the options add.
 *
 * @throws {ModelFileError} when the module is too large, invalid, or uses anything else.
 */
export async function inspectWasm(module: Uint8Array, options: InspectOptions = {}): Promise<WasmReport> {
  const { name = "module", max_bytes = 16 * 2 ** 20 } = options;
  for (const key of Object.keys(options)) {
    if (!OPTIONS.includes(key)) {
      throw new InvalidArgument(`Cannot inspect ${name} with option ${key}: known are ${OPTIONS.join(", ")}`);
    }
  }
  if (!(max_bytes >= 0)) {
    throw new InvalidArgument(`Cannot inspect ${name}: max_bytes is ${max_bytes}`);
  }
  if (module.byteLength > max_bytes) {
    throw new ModelFileError(
      `Cannot accept ${name}: expected at most ${max_bytes} bytes, it has ${module.byteLength}`,
    );
  }
  let flags = 0;
  for (const flag of ["relaxed_simd", "threads", "memory64"] as const) {
    if (options[flag] === true) flags |= FLAGS[flag];
  }
  const glue = await (validator ??= startValidator());
  let json: string;
  try {
    json = glue.inspect_wasm(module, flags);
  } catch (error) {
    throw new ModelFileError(`${name}: ${messageOf(error)}`, {
      cause: error,
    });
  }
  // Rust wrote this JSON from a module it had validated.
  const report: WasmReport = JSON.parse(json);
  return report;
}
