/**
 * An {@link Io} that tests drive and read.
 *
 * @module
 */
import { main } from "../../src/cli/main.ts";
import { Interrupted, interruptible, type Io } from "../../src/cli/io.ts";

/** What a fake stdin, terminal and Ctrl-C are. */
export interface FakeOptions {
  /** Lines of stdin. */
  readonly stdin?: Iterable<string> | AsyncIterable<string>;
  /** Which streams are terminals; none by default. */
  readonly terminal?: Partial<Io["terminal"]>;
  readonly color?: boolean;
  /** Called with everything that goes to stdout, as it goes. */
  readonly onWrite?: (text: string, io: FakeIo) => unknown;
  /** Called before the command runs. */
  readonly onStart?: (io: FakeIo) => void;
}

/** Streams in memory. */
export class FakeIo implements Io {
  stdout = "";
  stderr = "";
  readonly terminal: Io["terminal"];
  color: boolean;
  readonly width = 100;
  readonly #controller = new AbortController();
  readonly #handlers: (() => void)[] = [];
  readonly #lines: AsyncIterator<string, undefined>;
  readonly #onWrite: FakeOptions["onWrite"];

  constructor(options: FakeOptions = {}) {
    this.terminal = { stdin: false, stdout: false, stderr: false, ...options.terminal };
    this.color = options.color ?? false;
    this.#onWrite = options.onWrite;
    const { stdin = [] } = options;
    const lines = (async function* () {
      yield* stdin;
      return undefined;
    })();
    this.#lines = interruptible(lines, this.signal);
  }

  readonly print = (text: string): void => this.write(`${text}\n`);
  readonly note = (text: string): void => this.writeNote(`${text}\n`);
  readonly write = (text: string): void => {
    this.stdout += text;
    this.#onWrite?.(text, this);
  };
  readonly writeNote = (text: string): void => {
    this.stderr += text;
  };

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Ctrl-C. */
  interrupt(): void {
    const handler = this.#handlers.at(-1);
    if (handler !== undefined) handler();
    else this.#controller.abort(new Interrupted());
  }

  onInterrupt(handler: () => void): Disposable {
    this.#handlers.push(handler);
    return { [Symbol.dispose]: () => void this.#handlers.splice(this.#handlers.indexOf(handler), 1) };
  }

  lines(): AsyncIterator<string, undefined> {
    return this.#lines;
  }
}

/** Runs the command line in this process. */
export async function attune(
  args: readonly string[],
  options: FakeOptions = {},
): Promise<{ code: number; stdout: string; stderr: string }> {
  const io = new FakeIo(options);
  options.onStart?.(io);
  const code = await main(args, io);
  return { code, stdout: io.stdout, stderr: io.stderr };
}
