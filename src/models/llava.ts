/**
 * LLaVA: a language model that reads the patches of images, projected, in the places of image tokens (Liu et al. 2023,
 * arXiv 2304.08485).
 *
 * @module
 */
import type { PretrainedConfig } from "../config.ts";
import { isFloat } from "../dtype.ts";
import { InvalidArgument } from "../errors.ts";
import { Linear } from "../layers/linear.ts";
import { MLP } from "../layers/mlp.ts";
import type { Parameters } from "../layers/parameter.ts";
import { embedding } from "../ops/matrix.ts";
import { cat, reshape, slice } from "../ops/shape.ts";
import { tidy } from "../scope.ts";
import { hostData, Tensor } from "../tensor.ts";
import type { Call } from "./call.ts";
import { ClipVisionTower } from "./clip.ts";
import { type Decoder, type DecoderClass, embed, LanguageHead, layerNames } from "./decoder.ts";
import { settle } from "./decoder_config.ts";
import { ownOn } from "./inputs.ts";
import { LlamaDecoder } from "./llama.ts";
import { llavaConfig, type LlavaFields } from "./llava_config.ts";
import { MistralDecoder } from "./mistral.ts";
import type { AttentionLayer } from "./plans.ts";
import { type ForwardOutput, type ModelParts, PreTrainedModel } from "./pretrained.ts";

/** Language models it is built with, by `text_config.model_type`. */
const LANGUAGE_MODELS: Readonly<Record<string, DecoderClass>> = {
  llama: LlamaDecoder,
  mistral: MistralDecoder,
};

/** Published configurations leave out what is as in the first Llama. */
const LLAMA_7B = {
  hidden_size: 4096,
  intermediate_size: 11008,
  num_hidden_layers: 32,
  num_attention_heads: 32,
};

/** LLaVA without a head: hidden states out. */
export class LlavaModel extends PreTrainedModel {
  readonly vocab_size: number;
  readonly hidden_size: number;
  readonly attention_layers: readonly AttentionLayer[];
  protected readonly language_model: Decoder;
  readonly #fields: LlavaFields;
  readonly #vision_tower: ClipVisionTower;
  readonly #projector: MLP;
  /** Indices of the hidden states that are used, from 0. */
  readonly #features: readonly number[];

  /**
   * Builds the model from checked parts.
   *
   * @throws {InvalidArgument | ModelFileError} for a field out of range, or missing or misshapen weights
   */
  constructor(parts: ModelParts) {
    super(parts);
    const { config, parameters } = parts;
    const c = this.#fields = llavaConfig(config);
    const types = Object.keys(LANGUAGE_MODELS);
    const type = c.text_config.read.string("model_type", { default: "llama", known: types });
    if (type === "llama") settle(c.text_config, LLAMA_7B);
    this.language_model = new LANGUAGE_MODELS[type]!(c.text_config, languageWeights(parameters));
    this.#vision_tower = new ClipVisionTower(c.vision_config, visionWeights(parameters));
    this.vocab_size = this.language_model.vocab_size;
    this.hidden_size = this.language_model.hidden_size;
    this.#features = featureIndices(config, c, this.#vision_tower.blocks.length);
    this.#projector = projector(parameters, c, [
      this.#vision_tower.fields.hidden_size * this.#features.length,
      this.hidden_size,
    ]);
    this.attention_layers = [
      ...layerNames(this.#vision_tower.blocks, c.vision_config, "vision_tower."),
      ...layerNames(this.language_model.blocks, c.text_config, "language_model."),
    ];
  }

  override get text_config(): PretrainedConfig {
    return this.#fields.text_config;
  }

  override get input_keys(): readonly string[] {
    return ["pixel_values"];
  }

  protected override async compute(call: Call): Promise<ForwardOutput> {
    const images = call.inputs.pixel_values ?? null;
    if (images !== null) this.#checkImages(images, call);
    const begin = () => images === null ? embed(this.language_model, call) : this.#withImages(call, images);
    return await this.language_model.forward(call, begin, this.deviceHandle);
  }

  /**
   * Checks images against the tower, and their number against the tokens that stand for them.
   *
   * @throws {InvalidArgument}
   */
  #checkImages(images: unknown, { input_ids }: Call): void {
    const { num_channels, image_size } = this.#vision_tower.fields;
    const shape = [num_channels, image_size, image_size];
    if (
      !(images instanceof Tensor) || !isFloat(images.dtype) || images.shape.length !== 4 ||
      images.size === 0 ||
      shape.some((d, i) => images.shape[i + 1] !== d)
    ) {
      const got = images instanceof Tensor ? `${images.dtype} [${images.shape}]` : typeof images;
      throw new InvalidArgument(
        `Cannot run the model on pixel_values of ${got}: expected a float tensor (images, C, H, W) = [images,${shape}]`,
      );
    }
    if (input_ids === null) {
      throw new InvalidArgument(
        "Cannot place pixel_values in inputs_embeds: pass input_ids, whose image tokens say where they go",
      );
    }
    const places = this.#places(input_ids).length;
    const patches = this.#patches * images.shape[0]!;
    if (places !== patches) {
      throw new InvalidArgument(
        `Cannot place ${
          images.shape[0]
        } images in ${places} image tokens (id ${this.#fields.image_token_id}): expected ${patches}, ${this.#patches} for each image`,
      );
    }
  }

  /** Features of one image. */
  get #patches(): number {
    return this.#vision_tower.fields.num_patches + (this.#fields.with_class_token ? 1 : 0);
  }

  /** Flat indices of the image tokens. */
  #places(input_ids: Tensor): number[] {
    const places: number[] = [];
    hostData(input_ids).forEach((id, i) => {
      if (Number(id) === this.#fields.image_token_id) places.push(i);
    });
    return places;
  }

  /** Embeddings (B, N, E) whose rows at image tokens are the features of the images, in order. */
  async #withImages(call: Call, images: Tensor): Promise<Tensor> {
    using features = await this.#imageFeatures(call, images);
    const ids = call.input_ids!;
    const rows = Int32Array.from({ length: ids.size }, (_, i) => i);
    this.#places(ids).forEach((place, k) => rows[place] = ids.size + k);
    return tidy(() => {
      const words = reshape(embed(this.language_model, call), [ids.size, this.hidden_size]);
      return embedding(Tensor.ofHost(rows, "int32", ids.shape, this.device), cat([words, features], 0));
    });
  }

  /** Images → projected features (images · patches, E). */
  async #imageFeatures(call: Call, images: Tensor): Promise<Tensor> {
    const { vision_config, with_class_token } = this.#fields;
    using pixels = await ownOn(images, this.device);
    const states = await this.#vision_tower.hiddenStates(pixels, this.#features, {
      plan: call.plans.of(vision_config),
      mask: null,
      cache: null,
      kwargs: call.shared_kwargs,
    });
    try {
      return tidy(() => {
        const kept = cat(states, 2);
        const patches = with_class_token ? kept : slice(kept, 1, 1);
        return this.#projector.forward(reshape(patches, [-1, kept.shape[2]!]));
      });
    } finally {
      for (const t of states) t[Symbol.dispose]();
    }
  }

  protected override releaseState(): void {
    this.language_model[Symbol.dispose]();
  }
}

/** LLaVA with a language-modelling head. */
export class LlavaForConditionalGeneration extends LlavaModel {
  readonly #head: LanguageHead;

  /**
   * Builds the model from checked parts.
   *
   * @throws {InvalidArgument | ModelFileError} for a field out of range, or missing or misshapen weights
   */
  constructor(parts: ModelParts) {
    super(parts);
    const names = ["language_model.lm_head.weight", "lm_head.weight"];
    const name = names.find((n) => parts.parameters.hasAbsolute(n)) ?? names[0]!;
    this.#head = LanguageHead.of(this.language_model, parts.parameters, name);
  }

  /** A head predicts tokens. */
  override can_generate(): boolean {
    return true;
  }

  protected override async compute(call: Call): Promise<ForwardOutput> {
    return this.#head.forward(await super.compute(call), call);
  }
}

/** Where the language model's weights are: a checkpoint keeps them with a head around them, or without. */
function languageWeights(parameters: Parameters): Parameters {
  const names = ["language_model.model", "language_model"];
  return parameters.under(names.find((n) => parameters.has(`${n}.embed_tokens.weight`)) ?? names[0]!);
}

function visionWeights(parameters: Parameters): Parameters {
  const names = ["vision_tower.vision_model", "vision_tower"];
  return parameters.under(names.find((n) => parameters.has(`${n}.embeddings.class_embedding`)) ?? names[1]!);
}

function projector(parameters: Parameters, c: LlavaFields, [inner, out]: readonly [number, number]): MLP {
  const p = parameters.under("multi_modal_projector");
  const linear = (name: string, width: number) =>
    new Linear(
      p.take(`${name}.weight`, [out, width]),
      c.multimodal_projector_bias ? p.take(`${name}.bias`, [out]) : null,
    );
  return new MLP(linear("linear_1", inner), linear("linear_2", out), c.projector_hidden_act);
}

/** Indices of hidden states, which may count from the end. */
function featureIndices(config: PretrainedConfig, c: LlavaFields, layers: number): number[] {
  return c.vision_feature_layers.map((i) => {
    const index = i < 0 ? i + layers + 1 : i;
    if (index < 0 || index > layers) {
      throw config.read.refuse("vision_feature_layer", `indices of ${layers + 1} hidden states`);
    }
    return index;
  });
}
