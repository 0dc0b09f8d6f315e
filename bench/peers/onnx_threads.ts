/**
 * onnxruntime-web on one thread and on two, side by side.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { assertClose, toleranceOf } from "../../tests/support/tolerance.ts";
import { Elapsed } from "../timing.ts";
import { Child } from "./child.ts";
import type { KernelRequest, KernelShape } from "./kernels_child.ts";

/** What it is asked for. */
export interface KernelCase {
  readonly what: KernelShape;
  readonly operands: readonly Float32Array<ArrayBuffer>[];
}

/** onnxruntime-web on one thread and on two, each in a process of its own. */
export class OnnxThreads {
  readonly #children: readonly Child[];
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
    const script = fileURLToPath(new URL("kernels_child.ts", import.meta.url));
    this.#children = [1, 2].map((threads) =>
      new Child(`onnxruntime-web with ${threads} threads`, Deno.execPath(), [
        ...["run", "-A", "--quiet", "--no-lock", script, `${threads}`],
      ])
    );
  }

  #ask<T extends object>(threads: 1 | 2, request: KernelRequest): Promise<T> {
    return this.#children[threads - 1]!.ask<T>(request);
  }

  /** Opens a case at both and compares their results with ours. */
  async open(
    { what, operands }: KernelCase,
    ours: Float32Array,
    name: string,
  ): Promise<void> {
    const files = operands.map((_, i) => `${this.#folder}/${i}`);
    for (const [i, data] of operands.entries()) {
      await Deno.writeFile(files[i]!, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    }
    for (const threads of [1, 2] as const) {
      await this.#ask(threads, { ...what, files });
      const write = `${this.#folder}/output`;
      await this.#ask(threads, { write });
      const theirs = new Float32Array((await Deno.readFile(write)).buffer);
      const kind = "linear" in what ? "linear" : "attention_flash";
      assertClose(theirs, ours, toleranceOf(kind, "wasm"), `${name}: onnxruntime-web beside ours`);
    }
  }

  async run(threads: 1 | 2): Promise<Elapsed> {
    const { ms } = await this.#ask<{ ms: number }>(threads, { run: true });
    return new Elapsed(ms, ms);
  }

  close(): void {
    for (const child of this.#children) child.close();
  }
}
