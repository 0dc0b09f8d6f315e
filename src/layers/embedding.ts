/** Token embedding. @module */
import { embedding } from "../ops/matrix.ts";
import type { Tensor } from "../tensor.ts";
import type { Parameter } from "./parameter.ts";

/** Rows of a (V, E) weight. */
export class Embedding {
  constructor(readonly weight: Parameter) {
    weight.use = "other";
  }

  /** Integer ids of any shape → (…, E). */
  forward(input_ids: Tensor): Tensor {
    return embedding(input_ids, this.weight.tensor);
  }
}
