/**
 * PreTrainedModel: what every model shares. One model file reads top to bottom; this is what stands around it.
 *
 * Length: the public methods of a model, each with its contract.
 *
 * @module
 */
import { checkBackends, enabledSdpaBackends } from "../attention/sdpa_kernel.ts";
import type { Cache } from "../cache/cache.ts";
import type { KvDType } from "../cache/kv_dtype.ts";
import type { AttnImplementation, PretrainedConfig } from "../config.ts";
import type { Device, DeviceName } from "../devices/device.ts";
import { acquire, closeEngine, defaultDevice, openEngine } from "../devices/mod.ts";
import { WasmEngine } from "../devices/wasm/engine.ts";
import { isRecord, show } from "../config_fields.ts";
import { InvalidArgument } from "../errors.ts";
import type { GenerateOptions } from "../generation/generate.ts";
import { GenerationMixin } from "../generation/mixin.ts";
import { type Parameters, weightShape } from "../layers/parameter.ts";
import { warnOnce } from "../notice.ts";
import { sizeOf } from "../shape.ts";
import { type Call, FOLLOW_UP, prepareCall, releaseCall, type WithFollowUp } from "./call.ts";
import { checkCache, disposeOutput, type ForwardInputs, type ForwardOutput } from "./inputs.ts";
import { moverOf } from "./moved.ts";
import type { AttentionReportRow, ModelParts } from "./parts.ts";
import { applyImplementation, type AttentionLayer, DEFAULT_IMPLEMENTATION } from "./plans.ts";
import { savePretrained, type SavePretrainedOptions } from "./save_pretrained.ts";
import { Turns } from "./turns.ts";

export type {
  AttentionReportRow,
  ForwardInputs,
  ForwardOutput,
  GenerateOptions,
  ModelParts,
  SavePretrainedOptions,
};

/** Base class of models: forward, generate, swapping attention, moving between devices, disposal. */
export abstract class PreTrainedModel extends GenerationMixin implements AsyncDisposable {
  /** The configuration this model runs with; `_attn_implementation` is the active implementation. */
  readonly config: PretrainedConfig;
  /**
   * Type keys and values are kept in by the caches that are made for calls; null keeps what layers compute, float32. A
   * cache that is given keeps its own.
   */
  readonly kv_dtype: KvDType | null;
  readonly #parameters: Parameters;
  #device: Device;
  #why: string;
  readonly #class_name: string;
  readonly #reload: ModelParts["reload"];
  readonly #turns = new Turns();
  #disposed = false;

  /**
   * Use `from_pretrained`.
   *
   * @internal
   */
  constructor(parts: ModelParts) {
    super(parts.config);
    this.config = parts.config;
    this.kv_dtype = parts.kv_dtype ?? null;
    this.#parameters = parts.parameters;
    this.#device = parts.device;
    this.#why = parts.why ?? "chosen by the library: nothing was requested";
    this.#class_name = parts.class_name ?? new.target.name;
    this.#reload = parts.reload;
  }

  /** Width of the hidden states. */
  abstract readonly hidden_size: number;
  /**
   * The attention layers, for reports.
   *
   * @internal
   */
  abstract readonly attention_layers: readonly AttentionLayer[];
  /**
   * Keys of `forward` that only this architecture has.
   *
   * @internal
   */
  get input_keys(): readonly string[] {
    return [];
  }
  /**
   * Whether the model reads in both directions, always and at once: no cache, and `is_causal` has no effect.
   *
   * @internal
   */
  get is_encoder(): boolean {
    return false;
  }

  /**
   * The part of the config that describes the layers of tokens, by which caches are made.
   *
   * @internal
   */
  get text_config(): PretrainedConfig {
    return this.config;
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
    return [...this.#parameters].reduce((n, p) => n + sizeOf(weightShape(p)), 0);
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
    if (!isRecord(inputs)) {
      throw new InvalidArgument(`Cannot run the model on ${show(inputs)}: expected inputs, with input_ids`);
    }
    const backends = inputs.sdpa_backends === undefined
      ? enabledSdpaBackends()
      : checkBackends(inputs.sdpa_backends);
    return await this.#exclusive(async () => {
      inputs.signal?.throwIfAborted();
      await this.#adopt(checkCache(inputs.past_key_values));
      // An abort drops what this forward recorded, not what others did.
      const { mark } = this.#device;
      // From here to the first await of `compute` nothing can be swapped: plan and mask are of one implementation.
      const call = prepareCall(this, inputs, backends);
      const given = inputs.past_key_values !== undefined && inputs.past_key_values !== null;
      using before = given ? call.cache?.snapshot() ?? null : null;
      try {
        const output = await this.compute(call);
        try {
          const done = this.#device.flush(inputs.signal, mark);
          try {
            (inputs as WithFollowUp)[FOLLOW_UP]?.(output);
          } finally {
            await done;
          }
        } catch (error) {
          disposeOutput(output);
          throw error;
        }
        return call.cache === null ? output : { ...output, past_key_values: call.cache };
      } catch (error) {
        if (given) before?.restore();
        else call.cache?.[Symbol.dispose]();
        throw error;
      } finally {
        releaseCall(call);
      }
    }, inputs.signal);
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
    return this.attention_layers.map(({ layer, config }) => ({
      layer,
      implementation: config._attn_implementation ?? DEFAULT_IMPLEMENTATION,
      device: this.device,
      why: this.#why,
    }));
  }

  /**
   * Moves the model to another device. Caches follow at their next use. On an error the model stays where it was.
   *
   * Weights are on one device only. Where that has failed (a GPU was lost, a kernel trapped) they are loaded again from
   * the files they came from, also onto a device of the same name; caches that were there are gone.
   *
   * @throws {DeviceUnavailable} when the device does not exist here
   * @throws {EngineFailure} when the device has failed and the weights came from no files
   */
  async to(device: DeviceName): Promise<this> {
    if (device !== "wasm" && device !== "webgpu") {
      throw new InvalidArgument(`Cannot move the model to "${String(device)}": expected wasm or webgpu`);
    }
    return await this.#exclusive(async () => {
      const old = this.#device;
      if (device === old.name && !old.isClosed) return this;
      const move = moverOf(this.#parameters, old, this.#reload);
      await acquire(device);
      const target = device === "wasm" ? openEngine() : defaultDevice(device);
      let exchange: () => void;
      try {
        exchange = await move(target);
      } catch (error) {
        if (target instanceof WasmEngine) closeEngine(target);
        throw error;
      }
      this.releaseState();
      exchange();
      this.#device = target;
      if (old instanceof WasmEngine) closeEngine(old);
      return this;
    });
  }

  /**
   * Writes the model into a folder, which is made where it is missing: `config.json`, `generation_config.json` where the
   * model has one, and `model.safetensors`, or several files and their index. Weights are written in the type they were
   * loaded in, or in the `dtype` the model was loaded with. Everything is written under temporary names and renamed at
   * the end; weights of an earlier model in the folder are removed then.
   *
   * @throws {InvalidArgument} for options that do not fit
   * @throws {ModelFileError} when the folder cannot be written, saying which permission is missing
   * @throws the signal's reason when aborted; the folder is then as it was
   */
  async save_pretrained(folder: string | URL, options: SavePretrainedOptions = {}): Promise<void> {
    await this.#exclusive(async () => {
      await savePretrained(folder, {
        config: this.config,
        parameters: this.#parameters,
        class_name: this.#class_name,
        generation_config: this.can_generate() ? this.generation_config.to_dict() : null,
      }, options);
    }, options.signal);
  }

  /** Ends the model once running forwards have finished. Tensors and caches it gave out stay usable. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    await this.#exclusive(() => {
      this.#disposed = true;
      this.releaseState();
      this.#parameters.dispose();
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
    return await this.#turns.take(async () => {
      this.#assertAlive();
      return await work();
    }, signal);
  }

  /** Moves a cache to where the model is. */
  async #adopt(cache: Cache | null): Promise<void> {
    if (cache === null || cache.device === null || cache.device === this.device) return;
    warnOnce(
      "cache-moved",
      `a key/value cache was moved from ${cache.device} to ${this.device} because its model had moved`,
    );
    await cache.to(this.device);
  }
}
