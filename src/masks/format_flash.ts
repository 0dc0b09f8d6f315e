/**
 * Masks as flash kernels take them: key padding only, (B, N) bool, or none.
 *
 * @module
 */
import { AttentionRefused } from "../errors.ts";
import { Tensor } from "../tensor.ts";
import { isAll, paddingRow, readFrame } from "./frame.ts";
import type { AttentionMask, MaskFormatterArgs } from "./types.ts";

/**
 * Formats padding as (B, N) bool: the last N columns, extended with false where the mask is shorter than the keys,
 * or null when nothing is padded. `mask_function` is not looked at: causality, windows and packing reach the kernel
 * as arguments, and what has no argument is listed in `constraints` and refused.
 *
 * Method: Transformers' `flash_attention_mask`.
 *
 * @throws {AttentionRefused} when `constraints` lists something a flash kernel has no argument for.
 * @throws {InvalidArgument} for sizes or masks that do not fit.
 */
export function flash_attention_mask(args: MaskFormatterArgs): AttentionMask {
  const { batch, keys, padding, device } = readFrame(args);
  refuseConstraints(args);
  if (padding === null) return null;
  const data = new Uint8Array(batch * keys);
  for (let b = 0; b < batch; b++) data.set(paddingRow(padding, b, padding.cols - keys, keys), b * keys);
  if (isAll(data, 1)) return null;
  return Tensor.ofHost(data, "bool", [batch, keys], device);
}

function refuseConstraints({ constraints = [], config }: MaskFormatterArgs): void {
  if (constraints.length === 0) return;
  const name = config?._attn_implementation ?? "flash_attention_2";
  throw new AttentionRefused(
    `Cannot express ${constraints.join(" and ")} in a Flash attention mask, which holds key padding only:`,
    [
      { name, verdict: `rejected (its kernels have no argument for ${constraints.join(", ")})` },
      { name: "sdpa", verdict: "accepted: choose it with set_attn_implementation" },
      { name: "eager", verdict: "accepted" },
    ],
  );
}
