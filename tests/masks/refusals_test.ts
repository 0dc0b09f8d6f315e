/**
 * What mask code refuses, and in which words.
 *
 * @module
 */
import { assertInstanceOf, assertStringIncludes, assertThrows } from "@std/assert";
import { add_offsets_to_mask_function, and_masks, or_masks } from "../../src/masks/algebra.ts";
import * as create from "../../src/masks/create.ts";
import { eager_mask } from "../../src/masks/format_eager.ts";
import { flash_attention_mask } from "../../src/masks/format_flash.ts";
import { sdpa_mask } from "../../src/masks/format_sdpa.ts";
import * as masks from "../../src/masks/functions.ts";
import { AttentionMaskInterface } from "../../src/masks/interface.ts";
import { create_masks_for_generate } from "../../src/masks/generate.ts";
import { find_packed_sequence_indices } from "../../src/masks/packed.ts";
import type { MaskArgs, MaskFunction } from "../../src/masks/types.ts";
import { AttentionRefused, InvalidArgument } from "../../src/errors.ts";
import { Tensor } from "../../src/tensor.ts";
import "./golden_run.ts"; // registers the built-in formatters

const notCallable = 3 as unknown as MaskFunction;
const embeds = { shape: [2, 4, 8], dtype: "float32" } as const;
const sdpa = { _attn_implementation: "sdpa" };

/** `create_causal_mask` over (2, 4) inputs with these arguments. */
function causal(args: Partial<MaskArgs>): () => unknown {
  return () => create.create_causal_mask({ config: sdpa, inputs_embeds: embeds, ...args });
}

const REFUSALS: readonly (readonly [trigger: string, run: () => unknown, ...words: string[]])[] = [
  [
    "and_masks of a number",
    () => and_masks(masks.causal_mask_function, notCallable),
    "callable",
    "argument 1",
    "number",
  ],
  ["or_masks of null", () => or_masks(null as unknown as MaskFunction), "callable", "null"],
  ["a negative window", () => masks.sliding_window_overlay(-2), "-2", "≥ 1"],
  ["a zero window", () => masks.sliding_window_causal_mask_function(0), "0", "≥ 1"],
  ["a NaN window", () => masks.bidirectional_window_overlay(NaN), "NaN", "≥ 1"],
  ["a fractional window", () => masks.sliding_window_overlay(1.5), "1.5"],
  ["chunk size 0", () => masks.chunked_overlay(0, 0), "chunk", "0"],
  ["a NaN left padding", () => masks.chunked_overlay(2, [NaN]), "left_padding", "NaN"],
  ["a fractional shift", () => add_offsets_to_mask_function(masks.causal_mask_function, 0.5, 0), "0.5"],
  ["padding of 2s", () => masks.padding_mask_function([[1, 2]]), "row 0 column 1 is 2"],
  ["padding that is additive", () => masks.padding_mask_function(Tensor.from([[0, -Infinity]])), "-Infinity"],
  ["padding of rank 1", () => masks.padding_mask_function([1, 1]), "(B, length)"],
  ["ragged ids", () => masks.packed_sequence_mask_function([[0, 1], [0]]), "1 elements", "2"],
  ["NaN positions", () => find_packed_sequence_indices([[0, NaN]]), "position_ids", "NaN"],
  [
    "a batch row that is not there",
    () => masks.padding_mask_function([[1], [1]])(2, 0, 0, 0),
    "row 2",
    "2 rows",
  ],
  [
    "a mask function that returns a number",
    () =>
      sdpa_mask({
        batch_size: 1,
        q_length: 1,
        kv_length: 2,
        mask_function: (() => 1) as unknown as MaskFunction,
        allow_is_causal_skip: false,
      }),
    "number",
    "boolean",
  ],
  ["a negative length", () => sdpa_mask({ batch_size: 1, q_length: -1, kv_length: 2 }), "q_length -1"],
  [
    "an integer additive mask",
    () => eager_mask({ batch_size: 1, q_length: 1, kv_length: 1, dtype: "int32" }),
    "int32",
  ],
  ["a mask of another batch", causal({ attention_mask: [[1, 1, 1, 1]] }), "[1, 4]", "batch of 2"],
  ["a mask of rank 3", causal({ attention_mask: Tensor.from([[[1]]]) }), "(B, length)", "[1,1,1]"],
  ["a mask of 0.5", causal({ attention_mask: [[1, 1, 1, 0.5], [1, 1, 1, 1]] }), "column 3 is 0.5"],
  ["positions of another length", causal({ position_ids: [[0, 1, 2]] }), "[1, 3]", "[2,4,8]", "4 positions"],
  ["positions of another batch", causal({ position_ids: [[0], [0], [0]] }), "[3, 1]", "batch of 2"],
  ["fractional positions", causal({ position_ids: [[0, 1, 2, 2.5]] }), "2.5"],
  ["block ids of another batch", causal({ block_sequence_ids: [[0, 0, 0, 0]] }), "[1, 4]", "batch of 2"],
  [
    "more block ids than keys",
    causal({ block_sequence_ids: [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0]] }),
    "[2, 5]",
    "4 keys",
  ],
  [
    "an or_mask_function that is a list",
    causal({ or_mask_function: notCallable }),
    "or_mask_function",
    "callable",
  ],
  [
    "a misspelt option",
    causal({ atention_mask: null } as Partial<MaskArgs>),
    "atention_mask",
    "attention_mask",
  ],
  ["embeddings without a length", causal({ inputs_embeds: { shape: [2] } }), "inputs_embeds", "[2]"],
  ["is_causal that is a string", causal({ config: { ...sdpa, is_causal: "no" } }), "is_causal", "no"],
  [
    "no window",
    () => create.create_sliding_window_causal_mask({ config: sdpa, inputs_embeds: embeds }),
    "sliding_window",
    "undefined",
  ],
  [
    "a config with window 0",
    () =>
      create.create_bidirectional_sliding_window_mask({
        config: { ...sdpa, sliding_window: 0 },
        inputs_embeds: embeds,
      }),
    "config.sliding_window",
    "0",
  ],
  [
    "no chunk size",
    () => create.create_chunked_causal_mask({ config: sdpa, inputs_embeds: embeds }),
    "attention_chunk_size",
  ],
  [
    "two text configs",
    () =>
      create_masks_for_generate({
        config: { ...sdpa, sub_configs: { decoder: {}, text_config: {} } },
        inputs_embeds: embeds,
      }),
    "decoder and text_config",
  ],
  [
    "layer types that are not names",
    () => create_masks_for_generate({ config: { ...sdpa, layer_types: [1] }, inputs_embeds: embeds }),
    "layer_types",
  ],
];

for (const [trigger, run, ...words] of REFUSALS) {
  Deno.test(`refusal: ${trigger}`, () => {
    const error = assertThrows(run, InvalidArgument);
    for (const word of words) assertStringIncludes(error.message, word);
  });
}

Deno.test("refusal: flash cannot express a constraint, and the error names who can", () => {
  const config = { _attn_implementation: "flash_attention_3" };
  AttentionMaskInterface.register("flash_attention_3", flash_attention_mask);
  for (const option of ["or_mask_function", "and_mask_function"] as const) {
    const error = assertThrows(
      causal({ config, [option]: masks.causal_mask_function }),
      AttentionRefused,
      option,
    );
    assertInstanceOf(error, AttentionRefused);
    assertStringIncludes(error.message, "flash_attention_3: rejected");
    assertStringIncludes(error.message, "sdpa: accepted");
  }
  assertThrows(
    causal({ config, block_sequence_ids: [[0, 0, 0, 0], [0, 0, 0, 0]] }),
    AttentionRefused,
    "block_sequence_ids",
  );
});

Deno.test("refusal: chunks under flash, as soon as the keys reach beyond one", () => {
  const config = { _attn_implementation: "flash_attention_2", attention_chunk_size: 4 };
  const args = { config, inputs_embeds: embeds };
  create.create_chunked_causal_mask(args);
  assertThrows(
    () => create.create_chunked_causal_mask({ ...args, inputs_embeds: { shape: [2, 5, 8] } }),
    AttentionRefused,
    "chunk",
  );
});
