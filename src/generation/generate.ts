/**
 * Autoregressive generation: checks a request, prepares it, and hands it to a strategy.
 *
 * @module
 */
import { builtinOf } from "../attention/builtin.ts";
import type { Cache } from "../cache/cache.ts";
import { InvalidArgument } from "../errors.ts";
import { checkIds, extraKwargs } from "../models/inputs.ts";
import { assisted } from "./assisted.ts";
import { beamSearch } from "./beam.ts";
import { cacheOf } from "./cache.ts";
import { drafterOf } from "./drafts.ts";
import { Decoding, type Generative, type Request, type Strategy, streamed } from "./decoding.ts";
import { withoutForeign } from "./generation_config.ts";
import {
  type GenerateDictOptions,
  type GenerateOptions,
  type GenerateRequest,
  KEYS,
  type Streamer,
} from "./options.ts";
import { type GenerateOutput, sequencesOf } from "./output.ts";
import { promptMask, rowsOf } from "./prompt.ts";
import { sample } from "./sample.ts";
import { checkGiven, checkParts, settle } from "./settings.ts";
import type { Tensor } from "../tensor.ts";

export type { GenerateDictOptions, GenerateOptions, GenerateOutput, GenerateRequest, Generative, Streamer };

/**
 * Generates tokens after `options.input_ids`. Returns (B, N + new) int64, with `return_dict_in_generate` an object that
 * has them as `sequences`; the cache then holds every token but the last.
 *
 * @throws {InvalidArgument} for options that do not fit, before anything is computed
 */
export async function generate(
  model: Generative,
  options: GenerateRequest,
): Promise<Tensor | GenerateOutput> {
  checkGiven(options);
  const { streamer, signal } = options;
  const request = await endingOnError(streamer, signal, () => {
    const checked = prepare(model, options);
    inUse.add(checked.cache);
    return checked;
  });
  const { settings, cache } = request;
  const own = options.past_key_values === undefined || options.past_key_values === null;
  let returned = false;
  try {
    using decoding = new Decoding(request);
    const found = await finish(() => strategyOf(request)(decoding), request);
    if (!settings.return_dict) return sequencesOf(found);
    const output = decoding.recorder.take(found, cache, own);
    returned = true;
    return output;
  } finally {
    inUse.delete(cache);
    if (own && !returned) cache[Symbol.dispose]();
  }
}

/** Caches of generations under way: what one has computed must not change under it. */
const inUse = new WeakSet<Cache>();

/** Which strategy finds the tokens. */
function strategyOf(request: Request): Strategy {
  if (request.drafter !== null) return assisted(request.drafter, request);
  return request.settings.num_beams > 1 ? beamSearch : sample;
}

/** Runs `fn`; its error also ends the stream, which may have readers that wait. */
async function endingOnError<T>(
  streamer: Streamer | undefined,
  signal: AbortSignal | undefined,
  fn: () => T | Promise<T>,
): Promise<T> {
  try {
    return await fn();
  } catch (error) {
    try {
      await streamed(streamer?.end(error), signal);
    } catch {
      // What ended the generation matters more than what a stream says while it is closed.
    }
    throw error;
  }
}

/** Streams the prompt, then what `work` finds, and ends the stream, however that went. */
async function finish<T>(work: () => Promise<T>, { streamer, signal, prompts }: Request): Promise<T> {
  const result = await endingOnError(streamer, signal, async () => {
    await streamed(streamer?.put_prompt?.(prompts.map((row) => [...row])), signal);
    return await work();
  });
  await streamed(streamer?.end(), signal);
  return result;
}

/**
 * Checks everything and decides every parameter; computes nothing.
 *
 * @throws {InvalidArgument}
 */
function prepare(model: Generative, options: GenerateRequest): Request {
  const { input_ids, streamer, signal, past_key_values } = options;
  if (!model.can_generate()) {
    throw new InvalidArgument(
      "Cannot generate with a model that has no language-modelling head: load it with AutoModelForCausalLM",
    );
  }
  const config = model.text_config;
  const implementation = config._attn_implementation ?? "sdpa";
  const known = [...KEYS, ...model.input_keys];
  const asked = withoutForeign(options, known);
  const kwargs = extraKwargs(asked, known, builtinOf(implementation) === undefined ? implementation : null);
  const prompts = rowsOf(checkIds(input_ids, model.vocab_size));
  checkParts(options);
  if (past_key_values !== undefined && inUse.has(past_key_values)) {
    throw new InvalidArgument(
      "Cannot generate with these past_key_values: the cache is in use by another generation; expected a cache of its own for each, or one after the other",
    );
  }
  const length = prompts[0]!.length;
  const settings = settle(options, model.generation_config, {
    batch: prompts.length,
    length,
    vocab_size: model.vocab_size,
  });
  const drafter = drafterOf(options.assistant_model, model, settings, prompts.length);
  const mask = promptMask(options.attention_mask, prompts, settings);
  const cache = cacheOf(
    { past_key_values, cache_implementation: settings.cache_implementation, kv_dtype: settings.kv_dtype },
    model,
    settings.max_length,
  );
  const past = cache.get_seq_length();
  if (past >= length) {
    throw new InvalidArgument(
      `Cannot continue a cache of ${past} tokens with input_ids of ${length}: expected the whole sequence, with at least one token the cache does not hold`,
    );
  }
  const { num_beams, num_return_sequences } = settings;
  if (Math.max(num_beams, num_return_sequences) > 1 && typeof cache.reorder_cache !== "function") {
    throw new InvalidArgument(
      `Cannot generate with num_beams ${num_beams} and num_return_sequences ${num_return_sequences} in this cache: expected one with reorder_cache(rows)`,
    );
  }
  const pick = (keys: readonly string[]) =>
    Object.fromEntries(keys.filter((k) => options[k] !== undefined).map((k) => [k, options[k]]));
  return {
    model,
    settings,
    drafter,
    prompts,
    mask,
    cache,
    streamer,
    signal,
    kwargs: { ...kwargs, ...pick(["is_causal", "sdpa_backends"]) },
    prompt_kwargs: pick(model.input_keys),
  };
}
