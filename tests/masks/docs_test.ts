/**
 * The grids in the documentation of masks are what the masks really are.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { add_offsets_to_mask_function } from "../../src/masks/algebra.ts";
import { maskToString } from "../../src/masks/draw.ts";
import * as masks from "../../src/masks/functions.ts";
import { sdpa_mask } from "../../src/masks/format_sdpa.ts";
import { eager_mask } from "../../src/masks/format_eager.ts";
import { paged_mask_function } from "../../src/masks/paged.ts";
import type { MaskFunction } from "../../src/masks/types.ts";
import { Tensor } from "../../src/tensor.ts";
import { assertThrows } from "@std/assert";
import { InvalidArgument } from "../../src/errors.ts";

/** The mask each grid shows: the call its documentation writes above it. */
const DRAWN: Record<string, readonly [mask: MaskFunction, q: number, kv: number]> = {
  causal_mask_function: [masks.causal_mask_function, 6, 6],
  bidirectional_mask_function: [masks.bidirectional_mask_function, 4, 4],
  sliding_window_overlay: [masks.sliding_window_overlay(3), 6, 6],
  chunked_overlay: [masks.chunked_overlay(3, 1), 7, 7],
  bidirectional_window_overlay: [masks.bidirectional_window_overlay(1), 6, 6],
  sliding_window_causal_mask_function: [masks.sliding_window_causal_mask_function(3), 6, 6],
  sliding_window_bidirectional_mask_function: [masks.sliding_window_bidirectional_mask_function(2), 6, 6],
  chunked_causal_mask_function: [masks.chunked_causal_mask_function(3, 1), 7, 7],
  packed_sequence_mask_function: [masks.packed_sequence_mask_function([[0, 0, 1, 1, 1, 2]]), 6, 6],
  blockwise_overlay: [masks.blockwise_overlay([[-1, 0, 0, -1, 1, 1]]), 6, 6],
  padding_mask_function: [masks.padding_mask_function([[0, 1, 1, 1]]), 4, 4],
  paged_mask_function: [paged_mask_function([0, 2, 3], [0, 3, 5], null), 3, 5],
  add_offsets_to_mask_function: [add_offsets_to_mask_function(masks.causal_mask_function, 2, 0), 3, 5],
};

/** Exported name → the grid in its documentation. */
function documentedGrids(file: string): Map<string, string> {
  const text = Deno.readTextFileSync(new URL(`../../src/masks/${file}`, import.meta.url));
  const grids = new Map<string, string>();
  for (
    const [, doc, name] of text.matchAll(/\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\s*export (?:const|function) (\w+)/g)
  ) {
    const grid = /```text\n([\s\S]*?)\n \* ```/.exec(doc!)?.[1];
    if (grid !== undefined) {
      grids.set(
        name!,
        grid.split("\n").map((line) => line.replace(/^ \* ?/, "")).join("\n"),
      );
    }
  }
  return grids;
}

Deno.test("docs: every mask's grid is what the mask draws", () => {
  const grids = new Map(
    ["functions.ts", "paged.ts", "algebra.ts"].flatMap((file) => [...documentedGrids(file)]),
  );
  const drawn = Object.entries(DRAWN).map(([name, [mask, q, kv]]) =>
    [name, maskToString(mask, q, kv)] as const
  );
  assertEquals(Object.fromEntries(grids), Object.fromEntries(drawn));
});

Deno.test("docs: every mask of functions.ts has a grid", () => {
  const internal = ["same_id_mask_function"];
  const without = Object.keys(masks).filter((name) => !(name in DRAWN) && !internal.includes(name));
  assertEquals(without, []);
});

Deno.test("draw: tensors of every form draw as their predicate, with offsets on the axes", () => {
  const size = {
    batch_size: 1,
    q_length: 3,
    kv_length: 5,
    q_offset: 4,
    kv_offset: 2,
    allow_is_causal_skip: false,
  };
  const grid = [
    "     kv 2…6",
    "q 4  ■ ■ ■ ⬚ ⬚",
    "q 5  ■ ■ ■ ■ ⬚",
    "q 6  ■ ■ ■ ■ ■",
  ].join("\n");
  const offsets = { q_offset: 4, kv_offset: 2 };
  assertEquals(maskToString(masks.causal_mask_function, 3, 5, offsets), grid);
  assertEquals(maskToString(sdpa_mask(size) as Tensor, undefined, undefined, offsets), grid);
  assertEquals(
    maskToString(eager_mask({ ...size, dtype: "bfloat16" }) as Tensor, undefined, undefined, offsets),
    grid,
  );
  const padding = Tensor.from([[0, 1, 1]], { dtype: "bool" });
  assertEquals(maskToString(padding), "     kv 0…2\nq 0  ⬚ ■ ■");
});

Deno.test("draw: large masks are drawn in blocks", () => {
  assertEquals(
    maskToString(masks.causal_mask_function, 12, 12, { max_cells: 4 }),
    ["     kv 0…11, a cell is 3 × 3", "q 0  ▣ ⬚ ⬚ ⬚", "q 3  ■ ▣ ⬚ ⬚", "q 6  ■ ■ ▣ ⬚", "q 9  ■ ■ ■ ▣"].join(
      "\n",
    ),
  );
});

Deno.test("draw: refuses lengths that are missing or do not fit", () => {
  assertThrows(() => maskToString(masks.causal_mask_function), InvalidArgument, "q_length NaN");
  assertThrows(() => maskToString(Tensor.from([1, 0, 1])), InvalidArgument, "[3]");
  assertThrows(
    () => maskToString(Tensor.from([[1, 0, 1]], { dtype: "bool" }), 1, 4),
    InvalidArgument,
    "1 × 4",
  );
});
