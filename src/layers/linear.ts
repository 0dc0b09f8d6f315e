/** Linear layer. @module */
import { linear } from "../ops/matrix.ts";
import type { Tensor } from "../tensor.ts";
import type { Parameter } from "./parameter.ts";

/** `y = x · weightᵀ + bias`, in the weight's stored format. */
export class Linear {
  /** weight (O, I), bias (O). */
  constructor(readonly weight: Parameter, readonly bias: Parameter | null = null) {}

  /** (…, I) → (…, O). */
  forward(x: Tensor): Tensor {
    return linear(x, this.weight.tensor, this.bias?.tensor ?? null);
  }
}
