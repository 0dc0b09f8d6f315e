/**
 * PreTrainedModel: what every model shares. One model file reads top to bottom; this is what stands around it.
 *
 * @module
 */
import { attentionFunction, builtinOf } from "../attention/builtin.ts";
import { checkBackends, enabledSdpaBackends, type SDPBackend } from "../attention/sdpa_kernel.ts";
import type { AttentionKwargs } from "../attention/types.ts";
import type { Cache } from "../cache/cache.ts";
import { DynamicCache } from "../cache/dynamic.ts";
import type { AttnImplementation, PretrainedConfig } from "../config.ts";
import type { Device, DeviceName } from "../devices/device.ts";
import { acquire, closeEngine, defaultDevice, openEngine } from "../devices/mod.ts";
import { WasmEngine } from "../devices/wasm/engine.ts";
import { InvalidArgument } from "../errors.ts";
import { generate, type GenerateOptions } from "../generation/generate.ts";
import type { AttentionPlan } from "../layers/attention.ts";
import type { Parameters } from "../layers/parameter.ts";
import { warnOnce } from "../notice.ts";
import { type NestedArray, Tensor } from "../tensor.ts";
import {
  checkEmbeds,
  checkIds,
  extraKwargs,
  FORWARD_KEYS,
  type ForwardInputs,
  type ForwardOutput,
  ownCopy,
  positionsOf,
} from "./inputs.ts";

export type { ForwardInputs, ForwardOutput, GenerateOptions };

/** A forward, checked and ready to run. Tensors in it belong to the forward. */
export interface Call {
  readonly batch: number;
  readonly length: number;
  readonly input_ids: Tensor | null;
  readonly inputs_embeds: Tensor | null;
  /** As given, for the mask builders. */
  readonly attention_mask: Tensor | NestedArray | null;
  /** Whether the caller gave positions: only then can they mean packed sequences. */
  readonly position_ids: Tensor | null;
  /** (B, N) int32 for the rotary embedding. */
  readonly positions: Tensor;
  readonly last_position: number;
  readonly cache: Cache | null;
  readonly is_causal: boolean | null;
  readonly plan: AttentionPlan;
  readonly kwargs: AttentionKwargs;
  readonly output_attentions: boolean;
  readonly output_hidden_states: boolean;
  readonly logits_to_keep: number;
  readonly signal: AbortSignal | undefined;
}

/** One row of {@linkcode PreTrainedModel.attention_report}. */
export interface AttentionReportRow {
  /** Name of the layer. */
  readonly layer: string;
  /** Its attention implementation. */
  readonly implementation: string;
  /** Where it computes. */
  readonly device: DeviceName;
  /** What led to this choice. */
  readonly why: string;
}

/** What a model is built from. */
export interface ModelParts {
  readonly config: PretrainedConfig;
  readonly parameters: Parameters;
  readonly device: Device;
  /** Why the config's attention implementation is what it is. */
  readonly why?: string;
}

/** Base class of models: forward, generate, swapping attention, moving between devices, disposal. */
export abstract class PreTrainedModel implements AsyncDisposable {
  /** The configuration this model runs with; `_attn_implementation` is the active implementation. */
  readonly config: PretrainedConfig;
  readonly #parameters: Parameters;
  #device: Device;
  #why: string;
  #turn: Promise<void> = Promise.resolve();
  #disposed = false;

  /**
   * Use `from_pretrained`.
   *
   * @internal
   */
  constructor(parts: ModelParts) {
    this.config = parts.config;
    this.#parameters = parts.parameters;
    this.#device = parts.device;
    this.#why = parts.why ?? "chosen by the library: nothing was requested";
  }

  /** Number of tokens in the vocabulary. */
  abstract readonly vocab_size: number;
  /** Width of the hidden states. */
  abstract readonly hidden_size: number;
  /** Names of the attention layers, for reports. */
  abstract readonly attention_layers: readonly string[];

  /** Whether the model has a language-modelling head. */
  can_generate(): boolean {
    return false;
  }

  /**
   * Computes one checked forward. Tensors made on the way are disposed; the result's belong to the caller.
   *
   * @internal
   */
  protected abstract compute(call: Call): Promise<ForwardOutput>;

  /**
   * Gives back what the model holds besides its parameters.
   *
   * @internal
   */
  protected abstract releaseState(): void;

  /** Where the model computes. */
  get device(): DeviceName {
    return this.#device.name;
  }

  /**
   * The engine or GPU behind {@linkcode PreTrainedModel.device}.
   *
   * @internal
   */
  get deviceHandle(): Device {
    return this.#device;
  }

  /** Number of weights, counted once where tied. */
  get num_parameters(): number {
    return [...this.#parameters].reduce((n, p) => n + p.tensor.size, 0);
  }

  /** Bytes of device memory the model's engine uses now, and the most it ever used. */
  get memory(): { bytes: number; peak: number } {
    return { bytes: this.#device.bytes, peak: this.#device.peak };
  }

  /**
   * Runs the model on `input_ids` (B, N). With a cache, ids continue what the cache holds.
   *
   * The implementation and `is_causal` are decided when the forward begins: a swap meanwhile takes effect in the
   * next one. On an error or abort the cache is as it was before.
   *
   * @throws {InvalidArgument} for inputs that do not fit each other or the model, before anything is computed
   * @throws the signal's reason when aborted
   */
  async forward(inputs: ForwardInputs): Promise<ForwardOutput> {
    const backends = inputs.sdpa_backends === undefined
      ? enabledSdpaBackends()
      : checkBackends(inputs.sdpa_backends);
    return await this.#exclusive(async () => {
      inputs.signal?.throwIfAborted();
      const call = await this.#prepare(inputs, backends);
      const past = call.cache?.get_seq_length() ?? 0;
      try {
        const output = await this.compute(call);
        try {
          await this.#device.flush(inputs.signal);
        } catch (error) {
          disposeOutput(output);
          throw error;
        }
        return call.cache === null ? output : { ...output, past_key_values: call.cache };
      } catch (error) {
        if (inputs.past_key_values === undefined || inputs.past_key_values === null) {
          call.cache?.[Symbol.dispose]();
        } else if (call.cache instanceof DynamicCache) call.cache.rewind(past);
        throw error;
      } finally {
        call.input_ids?.[Symbol.dispose]();
        call.positions[Symbol.dispose]();
        call.position_ids?.[Symbol.dispose]();
      }
    }, inputs.signal);
  }

  /**
   * Generates tokens after `input_ids` (B, N): greedy by default, sampling with `do_sample`. Returns (B, N + new)
   * int64; rows that end early are padded.
   *
   * @throws {InvalidArgument} for options that do not fit
   * @throws the signal's reason when aborted
   */
  async generate(options: GenerateOptions): Promise<Tensor> {
    return await generate(this, options);
  }

  /**
   * Switches the attention implementation: all of the model with a string, parts with a record of sub-config
   * names (`""` is all). Takes effect at the next forward; caches stay valid. On an error nothing has changed.
   *
   * @throws {InvalidArgument} for an unknown name or sub-config
   */
  // deno-lint-ignore require-await -- asynchronous by contract: a name may load a kernel package
  async set_attn_implementation(attn_implementation: AttnImplementation): Promise<void> {
    this.#assertAlive();
    applyImplementation(this.config, attn_implementation);
    this.#why = `set_attn_implementation(${JSON.stringify(attn_implementation)})`;
  }

  /** Which implementation every attention layer uses, where, and why. */
  attention_report(): AttentionReportRow[] {
    const implementation = this.config._attn_implementation ?? "sdpa";
    return this.attention_layers.map((layer) => ({
      layer,
      implementation,
      device: this.device,
      why: this.#why,
    }));
  }

  /**
   * Moves the model to another device. Caches follow at their next use. On an error the model stays where it was.
   *
   * @throws {DeviceUnavailable} when the device does not exist here
   */
  async to(device: DeviceName): Promise<this> {
    if (device !== "wasm" && device !== "webgpu") {
      throw new InvalidArgument(`Cannot move the model to "${String(device)}": expected wasm or webgpu`);
    }
    return await this.#exclusive(async () => {
      if (device === this.device) return this;
      await acquire(device);
      const target = device === "wasm" ? openEngine() : defaultDevice(device);
      const moved: Tensor[] = [];
      const parameters = [...this.#parameters];
      try {
        for (const { tensor } of parameters) {
          const host = await tensor.raw();
          const there = Tensor.empty(target, tensor.dtype, tensor.shape);
          moved.push(there);
          target.write(there.storage.on(target), 0, target.encode(tensor.dtype, host));
          await target.flush();
        }
      } catch (error) {
        for (const t of moved) t[Symbol.dispose]();
        if (target instanceof WasmEngine) closeEngine(target);
        throw error;
      }
      const old = this.#device;
      this.releaseState();
      parameters.forEach((p, i) => {
        p.tensor[Symbol.dispose]();
        p.tensor = moved[i]!;
      });
      this.#device = target;
      if (old instanceof WasmEngine) closeEngine(old);
      return this;
    });
  }

  /** Ends the model once running forwards have finished. Tensors and caches it gave out stay usable. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    await this.#exclusive(() => {
      this.#disposed = true;
      this.releaseState();
      for (const p of this.#parameters) p.tensor[Symbol.dispose]();
      if (this.#device instanceof WasmEngine) closeEngine(this.#device);
      return Promise.resolve();
    });
  }

  /** As `await using`, by name. */
  async dispose(): Promise<void> {
    await this[Symbol.asyncDispose]();
  }

  #assertAlive(): void {
    if (this.#disposed) throw new InvalidArgument("Cannot use a model after it was disposed");
  }

  /** One forward, move or disposal at a time: they share an engine and replace its parameters. */
  async #exclusive<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const before = this.#turn;
    const { promise, resolve } = Promise.withResolvers<void>();
    // Whoever gives up waiting leaves the queue, but those behind still wait for those before.
    this.#turn = before.then(() => promise);
    try {
      await untilAborted(before, signal);
      this.#assertAlive();
      return await work();
    } finally {
      resolve();
    }
  }

  async #prepare(inputs: ForwardInputs, backends: readonly SDPBackend[]): Promise<Call> {
    if ((inputs.input_ids === undefined) === (inputs.inputs_embeds === undefined)) {
      throw new InvalidArgument("Cannot run the model: expected exactly one of input_ids and inputs_embeds");
    }
    const implementation = this.config._attn_implementation ?? "sdpa";
    const plan = { implementation, forward: attentionFunction(implementation) };
    const extra = extraKwargs(
      inputs,
      FORWARD_KEYS,
      builtinOf(implementation) === undefined ? implementation : null,
    );
    const ids = inputs.input_ids === undefined ? null : checkIds(inputs.input_ids, this.vocab_size);
    const embeds = inputs.inputs_embeds === undefined
      ? null
      : checkEmbeds(inputs.inputs_embeds, this.hidden_size);
    const [batch, length] = (ids ?? embeds!).shape as [number, number];
    const keep = inputs.logits_to_keep ?? 0;
    if (!Number.isInteger(keep) || keep < 0) {
      throw new InvalidArgument(
        `Cannot keep the logits of ${keep} positions: expected an integer ≥ 0 (0 keeps all)`,
      );
    }
    const wantsWeights = inputs.output_attentions ?? this.config.output_attentions;
    const use_cache = inputs.use_cache ?? true;
    const cache = inputs.past_key_values ?? (use_cache ? new DynamicCache({ config: this.config }) : null);
    if (cache !== null && cache.device !== null && cache.device !== this.device) {
      warnOnce(
        "cache-moved",
        `a key/value cache was moved from ${cache.device} to ${this.device} because its model had moved`,
      );
      await cache.to(this.device);
    }
    const past = cache?.get_query_offset() ?? 0;
    const { rows, ids: positions } = positionsOf(inputs.position_ids, batch, length, past);
    const spread = rows === batch
      ? positions
      : Int32Array.from({ length: batch * length }, (_, i) => positions[i % length]!);
    const is_causal = inputs.is_causal ?? this.config.is_causal;
    const given = inputs.position_ids === undefined || inputs.position_ids === null;
    const position_ids = given ? null : Tensor.ofHost(positions, "int32", [rows, length], this.device);
    return {
      batch,
      length,
      input_ids: ids === null ? null : ownCopy(ids, this.device),
      inputs_embeds: embeds,
      attention_mask: inputs.attention_mask ?? null,
      position_ids,
      positions: Tensor.ofHost(spread, "int32", [batch, length], this.device),
      last_position: positions.reduce((a, b) => Math.max(a, b), 0),
      cache,
      is_causal,
      plan,
      kwargs: {
        ...extra,
        sdpa_backends: backends,
        position_ids,
        use_cache,
        ...(is_causal === null ? {} : { is_causal }),
        ...(wantsWeights ? { output_attentions: true } : {}),
      },
      output_attentions: wantsWeights,
      output_hidden_states: inputs.output_hidden_states ?? false,
      logits_to_keep: keep,
      signal: inputs.signal,
    };
  }
}

/** Waits for `work`, or rejects with the signal's reason as soon as it is aborted. */
async function untilAborted(work: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (signal === undefined) return await work;
  signal.throwIfAborted();
  const { promise, reject } = Promise.withResolvers<never>();
  const stop = () => reject(signal.reason);
  signal.addEventListener("abort", stop, { once: true });
  try {
    await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/**
 * Writes an implementation choice into a config, after checking every name in it; parts without one get `sdpa`.
 *
 * @throws {InvalidArgument} for an unknown name or sub-config; nothing has changed then
 */
export function applyImplementation(config: PretrainedConfig, choice: AttnImplementation): void {
  const draft = config.clone();
  draft._attn_implementation = choice;
  config._attn_implementation = settled(draft);
}

/** The choice of every part by name, each checked. */
function settled(part: PretrainedConfig): AttnImplementation {
  const name = part._attn_implementation ?? "sdpa";
  attentionFunction(name);
  const parts = Object.entries(part.sub_configs).map(([key, sub]) => [key, settled(sub)] as const);
  return { "": name, ...Object.fromEntries(parts) };
}

function disposeOutput(output: ForwardOutput): void {
  const tensors = [
    output.logits,
    output.last_hidden_state,
    ...(output.attentions ?? []),
    ...(output.hidden_states ?? []),
  ];
  for (const t of tensors) t?.[Symbol.dispose]();
}
