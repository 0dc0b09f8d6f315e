/** Gated feed-forward layer. @module */
import { gelu, mul, quick_gelu, relu, silu_mul } from "../ops/elementwise.ts";
import { tidy } from "../scope.ts";
import type { Tensor } from "../tensor.ts";
import type { Linear } from "./linear.ts";

/** Activation functions by the names devices use. */
export type Activation = "silu" | "gelu" | "gelu_tanh" | "relu" | "quick_gelu";

/** `act(gate) · up` for each activation. */
const GATES: Readonly<Record<Activation, (gate: Tensor, up: Tensor) => Tensor>> = {
  silu: silu_mul,
  gelu: (gate, up) => mul(gelu(gate), up),
  gelu_tanh: (gate, up) => mul(gelu(gate, { approximate: "tanh" }), up),
  relu: (gate, up) => mul(relu(gate), up),
  quick_gelu: (gate, up) => mul(quick_gelu(gate), up),
};

/** `down(act(gate(x)) · up(x))` (Shazeer 2020, GLU variants). */
export class GatedMLP {
  constructor(
    readonly gate: Linear,
    readonly up: Linear,
    readonly down: Linear,
    readonly activation: Activation,
  ) {}

  /** (…, E) → (…, E). */
  forward(x: Tensor): Tensor {
    return tidy(() => this.down.forward(GATES[this.activation](this.gate.forward(x), this.up.forward(x))));
  }
}
