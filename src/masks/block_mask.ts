/**
 * Block masks: which blocks of queries and keys attention computes at all, and in which of them it asks a predicate.
 *
 * Method: PyTorch's FlexAttention (https://arxiv.org/abs/2412.05496).
 *
 * @module
 */
import type { DeviceName } from "../devices/device.ts";
import { InvalidArgument } from "../errors.ts";
import { keep } from "../scope.ts";
import { Tensor } from "../tensor.ts";
import { add_offsets_to_mask_function, and_masks, checkCallable, checkSize } from "./algebra.ts";
import {
  blocksOf,
  expandBlocks,
  FULL,
  HIDDEN,
  listBlocks,
  PARTIAL,
  sortBlocks,
  type SortedBlocks,
} from "./blocks.ts";
import { type Frame, readFrame } from "./frame.ts";
import { compile, type RowProgram } from "./rows.ts";
import { describe } from "./structure.ts";
import type { BlockMaskLike, MaskFunction } from "./types.ts";

/** Side of a block, in queries and in keys. */
export const BLOCK = 128;

/** A block mask as a kernel reads it; see `BlocksView` of `device.ts`. */
export interface BlockTensors {
  /** Queries and keys of a block. */
  readonly size: readonly [queries: number, keys: number];
  /** (B, H, query blocks, 2) int32. */
  readonly lists: Tensor;
  /** (n, 2) int32, of the storage of `lists`. */
  readonly entries: Tensor;
  /** (m, queries, bytes) uint8. */
  readonly bits: Tensor;
}

/** What {@linkcode BlockMask.toString} shows. */
export interface BlockDrawOptions {
  /** Batch row; default 0. */
  batch?: number;
  /** Head; default 0. A mask with one head shows that one. */
  head?: number;
  /** Most cells in a direction; larger masks are drawn with several blocks to a cell. Default 48. */
  max_cells?: number;
}

/**
 * A mask (B, H, Q, K) by blocks: hidden ones are skipped, in full ones no predicate is asked. Made by
 * {@linkcode create_block_mask} and `flex_attention_mask`; `using` gives back what a device holds of its lists.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { causal_mask_function } from "./functions.ts";
 *
 * using mask = create_block_mask(causal_mask_function, null, null, 6, 6, { BLOCK_SIZE: 2 });
 * assertEquals(await mask.kv_num_blocks.tolist(), [[[1, 1, 1]]]);
 * assertEquals(await mask.full_kv_num_blocks.tolist(), [[[0, 1, 2]]]);
 * assertEquals(
 *   String(mask),
 *   "BlockMask [1,1,6,6] of 2 × 2 blocks, 33.3 % hidden\n     kv 0…5\nq 0  ▣ ⬚ ⬚\nq 2  ■ ▣ ⬚\nq 4  ■ ■ ▣",
 * );
 * ```
 */
export class BlockMask implements BlockMaskLike, Disposable {
  /** (B, H, Q, K); a size of 1 in B or H stands for all. */
  readonly shape: readonly [B: number, H: number, Q: number, K: number];
  /** Queries and keys of a block. */
  readonly BLOCK_SIZE: readonly [queries: number, keys: number];
  /** (B, H, query blocks) int32: number of partly visible key blocks. */
  readonly kv_num_blocks: Tensor;
  /** (B, H, query blocks, key blocks) int32: partly visible key blocks, ascending, then the others, ascending. */
  readonly kv_indices: Tensor;
  /** (B, H, query blocks) int32: number of key blocks that are visible as a whole. */
  readonly full_kv_num_blocks: Tensor;
  /** (B, H, query blocks, key blocks) int32: those blocks, ascending, then the others, ascending. */
  readonly full_kv_indices: Tensor;
  /** The predicate of partly visible blocks, over positions in the mask: offsets and padding are part of it. */
  readonly mask_mod: MaskFunction;
  /**
   * What kernels read: visible blocks alone, and elements of the partly visible ones.
   *
   * @internal
   */
  readonly tensors: BlockTensors;
  /** Where the mask will be used. */
  readonly device: DeviceName;
  readonly #blocks: SortedBlocks;

  /**
   * Use {@linkcode create_block_mask}.
   *
   * @internal
   */
  constructor(frame: Frame, program: RowProgram, heads: number, block_size: readonly [number, number]) {
    const { batch, queries, keys, device } = frame;
    this.device = device;
    this.shape = [batch, heads, queries, keys];
    this.BLOCK_SIZE = block_size;
    this.mask_mod = relative(frame);
    this.#blocks = sortBlocks(frame, program, heads, block_size);
    const grid = [batch, heads, blocksOf(queries, block_size[0]), blocksOf(keys, block_size[1])];
    const lists = (kind: number): [Tensor, Tensor] => {
      const { counts, indices } = listBlocks(this.#blocks.kinds, grid[3]!, kind);
      return [
        Tensor.ofHost(counts, "int32", grid.slice(0, 3), device),
        Tensor.ofHost(indices, "int32", grid, device),
      ];
    };
    [this.kv_num_blocks, this.kv_indices] = lists(PARTIAL);
    [this.full_kv_num_blocks, this.full_kv_indices] = lists(FULL);
    const { entries, bits, rows, bytes } = this.#blocks;
    // They live as long as the mask, whatever scope it is made in.
    const own = (data: Int32Array<ArrayBuffer> | Uint8Array<ArrayBuffer>, shape: readonly number[]) =>
      keep(Tensor.ofHost(data, data instanceof Int32Array ? "int32" : "uint8", shape, device));
    const list = this.#blocks.lists;
    const both = new Int32Array(list.length + entries.length);
    both.set(list);
    both.set(entries, list.length);
    const index = own(both, [both.length]);
    const [, heads_of, bands] = grid as [number, number, number];
    this.tensors = {
      size: block_size,
      lists: keep(index.view([...grid.slice(0, 3), 2], [heads_of * bands * 2, bands * 2, 2, 1])),
      entries: keep(index.view([entries.length / 2, 2], [2, 1], list.length)),
      bits: own(bits, [bits.length / Math.max(1, rows * bytes), rows, bytes]),
    };
    index[Symbol.dispose]();
  }

  /** Blocks that are hidden, in percent of all. */
  sparsity(): number {
    const { kinds } = this.#blocks;
    const hidden = kinds.reduce((n, kind) => kind === HIDDEN ? n + 1 : n, 0);
    return kinds.length === 0 ? 0 : 100 * hidden / kinds.length;
  }

  /** Every element, (B, H, Q, K) bool. Belongs to the caller. */
  to_dense(): Tensor {
    const data = expandBlocks(this.#blocks, this.shape, this.BLOCK_SIZE);
    return Tensor.ofHost(data, "bool", this.shape, this.device);
  }

  /**
   * Draws one head by blocks: ■ visible, ▣ partly visible, ⬚ hidden.
   *
   * @throws {InvalidArgument} for a batch row or head the mask does not have
   */
  toString(options: BlockDrawOptions = {}): string {
    const { batch = 0, head = 0, max_cells = 48 } = options;
    const [B, H, Q, K] = this.shape, [bq, bk] = this.BLOCK_SIZE;
    checkSize(max_cells, "max_cells");
    if (!(batch in new Array(B).fill(0)) || (H > 1 && !(head in new Array(H).fill(0)))) {
      throw new InvalidArgument(
        `Cannot draw batch row ${batch}, head ${head} of a mask of shape [${this.shape}]`,
      );
    }
    const [rows, columns] = [blocksOf(Q, bq), blocksOf(K, bk)];
    const step = Math.max(1, Math.ceil(Math.max(rows, columns) / max_cells));
    const from = (batch * H + (H > 1 ? head : 0)) * rows * columns;
    const cell = (r0: number, c0: number): string => {
      const kinds = new Set<number>();
      for (let r = r0; r < Math.min(rows, r0 + step); r++) {
        for (let c = c0; c < Math.min(columns, c0 + step); c++) {
          kinds.add(this.#blocks.kinds[from + r * columns + c]!);
        }
      }
      return kinds.size > 1 || kinds.has(PARTIAL) ? "▣" : kinds.has(FULL) ? "■" : "⬚";
    };
    const starts = (n: number) => Array.from({ length: Math.ceil(n / step) }, (_, i) => i * step);
    const width = String(Math.max(0, ...starts(rows)) * bq).length;
    const cells = step === 1 ? "" : `, a cell is ${step} × ${step} of them`;
    return [
      `BlockMask [${this.shape}] of ${bq} × ${bk} blocks${cells}, ${this.sparsity().toFixed(1)} % hidden`,
      `${" ".repeat(width + 2)}  kv 0…${K - 1}`,
      ...starts(rows).map((r) =>
        `q ${String(r * bq).padStart(width)}  ${starts(columns).map((c) => cell(r, c)).join(" ")}`
      ),
    ].join("\n");
  }

  /** Gives back what a device holds of the lists. */
  [Symbol.dispose](): void {
    const { lists, entries, bits } = this.tensors;
    const listed = [this.kv_num_blocks, this.kv_indices, this.full_kv_num_blocks, this.full_kv_indices];
    for (const t of [...listed, lists, entries, bits]) t[Symbol.dispose]();
  }
}

/** Options of {@linkcode create_block_mask}. */
export interface BlockMaskOptions {
  /** Side of a block, or its queries and keys; default 128. */
  BLOCK_SIZE?: number | readonly [queries: number, keys: number];
  /** Where the mask will be used; default `"wasm"`. */
  device?: DeviceName;
}

/**
 * Makes a block mask (B, H, Q_LEN, KV_LEN) of a predicate. With null for `B` or `H` the predicate is asked for batch
 * row or head 0 only, which then stands for all. Built-in predicates cost a few steps a row; others are called once
 * per element.
 *
 * Method: PyTorch's `create_block_mask`.
 *
 * @throws {InvalidArgument} for a predicate that is not callable, or sizes that are not integers ≥ 1.
 */
export function create_block_mask(
  mask_mod: MaskFunction,
  B: number | null,
  H: number | null,
  Q_LEN: number,
  KV_LEN: number,
  options: BlockMaskOptions = {},
): BlockMask {
  checkCallable([mask_mod], "create_block_mask");
  const odd = Object.keys(options).find((key) => key !== "BLOCK_SIZE" && key !== "device");
  if (odd !== undefined) {
    throw new InvalidArgument(
      `Cannot create a block mask with option "${odd}": known options are BLOCK_SIZE, device`,
    );
  }
  const { BLOCK_SIZE = BLOCK, device = "wasm" } = options;
  const sides: readonly number[] = typeof BLOCK_SIZE === "number" ? [BLOCK_SIZE, BLOCK_SIZE] : BLOCK_SIZE;
  const [bq, bk] = sides as readonly [number, number];
  const sizes = [["B", B ?? 1], ["H", H ?? 1], ["Q_LEN", Q_LEN], ["KV_LEN", KV_LEN]] as const;
  for (const [name, size] of [...sizes, ["BLOCK_SIZE", bq], ["BLOCK_SIZE", bk]] as const) {
    checkSize(size, name);
  }
  const frame = readFrame({
    batch_size: B ?? 1,
    q_length: Q_LEN,
    kv_length: KV_LEN,
    mask_function: mask_mod,
    device,
  });
  return new BlockMask(frame, compile(frame.maskFunction), H ?? 1, [bq, bk]);
}

/** The predicate over positions that begin at 0, with the padding in it. */
function relative({ maskFunction, padding, queryOffset, keyOffset }: Frame): MaskFunction {
  const visible = padding === null ? maskFunction : and_masks(
    maskFunction,
    describe((b, _h, _q, kv) => kv < padding.cols && padding.data[b * padding.cols + kv] === 1, {
      kind: "keys",
      mask: padding,
    }),
  );
  if (queryOffset === 0 && keyOffset === 0) return visible;
  return add_offsets_to_mask_function(visible, queryOffset, keyOffset);
}
