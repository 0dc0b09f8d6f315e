/**
 * The kernel set of the contract on WebGPU: each method records one launch or a few.
 *
 * @module
 */
import type { Allocation, AttentionCall, BinaryOp, Device, Kernels, UnaryOp, View } from "../device.ts";
import type { QuantizedView } from "../quantized.ts";
import { eager, flash } from "./attention.ts";
import type { Dispatch } from "./command.ts";
import { binary, embedding, rotary, unary, where } from "./elementwise.ts";
import type { KernelLimits } from "./flash_tile.ts";
import { linear, linearMatrix, product, requireContiguous, transposed } from "./matmul.ts";
import { linearQuantized, quantizeStates } from "./quantized.ts";
import { count } from "./record.ts";
import { argmax, layerNorm, reduce, rmsNorm, softmax } from "./rows.ts";

/** A device that takes launches. */
export interface Recorder extends Device {
  /** Appends a launch. */
  record(command: Dispatch): void;
  /** What kernels may use of the adapter; the least that any has until one is open. */
  readonly limits: KernelLimits;
}

/** Records kernels on `device`. */
export class WebGpuKernels implements Kernels {
  readonly #device: Recorder;
  readonly #matrices: boolean;

  /** Kernels of `device`; with `matrices` float16 weights are multiplied on matrix units. */
  constructor(device: Recorder, matrices = false) {
    this.#device = device;
    this.#matrices = matrices;
  }

  #record(...commands: readonly (Dispatch | null)[]): void {
    for (const command of commands) if (command) this.#device.record(command);
  }

  unary(op: UnaryOp, x: View, out: View): void {
    this.#record(unary(op, x, out));
  }

  binary(op: BinaryOp, a: View, b: View, out: View): void {
    this.#record(binary(op, a, b, out));
  }

  where(condition: View, a: View, b: View, out: View): void {
    this.#record(where(condition, a, b, out));
  }

  reduce(op: "sum" | "max" | "mean", x: View, out: View): void {
    this.#record(reduce(op, x, out));
  }

  softmax(x: View, out: View, lse: View | null): void {
    requireContiguous("a softmax", out);
    this.#record(softmax(x, out, lse));
  }

  matmul(a: View, b: View, out: View, transpose_b: boolean): void {
    this.#record(...product(a, transpose_b ? transposed(b) : b, out));
  }

  linear(x: View, weight: View, bias: View | null, out: View): void {
    const onMatrices = this.#matrices && weight.dtype === "float16" && x.dtype === "float32";
    this.#record(...(onMatrices ? linearMatrix : linear)(x, weight, bias, out));
  }

  linear_quantized(x: View, weight: QuantizedView, bias: View | null, out: View, room: View): void {
    this.#record(...linearQuantized(x, weight, bias, out, room));
  }

  embedding(ids: View, weight: View, out: View): void {
    requireContiguous("an embedding", out);
    this.#record(embedding(ids, weight, out));
  }

  rms_norm(x: View, weight: View | null, eps: number, unit_offset: number, out: View): void {
    this.#record(rmsNorm(x, weight, eps, unit_offset, out));
  }

  layer_norm(x: View, weight: View, bias: View | null, eps: number, out: View): void {
    this.#record(layerNorm(x, weight, bias, eps, out));
  }

  /** On the host: GPU sines of large angles have no accurate digits, and a table is made once. */
  rotary_table(frequencies: Float32Array, first: number, scaling: number, out: View): void {
    requireContiguous("a rotary table", out);
    const [rows = 0, d = 0] = out.shape;
    const table = new Float32Array(rows * d);
    for (let r = 0; r < rows; r++) {
      for (let i = 0; i < d / 2; i++) {
        const angle = Math.fround((first + r) * frequencies[i]!);
        table[r * d + i] = Math.cos(angle) * scaling;
        table[r * d + d / 2 + i] = Math.sin(angle) * scaling;
      }
    }
    this.#device.write(out.allocation, out.offset * 4, new Uint8Array(table.buffer));
  }

  rotary(x: View, table: View, positions: View, out: View): void {
    requireContiguous("a rotation", out);
    this.#record(rotary(x, table, positions, out));
  }

  argmax(x: View, out: View): void {
    this.#record(argmax(x, out));
  }

  quantize(x: View, out: View, scales: View): void {
    this.#record(quantizeStates(x, out, scales));
  }

  attention(call: AttentionCall): void {
    requireContiguous("an attention output", call.out);
    const made: Allocation[] = [];
    const scratch = (shape: readonly number[]): View => {
      const allocation = this.#device.allocate(Math.max(4, count(shape) * 4));
      made.push(allocation);
      const strides = shape.map((_, d) => count(shape.slice(d + 1)));
      return { allocation, dtype: "float32", offset: 0, shape, strides };
    };
    try {
      this.#record(
        ...(call.algorithm === "flash" ? flash(call, scratch, this.#device.limits) : eager(call, scratch)),
      );
    } finally {
      for (const allocation of made) this.#device.release(allocation);
    }
  }
}
