/**
 * The peer onnxruntime-web on its WebGPU execution provider, in this process. Operands and results stay on the GPU, as
 * ours do: what is timed is the work.
 *
 * @module
 */
import type * as Ort from "npm:onnxruntime-common@1.30.0";
import { wallOf } from "../gpu_wall.ts";
import { argmax } from "./llama_onnx.ts";
import { encodeModel, type Graph } from "./onnx.ts";
import type { PeerTensor } from "./onnxruntime.ts";

// Not a literal in the import: the package stays out of the lock file.
const PEER = "npm:onnxruntime-web@1.30.0/webgpu";

/** Opens graphs on the GPU. */
export interface GpuPeer {
  readonly name: string;
  /** Least wall time of a run, of `repeats` runs after which is waited once, and the first output's values. */
  time(
    graph: Graph,
    inputs: Readonly<Record<string, PeerTensor>>,
    rounds: number,
    repeats: number,
  ): Promise<{ ms: number; data: Float32Array }>;
  /** Greedy tokens after `prompt` by a decoder's graph, and the ms they took, the prompt included; the second run counts. */
  tokens(
    graph: Uint8Array<ArrayBuffer>,
    cache: { readonly layers: number; readonly heads: number; readonly width: number },
    prompt: readonly number[],
    count: number,
  ): Promise<{ ms: number; tokens: readonly number[] }>;
}

/** Bytes of a tensor, in whole words. */
function wordsOf({ data }: PeerTensor): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(Math.max(4, Math.ceil(data.byteLength / 4) * 4));
  bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return bytes;
}

/** Loads the peer, or says why it cannot be used here. */
export async function loadOnnxRuntimeWebGpu(): Promise<GpuPeer | string> {
  try {
    const ort = await import(PEER) as typeof Ort;
    ort.env.wasm.numThreads = 1;
    ort.env.logLevel = "error";
    const options = { executionProviders: ["webgpu"] };
    return {
      name: `onnxruntime-web ${ort.env.versions.web ?? ort.env.versions.common} webgpu`,
      async time(graph, inputs, rounds, repeats) {
        const session = await ort.InferenceSession.create(encodeModel(graph), {
          ...options,
          preferredOutputLocation: "gpu-buffer",
        });
        const gpu = await ort.env.webgpu.device as GPUDevice;
        const buffers: GPUBuffer[] = [];
        try {
          const feeds = Object.fromEntries(
            Object.entries(inputs).map(([name, tensor]) => {
              const bytes = wordsOf(tensor);
              const buffer = gpu.createBuffer({ size: bytes.length, usage: 0x80 | 0x4 | 0x8 });
              buffers.push(buffer);
              gpu.queue.writeBuffer(buffer, 0, bytes);
              const described = { dataType: tensor.type, dims: tensor.shape };
              return [name, ort.Tensor.fromGpuBuffer(buffer, described as never)];
            }),
          );
          const [first] = Object.values(await session.run(feeds));
          const data = await first!.getData(true) as Float32Array;
          const ms = await wallOf(gpu, rounds, repeats, async () => {
            for (const output of Object.values(await session.run(feeds))) output.dispose();
          });
          return { ms, data: data.slice() as Float32Array<ArrayBuffer> };
        } finally {
          for (const buffer of buffers) buffer.destroy();
          await session.release();
        }
      },
      async tokens(graph, { layers, heads, width }, prompt, count) {
        const names = Array.from({ length: layers }, (_, i) => [`k.${i}`, `v.${i}`]).flat();
        const session = await ort.InferenceSession.create(graph, {
          ...options,
          preferredOutputLocation: Object.fromEntries(names.map((name) => [name, "gpu-buffer"] as const)),
        });
        const long = (values: readonly number[]) =>
          new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
        const generate = async () => {
          const tokens: number[] = [];
          let past = names.map(() => new ort.Tensor("float32", new Float32Array(0), [1, heads, 0, width]));
          let ids = prompt, position = 0;
          while (tokens.length < count) {
            const outputs = await session.run({
              ids: long(ids),
              positions: long(ids.map((_, i) => position + i)),
              ...Object.fromEntries(names.map((name, i) => [`past_${name}`, past[i]!])),
            });
            for (const tensor of past) tensor.dispose();
            past = names.map((name) => outputs[name] as typeof past[number]);
            position += ids.length;
            tokens.push(argmax(outputs["logits"]!.data as Float32Array));
            ids = [tokens.at(-1)!];
          }
          for (const tensor of past) tensor.dispose();
          return tokens;
        };
        try {
          await generate();
          const start = performance.now();
          return { tokens: await generate(), ms: performance.now() - start };
        } finally {
          await session.release();
        }
      },
    };
  } catch (error) {
    return error instanceof Error ? error.message.split("\n")[0]! : String(error);
  }
}
