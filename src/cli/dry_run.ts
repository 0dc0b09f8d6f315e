/**
 * What can be said of a model without reading its weights: its own code runs on a device that only counts.
 *
 * @module
 */
import type { AttentionMask } from "../masks/types.ts";
import { layerWindows } from "../cache/windows.ts";
import type { AttnImplementation, PretrainedConfig } from "../config.ts";
import { DryDevice } from "../devices/dry.ts";
import { settings } from "../devices/settings.ts";
import type { DType } from "../dtype.ts";
import { blueprintOf, buildOn, type Quantization } from "../from_pretrained.ts";
import type { Weights } from "../hub/safetensors.ts";
import { type AttentionTrace, trace_attention } from "../inspect/trace.ts";
import type { AttentionReportRow, PreTrainedModel } from "../models/pretrained.ts";
import type { Cache } from "../cache/cache.ts";
import { Tensor } from "../tensor.ts";
import { taskOf } from "./model.ts";

/** Longest prompt that is run to count the memory of work: some masks grow with its square, also on the host. */
const LONGEST_PROMPT = 1024;

/** The type caches keep keys and values in, and its bytes a number. */
const CACHE_TYPES = { float32: 4 } as const;

/** One attention layer. */
export interface LayerRow extends Omit<AttentionReportRow, "device"> {
  /** `full_attention`, `sliding_attention`, `chunked_attention`, or what an encoder's layers are. */
  readonly type: string;
  readonly heads: number | null;
  readonly kv_heads: number | null;
  readonly head_dim: number | null;
  /** Tokens a sliding or chunked layer keeps; null for all. */
  readonly window: number | null;
  readonly softcap: number | null;
  /** What the attention function is given as its mask with a prompt, and with one more token; null where it is not run. */
  readonly mask_of_prompt: string | null;
  readonly mask_of_token: string | null;
}

/** What a run takes on the CPU, in bytes. */
export interface MemoryPlan {
  /** Tokens of the context the plan is for. */
  readonly context: number;
  readonly weights: number;
  /** Of keys and values: by one more token at first, and at the context's length, by the type they are kept in. */
  readonly cache_per_token: Readonly<Record<keyof typeof CACHE_TYPES, number>>;
  readonly cache: Readonly<Record<keyof typeof CACHE_TYPES, number>>;
  /** Beside weights and cache, for a prompt of `prompt` tokens. */
  readonly work: number;
  readonly prompt: number;
  readonly total: number;
  /** Most bytes of an engine. */
  readonly maximum: number;
  readonly fits: boolean;
  /** Longest context that fits, at most what the model was trained for. */
  readonly longest_context: number;
}

/** What {@linkcode dryRun} finds. */
export interface DryRun {
  /** Numbers of the model, tied ones counted once. */
  readonly parameters: number;
  readonly layers: readonly LayerRow[];
  readonly memory: MemoryPlan;
}

/** What {@linkcode dryRun} is asked. */
export interface DryRunOptions {
  readonly attn_implementation: AttnImplementation | undefined;
  readonly dtype: DType | "auto";
  readonly quantization: Quantization | undefined;
  /** Tokens to plan for; default: what the model was trained for. */
  readonly context: number | undefined;
  readonly name: string;
  readonly signal: AbortSignal;
}

/**
 * Builds the model from the headers of its weights and runs a prompt and a token through it, without memory.
 *
 * @throws {ModelFileError | InvalidArgument} for a model that could not be loaded either
 */
export async function dryRun(
  config: PretrainedConfig,
  weights: Weights,
  options: DryRunOptions,
): Promise<DryRun> {
  const device = new DryDevice();
  const { attn_implementation, dtype, quantization, name: file, signal } = options;
  const blueprint = blueprintOf(taskOf(config), config, attn_implementation, file);
  const load = { file, progress: undefined, signal };
  await using model = await buildOn(device, withoutData(weights), blueprint, { dtype, quantization }, load);
  const weightBytes = device.bytes;
  const trained = longest(model);
  const context = options.context ?? trained;
  const prompt = Math.max(1, Math.min(context, LONGEST_PROMPT, model.is_encoder ? trained : Infinity));
  const peak = await peakOf(model, device, prompt, signal);
  const first = await run(model, prompt, null, signal);
  using cache = first.cache;
  const second = cache === null ? [] : (await run(model, 1, cache, signal)).traces;
  const layers = layersOf(model, first.traces, second);
  const work = peak - weightBytes - cacheBytes(layers, CACHE_TYPES.float32, prompt);
  const maximum = settings.max_memory;
  const byType = (tokens: number) => ({
    float32: cacheBytes(layers, CACHE_TYPES.float32, tokens),
  });
  const need = (tokens: number) => weightBytes + work + cacheBytes(layers, CACHE_TYPES.float32, tokens);
  return {
    parameters: model.num_parameters,
    layers,
    memory: {
      context,
      weights: weightBytes,
      cache_per_token: byType(1),
      cache: byType(context),
      work,
      prompt,
      total: need(context),
      maximum,
      fits: need(context) <= maximum,
      longest_context: largest(trained, (tokens) => need(tokens) <= maximum),
    },
  };
}

/** The same tensors, none of whose bytes are ever read. */
function withoutData(weights: Weights): Weights {
  return {
    tensors: weights.tensors,
    metadata: weights.metadata,
    tensor: (name) => weights.tensor(name),
    stream: () => Promise.resolve(),
    close: () => {},
    [Symbol.dispose]: () => {},
  };
}

/** What one layer was given. */
interface Given {
  readonly heads: number;
  readonly kv_heads: number;
  readonly head_dim: number;
  readonly softcap: number | null;
  readonly mask: string;
}

/** Runs `tokens` tokens, and says what each layer was given, by its row in the report. */
async function run(
  model: PreTrainedModel,
  tokens: number,
  past_key_values: Cache | null,
  signal: AbortSignal,
): Promise<{ traces: readonly (Given | undefined)[]; cache: Cache | null }> {
  const traces: Given[] = [];
  using input_ids = Tensor.from(new Int32Array(tokens), { shape: [1, tokens] });
  const { logits, last_hidden_state, past_key_values: cache = null } = await trace_attention(model, {
    input_ids,
    signal,
    ...(model.can_generate() ? { logits_to_keep: 1 } : {}),
    ...(past_key_values === null ? {} : { past_key_values }),
  }, (trace) => {
    traces[trace.layer_index] = given(trace);
  });
  for (const t of [logits, last_hidden_state]) t?.[Symbol.dispose]();
  return { traces, cache };
}

/** Most bytes in use while a prompt is run; looking at the layers would change it. */
async function peakOf(
  model: PreTrainedModel,
  device: DryDevice,
  tokens: number,
  signal: AbortSignal,
): Promise<number> {
  device.resetPeak();
  using input_ids = Tensor.from(new Int32Array(tokens), { shape: [1, tokens] });
  const keep = model.can_generate() ? { logits_to_keep: 1 } : {};
  const output = await model.forward({ input_ids, signal, ...keep });
  for (const t of [output.logits, output.last_hidden_state, output.past_key_values]) t?.[Symbol.dispose]();
  return device.peak;
}

function given({ query, key, kwargs, attention_mask }: AttentionTrace): Given {
  const { softcap } = kwargs;
  return {
    heads: query.shape[1]!,
    kv_heads: key.shape[1]!,
    head_dim: query.shape[3]!,
    softcap: typeof softcap === "number" && softcap > 0 ? softcap : null,
    mask: formOf(attention_mask),
  };
}

/** A mask in a few words. */
function formOf(mask: AttentionMask): string {
  if (mask === null) return "null";
  return mask instanceof Tensor ? `${mask.dtype} [${mask.shape}]` : `block mask [${mask.shape}]`;
}

function layersOf(
  model: PreTrainedModel,
  prompt: readonly (Given | undefined)[],
  token: readonly (Given | undefined)[],
): LayerRow[] {
  const { text_config, is_encoder } = model;
  const windows = is_encoder ? null : layerWindows(text_config);
  const types = text_config["layer_types"];
  let index = 0;
  return model.attention_report().map(({ layer, implementation, why }, row) => {
    const isText = model.attention_layers[row]!.config === text_config;
    const i = isText ? index++ : -1;
    const window = isText ? (windows?.layers ?? [])[i] ?? windows?.every ?? null : null;
    const listed = Array.isArray(types) ? types[i] : undefined;
    const causal = window === null ? "full_attention" : "sliding_attention";
    const { heads = null, kv_heads = null, head_dim = null, softcap = null, mask = null } = prompt[row] ?? {};
    return {
      layer,
      type: !isText || is_encoder ? "bidirectional" : typeof listed === "string" ? listed : causal,
      implementation,
      why,
      heads,
      kv_heads,
      head_dim,
      window,
      softcap,
      mask_of_prompt: mask,
      mask_of_token: token[row]?.mask ?? null,
    };
  });
}

/** Bytes of keys and values after `tokens` tokens; encoders and towers keep none. */
function cacheBytes(layers: readonly LayerRow[], bytes: number, tokens: number): number {
  return layers.filter(({ type }) => type !== "bidirectional").reduce(
    (sum, { kv_heads, head_dim, window }) =>
      sum + 2 * (kv_heads ?? 0) * (head_dim ?? 0) * Math.min(tokens, window ?? Infinity) * bytes,
    0,
  );
}

/** Positions the model was trained for. */
function longest({ text_config }: PreTrainedModel): number {
  const positions = text_config["max_position_embeddings"];
  return typeof positions === "number" && positions >= 1 ? positions : 2048;
}

/** The largest integer up to `most` that fits, 0 where none does. Where one fits, all below it do. */
function largest(most: number, fits: (n: number) => boolean): number {
  let [low, high] = [0, most + 1];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (fits(middle)) low = middle;
    else high = middle;
  }
  return low;
}
