/**
 * Random masks by blocks for the attention case table: hidden, visible and mixed blocks in every order.
 *
 * @module
 */
import type { BlocksView } from "../../src/devices/device.ts";
import { type BlockMask, create_block_mask } from "../../src/masks/block_mask.ts";
import { hostData } from "../../src/tensor.ts";
import { type Random, seeded } from "./random.ts";
import type { Bench, Placed } from "./views.ts";

/** What a row of the table says of its blocks. */
export interface BlockCase {
  readonly size: readonly [queries: number, keys: number];
  /** Which of B and H the mask depends on; default neither. */
  readonly stored?: readonly ["B" | 1, "H" | 1];
  /** Rows that see nothing. */
  readonly masked_rows?: readonly number[];
}

type Sizes = Readonly<Record<"B" | "H" | "Q" | "K", number>>;

/** A random mask: about 40 % of its blocks hidden, 25 % visible, the others element by element. */
export function randomBlockMask(
  { size: [bq, bk], stored = [1, 1], masked_rows = [] }: BlockCase,
  { B, H, Q, K }: Sizes,
  random: Random,
): BlockMask {
  const seed = random.int(0, 2 ** 30);
  const draw = (...at: readonly number[]) => seeded(`${seed} ${at}`).next();
  const rows = Math.ceil(Q / bq), columns = Math.ceil(K / bk);
  const kinds = Array.from({ length: B * H * rows * columns }, (_, at) => draw(at));
  return create_block_mask(
    (b, h, q, kv) => {
      if (masked_rows.includes(q)) return false;
      const kind = kinds[((b * H + h) * rows + Math.floor(q / bq)) * columns + Math.floor(kv / bk)]!;
      return kind > 0.4 && (kind > 0.75 || draw(b, h, q, kv) > 0.5);
    },
    stored[0] === 1 ? null : B,
    stored[1] === 1 ? null : H,
    Q,
    K,
    { BLOCK_SIZE: [bq, bk] },
  );
}

/** The lists of a mask on a raw device, broadcast to (B, H). */
export function placeBlocks(bench: Bench, { tensors }: BlockMask, { B, H }: Sizes): BlocksView {
  const { size, lists, entries, bits } = tensors;
  const [ours, theirs] = [hostData(lists) as Int32Array, hostData(entries) as Int32Array];
  const index = bench.place([ours.length + theirs.length], [...ours, ...theirs], "int32").view;
  const strides = [0, 1].map((d) => lists.shape[d] === 1 ? 0 : lists.strides[d]!);
  return {
    size,
    lists: {
      ...index,
      shape: [B, H, ...lists.shape.slice(2)],
      strides: [...strides, ...lists.strides.slice(2)],
    },
    entries: { ...index, shape: entries.shape, strides: [2, 1], offset: ours.length },
    bits: bench.place(bits.shape, hostData(bits) as Uint8Array, bits.dtype).view,
  };
}

/** The additive mask (B, H, Q, K) that says what a mask by blocks and another one say together. */
export function denseTogether(
  blocks: BlockMask,
  other: (Placed & { readonly type: "bool" | "additive" }) | null,
  { B, H, Q, K }: Sizes,
): Float32Array<ArrayBuffer> {
  const [mb, mh] = blocks.shape;
  return Float32Array.from({ length: B * H * Q * K }, (_, at) => {
    const [b, h, q, kv] = [
      Math.floor(at / (H * Q * K)),
      Math.floor(at / (Q * K)) % H,
      Math.floor(at / K) % Q,
      at % K,
    ];
    const x = other === null ? 0 : other.values[at]!;
    const bias = other?.type === "bool" && x === 0 ? -Infinity : other?.type === "bool" ? 0 : x;
    return blocks.mask_mod(mb === 1 ? 0 : b!, mh === 1 ? 0 : h!, q!, kv!) ? bias : -Infinity;
  });
}
