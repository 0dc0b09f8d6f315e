/** Normalisation layers. @module */
import { layer_norm, rms_norm } from "../ops/matrix.ts";
import type { Tensor } from "../tensor.ts";
import type { Parameter } from "./parameter.ts";

/** A layer that keeps the shape of what it is given. */
export interface Norm {
  /** (…, N) → (…, N). */
  forward(x: Tensor): Tensor;
}

/**
 * Root-mean-square normalisation (Zhang & Sennrich 2019) with a learned weight, to which `unit_offset` is added
 * (Gemma stores w − 1), or with none.
 */
export class RMSNorm implements Norm {
  /** weight (N), or null to normalise only. */
  constructor(readonly weight: Parameter | null, readonly eps: number, readonly unit_offset = 0) {}

  /** (…, N) → (…, N). */
  forward(x: Tensor): Tensor {
    return rms_norm(x, this.weight?.tensor ?? null, { eps: this.eps, unit_offset: this.unit_offset });
  }
}

/** Layer normalisation (Ba et al. 2016). */
export class LayerNorm implements Norm {
  /** weight (N), bias (N). */
  constructor(readonly weight: Parameter, readonly bias: Parameter, readonly eps: number) {}

  /** (…, N) → (…, N). */
  forward(x: Tensor): Tensor {
    return layer_norm(x, this.weight.tensor, this.bias.tensor, { eps: this.eps });
  }
}
