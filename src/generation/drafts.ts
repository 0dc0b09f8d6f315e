/**
 * Guesses of what comes next, for assisted decoding to check: from a smaller model, or from the text itself.
 *
 * @module
 */
import type { Cache, CacheSnapshot } from "../cache/cache.ts";
import { DynamicCache } from "../cache/dynamic.ts";
import { InvalidArgument } from "../errors.ts";
import { argmax } from "../ops/reduce.ts";
import { randomGenerator } from "../random.ts";
import { Tensor } from "../tensor.ts";
import type { Generative, Request } from "./decoding.ts";
import type { LogitsProcessorFunction } from "./processors.ts";
import { argmaxOf, draw, weightsOf } from "./sampling.ts";
import type { Settings } from "./settings.ts";

/** The weights tokens were drawn with, and their sum. */
export interface Weights {
  readonly weights: Float64Array;
  readonly total: number;
}

/** Tokens that may follow. */
export interface Draft {
  readonly tokens: readonly number[];
  /** What each was drawn with; null for one that was not drawn but certain. */
  readonly drawn: readonly (Weights | null)[];
}

/** Makes drafts for one row that grows. */
export interface Drafter extends Disposable {
  /** Tokens a draft has at most. */
  readonly most: number;
  /** At most `most` tokens after `row`, for which there may be less room than for a draft. */
  propose(row: readonly number[], most: number): Promise<Draft>;
}

/** Makes the drafter of a decoding, whose processors it shares. */
export type MakeDrafter = (request: Request, processors: readonly LogitsProcessorFunction[]) => Drafter;

/**
 * Which drafter a call asks for, or null.
 *
 * @throws {InvalidArgument} for an assistant that does not fit the model, or with what cannot be assisted
 */
export function drafterOf(
  assistant: unknown,
  model: Generative,
  settings: Settings,
  batch: number,
): MakeDrafter | null {
  const lookup = settings.prompt_lookup_num_tokens;
  const given = assistant !== undefined && assistant !== null;
  if (!given && lookup === null) return null;
  const what = given ? "assistant_model" : "prompt_lookup_num_tokens";
  const refuse = (why: string) => new InvalidArgument(`Cannot generate with ${what}: ${why}`);
  const { num_beams, num_return_sequences } = settings;
  if (batch * num_beams * num_return_sequences !== 1) {
    throw refuse(
      `expected one prompt, num_beams 1 and num_return_sequences 1, found ${batch}, ${num_beams} and ${num_return_sequences}`,
    );
  }
  if (!given) return (request) => new LookupDrafter(lookup!, request.settings.max_matching_ngram_size);
  if (lookup !== null) throw refuse("prompt_lookup_num_tokens is given too, expected one of them");
  if (!isGenerative(assistant) || !assistant.can_generate()) {
    throw refuse("expected a model with a language-modelling head, from AutoModelForCausalLM");
  }
  if (assistant.vocab_size !== model.vocab_size) {
    throw refuse(
      `expected a vocabulary of ${model.vocab_size} tokens as the model has, it has ${assistant.vocab_size}`,
    );
  }
  return (request, processors) => new ModelDrafter(assistant, request, processors);
}

function isGenerative(x: unknown): x is Generative {
  return typeof x === "object" && x !== null && "forward" in x && typeof x.forward === "function" &&
    "can_generate" in x && typeof x.can_generate === "function";
}

/**
 * A cache from which tokens are taken back that were computed too early. Where a window has moved on and the cache
 * cannot be cropped, it goes back to the last {@linkcode Rewinding.mark}: what was right after it is computed again.
 */
export class Rewinding implements Disposable {
  #mark: CacheSnapshot | null = null;

  constructor(readonly cache: Cache) {}

  /** Remembers what the cache holds. */
  mark(): void {
    this.#mark?.[Symbol.dispose]();
    this.#mark = this.cache.snapshot();
  }

  /** Makes the cache hold at most `length` tokens. */
  keep(length: number): void {
    const extra = this.cache.get_seq_length() - length;
    if (extra <= 0) return;
    try {
      this.cache.crop(-extra);
    } catch (error) {
      if (!(error instanceof InvalidArgument) || this.#mark === null) throw error;
      this.#mark.restore();
    }
  }

  [Symbol.dispose](): void {
    this.#mark?.[Symbol.dispose]();
    this.#mark = null;
  }
}

/** Drafts of a smaller model, which keeps a cache of its own. */
class ModelDrafter implements Drafter {
  readonly most: number;
  readonly #model: Generative;
  readonly #request: Request;
  readonly #processors: readonly LogitsProcessorFunction[];
  readonly #random: (() => number) | null;
  readonly #cache: DynamicCache;
  readonly #rewinding: Rewinding;
  /** Tokens the cache holds. */
  #held: readonly number[] = [];

  constructor(model: Generative, request: Request, processors: readonly LogitsProcessorFunction[]) {
    const { do_sample, seed, num_assistant_tokens } = request.settings;
    this.most = num_assistant_tokens;
    this.#model = model;
    this.#request = request;
    this.#processors = processors;
    // Not the numbers that decide about the drafts.
    this.#random = do_sample ? randomGenerator(seed, 1) : null;
    this.#cache = new DynamicCache({ config: model.text_config, kv_dtype: model.kv_dtype });
    this.#rewinding = new Rewinding(this.#cache);
  }

  async propose(row: readonly number[], most: number): Promise<Draft> {
    const { eos } = this.#request.settings;
    let common = 0;
    while (common < this.#held.length && common < row.length - 1 && this.#held[common] === row[common]) {
      common++;
    }
    this.#rewinding.keep(common);
    this.#rewinding.mark();
    const tokens: number[] = [];
    const drawn: (Weights | null)[] = [];
    while (tokens.length < most) {
      const all = [...row, ...tokens];
      using logits = await this.#logits(all);
      this.#held = all;
      const [token, weights] = await this.#choose(logits, all);
      tokens.push(token);
      drawn.push(weights);
      if (eos.includes(token)) break;
    }
    return { tokens, drawn };
  }

  /** Logits (1, 1, V) after `all`, of which the cache then holds every token. */
  async #logits(all: readonly number[]): Promise<Tensor> {
    const { mask, signal } = this.#request;
    const from = this.#cache.get_seq_length();
    using input_ids = Tensor.from(all.slice(from), { dtype: "int32", shape: [1, all.length - from] });
    using masking = mask?.tensors([0], from, all.length) ?? null;
    const { logits } = await this.#model.forward({
      input_ids,
      past_key_values: this.#cache,
      logits_to_keep: 1,
      ...(masking === null
        ? {}
        : { attention_mask: masking.attention_mask, position_ids: masking.position_ids }),
      ...(signal === undefined ? {} : { signal }),
    });
    return logits!;
  }

  async #choose(logits: Tensor, all: readonly number[]): Promise<[token: number, weights: Weights | null]> {
    if (this.#random === null && this.#processors.length === 0) {
      using best = argmax(logits);
      return [Number((await best.data())[0]), null];
    }
    const scores = new Float32Array(await logits.data() as Float32Array);
    for (const process of this.#processors) process(scores, all, 0);
    if (this.#random === null) return [argmaxOf(scores), null];
    const weights = weightsOf(scores);
    return [draw(weights.weights, weights.total, this.#random), weights];
  }

  [Symbol.dispose](): void {
    this.#rewinding[Symbol.dispose]();
    this.#cache[Symbol.dispose]();
  }
}

/** Drafts from the text itself: what followed where its last tokens stood before (Saxena 2023, prompt lookup decoding). */
export class LookupDrafter implements Drafter {
  /** At most `most` tokens, after at most `longest` matching ones. */
  constructor(readonly most: number, readonly longest: number) {}

  propose(row: readonly number[], most: number): Promise<Draft> {
    const tokens = this.#find(row, most);
    return Promise.resolve({ tokens, drawn: tokens.map(() => null) });
  }

  /** What followed the longest run of last tokens, where it stood last. */
  #find(row: readonly number[], most: number): readonly number[] {
    for (let n = Math.min(this.longest, row.length - 1); n > 0; n--) {
      const last = row.slice(-n);
      for (let at = row.length - n - 1; at >= 0; at--) {
        if (last.every((token, i) => row[at + i] === token)) return row.slice(at + n, at + n + most);
      }
    }
    return [];
  }

  [Symbol.dispose](): void {}
}
