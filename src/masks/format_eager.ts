/**
 * Masks as `eager` takes them: (B, 1, Q, N) added to the scores.
 *
 * @module
 */
import { minOf } from "../dtype.ts";
import { InvalidArgument } from "../errors.ts";
import { Tensor } from "../tensor.ts";
import { eachRow, isShared, maskHeads, paddingRow, programOf, readFrame } from "./frame.ts";
import { isPlainBidirectional, repeatFirst } from "./format_sdpa.ts";
import type { AttentionMask, MaskFormatterArgs } from "./types.ts";

/** The most negative value of each dtype, as the words a host array stores. */
const MIN_WORD = { float32: minOf("float32"), float16: 0xfbff, bfloat16: 0xff7f } as const;

/**
 * Formats a predicate and padding as an additive mask (B, 1, Q, N) in `dtype` (default float32): 0 where visible,
 * the dtype's most negative value elsewhere. Null only where nothing is hidden and the caller allows that. A
 * predicate that depends on the head gives (B, H, Q, N), as in {@linkcode sdpa_mask}.
 *
 * Method: Transformers' `eager_mask`.
 *
 * @throws {InvalidArgument} for sizes, masks or functions that do not fit, or a dtype that is not floating point.
 */
export function eager_mask(args: MaskFormatterArgs): AttentionMask {
  const frame = readFrame(args);
  const dtype = args.dtype ?? "float32";
  if (dtype !== "float32" && dtype !== "float16" && dtype !== "bfloat16") {
    throw new InvalidArgument(
      `Cannot make an additive mask of dtype ${dtype}: expected float32, float16 or bfloat16`,
    );
  }
  if ((args.allow_is_bidirectional_skip ?? false) && isPlainBidirectional(frame)) return null;
  const program = programOf(frame);
  const heads = maskHeads(frame, program);
  const { padding, keyOffset, keys } = frame;
  // Half types are written as words. Zero is word 0 in all of them, so visible keys need no write.
  const words = (n: number) => dtype === "float32" ? new Float32Array(n) : new Uint16Array(n);
  const data = words(frame.batch * heads * frame.queries * keys),
    template = words(keys),
    min = MIN_WORD[dtype];
  const shared = isShared(frame, program);
  let templateOf = -1;
  eachRow(shared ? { ...frame, batch: 1 } : frame, program, heads, (at, b, start, end, bits) => {
    data.fill(min, at, at + start);
    data.fill(min, at + end, at + keys);
    if (bits !== null) {
      for (let i = 0; i < bits.length; i++) if (bits[i] === 0) data[at + start + i] = min;
    } else if (padding !== null) {
      if (templateOf !== b) {
        paddingRow(padding, b, keyOffset, keys).forEach((bit, i) => template[i] = bit ? 0 : min);
      }
      templateOf = b;
      data.set(template.subarray(start, end), at + start);
    }
  });
  if (shared) repeatFirst(data, frame.batch);
  const host = dtype === "float16" ? new Float16Array(data.buffer) : data;
  return Tensor.ofHost(host, dtype, [frame.batch, heads, frame.queries, frame.keys], frame.device);
}
