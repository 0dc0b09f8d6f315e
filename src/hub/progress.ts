/**
 * What a loading tells its caller while it goes on.
 *
 * @module
 */

/** How loading reports where it is: one stream of events over all files of a model. */
export interface LoadProgress {
  /**
   * `"download"` while files arrive from a server or are found in the cache, `"progress"` while weights go into the
   * device's memory, `"done"` once, at the end.
   */
  readonly status: "download" | "progress" | "done";
  /** What is loaded. */
  readonly file: string;
  /** Bytes so far, over all files. It never falls. */
  readonly loaded: number;
  /**
   * Bytes in all, as far as they are known: it grows as files become known, and once more by the bytes of the weights
   * when those go from the downloaded files into memory.
   */
  readonly total: number;
}

/** Adds up what arrives of the files of one model. */
export class DownloadMeter {
  readonly #callback: ((event: LoadProgress) => void) | undefined;
  readonly #files = new Map<string, { size: number; arrived: number }>();
  #loaded = 0;
  #total = 0;

  constructor(callback: ((event: LoadProgress) => void) | undefined) {
    this.#callback = callback;
  }

  /** A file will be needed. Its size may be unknown: then it counts as it arrives. */
  expect(name: string, size: number | null): void {
    const file = this.#files.get(name);
    if (file === undefined) this.#files.set(name, { size: size ?? 0, arrived: 0 });
    else this.#total -= file.size, file.size = Math.max(file.arrived, size ?? 0);
    this.#total += this.#files.get(name)!.size;
  }

  /** `bytes` of a file are there. A download that starts again does not take back what was reported. */
  arrived(name: string, bytes: number): void {
    const file = this.#files.get(name)!;
    const more = bytes - file.arrived;
    if (more <= 0 && file.arrived > 0) return;
    file.arrived = bytes;
    this.#loaded += more;
    if (bytes > file.size) {
      this.#total += bytes - file.size;
      file.size = bytes;
    }
    this.#callback?.({ status: "download", file: name, loaded: this.#loaded, total: this.#total });
  }

  /** Passes an event of the loading into memory on, its bytes counted after those of the download. */
  readonly loading = (event: LoadProgress): void =>
    this.#callback?.({
      ...event,
      loaded: this.#loaded + event.loaded,
      total: this.#loaded + event.total,
    });

  /** Everything that was asked for is there. */
  done(file: string): void {
    this.loading({ status: "done", file, loaded: 0, total: 0 });
  }
}
