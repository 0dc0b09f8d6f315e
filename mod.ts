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
export type { AttentionPrecision, DeviceName } from "./src/devices/device.ts";
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
export { is_kernel } from "./src/attention/kernel_name.ts";
export { eager_attention_forward } from "./src/attention/eager.ts";
export { sdpa_attention_forward } from "./src/attention/sdpa.ts";
export { sdpa_kernel, type SdpaKernelOptions, SDPBackend } from "./src/attention/sdpa_kernel.ts";
export type { BuiltinAttention } from "./src/attention/forward.ts";
export { flash_attention_forward } from "./src/attention/flash.ts";
export { flex_attention_forward } from "./src/attention/flex.ts";
export {
  eager_paged_attention_forward,
  flash_paged_attention_forward,
  type PagedCache,
  sdpa_paged_attention_forward,
} from "./src/attention/paged.ts";
export type {
  AttentionFunction,
  AttentionKwargs,
  AttentionModule,
  AttentionResult,
} from "./src/attention/types.ts";

export * from "./src/masks/mod.ts";

export type { Cache, CacheSnapshot } from "./src/cache/cache.ts";
export { DynamicCache } from "./src/cache/dynamic.ts";
export type { KvDType } from "./src/cache/kv_dtype.ts";
export type { LayeredCache } from "./src/cache/layered.ts";
export { StaticCache } from "./src/cache/static.ts";
export { load_cache, type LoadCacheOptions, type LoadedCache } from "./src/cache/load_cache.ts";
export { save_cache, type SaveCacheOptions } from "./src/cache/save_cache.ts";

export { type AttnImplementation, PretrainedConfig } from "./src/config.ts";
export type { Fields, NumberRule } from "./src/config_fields.ts";
export { AutoConfig, type AutoConfigOptions } from "./src/auto_config.ts";
export {
  type AutoClass,
  AutoModel,
  AutoModelForCausalLM,
  AutoModelForImageTextToText,
} from "./src/auto_model.ts";
export type { FromConfigOptions } from "./src/from_config.ts";
export type { FromPretrainedOptions, Quantization } from "./src/from_pretrained.ts";
export type { HubOptions } from "./src/hub/open.ts";
export type { LoadProgress } from "./src/hub/progress.ts";
export type {
  AttentionReportRow,
  ForwardInputs,
  ForwardOutput,
  PreTrainedModel,
  SavePretrainedOptions,
} from "./src/models/pretrained.ts";
export type { SaveProgress } from "./src/models/save_pretrained.ts";
export type { DraftCounts } from "./src/generation/output.ts";
export type {
  GenerateDictOptions,
  GenerateOptions,
  GenerateOutput,
  GenerateRequest,
  Generative,
  Streamer,
} from "./src/generation/generate.ts";
export { GenerationConfig } from "./src/generation/generation_config.ts";
export type { GenerationMixin } from "./src/generation/mixin.ts";
export type { GenerationParameters } from "./src/generation/parameters.ts";
export type { LogitsProcessor, LogitsProcessorFunction } from "./src/generation/processors.ts";
export type { SamplingOptions } from "./src/generation/sampling.ts";
export { GenerationSession, type GenerationSessionOptions } from "./src/generation/session.ts";
export type {
  StoppingCriterion,
  StoppingCriterionFunction,
  TextDecoding,
} from "./src/generation/stopping.ts";
export type { ChatMessage, ChatTemplate, ChatTemplateOptions } from "./src/text/chat_template.ts";
export type { EncodeOptions, Encoding } from "./src/text/encoding.ts";
export { type ApplyChatTemplateOptions, AutoTokenizer, type Tokenizer } from "./src/text/tokenizer.ts";
export {
  type StreamOptions,
  TextIteratorStreamer,
  type TextIteratorStreamerOptions,
  TextStreamer,
  type TextStreamerOptions,
} from "./src/text/streamer.ts";
export { bisect_attention } from "./src/inspect/bisect.ts";
export type {
  AttentionBisection,
  AttentionDivergence,
  BisectInputs,
  BisectOptions,
  BisectProgress,
  BisectSide,
  ComparedSide,
  DifferenceSummary,
  LayerComparison,
  StepComparison,
} from "./src/inspect/bisect_types.ts";
export type { ElementDifference } from "./src/inspect/compare.ts";
export type { MaskWindow, ReceivedMask } from "./src/inspect/mask_at.ts";
export { type AttentionTrace, trace_attention } from "./src/inspect/trace.ts";
export type { Tolerance } from "./src/attention/tolerance.ts";
