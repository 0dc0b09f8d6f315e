/** Patch embedding of images. @module */
import { cast } from "../ops/elementwise.ts";
import { linear } from "../ops/matrix.ts";
import { permute, reshape } from "../ops/shape.ts";
import { tidy } from "../scope.ts";
import type { Tensor } from "../tensor.ts";
import type { Parameter } from "./parameter.ts";

/** A convolution whose stride is its size, as a linear layer over the pixels of each patch (Dosovitskiy et al. 2021). */
export class PatchEmbedding {
  /** weight (E, C, P, P). */
  constructor(readonly weight: Parameter) {}

  /** Images (B, C, R·P, S·P) → (B, R·S, E), row by row. */
  forward(images: Tensor): Tensor {
    const [e, c, p] = this.weight.tensor.shape as [number, number, number, number];
    const [b, , height, width] = images.shape as [number, number, number, number];
    const [rows, columns] = [height / p, width / p];
    return tidy(() => {
      const grid = reshape(cast(images, "float32"), [b, c, rows, p, columns, p]);
      const patches = reshape(permute(grid, [0, 2, 4, 1, 3, 5]), [b, rows * columns, c * p * p]);
      return linear(patches, reshape(this.weight.tensor, [e, c * p * p]));
    });
  }
}
