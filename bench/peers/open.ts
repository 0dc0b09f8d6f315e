/**
 * Opens the peers a run stands beside.
 *
 * @module
 */
import type { KernelPeer } from "./kernels.ts";
import { loadJax } from "./jax.ts";
import { type LlamaPeer, nodeLlamaCpp, wllama } from "./llama_cpp.ts";
import { onnxKernels } from "./onnx_kernels.ts";
import { loadOnnxRuntime, type Peer } from "./onnxruntime.ts";
import { loadTfjs } from "./tfjs.ts";
import { startTorch } from "./torch.ts";

/** Which peers a run wants. */
export interface Wanted {
  readonly threads: number;
  /** Those that are WebAssembly: required, once they are wanted. */
  readonly peers: boolean;
  /** Those that are machine code: as far as they can be had. */
  readonly natives: boolean;
}

/** The peers of a run. */
export interface Peers {
  /** ONNX Runtime on the web, which also runs whole decoders; null without peers. */
  readonly onnx: Peer | null;
  readonly kernels: readonly KernelPeer[];
  readonly llama: readonly LlamaPeer[];
  /** Native peers that could not be had, and why. */
  readonly missing: readonly string[];
  close(): Promise<void>;
}

/** Opens them. @throws {Error} when a required peer cannot be loaded */
export async function openPeers({ threads, peers, natives }: Wanted): Promise<Peers> {
  const kernels: KernelPeer[] = [], llama: LlamaPeer[] = [], missing: string[] = [];
  const required = async <T>(name: string, load: () => Promise<T>): Promise<T> => {
    try {
      return await load();
    } catch (cause) {
      throw new Error(`Cannot load the required peer ${name}; --no-peers runs without peers`, { cause });
    }
  };
  const optional = async <T>(name: string, load: () => Promise<T>, list: T[]) => {
    try {
      list.push(await load());
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      missing.push(`${name} is not here: ${reason.split("\n")[0]}`);
    }
  };
  let onnx: Peer | null = null;
  if (peers) {
    const jax = await required("jax-js", () => loadJax(threads));
    onnx = await required("onnxruntime-web", () => loadOnnxRuntime("web", threads));
    kernels.push(onnxKernels(onnx), jax);
    if (threads === 1) kernels.push(await required("tfjs-wasm", loadTfjs));
    else missing.push("tfjs-wasm has one thread in Deno and is left out");
    llama.push(wllama(threads));
  }
  if (natives) {
    await optional(
      "onnxruntime-node",
      async () => onnxKernels(await loadOnnxRuntime("node", threads)),
      kernels,
    );
    await optional("torch AVX2", () => startTorch(threads, true), kernels);
    await optional("torch", () => startTorch(threads, false), kernels);
    await optional("node-llama-cpp", () => nodeLlamaCpp(threads), llama);
  }
  return {
    onnx,
    kernels,
    llama,
    missing,
    async close() {
      for (const peer of kernels) await peer.close();
    },
  };
}
