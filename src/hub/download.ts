/**
 * The bytes of one file from its server, whatever happens on the way.
 *
 * A cut or silent connection is taken up where it ended, by a range request that names the version of the file. Bytes
 * are counted after decoding and never pass the announced length, and a known hash is checked before anybody sees
 * them.
 *
 * @module
 */
import { ModelFileError } from "../errors.ts";
import { MAX_TOKENIZER_BYTES } from "./files.ts";
import { type Access, NetworkError, persist, type Reply, request, showUrl } from "./http.ts";
import { contentRange, length, type RemoteFile, type Repository, tagOf } from "./repository.ts";
import { type Sha256, startSha256 } from "./sha256.ts";
import type { Partial } from "./store.ts";

/** The file has become another one since its server was asked about it. */
export class FileChanged extends ModelFileError {}

/** What {@linkcode download} is told. */
export interface Download {
  readonly repository: Repository;
  readonly file: RemoteFile;
  readonly access: Access;
  /** Most bytes taken, or null for as many as the server announces. */
  readonly most: number | null;
  /** Told how many bytes of the file are there. */
  readonly arrived: (bytes: number) => void;
}

/**
 * Completes a file.
 *
 * @throws {NetworkError} when the server fails as often as is tried
 * @throws {FileChanged} when another version is served meanwhile; nothing of the old one is kept
 * @throws {ModelFileError} when its length or hash is not the announced one; nothing is kept
 */
export async function download(partial: Partial, task: Download): Promise<void> {
  const { file, access, arrived } = task;
  if (file.size !== null && partial.size > file.size) await partial.restart();
  for (let resumed = partial.size > 0;; resumed = false) {
    const transfer = new Transfer(partial, task, await hashOf(partial, file, access));
    arrived(partial.size);
    let before = partial.size;
    const advanced = () => partial.size > before && (before = partial.size) > 0;
    await persist(access, () => transfer.go(), advanced);
    const hash = transfer.hash?.hex();
    if (hash === undefined || hash === file.sha256) return;
    await partial.restart();
    // What was left by an earlier try may be at fault, once.
    if (resumed) continue;
    throw new ModelFileError(
      `Cannot use ${file.name} from ${showUrl(file.url)}: its SHA-256 is ${hash}, expected ${file.sha256}`,
    );
  }
}

/** A hash that has seen what is there. */
async function hashOf(partial: Partial, { sha256 }: RemoteFile, { signal }: Access): Promise<Sha256 | null> {
  if (sha256 === null) return null;
  const hash = await startSha256();
  for await (const chunk of partial.chunks()) {
    signal?.throwIfAborted();
    hash.update(chunk);
  }
  return hash;
}

class Transfer {
  /** Set when the server encodes although it was asked not to: then `fetch` decodes, and there are no ranges. */
  #encoded = false;
  /** Length of the file, once it is known. */
  #size: number | null;

  constructor(readonly partial: Partial, readonly task: Download, public hash: Sha256 | null) {
    this.#size = task.file.size;
  }

  async #restart(): Promise<void> {
    await this.partial.restart();
    if (this.hash !== null) this.hash = await startSha256();
  }

  /** One request, and another where the first showed how to ask. */
  async go(): Promise<void> {
    const { file, access } = this.task;
    while (this.#size === null || this.partial.size < this.#size) {
      // Without a name of its version nothing tells whether the rest belongs to the beginning.
      const resumable = !this.#encoded && (file.sha256 ?? file.validator) !== null;
      if (!resumable && this.partial.size > 0) await this.#restart();
      const at = this.partial.size;
      const headers: Record<string, string> = this.#encoded ? {} : { "accept-encoding": "identity" };
      if (at > 0) headers["range"] = `bytes=${at}-`;
      // With a hash the range needs no condition; what serves large files does not know the name the hub gave them.
      if (at > 0 && file.sha256 === null) headers["if-range"] = file.validator!;
      const reply = await request(file.url, { method: "GET", headers }, access);
      try {
        if (await this.#take(reply, at)) return;
      } finally {
        await reply.cancel();
      }
    }
  }

  /** Takes what an answer has; false when it must be asked for in another way. */
  async #take(reply: Reply, at: number): Promise<boolean> {
    const { file, repository } = this.task;
    const { status, headers } = reply.response;
    if (status === 416 && at > 0) {
      await this.#restart();
      return false;
    }
    if (status !== 200 && status !== 206) throw repository.refuse(file.name, reply, false);
    const tag = tagOf(headers);
    if (file.tag !== null && tag !== null && tag !== file.tag && !this.#encoded) {
      await this.#restart();
      throw new FileChanged(
        `Cannot load ${file.name} from ${showUrl(file.url)}: it changes while it is read`,
      );
    }
    if (headers.has("content-encoding") && !this.#encoded) {
      this.#encoded = true;
      return false;
    }
    if (status === 206) {
      const range = contentRange(headers);
      const fits = range?.start === at && (range.total ?? this.#size) === (this.#size ?? range.total);
      if (!fits) {
        if (at === 0) {
          throw this.#wrong(`it sends the range ${headers.get("content-range")} when asked for all`);
        }
        await this.#restart();
        return false;
      }
    } else {
      if (at > 0) await this.#restart();
      if (!this.#encoded) this.#size ??= length(headers.get("content-length"));
    }
    await this.#read(reply);
    return this.#size === null;
  }

  async #read(reply: Reply): Promise<void> {
    const { partial, task: { file, most: allowed, arrived } } = this;
    const most = Math.min(this.#size ?? MAX_TOKENIZER_BYTES, allowed ?? Infinity);
    for await (const chunk of reply.chunks()) {
      if (partial.size + chunk.length > most) {
        await partial.restart();
        throw this.#wrong(
          this.#size === most
            ? `it announces ${most} bytes and sends more`
            : `expected at most ${most} bytes, it sends more`,
        );
      }
      this.hash?.update(chunk);
      await partial.append(chunk);
      arrived(partial.size);
    }
    if (this.#size !== null && partial.size < this.#size) {
      throw new NetworkError(
        `Cannot load ${file.name}: ${showUrl(reply.url)} ended after ${partial.size} of ${this.#size} bytes`,
      );
    }
  }

  #wrong(why: string): ModelFileError {
    const { file } = this.task;
    return new ModelFileError(`Cannot load ${file.name} from ${showUrl(file.url)}: ${why}`);
  }
}
