/**
 * Streaming text from generated tokens.
 *
 * @module
 */
import type { Streamer } from "../generation/generate.ts";
import { InvalidArgument } from "../errors.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** Options of a {@linkcode TextStreamer}. */
export interface TextStreamerOptions {
  /** Receives text as soon as it is complete. */
  write: (text: string) => void | Promise<void>;
  /** Leave special tokens out; default true. */
  skip_special_tokens?: boolean;
}

/** Turns tokens into text as they come. A character of several tokens is written once it is whole. */
export class TextStreamer implements Streamer {
  readonly #tokenizer: Tokenizer;
  readonly #options: TextStreamerOptions;
  #tokens: number[] = [];
  #written = "";

  /** Decodes with `tokenizer` and writes with `options.write`. */
  constructor(tokenizer: Tokenizer, options: TextStreamerOptions) {
    this.#tokenizer = tokenizer;
    this.#options = options;
  }

  /**
   * Takes the tokens of one step of a batch of one.
   *
   * @throws {InvalidArgument} for a larger batch
   */
  async put(tokens: number[]): Promise<void> {
    if (tokens.length !== 1) {
      throw new InvalidArgument(
        `Cannot stream text of ${tokens.length} rows at once: TextStreamer takes a batch of one`,
      );
    }
    this.#tokens.push(...tokens);
    const text = this.#decode();
    // An unfinished multi-byte character decodes to the replacement character.
    if (text.endsWith("\uFFFD")) return;
    await this.#write(text);
    if (text.endsWith("\n")) this.#restart();
  }

  /** Writes what is left. */
  async end(): Promise<void> {
    if (this.#tokens.length > 0) await this.#write(this.#decode());
    this.#restart();
  }

  #decode(): string {
    return this.#tokenizer.decode(this.#tokens, {
      skip_special_tokens: this.#options.skip_special_tokens ?? true,
    });
  }

  async #write(text: string): Promise<void> {
    const fresh = text.slice(this.#written.length);
    this.#written = text;
    if (fresh !== "") await this.#options.write(fresh);
  }

  #restart(): void {
    this.#tokens = [];
    this.#written = "";
  }
}
