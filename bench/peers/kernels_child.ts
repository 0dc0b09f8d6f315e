/**
 * onnxruntime-web in a process of its own, for threads.ts: how many threads it has is settled when it starts.
 *
 *     deno run -A bench/peers/kernels_child.ts THREADS
 *
 * @module
 */
import process from "node:process";
import { createInterface } from "node:readline";
import type { AttentionShape } from "../cases.ts";
import type { Operands } from "../compare.ts";
import type { LinearShape, PeerOperation } from "./kernels.ts";
import { onnxKernels } from "./onnx_kernels.ts";
import { loadOnnxRuntime } from "./onnxruntime.ts";

/** What can be opened. */
export type KernelShape = { readonly attention: AttentionShape } | { readonly linear: LinearShape };

/** Opens a shape with operands from files, or runs what is open. */
export type KernelRequest =
  | KernelShape & { readonly files: readonly string[] }
  | { readonly write: string }
  | { readonly run: true };

const read = (path: string) => new Float32Array(Deno.readFileSync(path).buffer);

async function serve(threads: number): Promise<void> {
  const peer = onnxKernels(await loadOnnxRuntime("web", threads));
  let open: PeerOperation | undefined;
  const answer = async (request: KernelRequest): Promise<object> => {
    if ("run" in request) {
      const start = performance.now();
      await open!.call();
      return { ms: performance.now() - start };
    }
    if ("write" in request) {
      const output = open!.arrange(await open!.call());
      Deno.writeFileSync(request.write, new Uint8Array(output.buffer, output.byteOffset, output.byteLength));
      return {};
    }
    await open?.close();
    const [a, b, c] = request.files.map(read);
    const operands = { q: a!, k: b!, v: c! } as Operands;
    [open] = "linear" in request
      ? await peer.linear(request.linear, a!, b!)
      : await peer.attention(request.attention, operands);
    return {};
  };
  for await (const line of createInterface({ input: process.stdin })) {
    let result: object;
    try {
      result = await answer(JSON.parse(line));
    } catch (error) {
      result = { error: error instanceof Error ? error.message : String(error) };
    }
    console.log(JSON.stringify(result));
  }
}

if (import.meta.main) {
  await serve(Number(Deno.args[0]));
  Deno.exit(0);
}
