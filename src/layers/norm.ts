/** Normalisation layers. @module */
import { rms_norm } from "../ops/matrix.ts";
import type { Tensor } from "../tensor.ts";
import type { Parameter } from "./parameter.ts";

/** Root-mean-square normalisation with a learned weight (Zhang & Sennrich 2019). */
export class RMSNorm {
  /** weight (N). */
  constructor(readonly weight: Parameter, readonly eps: number) {}

  /** (…, N) → (…, N). */
  forward(x: Tensor): Tensor {
    return rms_norm(x, this.weight.tensor, { eps: this.eps });
  }
}
