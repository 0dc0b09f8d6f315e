/**
 * The native peer PyTorch: scaled_dot_product_attention and linear on the CPU, in a Python process that times itself.
 * There are two of it: with every instruction the processor has, and held to AVX2.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { swapAxes } from "../compare.ts";
import { Elapsed } from "../timing.ts";
import { Child } from "./child.ts";
import type { KernelPeer, PeerOperation } from "./kernels.ts";

/** What holds PyTorch and the libraries it calls to AVX2. */
const AVX2 = {
  ATEN_CPU_CAPABILITY: "avx2",
  MKL_ENABLE_INSTRUCTIONS: "AVX2",
  ONEDNN_MAX_CPU_ISA: "AVX2",
} as const;

/** An operand: the file it lies in, and its shape. */
type Operand = readonly [path: string, shape: readonly number[]];

/**
 * Starts the peer with the interpreter that `PYTHON` names, else `python3`.
 *
 * @throws {Error} when there is none, or it cannot import torch
 */
export async function startTorch(threads: number, avx2: boolean): Promise<KernelPeer> {
  const script = fileURLToPath(new URL("torch_child.py", import.meta.url));
  const python = Deno.env.get("PYTHON") ?? "python3";
  const counts = { OMP_NUM_THREADS: `${threads}`, MKL_NUM_THREADS: `${threads}` };
  const env = avx2 ? { ...counts, ...AVX2 } : counts;
  const child = new Child("torch", python, [script, `${threads}`], { env });
  const folder = await Deno.makeTempDir({ prefix: "torch_" });
  const close = async () => {
    child.close();
    await Deno.remove(folder, { recursive: true });
  };
  const name = avx2 ? "torch AVX2" : "torch";
  let opened = 0;

  async function operation(
    label: string,
    kind: string,
    operands: Readonly<Record<string, Float32Array<ArrayBuffer>>>,
    shapes: Readonly<Record<string, readonly number[]>>,
    options: object,
    arrange: (output: Float32Array) => Float32Array,
  ): Promise<PeerOperation[]> {
    const id = opened++;
    const files: Record<string, Operand> = {};
    for (const [key, data] of Object.entries(operands)) {
      files[key] = [`${folder}/${id}.${key}`, shapes[key]!];
      await Deno.writeFile(files[key]![0], new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    }
    await child.ask({ id, open: kind, with: { ...files, ...options } });
    for (const [path] of Object.values(files)) await Deno.remove(path);
    return [{
      name: label,
      async call() {
        const write = `${folder}/${id}.output`;
        await child.ask({ id, write });
        return new Float32Array((await Deno.readFile(write)).buffer);
      },
      async time() {
        const { wall, cpu } = await child.ask<{ wall: number; cpu: number }>({ id });
        return new Elapsed(wall, cpu);
      },
      arrange,
      close: async () => {
        await child.ask({ id, close: true });
      },
    }];
  }

  try {
    const { version, capability } = await child.ask<{ version: string; capability: string }>({
      capability: true,
    });
    return {
      name,
      description: `torch ${version}, ${capability}`,
      native: true,
      attention({ B, H, Hkv, Q, K, D, causal = false, window = null }, { q, k, v }) {
        const kv = [B, Hkv, K, D];
        return operation(
          `${name} SDPA`,
          "attention",
          { q, k, v },
          { q: [B, H, Q, D], k: kv, v: kv },
          { causal, window },
          (output) => swapAxes(output, [B, H, Q, D]),
        );
      },
      linear: ({ M, I, O }, x, weight) =>
        operation(`${name} linear`, "linear", { x, weight }, { x: [M, I], weight: [O, I] }, {}, (y) => y),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}
