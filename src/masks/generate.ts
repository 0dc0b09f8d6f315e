/**
 * The masks of one generation step, by layer type.
 *
 * @module
 */
import { convertTo } from "../dtype.ts";
import { InvalidArgument } from "../errors.ts";
import { Tensor } from "../tensor.ts";
import { layerTypes, sizeField, textConfig } from "./config.ts";
import {
  create_causal_mask,
  create_chunked_causal_mask,
  create_sliding_window_causal_mask,
} from "./create.ts";
import { readMask } from "./input.ts";
import type { AttentionMask, BlockMaskLike, MaskArgs } from "./types.ts";

/** Layer type → builder. */
const BUILDERS: Readonly<Record<string, (args: MaskArgs) => AttentionMask>> = {
  full_attention: create_causal_mask,
  sliding_attention: create_sliding_window_causal_mask,
  chunked_attention: create_chunked_causal_mask,
  indexed_attention: (args) => create_causal_mask({ ...args, allow_is_causal_skip: false }),
  linear_attention: recurrentMask,
  conv: recurrentMask,
};

/**
 * The masks a model needs, chosen by the config of its text part: one per distinct layer type where the config
 * lists `layer_types`, else the sliding, chunked or causal mask that its sizes ask for. With a layer type nobody
 * builds masks for, the 2-D `attention_mask` itself.
 *
 * @throws {InvalidArgument} for inputs that do not fit each other, or a config with several text parts.
 * @throws {AttentionRefused} when the implementation's masks cannot express a constraint.
 */
export function create_masks_for_generate(args: MaskArgs): AttentionMask | Record<string, AttentionMask> {
  if (typeof args.config !== "object" || args.config === null) {
    throw new InvalidArgument(`Cannot create masks for generate without config: got ${String(args.config)}`);
  }
  const config = textConfig(args.config);
  const own = { ...args, config };
  const types = layerTypes(config);
  if (types === null) {
    if (sizeField(config, "sliding_window") !== null) return create_sliding_window_causal_mask(own);
    if (sizeField(config, "attention_chunk_size") !== null) return create_chunked_causal_mask(own);
    return create_causal_mask(own);
  }
  const distinct = [...new Set(types)];
  if (!distinct.every((type) => Object.hasOwn(BUILDERS, type))) return rawMask(args.attention_mask);
  return Object.fromEntries(distinct.map((type) => [type, BUILDERS[type]!(own)]));
}

/** What recurrent layers take: the last Q columns of the 2-D mask in its own dtype, or null when nothing is padded. */
function recurrentMask({ attention_mask, inputs_embeds }: MaskArgs): AttentionMask {
  const queries = inputs_embeds.shape[1] ?? 0;
  if (!attention_mask || isBlockMask(attention_mask) || queries === 1) return null;
  if (attention_mask instanceof Tensor && attention_mask.shape.length !== 2) return null;
  const mask = readMask(attention_mask, "attention_mask");
  if (!mask.data.includes(0)) return null;
  const width = Math.min(queries, mask.cols);
  const dtype = attention_mask instanceof Tensor ? attention_mask.dtype : "int64";
  const last = new Uint8Array(mask.rows * width);
  for (let b = 0; b < mask.rows; b++) {
    last.set(mask.data.subarray((b + 1) * mask.cols - width, (b + 1) * mask.cols), b * width);
  }
  return Tensor.ofHost(convertTo(dtype, last), dtype, [mask.rows, width], inputs_embeds.device ?? "wasm");
}

function rawMask(mask: MaskArgs["attention_mask"]): AttentionMask {
  if (!mask) return null;
  if (mask instanceof Tensor || isBlockMask(mask)) return mask;
  const { data, rows, cols } = readMask(mask, "attention_mask");
  return Tensor.ofHost(convertTo("int64", data), "int64", [rows, cols], "wasm");
}

function isBlockMask(mask: NonNullable<MaskArgs["attention_mask"]>): mask is BlockMaskLike {
  return !Array.isArray(mask) && "kv_num_blocks" in mask;
}
