/**
 * The fields of a LLaVA configuration, checked before anything is allocated from them.
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import type { Activation } from "../layers/mlp.ts";
import { activation, vocabSize } from "./decoder_config.ts";

/** A checked LLaVA configuration. */
export interface LlavaFields {
  /** Describes the layers of tokens. */
  readonly text_config: PretrainedConfig;
  /** Describes the vision tower. */
  readonly vision_config: PretrainedConfig;
  /** The id whose places images take. */
  readonly image_token_id: number;
  /** Which hidden states of the tower are used, 0 the embedding; several are joined. */
  readonly vision_feature_layers: readonly number[];
  /** Whether the class token is among the features. */
  readonly with_class_token: boolean;
  /** Activation between the projector's layers. */
  readonly projector_hidden_act: Activation;
  /** Whether they have a bias. */
  readonly multimodal_projector_bias: boolean;
}

/** Layers an index may count from either end; the tower checks them against its own. */
const MAX_LAYERS = 1024;

/**
 * Checks the fields of a LLaVA configuration and fills in the defaults of the format.
 *
 * @throws {InvalidArgument | ModelFileError} naming the field, what was expected and what was found.
 */
export function llavaConfig(config: PretrainedConfig): LlavaFields {
  const read = config.read;
  const { text_config, vision_config } = config.sub_configs;
  if (text_config === undefined) throw read.refuse("text_config", "the configuration of a language model");
  if (vision_config === undefined) throw read.refuse("vision_config", "the configuration of a vision tower");
  const name = config["image_token_id"] === undefined ? "image_token_index" : "image_token_id";
  const layers = read.integers("vision_feature_layer", {
    min: -MAX_LAYERS,
    max: MAX_LAYERS,
    most: MAX_LAYERS,
  });
  const strategy = read.string("vision_feature_select_strategy", {
    default: "default",
    known: ["default", "full"],
  });
  return {
    text_config,
    vision_config,
    image_token_id: read.integer(name, { min: 0, max: vocabSize(text_config.read) - 1 }),
    vision_feature_layers: layers.length === 0 ? [-2] : layers,
    with_class_token: strategy === "full",
    projector_hidden_act: activation(read, "projector_hidden_act", "gelu"),
    multimodal_projector_bias: read.boolean("multimodal_projector_bias", { default: true }),
  };
}
