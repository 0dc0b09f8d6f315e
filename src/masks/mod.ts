/**
 * Masks: predicates and their algebra, builders, formatters and their registry.
 *
 * @module
 */
export { add_offsets_to_mask_function, and_masks, or_masks } from "./algebra.ts";
export { type BlockDrawOptions, BlockMask, type BlockMaskOptions, create_block_mask } from "./block_mask.ts";
export {
  create_bidirectional_mask,
  create_bidirectional_sliding_window_mask,
  create_causal_mask,
  create_chunked_causal_mask,
  create_sliding_window_causal_mask,
} from "./create.ts";
export {
  create_extended_attention_mask_for_decoder,
  type ExtendedMaskOptions,
  get_extended_attention_mask,
  invert_attention_mask,
} from "./deprecated.ts";
export { type DrawOptions, maskToString } from "./draw.ts";
export { eager_mask } from "./format_eager.ts";
export { flash_attention_mask } from "./format_flash.ts";
export { flex_attention_mask } from "./format_flex.ts";
export { sdpa_mask } from "./format_sdpa.ts";
export {
  bidirectional_mask_function,
  bidirectional_window_overlay,
  blockwise_overlay,
  causal_mask_function,
  chunked_causal_mask_function,
  chunked_overlay,
  packed_sequence_mask_function,
  padding_mask_function,
  sliding_window_bidirectional_mask_function,
  sliding_window_causal_mask_function,
  sliding_window_overlay,
} from "./functions.ts";
export { create_masks_for_generate } from "./generate.ts";
export { ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface } from "./interface.ts";
export { find_packed_sequence_indices } from "./packed.ts";
export { paged_mask_function } from "./paged.ts";
export type {
  AttentionMask,
  BlockMaskLike,
  EmbedsLike,
  MaskArgs,
  MaskCache,
  MaskConfig,
  MaskFormatter,
  MaskFormatterArgs,
  MaskFunction,
  MatrixInput,
} from "./types.ts";
