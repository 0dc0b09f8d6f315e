/**
 * From a checkpoint to a device's memory: plan, then stream.
 *
 * @module
 */
import { convertTo, type DType, HOST_BYTES, hostView, isFloat, present } from "./dtype.ts";
import type { Device } from "./devices/device.ts";
import { OutOfMemory } from "./errors.ts";
import type { LoadProgress } from "./hub/progress.ts";
import type { LoadableTensor, Weights } from "./hub/safetensors.ts";
import type { Weight } from "./layers/parameter.ts";
import { Tensor } from "./tensor.ts";

export type { LoadProgress } from "./hub/progress.ts";

/** Options of {@linkcode loadParameters}. */
export interface LoadOptions {
  /** Converts matrices; `"auto"` keeps their stored type. */
  readonly dtype: DType | "auto";
  readonly file: string;
  readonly progress: ((event: LoadProgress) => void) | undefined;
  readonly signal: AbortSignal | undefined;
}

/** Room for activations, scratch and the first part of a cache, beside the weights. */
const WORKSPACE = 64 * 2 ** 20;

/** Type a weight has in memory: matrices keep theirs, vectors (norms, biases) are float32, which costs nothing. */
export function memoryType(stored: DType, shape: readonly number[], dtype: DType | "auto" = "auto"): DType {
  if (shape.length < 2) return "float32";
  return dtype === "auto" ? stored : dtype;
}

/** The tensors a model can be built from: floating point ones. */
function wanted(weights: Weights): LoadableTensor[] {
  return [...weights.tensors.values()].filter((t): t is LoadableTensor =>
    t.dtype !== null && isFloat(t.dtype)
  );
}

/**
 * Bytes the weights take in memory.
 *
 * @throws {OutOfMemory} when they do not fit an engine of `maximum` bytes
 */
export function planMemory(weights: Weights, dtype: DType | "auto", maximum: number): number {
  const bytes = wanted(weights).reduce(
    (n, t) => n + elements(t) * HOST_BYTES[memoryType(t.dtype, t.shape, dtype)],
    0,
  );
  if (bytes + WORKSPACE > maximum) {
    const mib = (n: number) => `${Math.ceil(n / 2 ** 20)} MiB`;
    throw new OutOfMemory(
      `Cannot load the model: its weights take ${mib(bytes)} and work needs ${mib(WORKSPACE)} more, ` +
        `but an engine has at most ${mib(maximum)}; use a smaller model or dtype`,
    );
  }
  return bytes;
}

function elements(t: LoadableTensor): number {
  return t.shape.reduce((a, b) => a * b, 1);
}

/** Streams all weights into `device`, chunk by chunk: the file is never in memory as a whole. */
export async function loadParameters(
  weights: Weights,
  device: Device,
  options: LoadOptions,
): Promise<Map<string, Weight>> {
  const { dtype, file, progress, signal } = options;
  const list = wanted(weights);
  const parameters = new Map<string, Required<Weight>>();
  const total = list.reduce((n, t) => n + t.bytes, 0);
  let loaded = 0;
  try {
    for (const t of list) {
      const tensor = Tensor.empty(device, memoryType(t.dtype, t.shape, dtype), t.shape);
      parameters.set(t.name, { tensor, stored: dtype === "auto" ? t.dtype : dtype });
    }
    const sink = async (chunk: Uint8Array, byteOffset: number, t: LoadableTensor) => {
      signal?.throwIfAborted();
      const target = parameters.get(t.name)!.tensor;
      const at = byteOffset / HOST_BYTES[t.dtype] * device.elementBytes(target.dtype);
      device.write(target.storage.on(device), at, encode(chunk, t.dtype, target.dtype, device));
      // Keeps what waits in a recording device to one chunk.
      await device.flush(signal);
      loaded += chunk.length;
      progress?.({ status: "progress", file, loaded, total });
    };
    await weights.stream(list.map((t) => t.name), sink, signal === undefined ? {} : { signal });
    progress?.({ status: "done", file, loaded: total, total });
    return parameters;
  } catch (error) {
    for (const { tensor } of parameters.values()) tensor[Symbol.dispose]();
    throw error;
  }
}

/** A chunk's bytes in the device's representation. The chunk is reused by the reader, so a recording device gets a copy. */
function encode(chunk: Uint8Array, from: DType, to: DType, device: Device): Uint8Array<ArrayBuffer> {
  if (from === to && device.name === "wasm") return chunk as Uint8Array<ArrayBuffer>;
  const host = hostView(from, chunk.slice().buffer);
  return device.encode(to, from === to ? host : convertTo(to, present(from, host) as ArrayLike<number>));
}
