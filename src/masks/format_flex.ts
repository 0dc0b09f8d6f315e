/**
 * Masks as `flex_attention` takes them: blocks.
 *
 * @module
 */
import { BLOCK, BlockMask } from "./block_mask.ts";
import { isAll, maskHeads, programOf, readFrame } from "./frame.ts";
import type { MaskFormatterArgs } from "./types.ts";

/**
 * Formats a predicate and padding as a {@linkcode BlockMask} (B, 1, Q, N) of 128 × 128 blocks, never null. A predicate
 * that depends on the head gives (B, H, Q, N), as in `sdpa_mask`. Padding that hides nothing is left out.
 *
 * Method: Transformers' `flex_attention_mask`.
 *
 * @throws {InvalidArgument} for sizes, masks or functions that do not fit.
 */
export function flex_attention_mask(args: MaskFormatterArgs): BlockMask {
  const { padding, ...rest } = readFrame(args);
  const frame = { ...rest, padding: padding === null || isAll(padding.data, 1) ? null : padding };
  const program = programOf(frame);
  return new BlockMask(frame, program, maskHeads(frame, program), [BLOCK, BLOCK]);
}
