/**
 * The fields of a CLIP vision configuration, checked before anything is allocated from them.
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import type { Activation } from "../layers/mlp.ts";
import { activation, epsilon, headCounts, layerCount, size } from "./decoder_config.ts";

/** A checked CLIP vision configuration. */
export interface ClipVisionFields {
  /** Pixels along each side of an image. */
  readonly image_size: number;
  /** Pixels along each side of a patch, divides `image_size`. */
  readonly patch_size: number;
  /** Colours of a pixel. */
  readonly num_channels: number;
  /** Patches of an image. */
  readonly num_patches: number;
  /** Width of the residual stream. */
  readonly hidden_size: number;
  /** Width of the feed-forward layer. */
  readonly intermediate_size: number;
  /** Number of layers. */
  readonly num_hidden_layers: number;
  /** H */
  readonly num_attention_heads: number;
  /** Activation of the feed-forward layer. */
  readonly hidden_act: Activation;
  /** Added to the variance before its root. */
  readonly layer_norm_eps: number;
}

// Far above any published tower.
const MAX_PIXELS = 8192;
const MAX_PATCHES = 2 ** 18;

/**
 * Checks the fields of a CLIP vision configuration and fills in the defaults of the format.
 *
 * @throws {InvalidArgument | ModelFileError} naming the field, what was expected and what was found.
 */
export function clipVisionConfig(config: PretrainedConfig): ClipVisionFields {
  const read = config.read;
  read.string("model_type", { default: "clip_vision_model", known: ["clip_vision_model", "clip"] });
  const hidden_size = size(read, "hidden_size", 768);
  const { heads, kvHeads } = headCounts(read, 12);
  if (hidden_size % heads !== 0 || kvHeads !== heads) {
    throw read.refuse("num_attention_heads", `a divisor of hidden_size, ${hidden_size}`);
  }
  const image_size = read.integer("image_size", { min: 1, max: MAX_PIXELS, default: 224 });
  const patch_size = read.integer("patch_size", { min: 1, max: MAX_PIXELS, default: 32 });
  const num_patches = (image_size / patch_size) ** 2;
  if (image_size % patch_size !== 0 || num_patches > MAX_PATCHES) {
    throw read.refuse(
      "patch_size",
      `a divisor of image_size, ${image_size}, with at most ${MAX_PATCHES} patches`,
    );
  }
  return {
    image_size,
    patch_size,
    num_channels: read.integer("num_channels", { min: 1, max: 1024, default: 3 }),
    num_patches,
    hidden_size,
    intermediate_size: size(read, "intermediate_size", 3072),
    num_hidden_layers: layerCount(read, 12),
    num_attention_heads: heads,
    hidden_act: activation(read, "hidden_act", "quick_gelu"),
    layer_norm_eps: epsilon(read, "layer_norm_eps", 1e-5),
  };
}
