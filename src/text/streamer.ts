/**
 * Streaming text from generated tokens.
 *
 * @module
 */
import type { Streamer } from "../generation/generate.ts";
import { isRecord, show } from "../config_fields.ts";
import { InvalidArgument } from "../errors.ts";
import { Print } from "./print.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** How a stream decodes. */
export interface StreamOptions {
  /** Leave special tokens out; default true. */
  skip_special_tokens?: boolean;
  /** Leave out the prompt; default true. (In Transformers the default is false.) */
  skip_prompt?: boolean;
}

/** Options of a {@linkcode TextStreamer}. */
export interface TextStreamerOptions extends StreamOptions {
  /** Receives text as soon as it is complete; default: print it, and a line break at the end. */
  write?: (text: string) => void | Promise<void>;
}

/** Tokens decoded together before older ones are let go, where a character does not end sooner. */
const MOST_TOKENS = 24;
/** Tokens that are kept then: a character has at most four bytes, and a token at least one. */
const KEPT_TOKENS = 12;

/**
 * What the tokens to come may still change at the end of a text: an unfinished character, which decodes to the
 * replacement character, and a space that tokenizers which clean up take away before what may follow.
 */
const UNSETTLED = /(?:\uFFFD| (?:'(?:[msv]|ve|re?)?|n(?:'t?)?)?)$/;

/**
 * Turns tokens into text as they come: the pieces joined are what the tokens decode to together.
 *
 * A token may decode differently at the beginning, so each is decoded together with those written last, and the
 * text of these is cut off. What a token costs does not grow with the text.
 */
class TextDecoding {
  readonly #tokenizer: Tokenizer;
  readonly #skip_special_tokens: boolean;
  /** The tokens decoded together: those written last, then those not written yet. */
  #tokens: number[] = [];
  /** How many of them were written. */
  #before = 0;
  /** How much of their text was written. */
  #written = 0;

  constructor(tokenizer: Tokenizer, skip_special_tokens: boolean) {
    this.#tokenizer = tokenizer;
    this.#skip_special_tokens = skip_special_tokens;
  }

  /** Takes tokens and returns the text they complete. */
  push(tokens: readonly number[]): string {
    this.#tokens.push(...tokens);
    const text = this.#decode(this.#tokens);
    const settled = text.replace(UNSETTLED, "");
    const fresh = settled.slice(this.#written);
    this.#written = Math.max(this.#written, settled.length);
    if (settled.length === text.length && fresh !== "") {
      // All is written: the next tokens need those of this piece before them, and nothing older.
      this.#tokens = this.#tokens.slice(this.#before);
      this.#before = this.#tokens.length;
      this.#written = this.#decode(this.#tokens).length;
    } else if (this.#tokens.length > MOST_TOKENS) this.#shorten(text.slice(this.#written));
    return fresh;
  }

  /** The rest of the text; then another can begin. */
  end(): string {
    const rest = this.#decode(this.#tokens).slice(this.#written);
    this.#tokens = [];
    this.#before = this.#written = 0;
    return rest;
  }

  /** Lets old tokens go where the later ones still end in what is not written yet. */
  #shorten(rest: string): void {
    const kept = this.#tokens.slice(-KEPT_TOKENS);
    const text = this.#decode(kept);
    if (text.length <= rest.length || !text.endsWith(rest)) return;
    this.#tokens = kept;
    this.#before = 0;
    this.#written = text.length - rest.length;
  }

  #decode(tokens: readonly number[]): string {
    return this.#tokenizer.decode(tokens, { skip_special_tokens: this.#skip_special_tokens });
  }
}

/** Writes the text of generated tokens as it is completed. A character of several tokens is written once it is whole. */
export class TextStreamer implements Streamer {
  readonly #decoding: TextDecoding;
  readonly #skip_prompt: boolean;
  readonly #write: (text: string) => void | Promise<void>;
  readonly #print: Print | null;

  /**
   * Decodes with `tokenizer` and writes with `options.write`.
   *
   * @throws {InvalidArgument} for what is no tokenizer, or nothing to write with
   */
  constructor(tokenizer: Tokenizer, options: TextStreamerOptions = {}) {
    checkStream(tokenizer, options);
    this.#decoding = new TextDecoding(tokenizer, options.skip_special_tokens ?? true);
    this.#skip_prompt = options.skip_prompt ?? true;
    this.#print = options.write === undefined ? new Print() : null;
    this.#write = options.write ?? ((text) => this.#print!.write(text));
  }

  /** Receives pieces of text that no later token changes; overridden by streamers that do not write. */
  on_finalized_text(text: string): void | Promise<void> {
    return this.#write(text);
  }

  /**
   * Takes the prompt of a batch of one.
   *
   * @throws {InvalidArgument} for a larger batch, whose new tokens could not be told apart either
   */
  async put_prompt(rows: number[][]): Promise<void> {
    checkRows(rows.length);
    if (!this.#skip_prompt) await this.#put(rows[0]!);
  }

  /**
   * Takes the token of one step of a batch of one.
   *
   * @throws {InvalidArgument} for a larger batch
   */
  async put(tokens: number[]): Promise<void> {
    checkRows(tokens.length);
    await this.#put(tokens);
  }

  async #put(tokens: readonly number[]): Promise<void> {
    const text = this.#decoding.push(tokens);
    if (text !== "") await this.on_finalized_text(text);
  }

  /** Writes what is left. */
  async end(_error?: unknown): Promise<void> {
    const rest = this.#decoding.end();
    if (rest !== "") await this.on_finalized_text(rest);
    this.#print?.end();
  }
}

function checkStream(tokenizer: unknown, options: TextStreamerOptions): void {
  const { decode } = (tokenizer ?? {}) as { decode?: unknown };
  if (typeof decode !== "function") {
    throw new InvalidArgument(`Cannot stream text with ${typeof tokenizer}: expected a tokenizer`);
  }
  if (!isRecord(options) || (options.write !== undefined && typeof options.write !== "function")) {
    const found = isRecord(options) ? `write of ${typeof options.write}` : show(options);
    throw new InvalidArgument(
      `Cannot stream text with ${found}: expected options, write a function of the text`,
    );
  }
}

function checkRows(rows: number): void {
  if (rows !== 1) {
    throw new InvalidArgument(
      `Cannot stream text of ${rows} rows at once: a text streamer takes a batch of one`,
    );
  }
}

/** Options of a {@linkcode TextIteratorStreamer}. */
export interface TextIteratorStreamerOptions extends StreamOptions {
  /** Pieces that may wait for a reader that has begun to read; then generation waits for it. Default 64. */
  high_water_mark?: number;
}

/**
 * The text of generated tokens to loop over. Once reading has begun, generation waits for a slow reader; a
 * reader that leaves its loop gets no more text, and does not stop the generation: an `AbortSignal` does.
 *
 * @example
 * ```ts ignore
 * const streamer = new TextIteratorStreamer(tokenizer);
 * const done = model.generate({ input_ids, streamer });
 * for await (const text of streamer) console.log(text);
 * const tokens = await done;
 * ```
 */
export class TextIteratorStreamer extends TextStreamer implements AsyncIterable<string> {
  readonly #most: number;
  #pieces: string[] = [];
  #reading = false;
  #left = false;
  #ending = false;
  #ended: { readonly error: unknown } | null = null;
  /** Wakes whoever waits: the reader for text, or the writer for room. */
  #wake: () => void = () => {};

  /** Decodes with `tokenizer`. */
  constructor(tokenizer: Tokenizer, options: TextIteratorStreamerOptions = {}) {
    super(tokenizer, { ...options, write: () => {} });
    const most = options.high_water_mark ?? 64;
    if (!(most >= 1)) {
      throw new InvalidArgument(
        `Cannot stream with high_water_mark ${most}: expected a number of at least 1`,
      );
    }
    this.#most = most;
  }

  /** Keeps a piece until it is read. */
  override async on_finalized_text(text: string): Promise<void> {
    if (this.#left) return;
    this.#pieces.push(text);
    this.#wake();
    while (this.#reading && !this.#left && !this.#ending && this.#pieces.length > this.#most) {
      await this.#change();
    }
  }

  /** Ends the text; the reader's loop ends after what is left of it, with `error` if there is one. */
  override async end(error?: unknown): Promise<void> {
    // What is left is one piece more at most, and whoever waits for room would wait for a reader that may have stopped.
    this.#ending = true;
    this.#wake();
    try {
      await super.end();
    } finally {
      this.#ending = false;
      // Nobody waits for the end of what a reader has left; the next text may have one.
      this.#ended = this.#left ? null : { error };
      this.#left = false;
      this.#wake();
    }
  }

  /**
   * Reads the text, once.
   *
   * @throws {InvalidArgument} when it is being read already
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    if (this.#reading) throw new InvalidArgument("Cannot read a TextIteratorStreamer twice at once");
    this.#reading = true;
    this.#left = false;
    let whole = false;
    try {
      while (true) {
        for (let text = this.#pieces.shift(); text !== undefined; text = this.#pieces.shift()) {
          this.#wake();
          yield text;
        }
        if (this.#ended !== null) break;
        await this.#change();
      }
      whole = true;
      const { error } = this.#ended;
      this.#ended = null;
      if (error !== undefined) throw error;
    } finally {
      this.#reading = false;
      this.#left = !whole;
      if (this.#left) this.#pieces = [];
      this.#wake();
    }
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      const before = this.#wake;
      this.#wake = () => {
        before();
        this.#wake = () => {};
        resolve();
      };
    });
  }
}
