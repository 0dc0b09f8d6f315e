/** Linear layer. @module */
import { linear } from "../ops/matrix.ts";
import { linearQuantized } from "../ops/quantized.ts";
import type { Tensor } from "../tensor.ts";
import type { Parameter } from "./parameter.ts";

/** `y = x · weightᵀ + bias`, in the weight's stored format. */
export class Linear {
  /** weight (O, I), bias (O). */
  constructor(readonly weight: Parameter, readonly bias: Parameter | null = null) {
    weight.use ??= "linear";
  }

  /** (…, I) → (…, O). */
  forward(x: Tensor): Tensor {
    const { tensor, quantized } = this.weight;
    const bias = this.bias?.tensor ?? null;
    return quantized === undefined ? linear(x, tensor, bias) : linearQuantized(x, tensor, quantized, bias);
  }
}
