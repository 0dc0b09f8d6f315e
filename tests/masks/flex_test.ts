/**
 * Block masks: against the recordings of several blocks, against counting every element, and what they refuse.
 *
 * @module
 */
import { assertEquals, assertThrows } from "@std/assert";
import { InvalidArgument } from "../../src/errors.ts";
import { type BlockMask, create_block_mask } from "../../src/masks/block_mask.ts";
import { flex_attention_mask } from "../../src/masks/format_flex.ts";
import * as masks from "../../src/masks/functions.ts";
import { and_masks, or_masks } from "../../src/masks/algebra.ts";
import type { MaskFunction } from "../../src/masks/types.ts";
import { hostData, Tensor } from "../../src/tensor.ts";
import { liveTest } from "../models/support.ts";
import fc from "../support/fast_check.ts";
import { goldenCases, goldenTensor } from "../support/golden.ts";
import { describeBlocks, difference, maskFunction } from "./golden_run.ts";

for (const c of goldenCases("flex")) {
  Deno.test(`golden ${c.id}`, () => {
    const { batch_size, q_length, kv_length, q_offset, kv_offset } = c.params as Record<string, number>;
    const padding = c.params.attention_mask as { left_padding: number[]; length: number } | null;
    const mask = flex_attention_mask({
      batch_size: batch_size!,
      q_length: q_length!,
      kv_length: kv_length!,
      q_offset: q_offset!,
      kv_offset: kv_offset!,
      mask_function: maskFunction(c.params.mask_function!),
      attention_mask: padding === null ? null : Tensor.from(
        padding.left_padding.map((n) => Array.from({ length: padding.length }, (_, i) => i >= n)),
      ),
    });
    const outcome = describeBlocks(mask);
    const expected = c.expect as Record<string, never>;
    assertEquals(difference(outcome, { ...expected, keep: outcome.values }), null);
    const perRow = Array.from(
      { length: outcome.values.length / kv_length! },
      (_, r) => outcome.values.slice(r * kv_length!, (r + 1) * kv_length!).reduce((a, b) => a + b, 0),
    );
    assertEquals(perRow, Array.from(goldenTensor(expected.keep_per_row).data));
  });
}

/** Lists of one row of blocks as the format has them, by looking at every element. */
function listsOf(
  dense: ArrayLike<number | bigint>,
  [B, H, Q, K]: readonly number[],
  [bq, bk]: readonly number[],
) {
  const [rows, columns] = [Math.ceil(Q! / bq!), Math.ceil(K! / bk!)];
  const lists = { partial: [] as number[][], full: [] as number[][] };
  for (let r = 0; r < B! * H! * rows; r++) {
    const [plane, row] = [Math.floor(r / rows), r % rows];
    const kind = Array.from({ length: columns }, (_, c) => {
      let n = 0;
      for (let q = row * bq!; q < Math.min(Q!, (row + 1) * bq!); q++) {
        for (let k = c * bk!; k < Math.min(K!, (c + 1) * bk!); k++) {
          n += Number(dense[(plane * Q! + q) * K! + k]);
        }
      }
      return n === bq! * bk! ? "full" : n > 0 ? "partial" : "hidden";
    });
    for (const name of ["partial", "full"] as const) {
      const all = kind.map((_, c) => c);
      const chosen = all.filter((c) => kind[c] === name);
      lists[name].push([chosen.length, ...chosen, ...all.filter((c) => kind[c] !== name)]);
    }
  }
  return lists;
}

/** The same lists as a mask has them. */
function listsIn(mask: BlockMask, indices: Tensor, counts: Tensor): number[][] {
  const columns = indices.shape[3]!, all = Array.from(hostData(indices), Number);
  assertEquals(mask.shape.slice(0, 2), counts.shape.slice(0, 2));
  return Array.from(hostData(counts), Number).map((
    n,
    r,
  ) => [n, ...all.slice(r * columns, (r + 1) * columns)]);
}

const small = fc.integer({ min: 1, max: 6 });
const matrix = (max: number) => fc.array(fc.integer({ min: 0, max }), { minLength: 40, maxLength: 40 });
const predicate: fc.Arbitrary<MaskFunction> = fc.oneof(
  fc.constant(masks.causal_mask_function),
  fc.constant(masks.bidirectional_mask_function),
  small.map((w) => masks.sliding_window_causal_mask_function(w)),
  small.map((w) => masks.sliding_window_bidirectional_mask_function(w)),
  fc.tuple(small, fc.nat(5)).map(([c, p]) => masks.chunked_causal_mask_function(c, p)),
  matrix(3).map((ids) => masks.packed_sequence_mask_function([ids])),
  matrix(1).map((keep) => or_masks(masks.causal_mask_function, masks.padding_mask_function([keep]))),
  fc.nat(7).map((n): MaskFunction => (_b, _h, q, kv) => (q * 3 + kv) % 7 < n),
  fc.nat(7).map((n) => and_masks(masks.causal_mask_function, (b, _h, _q, kv) => (b + kv) % 7 < n)),
);

Deno.test("blocks are those that counting every element finds", () => {
  fc.assert(
    fc.property(
      predicate,
      fc.record({
        q: fc.integer({ min: 1, max: 20 }),
        k: fc.integer({ min: 1, max: 20 }),
        bq: small,
        bk: small,
      }),
      fc.option(fc.array(matrix(1), { minLength: 2, maxLength: 2 })),
      (mask_function, { q, k, bq, bk }, rows) => {
        const fn = rows === null
          ? mask_function
          : and_masks(mask_function, masks.padding_mask_function(rows));
        using mask = create_block_mask(fn, 2, null, q, k, { BLOCK_SIZE: [bq, bk] });
        const dense = hostData(mask.to_dense());
        const every = Array.from({ length: 2 * q * k }, (_, at) => {
          const [b, i, j] = [Math.floor(at / (q * k)), Math.floor(at / k) % q, at % k];
          return fn(b, 0, i, j) ? 1 : 0;
        });
        assertEquals(Array.from(dense, Number), every);
        const expected = listsOf(every, mask.shape, mask.BLOCK_SIZE);
        assertEquals(listsIn(mask, mask.kv_indices, mask.kv_num_blocks), expected.partial);
        assertEquals(listsIn(mask, mask.full_kv_indices, mask.full_kv_num_blocks), expected.full);
        const used = [...expected.partial, ...expected.full].reduce((n, list) => n + list[0]!, 0);
        assertEquals(
          mask.sparsity(),
          100 * (2 * Math.ceil(q / bq) * Math.ceil(k / bk) - used) /
            (2 * Math.ceil(q / bq) * Math.ceil(k / bk)),
        );
      },
    ),
    { seed: 31, numRuns: 300 },
  );
});

Deno.test("the formatter's padding and offsets are in mask_mod", () => {
  const args = { batch_size: 2, q_length: 5, kv_length: 9, q_offset: 6, kv_offset: 2 };
  const attention_mask = Tensor.from([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1, 1]], {
    dtype: "bool",
  });
  using mask = flex_attention_mask({ ...args, attention_mask });
  const dense = hostData(mask.to_dense());
  dense.forEach((bit: number | bigint, at: number) => {
    const [b, q, kv] = [Math.floor(at / 45), Math.floor(at / 9) % 5, at % 9];
    assertEquals(mask.mask_mod(b, 0, q, kv), bit === 1, `${b} ${q} ${kv}`);
    // The mask ends with key 8, so key 2 + 7 and later ones are padding.
    assertEquals(bit === 1, kv + 2 <= q + 6 && kv + 2 < 9 && (b === 1 || kv + 2 >= 3));
  });
});

Deno.test("built-in predicates are not called once per element", () => {
  const start = performance.now();
  using mask = flex_attention_mask({
    batch_size: 1,
    q_length: 65536,
    kv_length: 65536,
    mask_function: masks.sliding_window_causal_mask_function(1024),
  });
  assertEquals(mask.sparsity() > 98, true);
  // 4·10⁹ calls would take minutes.
  assertEquals(performance.now() - start < 5000, true);
});

Deno.test("a predicate that depends on the head gives a mask per head", () => {
  const mask_function: MaskFunction = (_b, h, q, kv) => kv <= q - h;
  const config = { num_attention_heads: 3 };
  using mask = flex_attention_mask({ batch_size: 1, q_length: 4, kv_length: 4, mask_function, config });
  assertEquals(mask.shape, [1, 3, 4, 4]);
  using given = create_block_mask(mask_function, null, 3, 4, 4);
  assertEquals(hostData(given.to_dense()), hostData(mask.to_dense()));
  using broadcast = create_block_mask(mask_function, null, null, 4, 4);
  assertEquals(broadcast.shape, [1, 1, 4, 4]);
});

Deno.test("masks are drawn by blocks, several to a cell where there are many", () => {
  using mask = create_block_mask(masks.causal_mask_function, null, null, 300, 300);
  assertEquals(
    String(mask),
    [
      "BlockMask [1,1,300,300] of 128 × 128 blocks, 33.3 % hidden",
      "       kv 0…299",
      "q   0  ▣ ⬚ ⬚",
      "q 128  ■ ▣ ⬚",
      "q 256  ▣ ▣ ▣",
    ].join("\n"),
  );
  assertEquals(mask.toString({ max_cells: 2 }).split("\n").slice(2), ["q   0  ▣ ⬚", "q 256  ▣ ▣"]);
  assertThrows(() => mask.toString({ batch: 1 }), InvalidArgument, "batch row 1");
  assertThrows(() => mask.toString({ max_cells: 0 }), InvalidArgument, "max_cells");
});

liveTest("a disposed mask leaves nothing on a device", () => {
  using mask = create_block_mask(masks.causal_mask_function, null, null, 4, 4);
  using dense = mask.to_dense();
  assertEquals([dense.dtype, mask.device], ["bool", "wasm"]);
});

Deno.test("create_block_mask refuses what is no predicate, no size and no option", () => {
  const causal = masks.causal_mask_function;
  const refused: readonly (readonly [act: () => unknown, mentions: string])[] = [
    [() => create_block_mask(null as never, 1, 1, 4, 4), "callable"],
    [() => create_block_mask(causal, 0, 1, 4, 4), "B"],
    [() => create_block_mask(causal, 1, 1.5, 4, 4), "H"],
    [() => create_block_mask(causal, 1, 1, -4, 4), "Q_LEN"],
    [() => create_block_mask(causal, 1, 1, 4, NaN), "KV_LEN"],
    [() => create_block_mask(causal, 1, 1, 4, 4, { BLOCK_SIZE: 0 }), "BLOCK_SIZE"],
    [() => create_block_mask(causal, 1, 1, 4, 4, { BLOCK_SIZE: [4] as never }), "BLOCK_SIZE"],
    [() => create_block_mask(causal, 1, 1, 4, 4, { block_size: 4 } as never), "block_size"],
    [() => create_block_mask((() => 1) as never, 1, 1, 4, 4), "boolean"],
  ];
  for (const [act, mentions] of refused) assertThrows(act, InvalidArgument, mentions);
});
