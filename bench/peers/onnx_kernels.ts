/**
 * ONNX Runtime's operators, on the web or as machine code, in the layouts they like best.
 *
 * @module
 */
import type { AttentionShape } from "../cases.ts";
import { type Operands, swapAxes, transposed } from "../compare.ts";
import type { KernelPeer, PeerOperation } from "./kernels.ts";
import type { Graph } from "./onnx.ts";
import { attentionGraph, matmulGraph, type Peer, type PeerTensor } from "./onnxruntime.ts";

/** Bytes of keys and values from which on they are constants of the graph: copying them in would dominate. */
const CONSTANTS_FROM = 4 * 2 ** 20;

/** com.microsoft MultiHeadAttention on (B, N, H·D); it has a fused kernel on the CPU, but no grouped heads. */
function multiHeadGraph({ B, H, Q, K, D, causal = false }: AttentionShape): Graph {
  return {
    nodes: [{
      op: "MultiHeadAttention",
      domain: "com.microsoft",
      inputs: ["q", "k", "v"],
      outputs: ["o"],
      attributes: { num_heads: BigInt(H), unidirectional: causal ? 1n : 0n },
    }],
    inputs: [
      { name: "q", type: "float", shape: [B, Q, H * D] },
      { name: "k", type: "float", shape: [B, K, H * D] },
      { name: "v", type: "float", shape: [B, K, H * D] },
    ],
    outputs: ["o"],
  };
}

/** (Q, K): 1 where a query sees a key within a causal window. */
function windowMask(Q: number, K: number, window: number): Uint8Array<ArrayBuffer> {
  const mask = new Uint8Array(Q * K);
  for (let i = 0; i < Q; i++) {
    mask.fill(1, i * K + Math.max(0, i + K - Q - window + 1), i * K + i + K - Q + 1);
  }
  return mask;
}

async function attention(peer: Peer, shape: AttentionShape, o: Operands): Promise<PeerOperation[]> {
  const { B, H, Hkv, Q, K, D, causal = false, window } = shape;
  const float = (data: Float32Array<ArrayBuffer>, dims: readonly number[]): PeerTensor => ({
    type: "float32",
    data,
    shape: dims,
  });
  const decode = Q === 1;
  const large = decode && o.k.byteLength + o.v.byteLength >= CONSTANTS_FROM;
  const session = await peer.open(attentionGraph({
    ...{ B, H, Hkv, Q, K, D },
    // A single query at the end sees everything, and the operator's causality is aligned to the upper left.
    causal: causal && !decode && window === undefined,
    ...(window === undefined ? {} : { mask: windowMask(Q, K, window) }),
    ...(large ? { constants: { k: o.k, v: o.v } } : {}),
  }));
  const feeds = {
    q: float(o.q, [B, H, Q, D]),
    ...(large ? {} : { k: float(o.k, [B, Hkv, K, D]), v: float(o.v, [B, Hkv, K, D]) }),
  };
  const operations: PeerOperation[] = [{
    name: `${peer.name} Attention`,
    call: async () => (await session.run(feeds))["o"]!.data,
    arrange: (output) => swapAxes(output, [B, H, Q, D]),
    close: () => session.close(),
  }];
  if (H === Hkv && window === undefined) {
    const multiHead = await peer.open(multiHeadGraph(shape));
    const swapped = {
      q: float(swapAxes(o.q, [B, H, Q, D]), [B, Q, H * D]),
      k: float(swapAxes(o.k, [B, H, K, D]), [B, K, H * D]),
      v: float(swapAxes(o.v, [B, H, K, D]), [B, K, H * D]),
    };
    operations.push({
      name: `${peer.name} MultiHeadAttention`,
      call: async () => (await multiHead.run(swapped))["o"]!.data,
      arrange: (output) => output,
      close: () => multiHead.close(),
    });
  }
  return operations;
}

/** The kernels of a loaded ONNX Runtime. */
export function onnxKernels(peer: Peer): KernelPeer {
  return {
    name: peer.name,
    description: peer.description,
    native: peer.native,
    attention: (shape, operands) => attention(peer, shape, operands),
    async linear({ M, I, O }, x, weight) {
      const session = await peer.open(matmulGraph(M, I, O, transposed(weight, O, I)));
      const feeds = { x: { type: "float32", data: x, shape: [M, I] } } as const;
      return [{
        name: `${peer.name} MatMul`,
        call: async () => (await session.run(feeds))["y"]!.data,
        arrange: (output) => output,
        close: () => session.close(),
      }];
    },
    close() {},
  };
}
