/**
 * Where downloaded bytes are kept: on disk or in memory, behind one interface.
 *
 * @module
 */
import type { ByteSource, ReadOptions } from "./source.ts";

/** One file of one version of a model. A file that is stored under a place is complete, and never changes. */
export interface Place {
  /** The model: `models--org--name`, or one of a URL's own. */
  readonly folder: string;
  /** The commit, or what stands for the version of a file that has none. */
  readonly version: string;
  /** The file's name in the model. */
  readonly name: string;
}

/** Bytes as a server describes them before it sends them. */
export interface Blob {
  /** What tells them from other bytes of the same folder. */
  readonly id: string;
  /** Their length, or null when the server does not say. */
  readonly size: number | null;
  /** Whether `id` tells nothing, so that what is stored under it must be replaced. */
  readonly replace: boolean;
}

/** A blob that is not complete yet. */
export interface Partial {
  /** Bytes that are there. */
  readonly size: number;
  /** Those bytes again, in chunks that are valid until the next. */
  chunks(): AsyncIterable<Uint8Array>;
  /** Adds bytes at the end. The chunk is the caller's again afterwards. */
  append(chunk: Uint8Array): Promise<void>;
  /** Drops the bytes. */
  restart(): Promise<void>;
}

/** Keeps files by {@linkcode Place}, and what is known about models without asking their server. */
export interface BlobStore {
  /** What messages call it. */
  readonly description: string;
  /** Length of a stored file, or null when it is not there. */
  size(place: Place): Promise<number | null>;
  /** Opens a stored file that is there. */
  open(place: Place, options: ReadOptions): Promise<ByteSource>;
  /**
   * Stores a file. `fill` completes its bytes, unless they are there; it may find some of them from an earlier try.
   * Of all who want the same blob one fills it while the others wait. What a `fill` that throws has left is kept for
   * the next, and is in no place.
   */
  put(
    place: Place,
    blob: Blob,
    fill: (partial: Partial) => Promise<void>,
    options: ReadOptions,
  ): Promise<void>;
  /** The version a name of versions (`main`) stood for when it was last looked up. */
  recall(folder: string, name: string): Promise<string | null>;
  /** Notes that. Where notes cannot be written they are lost. */
  remember(folder: string, name: string, version: string): Promise<void>;
  /** Whether a version is known not to have a file. */
  isAbsent(place: Place): Promise<boolean>;
  /** Notes that. */
  markAbsent(place: Place): Promise<void>;
}
