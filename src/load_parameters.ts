/**
 * From a checkpoint to a device's memory: plan, then stream.
 *
 * @module
 */
import { convertTo, type DType, HOST_BYTES, hostView, isFloat, present } from "./dtype.ts";
import type { Device } from "./devices/device.ts";
import { packedWords, type QuantizedMatrix } from "./devices/quantized.ts";
import { OutOfMemory } from "./errors.ts";
import type { LoadProgress } from "./hub/progress.ts";
import type { ChunkSink, LoadableTensor, StoredTensor, Weights } from "./hub/safetensors.ts";
import type { Weight } from "./layers/parameter.ts";
import { emptyPacked, fillPacked, workbenchOf } from "./quantize/steps.ts";
import { fileTensors, scaleName, storedMatrix } from "./quantize/stored.ts";
import { widened } from "./quantize/widen.ts";
import { sizeOf } from "./shape.ts";
import { Tensor } from "./tensor.ts";

export type { LoadProgress } from "./hub/progress.ts";

/** Options of {@linkcode loadParameters}. */
export interface LoadOptions {
  readonly file: string;
  readonly progress: ((event: LoadProgress) => void) | undefined;
  readonly signal: AbortSignal | undefined;
}

/** How weights are kept in memory. */
export interface WeightTypes {
  /** Converts matrices; `"auto"` keeps their stored type. */
  readonly dtype: DType | "auto";
  /** Quantises the matrices of linear layers. */
  readonly quantization: "int8" | "int4" | undefined;
}

/** Room for activations, scratch and the first part of a cache, beside the weights. */
const WORKSPACE = 64 * 2 ** 20;

/** Type a weight has in memory: matrices keep theirs, vectors (norms, biases) are float32, which costs nothing. */
export function memoryType(stored: DType, shape: readonly number[], dtype: DType | "auto" = "auto"): DType {
  if (shape.length < 2) return "float32";
  return dtype === "auto" ? stored : dtype;
}

/** What becomes of one weight of a checkpoint. */
export interface PlannedWeight {
  readonly name: string;
  /** Shape of the matrix or vector. */
  readonly shape: readonly number[];
  /** Its tensor, and its scales where it is stored quantised. */
  readonly values: LoadableTensor;
  readonly scales: LoadableTensor | null;
  /** Type in memory, where it is not quantised there. */
  readonly dtype: DType;
  /** Type of its values in a file that is written. */
  readonly inFile: DType;
  /** What it is in memory, where that is quantised. */
  readonly quantized: QuantizedMatrix | null;
  /** What it is in the file, where that is quantised. */
  readonly stored: QuantizedMatrix | null;
}

/** A weight of a checkpoint before it is decided what becomes of it. */
type FoundWeight = Pick<PlannedWeight, "name" | "shape" | "values" | "scales" | "stored">;

/**
 * The weights a model can be built from: floating point tensors, and quantised ones with their scales.
 *
 * @throws {ModelFileError} for quantised weights whose scales are missing or do not fit
 */
export function weightsIn({ tensors }: Pick<Weights, "tensors">): FoundWeight[] {
  const found: FoundWeight[] = [];
  const taken = new Set<string>();
  const loadable = (t: StoredTensor): t is LoadableTensor => t.dtype !== null;
  for (const t of tensors.values()) {
    const scales = tensors.get(scaleName(t.name));
    if (!loadable(t) || isFloat(t.dtype)) continue;
    const stored = storedMatrix(t.name, t, scales);
    if (stored === null || scales === undefined || !loadable(scales)) continue;
    found.push({ name: t.name, shape: stored.shape, values: t, scales, stored });
    taken.add(scales.name);
  }
  for (const t of tensors.values()) {
    if (!loadable(t) || !isFloat(t.dtype) || taken.has(t.name)) continue;
    found.push({ name: t.name, shape: t.shape, values: t, scales: null, stored: null });
  }
  return found;
}

/**
 * Decides what becomes of every weight. `linear` are the names of those that only linear layers read, which alone can be
 * quantised; other matrices that are stored quantised are widened, to float16 unless a type was asked for.
 */
export function planWeights(
  weights: Pick<Weights, "tensors">,
  { dtype, quantization }: WeightTypes,
  linear: ReadonlySet<string>,
): PlannedWeight[] {
  return weightsIn(weights).map((found): PlannedWeight => {
    const { name, shape, values, stored } = found;
    if (stored !== null) {
      if (linear.has(name)) return { ...found, dtype: values.dtype, inFile: values.dtype, quantized: stored };
      const wide = dtype === "auto" ? "float16" : dtype;
      return { ...found, dtype: wide, inFile: wide, quantized: null };
    }
    const [rows = 0, columns = 0] = shape;
    if (quantization !== undefined && linear.has(name) && (quantization === "int8" || columns % 2 === 0)) {
      const quantized = { format: quantization, shape: [rows, columns] as const };
      const { dtype: inFile } = fileTensors(quantized).values;
      return { ...found, dtype: inFile, inFile, quantized };
    }
    const inFile = dtype === "auto" ? values.dtype : dtype;
    return { ...found, dtype: memoryType(values.dtype, shape, dtype), inFile, quantized: null };
  });
}

/**
 * Bytes the weights take in memory.
 *
 * @throws {OutOfMemory} when they do not fit an engine of `maximum` bytes
 */
export function planMemory(plan: readonly PlannedWeight[], maximum: number): number {
  let [bytes, work] = [0, WORKSPACE];
  for (const { shape, dtype, quantized, values, scales } of plan) {
    bytes += quantized === null ? sizeOf(shape) * HOST_BYTES[dtype] : packedWords(quantized) * 4;
    if (quantized !== null) work = Math.max(work, values.bytes + (scales?.bytes ?? 0));
  }
  if (bytes + work > maximum) {
    const mib = (n: number) => `${Math.ceil(n / 2 ** 20)} MiB`;
    throw new OutOfMemory(
      `Cannot load the model: its weights take ${mib(bytes)} and work needs ${mib(work)} more, ` +
        `but an engine has at most ${mib(maximum)}; use a smaller model, a smaller dtype or quantization`,
    );
  }
  return bytes;
}

/** Streams all weights into `device`, chunk by chunk: of the file no more than one quantised tensor is ever in memory. */
export async function loadParameters(
  weights: Weights,
  device: Device,
  plan: readonly PlannedWeight[],
  options: LoadOptions,
): Promise<Map<string, Weight>> {
  const { file, progress, signal } = options;
  const parameters = new Map<string, Required<Omit<Weight, "quantized">> & Weight>();
  const total = plan.reduce((n, { values, scales }) => n + values.bytes + (scales?.bytes ?? 0), 0);
  let loaded = 0;
  /** Streams tensors of the file, by name; `take` hands each chunk to `to`. */
  const read = async (
    names: readonly string[],
    to: Device,
    take: (...args: Parameters<ChunkSink>) => void,
  ) => {
    const sink: ChunkSink = async (chunk, byteOffset, t) => {
      signal?.throwIfAborted();
      take(chunk, byteOffset, t);
      // Keeps what waits in a recording device to one chunk.
      await to.flush(signal);
      loaded += chunk.length;
      progress?.({ status: "progress", file, loaded, total });
    };
    await weights.stream(names, sink, signal === undefined ? {} : { signal });
  };
  /** The same, to where they belong on a device. */
  const fill = (targets: ReadonlyMap<string, Tensor>, to: Device) =>
    read([...targets.keys()], to, (chunk, byteOffset, t) => {
      const target = targets.get(t.name)!;
      const at = byteOffset / HOST_BYTES[t.dtype] * to.elementBytes(target.dtype);
      to.write(target.storage.on(to), at, encode(chunk, t.dtype, target.dtype, to));
    });
  try {
    for (const { name, shape, dtype, inFile, quantized } of plan) {
      const tensor = quantized === null ? Tensor.empty(device, dtype, shape) : emptyPacked(device, quantized);
      parameters.set(name, { tensor, stored: inFile, ...(quantized === null ? {} : { quantized }) });
    }
    const whole = plan.filter(({ quantized, stored }) => quantized === null && stored === null);
    await fill(new Map(whole.map(({ name }) => [name, parameters.get(name)!.tensor])), device);
    const rest = plan.filter(({ quantized, stored }) => quantized !== null || stored !== null);
    for (const { name, values, scales, quantized, stored } of rest) {
      const { tensor } = parameters.get(name)!;
      if (quantized === null) {
        const by = new Uint8Array(scales!.bytes);
        await read([scales!.name], device, (chunk, at) => by.set(chunk, at));
        const scale = present(scales!.dtype, hostView(scales!.dtype, by.buffer)) as ArrayLike<number>;
        await read([name], device, (chunk, at) => {
          const first = at * (stored!.format === "int4" ? 2 : 1);
          const floats = convertTo(tensor.dtype, widened(stored!, chunk, first, scale));
          const to = first * device.elementBytes(tensor.dtype);
          device.write(tensor.storage.on(device), to, device.encode(tensor.dtype, floats));
        });
        continue;
      }
      const bench = workbenchOf(device);
      using from = Tensor.empty(bench, values.dtype, values.shape);
      using by = scales === null ? null : Tensor.empty(bench, scales.dtype, scales.shape);
      const staged = new Map([[name, from]]);
      if (scales !== null) staged.set(scales.name, by!);
      await fill(staged, bench);
      await fillPacked(device, tensor, quantized, from, by);
    }
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
