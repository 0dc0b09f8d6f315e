/**
 * Little-endian values from the beginning of a file, in the order they lie in, through one reused buffer.
 *
 * @module
 */
import { ModelFileError } from "../errors.ts";
import type { ByteSource, ReadOptions } from "../hub/source.ts";

/** Bytes read at a time. */
const WINDOW = 2 ** 20;

/** Reads forward; nothing beyond `end` of the source is ever touched. */
export class Cursor {
  /** Offset in the file of what is read next. */
  at = 0;
  readonly #source: ByteSource;
  readonly #options: ReadOptions;
  readonly #end: number;
  readonly #buffer: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  #from = 0;
  #to = 0;

  /** Reads `source`, at most its first `most` bytes. */
  constructor(source: ByteSource, most: number, options: ReadOptions) {
    this.#source = source;
    this.#options = options;
    this.#end = Math.min(source.size, most);
    this.#buffer = new Uint8Array(Math.min(WINDOW, this.#end));
    this.#view = new DataView(this.#buffer.buffer);
  }

  /** Bytes that may still be read. */
  get left(): number {
    return this.#end - this.at;
  }

  /** The error for a file that is no such file. */
  refuse(why: string): ModelFileError {
    return new ModelFileError(`Cannot read ${this.#source.name} as GGUF: ${why}`);
  }

  /** Whether the next `bytes` are in the buffer; else `await` {@linkcode fill}. */
  has(bytes: number): boolean {
    return this.at + bytes <= this.#to && this.at >= this.#from;
  }

  /** Reads on until the next `bytes` are in the buffer. */
  async fill(bytes: number, what: string): Promise<void> {
    if (this.has(bytes)) return;
    if (bytes > this.left) {
      throw this.refuse(`expected ${bytes} bytes of ${what} at ${this.at}, the file allows ${this.left}`);
    }
    const length = Math.min(this.#buffer.length, this.left);
    if (bytes > length) throw this.refuse(`expected at most ${length} bytes of ${what}, found ${bytes}`);
    this.#to = this.#from = this.at;
    await this.#source.read(this.at, this.#buffer.subarray(0, length), this.#options);
    this.#to = this.#from + length;
  }

  /** The next bytes, which are in the buffer; valid until more are read. */
  take(bytes: number): Uint8Array<ArrayBuffer> {
    const start = this.at - this.#from;
    this.at += bytes;
    return this.#buffer.subarray(start, start + bytes);
  }

  /** Passes over bytes, in the buffer or not. */
  skip(bytes: number, what: string): void {
    if (bytes > this.left) {
      throw this.refuse(`expected ${bytes} bytes of ${what} at ${this.at}, the file allows ${this.left}`);
    }
    this.at += bytes;
  }

  /** The next value, of which `bytes` are in the buffer. */
  next<T>(bytes: number, read: (view: DataView, at: number) => T): T {
    const value = read(this.#view, this.at - this.#from);
    this.at += bytes;
    return value;
  }

  /** The next 32 bits. */
  async uint32(what: string): Promise<number> {
    if (!this.has(4)) await this.fill(4, what);
    return this.next(4, (view, at) => view.getUint32(at, true));
  }

  /** The next 64 bits as a length; infinite where a Number cannot count so far. */
  async length(what: string): Promise<number> {
    if (!this.has(8)) await this.fill(8, what);
    return this.nextLength();
  }

  /** The same of bytes that are in the buffer. */
  nextLength(): number {
    const at = this.at - this.#from;
    const high = this.#view.getUint32(at + 4, true);
    this.at += 8;
    return high < 2 ** 21 ? high * 2 ** 32 + this.#view.getUint32(at, true) : Infinity;
  }

  /** The next text of at most `most` bytes. */
  async text(what: string, most: number): Promise<string> {
    const bytes = await this.length(`the length of ${what}`);
    if (bytes > most || bytes > this.left) {
      throw this.refuse(
        `expected ${what} of at most ${Math.min(most, this.left)} bytes, its length says ${bytes}`,
      );
    }
    if (!this.has(bytes)) await this.fill(bytes, what);
    try {
      return UTF8.decode(this.take(bytes));
    } catch {
      throw this.refuse(`expected ${what} to be UTF-8`);
    }
  }
}

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
