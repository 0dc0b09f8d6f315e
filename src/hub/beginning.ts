/**
 * The beginning of a file on a server, without the rest.
 *
 * Range requests that name the version of the file, so that the parts are of one. A server that ignores ranges is
 * listened to until the bytes are there, and no longer.
 *
 * @module
 */
import { ModelFileError } from "../errors.ts";
import { type Download, FileChanged } from "./download.ts";
import { eitherSignal, NetworkError, persist, type Reply, request, showUrl } from "./http.ts";
import { contentRange, length, tagOf } from "./repository.ts";
import { MAX_HEADER_BYTES } from "./safetensors.ts";
import type { ByteSource, ReadOptions } from "./source.ts";

/** Bytes asked for first. The headers of nearly all published models fit: they have some ten thousand bytes. */
export const FIRST_BYTES = 2 ** 17;
/** Most bytes of a file that are fetched in this way: the largest header and its length. */
const MOST_BYTES = 8 + MAX_HEADER_BYTES;

/** A file that its server cannot show in parts; all of it may still be had. */
export class NotInParts extends ModelFileError {}

/** What {@linkcode openBeginning} is told. */
export type BeginningTask = Pick<Download, "repository" | "file" | "access"> & {
  /** Told when the server has another version of the file than it was asked about. */
  readonly changed: () => void;
};

/**
 * Opens a file of which only the beginning will be read. Nothing is fetched before the first read, unless the length
 * of the file is not known.
 *
 * @throws {NotInParts} when the server tells no length, or sends what cannot be taken as a part
 */
export async function openBeginning(task: BeginningTask): Promise<ByteSource> {
  const beginning = new Beginning(task);
  if (task.file.size === null) await beginning.start();
  return beginning;
}

class Beginning implements ByteSource {
  readonly name: string;
  readonly #task: BeginningTask;
  #size: number | null;
  #tag: string | null;
  /** What is there: the first `#have` bytes. */
  #bytes = new Uint8Array(0);
  #have = 0;
  #closed = false;
  /** Reads wait for each other: the next may need what this one fetches. */
  #last: Promise<void> = Promise.resolve();

  constructor(task: BeginningTask) {
    this.#task = task;
    this.#size = task.file.size;
    this.#tag = task.file.tag;
    this.name = `${task.repository.name}/${task.file.name}`;
  }

  /** Length of the whole file. */
  get size(): number {
    return this.#size!;
  }

  async start(): Promise<void> {
    await this.#fetchTo(FIRST_BYTES, {});
  }

  read(offset: number, into: Uint8Array, options: ReadOptions = {}): Promise<void> {
    const done = this.#last.then(() => this.#read(offset, into, options));
    // A failed read must not fail the next one.
    this.#last = done.catch(() => {});
    return done;
  }

  async #read(offset: number, into: Uint8Array, options: ReadOptions): Promise<void> {
    options.signal?.throwIfAborted();
    const end = offset + into.byteLength;
    const cannot = `Cannot read ${into.byteLength} bytes at ${offset} of ${this.name}`;
    if (this.#closed) throw new ModelFileError(`${cannot}: it is closed`);
    if (!Number.isSafeInteger(offset) || offset < 0 || end > this.size) {
      throw new ModelFileError(`${cannot}: the file has ${this.size} bytes`);
    }
    if (end > MOST_BYTES) {
      throw new ModelFileError(`${cannot}: only its beginning was asked for, at most ${MOST_BYTES} bytes`);
    }
    if (end > this.#have) await this.#fetchTo(Math.min(this.size, Math.max(end, FIRST_BYTES)), options);
    into.set(this.#bytes.subarray(offset, end));
  }

  /** Fetches the first `end` bytes, as far as they are not there. */
  async #fetchTo(end: number, options: ReadOptions): Promise<void> {
    const { file } = this.#task;
    const access = { ...this.#task.access, signal: eitherSignal(options.signal, this.#task.access.signal) };
    // A second part must be of the version of the first.
    if (file.unversioned && this.#have > 0) throw this.#notInParts("it gives nothing to tell versions by");
    const bytes = new Uint8Array(end);
    bytes.set(this.#bytes.subarray(0, this.#have));
    this.#bytes = bytes;
    let before = this.#have;
    const advanced = () => this.#have > before && (before = this.#have) > 0;
    try {
      await persist(access, async () => {
        if (file.unversioned) this.#have = 0;
        const at = this.#have;
        const headers: Record<string, string> = {
          "accept-encoding": "identity",
          "range": `bytes=${at}-${end - 1}`,
        };
        if (at > 0 && file.validator !== null) headers["if-range"] = file.validator;
        const reply = await request(file.url, { method: "GET", headers }, access);
        try {
          await this.#take(reply, at, end);
        } finally {
          await reply.cancel();
        }
      }, advanced);
    } catch (error) {
      if (error instanceof FileChanged) this.#task.changed();
      throw error;
    }
  }

  /** Takes the bytes from `at` to `end` of an answer that has them. */
  async #take(reply: Reply, at: number, end: number): Promise<void> {
    const { file, repository } = this.#task;
    const { status, headers } = reply.response;
    if (status === 400 || status === 416 || status === 501) {
      throw this.#notInParts(`it answered ${status} when asked for a part`);
    }
    if (status !== 200 && status !== 206) throw repository.refuse(file.name, reply, false);
    const tag = tagOf(headers);
    if (tag !== null && this.#tag !== null && tag !== this.#tag) throw this.#changed();
    // Of an encoded body the parts and the length are those of the code.
    if (headers.has("content-encoding")) throw this.#notInParts("it encodes the file");
    const range = status === 206 ? contentRange(headers) : null;
    if (status === 206 && range?.start !== at) {
      throw this.#notInParts(
        `it sends the range ${headers.get("content-range")} when asked for ${at}-${end - 1}`,
      );
    }
    const size = range === null ? length(headers.get("content-length")) : range.total;
    if (size !== null && this.#size !== null && size !== this.#size) throw this.#changed();
    this.#size ??= size;
    if (this.#size === null) throw this.#notInParts("it does not tell the file's length");
    this.#tag ??= tag;
    await this.#receive(reply, range === null ? at : 0, Math.min(end, this.#size));
  }

  /** Takes what comes after the first `skip` bytes of an answer, and leaves as soon as `end` is reached. */
  async #receive(reply: Reply, skip: number, end: number): Promise<void> {
    if (this.#have >= end) return;
    let passed = 0;
    for await (const chunk of reply.chunks()) {
      const fresh = chunk.subarray(Math.max(0, skip - passed));
      passed += chunk.length;
      const taken = fresh.subarray(0, end - this.#have);
      this.#bytes.set(taken, this.#have);
      this.#have += taken.length;
      if (this.#have >= end) return;
    }
    throw new NetworkError(
      `Cannot load ${this.#task.file.name}: ${showUrl(reply.url)} ended after ${this.#have} of ${end} bytes`,
    );
  }

  #changed(): FileChanged {
    const { file } = this.#task;
    return new FileChanged(`Cannot load ${file.name} from ${showUrl(file.url)}: it changes while it is read`);
  }

  #notInParts(why: string): NotInParts {
    const { file } = this.#task;
    return new NotInParts(
      `Cannot read the beginning of ${file.name} from ${showUrl(file.url)} without the rest: ${why}`,
    );
  }

  close(): void {
    this.#closed = true;
    this.#bytes = new Uint8Array(0);
    this.#have = 0;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
