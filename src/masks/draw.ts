/**
 * Draws masks as text: ■ visible, ⬚ hidden, ▣ partly visible where cells stand for blocks.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import { Tensor } from "../tensor.ts";
import type { MaskFunction } from "./types.ts";
import { denseVisible } from "./visible.ts";

/** What {@linkcode maskToString} shows. */
export interface DrawOptions {
  /** Batch row; default 0. */
  batch?: number;
  /** Head; default 0. A mask with one head shows that one. */
  head?: number;
  /** Absolute position of the first query, written on the axis and given to a predicate; default 0. */
  q_offset?: number;
  /** Absolute position of the first key, likewise; default 0. */
  kv_offset?: number;
  /** Most cells in a direction; larger masks are drawn in blocks. Default 48. */
  max_cells?: number;
}

/**
 * Draws one head of a mask as a grid, a row per query: a predicate over `q_length` × `kv_length` positions, a 4-D
 * bool or additive mask (B, 1 or H, Q, N), or a 2-D padding mask (B, N), which hides keys from all `q_length`
 * queries. Lengths default to those of the tensor.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { causal_mask_function } from "./functions.ts";
 *
 * assertEquals(maskToString(causal_mask_function, 2, 2), "     kv 0…1\nq 0  ■ ⬚\nq 1  ■ ■");
 * ```
 *
 * @throws {InvalidArgument} for lengths that are missing or do not fit the tensor, or a tensor without a host copy.
 */
export function maskToString(
  mask: MaskFunction | Tensor,
  q_length?: number,
  kv_length?: number,
  options: DrawOptions = {},
): string {
  const { q_offset = 0, kv_offset = 0, max_cells = 48 } = options;
  const { queries, keys, visible } = source(mask, q_length, kv_length, options);
  for (const [name, n] of [["q_length", queries], ["kv_length", keys], ["max_cells", max_cells]] as const) {
    if (!Number.isSafeInteger(n) || n < 1) {
      throw new InvalidArgument(`Cannot draw a mask with ${name} ${n}: expected an integer ≥ 1`);
    }
  }
  const block = Math.ceil(Math.max(queries, keys) / max_cells);
  const cell = (q0: number, kv0: number): string => {
    let shown = 0, all = 0;
    for (let q = q0; q < Math.min(queries, q0 + block); q++) {
      for (let kv = kv0; kv < Math.min(keys, kv0 + block); kv++, all++) if (visible(q, kv)) shown++;
    }
    return shown === 0 ? "⬚" : shown === all ? "■" : "▣";
  };
  const lastLabel = q_offset + Math.floor((queries - 1) / block) * block;
  const width = `q ${lastLabel}`.length;
  const each = block === 1 ? "" : `, a cell is ${block} × ${block}`;
  const lines = [`${" ".repeat(width)}  kv ${kv_offset}…${kv_offset + keys - 1}${each}`];
  for (let q = 0; q < queries; q += block) {
    const cells: string[] = [];
    for (let kv = 0; kv < keys; kv += block) cells.push(cell(q, kv));
    lines.push(`q ${String(q_offset + q).padStart(width - 2)}  ${cells.join(" ")}`);
  }
  return lines.join("\n");
}

interface Source {
  readonly queries: number;
  readonly keys: number;
  visible(q: number, kv: number): boolean;
}

function source(
  mask: MaskFunction | Tensor,
  q_length: number | undefined,
  kv_length: number | undefined,
  { batch = 0, head = 0, q_offset = 0, kv_offset = 0 }: DrawOptions,
): Source {
  if (typeof mask === "function") {
    return {
      queries: q_length ?? NaN,
      keys: kv_length ?? NaN,
      visible: (q, kv) => mask(batch, head, q + q_offset, kv + kv_offset),
    };
  }
  if (!(mask instanceof Tensor) || (mask.shape.length !== 4 && mask.shape.length !== 2)) {
    throw new InvalidArgument(
      `Cannot draw ${
        mask instanceof Tensor ? `a mask of shape [${mask.shape}]` : String(mask)
      }: expected (B, H, Q, N), (B, N) or a predicate`,
    );
  }
  const dense = denseVisible(mask);
  const keys = kv_length ?? mask.shape.at(-1)!;
  const [batches, heads, rows, cols] = mask.shape.length === 4
    ? mask.shape as [number, number, number, number]
    : [mask.shape[0]!, 1, 1, mask.shape[1]!] as const;
  const queries = q_length ?? rows;
  if (
    batch >= batches || (head >= heads && heads > 1) || keys > cols ||
    (mask.shape.length === 4 && queries > rows)
  ) {
    throw new InvalidArgument(
      `Cannot draw batch ${batch}, head ${head}, ${queries} × ${keys} of a mask of shape [${mask.shape}]`,
    );
  }
  return { queries, keys, visible: (q, kv) => dense(batch, head, q, kv) };
}
