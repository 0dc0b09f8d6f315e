/**
 * Rotary position embedding (Su et al. 2021, arXiv 2104.09864).
 *
 * @module
 */
import type { Device } from "../devices/device.ts";
import { slice } from "../ops/shape.ts";
import { keep } from "../scope.ts";
import { hostData, Tensor } from "../tensor.ts";
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
/** Rows a table gets at most, which bounds its memory; a call that reaches beyond gets a row for each of its tokens. */
const MOST_ROWS = 2 ** 16;

/** Cosines and sines (rows, D), and which row each token (B, N) reads. */
interface Rows {
  readonly table: Tensor;
  readonly rows: Tensor;
}

/** Rotates queries and keys by their positions, with a table of cosines and sines that grows with the context. */
export class RotaryEmbedding implements Disposable {
  readonly #frequencies: Float32Array<ArrayBuffer>;
  #table: Tensor | null = null;
  #home: Device | null = null;
  /** What the latest call beyond the table reads. */
  #beyond: Rows | null = null;

  constructor(readonly head_dim: number, rope: RotaryScaling) {
    this.#frequencies = rotaryFrequencies(head_dim, rope);
  }

  /** The encoding of `positions` (B, N) int32, which reach up to `last`, until the next call. */
  at(positions: Tensor, last: number, device: Device): PositionEncoding {
    this.#releaseBeyond();
    const { table, rows } = last < MOST_ROWS
      ? { table: this.#reach(last, device), rows: positions }
      : (this.#beyond = this.#alone(positions, device));
    const rotate = (x: Tensor) => {
      const out = Tensor.empty(device, "float32", x.shape);
      device.kernels.rotary(x.on(device), table.on(device), rows.on(device), out.on(device));
      return out;
    };
    return (query, key) => [rotate(query), rotate(key)];
  }

  /** The table on `device`, grown to hold position `last`. */
  #reach(last: number, device: Device): Tensor {
    // A table whose computation an abort dropped holds anything.
    const usable = this.#home === device && this.#table !== null && !this.#table.storage.on(device).dropped;
    if (usable && last < this.#table!.shape[0]!) return this.#table!;
    const wanted = Math.min(MOST_ROWS, Math.max(FIRST_ROWS, Math.ceil((last + 1) * 1.5)));
    const table = keep(Tensor.empty(device, "float32", [wanted, this.head_dim]));
    device.kernels.rotary_table(this.#frequencies, 0, 1, table.on(device));
    this.#table?.[Symbol.dispose]();
    this.#table = table;
    this.#home = device;
    return table;
  }

  /** Rows of `positions` alone, in their order. */
  #alone(positions: Tensor, device: Device): Rows {
    const of = hostData(positions) as Int32Array;
    const order = Int32Array.from(of, (_, i) => i);
    const rows = keep(Tensor.ofHost(order, "int32", positions.shape, device.name));
    const table = keep(Tensor.empty(device, "float32", [of.length, this.head_dim]));
    // Positions that follow each other are computed at once.
    for (let from = 0, to = 1; from < of.length; from = to++) {
      while (to < of.length && of[to] === of[to - 1]! + 1) to++;
      using run = slice(table, 0, from, to);
      device.kernels.rotary_table(this.#frequencies, of[from]!, 1, run.on(device));
    }
    return { table, rows };
  }

  #releaseBeyond(): void {
    this.#beyond?.table[Symbol.dispose]();
    this.#beyond?.rows[Symbol.dispose]();
    this.#beyond = null;
  }

  [Symbol.dispose](): void {
    this.#releaseBeyond();
    this.#table?.[Symbol.dispose]();
    this.#table = null;
    this.#home = null;
  }
}
