/**
 * A conversation with a model: the cache of one turn serves the next.
 *
 * @module
 */
import { DynamicCache } from "../cache/dynamic.ts";
import { load_cache } from "../cache/load_cache.ts";
import { save_cache } from "../cache/save_cache.ts";
import type { StaticCache } from "../cache/static.ts";
import type { DeviceName } from "../devices/device.ts";
import { EngineFailure, InvalidArgument } from "../errors.ts";
import { checkIds } from "../models/inputs.ts";
import { hostData, Tensor } from "../tensor.ts";
import type { Generative } from "./decoding.ts";
import { generate } from "./generate.ts";
import type { GenerateDictOptions, GenerateOptions, GenerateRequest, Streamer } from "./options.ts";
import type { GenerateOutput } from "./output.ts";
import { checkGiven, checkParts } from "./settings.ts";

/** What a session is made with. */
export interface GenerationSessionOptions {
  /** A cache to keep the tokens in, empty or with `token_ids`; the session disposes it. Default: a new DynamicCache. */
  past_key_values?: DynamicCache | StaticCache;
  /** The tokens that `past_key_values` holds. */
  token_ids?: readonly number[];
}

/**
 * Keeps a cache and the tokens it is of. Each call of {@linkcode GenerationSession.generate} takes the whole prompt, as
 * a chat template writes it; what it has in common with the tokens before is not computed again.
 *
 * @example
 * ```ts ignore
 * using session = new GenerationSession(model);
 * const messages = [{ role: "user", content: "What is attention?" }];
 * const first = tokenizer.apply_chat_template(messages, { add_generation_prompt: true });
 * using answer = await session.generate({ input_ids: first.input_ids });
 * // … append the answer and the next question to messages, and tokenize them all again
 * using next = await session.generate({ input_ids: second.input_ids });
 * console.log(session.reused); // tokens that were not computed again
 * ```
 */
export class GenerationSession implements Disposable {
  readonly #model: Generative;
  readonly #cache: DynamicCache | StaticCache;
  #tokens: readonly number[];
  #reused = 0;
  #restarted: string | null = null;
  #busy = false;
  #disposed = false;

  /**
   * A session without tokens, or one that goes on with a cache.
   *
   * @throws {InvalidArgument} for tokens that are not those of the cache
   */
  constructor(model: Generative, options: GenerationSessionOptions = {}) {
    const odd = Object.keys(options).find((key) => key !== "past_key_values" && key !== "token_ids");
    if (odd !== undefined) {
      throw new InvalidArgument(
        `Cannot make a session with option "${odd}": known options are past_key_values, token_ids`,
      );
    }
    const { past_key_values, token_ids = [] } = options;
    const held = past_key_values?.get_seq_length() ?? 0;
    if (held !== token_ids.length) {
      throw new InvalidArgument(
        `Cannot make a session of a cache that holds ${held} tokens with ${token_ids.length} token_ids: expected one for each`,
      );
    }
    this.#model = model;
    this.#cache = past_key_values ??
      new DynamicCache({ config: model.text_config, kv_dtype: model.kv_dtype });
    this.#tokens = [...token_ids];
  }

  /** The tokens whose keys and values are kept. */
  get token_ids(): readonly number[] {
    return this.#tokens;
  }

  /** Tokens of the last prompt that were not computed again. */
  get reused(): number {
    return this.#reused;
  }

  /** Why the last call began anew though the prompt had begun as the one before, or null. */
  get restarted(): string | null {
    return this.#restarted;
  }

  /**
   * Generates as `model.generate` does, after one prompt without padding, `input_ids` (1, N). After an abort or an error
   * the session goes on with what was computed; after the failure of a device it begins anew.
   *
   * @throws {InvalidArgument} for options that do not fit, several rows, images, or while another call runs
   * @throws the signal's reason when aborted
   */
  generate(options: GenerateDictOptions): Promise<GenerateOutput>;
  /** As above, the tokens alone. */
  generate(options: GenerateOptions): Promise<Tensor>;
  /** As above. */
  generate(options: GenerateRequest): Promise<Tensor | GenerateOutput>;
  async generate(options: GenerateRequest): Promise<Tensor | GenerateOutput> {
    const prompt = this.#check(options);
    return await this.#alone(async () => {
      const written = [...prompt];
      // Padding is a matter of batches: in one prompt every token is real.
      using attention_mask = Tensor.from(prompt.map(() => 1), { dtype: "int32", shape: [1, prompt.length] });
      try {
        this.#reuse(prompt);
        return await generate(this.#model, {
          ...options,
          attention_mask,
          past_key_values: this.#cache,
          streamer: recording(options.streamer, written),
        });
      } catch (error) {
        // What a device that has failed held is gone: the next call begins anew, wherever the model is then.
        if (error instanceof EngineFailure) this.#cache.reset();
        throw error;
      } finally {
        this.#tokens = written.slice(0, this.#cache.get_seq_length());
      }
    });
  }

  /** Takes back what the cache holds beyond the beginning it has in common with the prompt. */
  #reuse(prompt: readonly number[]): void {
    let common = 0;
    // The last token is computed in any case: its logits are needed.
    while (common < prompt.length - 1 && this.#tokens[common] === prompt[common]) common++;
    this.#restarted = null;
    const extra = this.#tokens.length - common;
    if (extra > 0) {
      try {
        this.#cache.crop(-extra);
      } catch (error) {
        if (!(error instanceof InvalidArgument)) throw error;
        if (common > 0) this.#restarted = error.message;
        this.#cache.reset();
        common = 0;
      }
    }
    this.#tokens = prompt.slice(0, common);
    this.#reused = common;
  }

  /** @throws {InvalidArgument} */
  #check(options: GenerateRequest): number[] {
    checkGiven(options);
    for (const key of ["past_key_values", "attention_mask", ...this.#model.input_keys]) {
      if (options[key] === undefined || options[key] === null) continue;
      throw new InvalidArgument(
        `Cannot generate with ${key} in a session: expected a prompt of text alone, the cache is the session's`,
      );
    }
    checkParts(options);
    const ids = checkIds(options.input_ids, this.#model.vocab_size);
    const said = [options, options.generation_config ?? {}, this.#model.generation_config];
    const [beams, sequences] = (["num_beams", "num_return_sequences"] as const).map((name) =>
      said.map((values) => values[name]).find((value) => value !== undefined && value !== null) ?? 1
    );
    if (ids.shape[0] !== 1 || beams !== 1 || sequences !== 1) {
      throw new InvalidArgument(
        `Cannot generate several rows in a session: expected input_ids (1, N), num_beams 1 and num_return_sequences 1, found [${ids.shape}], ${beams} and ${sequences}`,
      );
    }
    return Array.from(hostData(ids) as ArrayLike<number | bigint>, Number);
  }

  /** Forgets every token. */
  reset(): void {
    this.#assertFree();
    this.#cache.reset();
    this.#tokens = [];
  }

  /**
   * Writes the cache and its tokens into a file; see `save_cache`.
   *
   * @throws {ModelFileError} when the file cannot be written
   * @throws {InvalidArgument} while a call runs
   */
  async save(path: string | URL, options: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#alone(() =>
      save_cache(this.#cache, path, {
        ...options,
        config: this.#model.text_config,
        token_ids: [this.#tokens],
      })
    );
  }

  /**
   * Goes on with a session from a file that {@linkcode GenerationSession.save} has written, or `save_cache` with the
   * tokens of one row.
   *
   * @throws {ModelFileError} for a missing or malformed file, or one of another model
   */
  static async load(
    model: Generative & { readonly device?: DeviceName },
    path: string | URL,
    options: { signal?: AbortSignal } = {},
  ): Promise<GenerationSession> {
    const { past_key_values, token_ids } = await load_cache(path, {
      ...options,
      config: model.text_config,
      device: model.device ?? "wasm",
    });
    try {
      if (token_ids?.length !== 1) {
        throw new InvalidArgument(
          `Cannot go on with a cache of ${token_ids?.length ?? "unknown"} rows of tokens: expected one row`,
        );
      }
      return new GenerationSession(model, { past_key_values, token_ids: token_ids[0]! });
    } catch (error) {
      past_key_values[Symbol.dispose]();
      throw error;
    }
  }

  /** One call at a time: they share a cache. */
  async #alone<T>(work: () => Promise<T>): Promise<T> {
    this.#assertFree();
    this.#busy = true;
    try {
      return await work();
    } finally {
      this.#busy = false;
      if (this.#disposed) this.#cache[Symbol.dispose]();
    }
  }

  #assertFree(): void {
    if (this.#disposed) throw new InvalidArgument("Cannot use a session after it was disposed");
    if (this.#busy) throw new InvalidArgument("Cannot use a session while another of its calls runs");
  }

  /** Gives the cache back, once a call that runs has ended. */
  [Symbol.dispose](): void {
    this.#disposed = true;
    if (!this.#busy) this.#cache[Symbol.dispose]();
    this.#tokens = [];
  }
}

/** A streamer that notes the tokens of its one row before it passes them on. */
function recording(streamer: Streamer | undefined, tokens: number[]): Streamer {
  const prompted = streamer?.put_prompt?.bind(streamer);
  return {
    ...(prompted === undefined ? {} : { put_prompt: prompted }),
    put: (step) => {
      tokens.push(...step);
      return streamer?.put(step);
    },
    end: (error) => streamer?.end(error),
  };
}
