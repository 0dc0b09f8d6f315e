/**
 * Attune: hot-swappable attention for transformer models.
 *
 * Load a model, generate, and change how attention is computed while it runs:
 *
 * ```ts ignore
 * import { AutoModelForCausalLM, AutoTokenizer, TextStreamer } from "jsr:@attune/attune";
 *
 * const folder = "./tests/models/demo";
 * const tokenizer = await AutoTokenizer.from_pretrained(folder);
 * await using model = await AutoModelForCausalLM.from_pretrained(folder, { attn_implementation: "eager" });
 * const { input_ids } = tokenizer("In the beginning");
 * const streamer = new TextStreamer(tokenizer, { write: (text) => console.log(text) });
 * await model.generate({ input_ids, max_new_tokens: 20, streamer });
 * await model.set_attn_implementation("flash_attention_2");
 * await model.generate({ input_ids, max_new_tokens: 20, streamer });
 * ```
 *
 * @module
 */
export { type NestedArray, type TensorData, type TensorOptions } from "./src/tensor_data.ts";
export { Tensor } from "./src/tensor.ts";
export type { DType, TypedArray } from "./src/dtype.ts";
export * as ops from "./src/ops/mod.ts";
export type { DeviceName } from "./src/devices/device.ts";
export { device, type DeviceInfo, liveBuffers } from "./src/devices/mod.ts";
export { configure, type Settings } from "./src/settings.ts";
export { support, type SupportRow } from "./src/support.ts";
export {
  AttentionRefused,
  AttuneError,
  type Candidate,
  ComputationDropped,
  DeviceUnavailable,
  EngineFailure,
  InvalidArgument,
  ModelFileError,
  OutOfMemory,
} from "./src/errors.ts";

export { type Callable, Registry } from "./src/registry.ts";
export { ALL_ATTENTION_FUNCTIONS, AttentionInterface } from "./src/attention/interface.ts";
export { attention, type AttentionOptions } from "./src/attention/attention.ts";
export { eager_attention_forward } from "./src/attention/eager.ts";
export { sdpa_attention_forward } from "./src/attention/sdpa.ts";
export { sdpa_kernel, type SdpaKernelOptions, SDPBackend } from "./src/attention/sdpa_kernel.ts";
export type { BuiltinAttention } from "./src/attention/forward.ts";
export { flash_attention_forward } from "./src/attention/flash.ts";
export { flex_attention_forward } from "./src/attention/flex.ts";
export type {
  AttentionFunction,
  AttentionKwargs,
  AttentionModule,
  AttentionResult,
} from "./src/attention/types.ts";

export * from "./src/masks/mod.ts";

export type { Cache, CacheSnapshot } from "./src/cache/cache.ts";
export { DynamicCache } from "./src/cache/dynamic.ts";
export type { LayeredCache } from "./src/cache/layered.ts";
export { StaticCache } from "./src/cache/static.ts";

export { type AttnImplementation, PretrainedConfig } from "./src/config.ts";
export type { Fields, NumberRule } from "./src/config_fields.ts";
export { AutoConfig, type AutoConfigOptions } from "./src/auto_config.ts";
export {
  type AutoClass,
  AutoModel,
  AutoModelForCausalLM,
  AutoModelForImageTextToText,
  type FromPretrainedOptions,
} from "./src/from_pretrained.ts";
export type { LoadProgress } from "./src/load_parameters.ts";
export type {
  AttentionReportRow,
  ForwardInputs,
  ForwardOutput,
  PreTrainedModel,
} from "./src/models/pretrained.ts";
export type { GenerateOptions, Streamer } from "./src/generation/generate.ts";
export type { SamplingOptions } from "./src/generation/sampling.ts";
export { AutoTokenizer, type EncodeOptions, type Encoding, type Tokenizer } from "./src/text/tokenizer.ts";
export { TextStreamer, type TextStreamerOptions } from "./src/text/streamer.ts";
