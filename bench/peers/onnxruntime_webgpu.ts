/**
 * The peer onnxruntime-web on its WebGPU execution provider, in this process.
 *
 * @module
 */
import type * as Ort from "npm:onnxruntime-common@1.30.0";
import { encodeModel, type Graph } from "./onnx.ts";
import type { PeerTensor } from "./onnxruntime.ts";

// Not a literal in the import: the package stays out of the lock file.
const PEER = "npm:onnxruntime-web@1.30.0/webgpu";

/** Opens graphs on the GPU. */
export interface GpuPeer {
  readonly name: string;
  /** Best wall time of a run with its outputs left on the GPU, and the first output's values. */
  time(
    graph: Graph,
    inputs: Readonly<Record<string, PeerTensor>>,
    rounds: number,
  ): Promise<{ ms: number; data: Float32Array }>;
}

/** Loads the peer, or says why it cannot be used here. */
export async function loadOnnxRuntimeWebGpu(): Promise<GpuPeer | string> {
  try {
    const ort = await import(PEER) as typeof Ort;
    ort.env.wasm.numThreads = 1;
    ort.env.logLevel = "error";
    return {
      name: `onnxruntime-web ${ort.env.versions.web ?? ort.env.versions.common} webgpu`,
      async time(graph, inputs, rounds) {
        const session = await ort.InferenceSession.create(encodeModel(graph), {
          executionProviders: ["webgpu"],
        });
        try {
          const feeds = Object.fromEntries(
            Object.entries(inputs).map(([name, t]) => [name, new ort.Tensor(t.type, t.data, t.shape)]),
          );
          let data = new Float32Array(0), best = Infinity;
          for (let i = 0; i <= rounds; i++) {
            const start = performance.now();
            const outputs = await session.run(feeds);
            if (i > 0) best = Math.min(best, performance.now() - start);
            data = (Object.values(outputs)[0]!.data as Float32Array).slice() as Float32Array<ArrayBuffer>;
          }
          return { ms: best, data };
        } finally {
          await session.release();
        }
      },
    };
  } catch (error) {
    return error instanceof Error ? error.message.split("\n")[0]! : String(error);
  }
}
