/**
 * What the benches of kernels ask of a peer.
 *
 * @module
 */
import type { AttentionShape } from "../cases.ts";
import type { Operands } from "../compare.ts";
import type { Contestant, Elapsed } from "../timing.ts";

/** One operation of a peer, ready to be called. */
export interface PeerOperation {
  readonly name: string;
  /** The output in the operation's own layout, in a JavaScript array. */
  call(): Promise<Float32Array>;
  /** A call timed by the peer itself, where it is another process; else `call` is timed. */
  time?(): Promise<Elapsed>;
  /** The output as we have it, (B, Q, H, D) or (M, O); not part of what is timed. */
  arrange(output: Float32Array): Float32Array;
  close(): Promise<void> | void;
}

/** x (M, I) · weight (O, I)ᵀ. */
export interface LinearShape {
  readonly name: string;
  readonly M: number;
  readonly I: number;
  readonly O: number;
}

/** A library that computes attention and products of matrices. */
export interface KernelPeer {
  readonly name: string;
  /** Version, execution provider, threads: what the report says of it. */
  readonly description: string;
  /** Machine code with all the processor's vectors, not WebAssembly: it stands in the tables and is no rival. */
  readonly native: boolean;
  /** Every way it has to compute `shape`, each in the layout it likes best. */
  attention(shape: AttentionShape, operands: Operands): Promise<PeerOperation[]>;
  /** Every way it has to compute a linear layer. */
  linear(
    shape: LinearShape,
    x: Float32Array<ArrayBuffer>,
    weight: Float32Array<ArrayBuffer>,
  ): Promise<PeerOperation[]>;
  close(): Promise<void> | void;
}

/** A peer's operation with the peer it is of. */
export type OpenedOperation = PeerOperation & { readonly native: boolean };

/** Opens `shape` at every peer. What opened before an error is closed. */
export async function openAll(
  peers: readonly KernelPeer[],
  open: (peer: KernelPeer) => Promise<PeerOperation[]>,
): Promise<OpenedOperation[]> {
  const opened: OpenedOperation[] = [];
  try {
    for (const peer of peers) {
      for (const operation of await open(peer)) {
        opened.push({
          ...operation,
          native: peer.native,
          name: peer.native ? `${operation.name} (native)` : operation.name,
        });
      }
    }
    return opened;
  } catch (error) {
    for (const operation of opened) await operation.close();
    throw error;
  }
}

/** The operation as a contestant. */
export const contestantOf = (operation: PeerOperation): Contestant => ({
  name: operation.name,
  run: () => operation.time?.() ?? operation.call(),
  beside: true,
});

/** A head's share of the operands. */
export interface Head {
  readonly q: Float32Array<ArrayBuffer>;
  /** (D, K): the product wants it so, and a cache may be kept so. */
  readonly kT: Float32Array<ArrayBuffer>;
  readonly v: Float32Array<ArrayBuffer>;
}

/** The index of the key and value head that query head `head` (of B·H) reads. */
export const kvHeadOf = ({ H, Hkv }: AttentionShape, head: number) =>
  Math.floor(head / H) * Hkv + Math.floor(head % H / (H / Hkv));
