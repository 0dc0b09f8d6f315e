/** Feed-forward layers. @module */
import { gelu, mul, quick_gelu, relu, silu, silu_mul } from "../ops/elementwise.ts";
import { tidy } from "../scope.ts";
import type { Tensor } from "../tensor.ts";
import type { Linear } from "./linear.ts";

/** Activation functions by the names devices use. */
export type Activation = "silu" | "gelu" | "gelu_tanh" | "relu" | "quick_gelu";

/** A feed-forward layer of any kind. */
export interface FeedForward {
  /** (…, E) → (…, E). */
  forward(x: Tensor): Tensor;
}

const ACTIVATE: Readonly<Record<Activation, (x: Tensor) => Tensor>> = {
  silu,
  gelu: (x) => gelu(x),
  gelu_tanh: (x) => gelu(x, { approximate: "tanh" }),
  relu,
  quick_gelu,
};

/** `down(act(gate(x)) · up(x))` (Shazeer 2020, GLU variants). */
export class GatedMLP implements FeedForward {
  constructor(
    readonly gate: Linear,
    readonly up: Linear,
    readonly down: Linear,
    readonly activation: Activation,
  ) {}

  /** (…, E) → (…, E). */
  forward(x: Tensor): Tensor {
    return tidy(() => {
      const [gate, up] = [this.gate.forward(x), this.up.forward(x)];
      // SwiGLU is one kernel.
      const gated = this.activation === "silu"
        ? silu_mul(gate, up)
        : mul(ACTIVATE[this.activation](gate), up);
      return this.down.forward(gated);
    });
  }
}

/** `down(act(up(x)))` (Vaswani et al. 2017). */
export class MLP implements FeedForward {
  constructor(readonly up: Linear, readonly down: Linear, readonly activation: Activation) {}

  /** (…, E) → (…, E). */
  forward(x: Tensor): Tensor {
    return tidy(() => this.down.forward(ACTIVATE[this.activation](this.up.forward(x))));
  }
}
