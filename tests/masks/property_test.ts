/**
 * Properties of masks over random predicates: laws of the algebra, and rows by ranges against element by element.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { add_offsets_to_mask_function, and_masks, or_masks } from "../../src/masks/algebra.ts";
import { minOf, present } from "../../src/dtype.ts";
import { eager_mask } from "../../src/masks/format_eager.ts";
import { sdpa_mask } from "../../src/masks/format_sdpa.ts";
import * as masks from "../../src/masks/functions.ts";
import { readIds } from "../../src/masks/input.ts";
import { packed_compatible_mask_function, packedIds } from "../../src/masks/packed.ts";
import { structureOf } from "../../src/masks/structure.ts";
import type { AttentionMask, MaskFunction } from "../../src/masks/types.ts";
import { hostData, Tensor } from "../../src/tensor.ts";
import fc from "../support/fast_check.ts";

const BATCH = 2, LENGTH = 12;

const window = fc.integer({ min: 1, max: LENGTH + 3 });
const ids = fc.array(
  fc.array(fc.integer({ min: -1, max: 2 }), { minLength: LENGTH - 3, maxLength: LENGTH - 3 }),
  {
    minLength: BATCH,
    maxLength: BATCH,
  },
);
const bits = fc.array(
  fc.array(fc.integer({ min: 0, max: 1 }), { minLength: LENGTH - 2, maxLength: LENGTH - 2 }),
  {
    minLength: BATCH,
    maxLength: BATCH,
  },
);
/** Positions of packed sequences: runs that count up from anywhere. */
const positions = fc.array(
  fc.array(fc.tuple(fc.integer({ min: 0, max: 5 }), fc.integer({ min: 1, max: 6 })), {
    minLength: 4,
    maxLength: 12,
  })
    .map((runs) =>
      runs.flatMap(([start, n]) => Array.from({ length: n }, (_, i) => start + i)).slice(0, LENGTH)
    )
    .map((row) => [...row, ...Array.from({ length: LENGTH - row.length }, () => 0)]),
  { minLength: BATCH, maxLength: BATCH },
);

const opaque: fc.Arbitrary<MaskFunction> = fc.constantFrom<MaskFunction[]>(
  (_b, _h, _q, kv) => kv % 3 === 0,
  (b, _h, q, kv) => q * 7 + kv * 3 + b > 20,
  (_b, _h, q, kv) => Math.abs(q - kv) < 2,
  () => true,
  () => false,
);

const builtIn: fc.Arbitrary<MaskFunction> = fc.oneof(
  fc.constantFrom(masks.causal_mask_function, masks.bidirectional_mask_function),
  window.map(masks.sliding_window_overlay),
  window.map(masks.bidirectional_window_overlay),
  window.map(masks.sliding_window_causal_mask_function),
  window.map(masks.sliding_window_bidirectional_mask_function),
  fc.tuple(window, fc.array(fc.integer({ min: 0, max: 5 }), { minLength: BATCH, maxLength: BATCH }))
    .map(([chunk, padding]) => masks.chunked_overlay(chunk, padding)),
  fc.tuple(window, fc.integer({ min: 0, max: 5 })).map(([c, p]) => masks.chunked_causal_mask_function(c, p)),
  ids.map(masks.packed_sequence_mask_function),
  ids.map(masks.blockwise_overlay),
  ids.map((rows) => masks.blockwise_overlay(rows.slice(0, 1))),
  bits.map(masks.padding_mask_function),
);

const { tree } = fc.letrec<{ tree: MaskFunction }>((tie) => ({
  tree: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    builtIn,
    opaque,
    fc.array(tie("tree"), { maxLength: 3 }).map((parts) => and_masks(...parts)),
    fc.array(tie("tree"), { maxLength: 3 }).map((parts) => or_masks(...parts)),
    fc.tuple(tie("tree"), fc.integer({ min: -3, max: 3 }), fc.integer({ min: -3, max: 3 }))
      .map(([f, q, kv]) => add_offsets_to_mask_function(f, q, kv)),
    fc.tuple(tie("tree"), positions).map(([f, rows]) => {
      const matrix = readIds(rows, "positions");
      const packed = packedIds(matrix);
      return packed === null ? f : packed_compatible_mask_function(f, matrix, packed);
    }),
  ),
}));

/** Sizes and offsets of a mask. */
const sizes = fc.record({
  q_length: fc.integer({ min: 1, max: LENGTH }),
  kv_length: fc.integer({ min: 1, max: LENGTH }),
  q_offset: fc.integer({ min: 0, max: 4 }),
  kv_offset: fc.integer({ min: 0, max: 4 }),
});

const padding = fc.option(bits.map((rows) => Tensor.from(rows, { dtype: "bool" })), { nil: null });

function values(mask: AttentionMask): number[] {
  if (!(mask instanceof Tensor)) throw new Error("Expected a tensor");
  return Array.from(present(mask.dtype, hostData(mask)), Number);
}

/** The mask element by element, straight from its definition. */
function pointwise(
  f: MaskFunction,
  pad: Tensor | null,
  s: { q_length: number; kv_length: number; q_offset: number; kv_offset: number },
): number[] {
  const real = pad === null ? null : hostData(pad);
  const out: number[] = [];
  for (let b = 0; b < BATCH; b++) {
    for (let q = s.q_offset; q < s.q_offset + s.q_length; q++) {
      for (let kv = s.kv_offset; kv < s.kv_offset + s.kv_length; kv++) {
        const isReal = real === null || (kv < pad!.shape[1]! && real[b * pad!.shape[1]! + kv] === 1);
        out.push(isReal && f(b, 0, q, kv) ? 1 : 0);
      }
    }
  }
  return out;
}

/** The same predicate without the description that lets rows be computed by ranges. */
const stripped = (f: MaskFunction): MaskFunction => (b, h, q, kv) => f(b, h, q, kv);

Deno.test("property: sdpa and eager masks are the predicate and the padding, element by element", () => {
  fc.assert(
    fc.property(tree, padding, sizes, (f, pad, s) => {
      const args = {
        ...s,
        batch_size: BATCH,
        mask_function: f,
        attention_mask: pad,
        allow_is_causal_skip: false,
      };
      const expected = pointwise(f, pad, s);
      assertEquals(values(sdpa_mask(args)), expected);
      const eager = values(eager_mask(args));
      assertEquals(eager.map((v) => v === 0 ? 1 : 0), expected);
      assertEquals(eager.every((v) => v === 0 || v === minOf("float32")), true);
    }),
    { numRuns: 400 },
  );
});

Deno.test("property: rows by ranges equal rows by calls", () => {
  fc.assert(
    fc.property(builtIn, padding, sizes, (f, pad, s) => {
      const args = { ...s, batch_size: BATCH, attention_mask: pad, allow_is_causal_skip: false };
      assertEquals(structureOf(f) !== undefined && structureOf(stripped(f)) === undefined, true);
      assertEquals(
        values(sdpa_mask({ ...args, mask_function: f })),
        values(sdpa_mask({ ...args, mask_function: stripped(f) })),
      );
    }),
    { numRuns: 300 },
  );
});

Deno.test("property: the algebra's laws hold", () => {
  const same = (a: MaskFunction, b: MaskFunction): void => {
    const s = { q_length: LENGTH, kv_length: LENGTH, q_offset: 0, kv_offset: 0 };
    const draw = (f: MaskFunction) =>
      values(sdpa_mask({ ...s, batch_size: BATCH, mask_function: f, allow_is_causal_skip: false }));
    assertEquals(draw(a), draw(b));
  };
  fc.assert(
    fc.property(tree, tree, tree, (a, b, c) => {
      same(and_masks(a, b), and_masks(b, a));
      same(or_masks(a, b), or_masks(b, a));
      same(and_masks(a, and_masks(b, c)), and_masks(a, b, c));
      same(or_masks(a, or_masks(b, c)), or_masks(a, b, c));
      same(and_masks(a, or_masks(b, c)), or_masks(and_masks(a, b), and_masks(a, c)));
      same(or_masks(a, and_masks(a, b)), a);
      same(and_masks(a, masks.bidirectional_mask_function), a);
      same(and_masks(a), a);
      same(or_masks(a, a), a);
      same(and_masks(), masks.bidirectional_mask_function);
      same(or_masks(), () => false);
      same(
        add_offsets_to_mask_function(add_offsets_to_mask_function(a, 1, 2), 2, 1),
        add_offsets_to_mask_function(a, 3, 3),
      );
    }),
    { numRuns: 60 },
  );
});

Deno.test("property: equal batch rows of a mask without padding are equal", () => {
  fc.assert(
    fc.property(window, sizes, (w, s) => {
      const one = values(
        sdpa_mask({
          ...s,
          batch_size: 1,
          mask_function: masks.sliding_window_causal_mask_function(w),
          allow_is_causal_skip: false,
        }),
      );
      const three = values(
        sdpa_mask({
          ...s,
          batch_size: 3,
          mask_function: masks.sliding_window_causal_mask_function(w),
          allow_is_causal_skip: false,
        }),
      );
      assertEquals(three, [...one, ...one, ...one]);
    }),
    { numRuns: 30 },
  );
});
