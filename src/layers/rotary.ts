/**
 * Rotary position embedding (Su et al. 2021, arXiv 2104.09864).
 *
 * @module
 */
import { defaultDevice } from "../devices/mod.ts";
import type { Device } from "../devices/device.ts";
import { keep } from "../scope.ts";
import { placeOf } from "../ops/place.ts";
import { Tensor } from "../tensor.ts";
import type { PositionEncoding } from "./attention.ts";

/** How frequencies are derived from the head dimension. */
export interface RotaryScaling {
  readonly rope_type: "default" | "linear" | "llama3";
  readonly rope_theta: number;
  /** Context extension factor (linear, llama3). */
  readonly factor?: number;
  readonly low_freq_factor?: number;
  readonly high_freq_factor?: number;
  readonly original_max_position_embeddings?: number;
}

const { fround } = Math;

/**
 * Frequencies θ^(−2i/D) in float32 as the reference computes them, rescaled by `rope_type`: linear divides all by
 * the factor; llama3 divides the long waves, keeps the short ones and blends between (Llama 3.1).
 */
export function rotaryFrequencies(head_dim: number, rope: RotaryScaling): Float32Array<ArrayBuffer> {
  const out = new Float32Array(head_dim / 2);
  for (let i = 0; i < out.length; i++) {
    const f = fround(1 / fround(rope.rope_theta ** fround((2 * i) / head_dim)));
    out[i] = rope.rope_type === "default"
      ? f
      : rope.rope_type === "linear"
      ? fround(f / rope.factor!)
      : llama3(f, rope);
  }
  return out;
}

function llama3(f: number, rope: RotaryScaling): number {
  const {
    factor = 1,
    low_freq_factor = 1,
    high_freq_factor = 4,
    original_max_position_embeddings: context = 8192,
  } = rope;
  const wavelength = fround(2 * Math.PI / f);
  if (wavelength > context / low_freq_factor) return fround(f / factor);
  if (wavelength < context / high_freq_factor) return f;
  const smooth = fround(
    (fround(context / wavelength) - low_freq_factor) / (high_freq_factor - low_freq_factor),
  );
  return fround(fround((1 - smooth) * f / factor) + fround(smooth * f));
}

/** Rows a table gets at least, so that decoding seldom rebuilds it. */
const FIRST_ROWS = 256;

/** Rotates queries and keys by their positions, with a table of cosines and sines that grows with the context. */
export class RotaryEmbedding implements Disposable {
  readonly #frequencies: Float32Array<ArrayBuffer>;
  #table: Tensor | null = null;
  #home: Device | null = null;

  constructor(readonly head_dim: number, rope: RotaryScaling) {
    this.#frequencies = rotaryFrequencies(head_dim, rope);
  }

  /** Makes sure the table on `device` reaches position `last`. */
  reach(last: number, device: Device): void {
    // A table whose computation an abort dropped holds anything.
    const usable = this.#home === device && this.#table !== null && !this.#table.storage.on(device).dropped;
    if (usable && last < this.#table!.shape[0]!) return;
    const wanted = Math.max(FIRST_ROWS, Math.ceil((last + 1) * 1.5));
    const table = keep(Tensor.empty(device, "float32", [wanted, this.head_dim]));
    device.kernels.rotary_table(this.#frequencies, 0, 1, table.on(device));
    this.#table?.[Symbol.dispose]();
    this.#table = table;
    this.#home = device;
  }

  /**
   * The encoding of `positions` (B, N) int32, which reach up to `last`. The table grows to hold them.
   */
  at(positions: Tensor, last: number, device: Device): PositionEncoding {
    this.reach(last, device);
    return (query, key) => [this.forward(query, positions), this.forward(key, positions)];
  }

  /** x (B, H, N, D) rotated by positions (B, N), after {@linkcode RotaryEmbedding.reach}. */
  forward(x: Tensor, positions: Tensor): Tensor {
    const device = this.#home ?? placeOf([x], "rotate") ?? defaultDevice(x.device);
    const out = Tensor.empty(device, "float32", x.shape);
    device.kernels.rotary(x.on(device), this.#table!.on(device), positions.on(device), out.on(device));
    return out;
  }

  [Symbol.dispose](): void {
    this.#table?.[Symbol.dispose]();
    this.#table = null;
    this.#home = null;
  }
}
