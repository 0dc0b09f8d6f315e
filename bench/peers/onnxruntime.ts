/**
 * ONNX Runtime as a peer: onnxruntime-web, its WASM execution provider in this process, and onnxruntime-node, the same
 * library as machine code.
 *
 * The bare package name is imported because that selects the entry for Node, which reads the module from disk;
 * the browser bundles want to start a worker from a blob URL. The package's own declarations are ambient, so the
 * types come from onnxruntime-common, which both re-export.
 *
 * @module
 */
import type * as Ort from "npm:onnxruntime-common@1.30.0";
import { encodeModel, type Graph, type Initializer } from "./onnx.ts";

/** A tensor as the peer takes it. */
export interface PeerTensor {
  readonly type: "float32" | "int32" | "int64" | "bool";
  readonly data:
    | Float32Array<ArrayBuffer>
    | Int32Array<ArrayBuffer>
    | BigInt64Array<ArrayBuffer>
    | Uint8Array<ArrayBuffer>;
  readonly shape: readonly number[];
}

/** A loaded graph. */
export interface PeerSession {
  /** Runs the graph: outputs by name, float32, copied to JavaScript as this peer always does. */
  run(
    inputs: Readonly<Record<string, PeerTensor>>,
  ): Promise<Record<string, { data: Float32Array; shape: readonly number[] }>>;
  close(): Promise<void>;
}

/** The loaded peer. */
export interface Peer {
  readonly name: string;
  /** Version, execution provider, threads: what the report says of it. */
  readonly description: string;
  readonly native: boolean;
  /** Opens a graph, or the bytes of an encoded model. */
  open(graph: Graph | Uint8Array<ArrayBuffer>): Promise<PeerSession>;
}

// Not literals in the import: hundreds of megabytes that nobody but the bench needs stay out of the lock file, which
// is fetched whole.
const PACKAGES = { web: "npm:onnxruntime-web@1.30.0", node: "npm:onnxruntime-node@1.30.0" } as const;

/** Loads it on so many threads. @throws {Error} when it cannot be loaded here */
export async function loadOnnxRuntime(kind: keyof typeof PACKAGES, threads: number): Promise<Peer> {
  const ort = await import(PACKAGES[kind]) as typeof Ort;
  const native = kind === "node";
  if (!native) ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error";
  const version = PACKAGES[kind].split("@").at(-1)!;
  const provider = native ? "cpu" : "wasm";
  const peer: Peer = {
    name: `onnxruntime-${kind}`,
    description: `onnxruntime-${kind} ${version}, ${provider} execution provider`,
    native,
    async open(graph) {
      const bytes = graph instanceof Uint8Array ? graph : encodeModel(graph);
      const session = await ort.InferenceSession.create(bytes, {
        executionProviders: [provider],
        graphOptimizationLevel: "all",
        ...(native ? { intraOpNumThreads: threads, interOpNumThreads: 1 } : {}),
      });
      return {
        async run(inputs) {
          const feeds = Object.fromEntries(
            Object.entries(inputs).map(([name, t]) => [name, new ort.Tensor(t.type, t.data, t.shape)]),
          );
          const outputs = await session.run(feeds);
          return Object.fromEntries(
            Object.entries(outputs).map((
              [name, t],
            ) => [name, { data: t.data as Float32Array, shape: t.dims }]),
          );
        },
        close: () => session.release(),
      };
    },
  };
  if (!native) {
    // With its first session it starts its threads, and leaves Node's Worker where the platform's was.
    const { Worker } = globalThis;
    await (await peer.open(matmulGraph(1, 1, 1, Float32Array.of(1)))).close();
    globalThis.Worker = Worker;
  }
  return peer;
}

/** What {@linkcode attentionGraph} builds. */
export interface AttentionGraphOptions {
  readonly B: number;
  readonly H: number;
  readonly Hkv: number;
  readonly Q: number;
  readonly K: number;
  readonly D: number;
  readonly causal: boolean;
  /** (Q, K), 1 where a query sees a key: this operator has no window, so it gets a mask. */
  readonly mask?: Uint8Array<ArrayBuffer>;
  /** Keys and values as constants of the graph, so that a call does not copy them in; else they are inputs. */
  readonly constants?: { readonly k: Float32Array<ArrayBuffer>; readonly v: Float32Array<ArrayBuffer> };
}

/** ai.onnx Attention-23 on (B, H, Q, D) and (B, Hkv, K, D): inputs q, k, v, output o (B, H, Q, D). */
export function attentionGraph(options: AttentionGraphOptions): Graph {
  const { B, H, Hkv, Q, K, D, causal, mask, constants } = options;
  const kv = [B, Hkv, K, D];
  const initializers: Initializer[] = constants === undefined ? [] : [
    { name: "k", shape: kv, data: constants.k },
    { name: "v", shape: kv, data: constants.v },
  ];
  if (mask !== undefined) initializers.push({ name: "mask", shape: [Q, K], data: mask });
  return {
    nodes: [{
      op: "Attention",
      inputs: mask === undefined ? ["q", "k", "v"] : ["q", "k", "v", "mask"],
      outputs: ["o"],
      attributes: { is_causal: causal ? 1n : 0n },
    }],
    inputs: [
      { name: "q", type: "float", shape: [B, H, Q, D] },
      ...(constants === undefined
        ? [{ name: "k", type: "float", shape: kv } as const, { name: "v", type: "float", shape: kv } as const]
        : []),
    ],
    outputs: ["o"],
    initializers,
  };
}

/** x (M, I) · w (I, O), the weight a constant so that it is packed once: input x, output y. */
export function matmulGraph(M: number, I: number, O: number, weight: Float32Array<ArrayBuffer>): Graph {
  return {
    nodes: [{ op: "MatMul", inputs: ["x", "w"], outputs: ["y"] }],
    inputs: [{ name: "x", type: "float", shape: [M, I] }],
    outputs: ["y"],
    initializers: [{ name: "w", shape: [I, O], data: weight }],
  };
}
