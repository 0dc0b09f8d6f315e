/**
 * What commands may touch of the world: two streams out, lines in, Ctrl-C. Tests give them another one.
 *
 * @module
 */
import { CommanderError } from "npm:commander@14.0.3";
import { AttuneError, InvalidArgument } from "../errors.ts";

/** Standard streams and Ctrl-C. */
export interface Io {
  /** A line to stdout: results. */
  print(text: string): void;
  /** To stdout, as it is. */
  write(text: string): void;
  /** A line to stderr: what is said beside the result. */
  note(text: string): void;
  /** To stderr, as it is. */
  writeNote(text: string): void;
  /** Which streams are terminals. */
  readonly terminal: { readonly stdin: boolean; readonly stdout: boolean; readonly stderr: boolean };
  /** Whether terminals get colours; `--no-color` turns it off. */
  color: boolean;
  /** Columns a line may have. */
  readonly width: number;
  /** Aborted by the first Ctrl-C: work ends, what was computed is kept. The second ends the process. */
  readonly signal: AbortSignal;
  /** While the result is not disposed, Ctrl-C calls `handler` and aborts nothing. */
  onInterrupt(handler: () => void): Disposable;
  /** The lines of stdin, each once, whoever asks: a second call goes on where the first one stopped. */
  lines(): AsyncIterator<string, undefined>;
}

/** The reason of an abort by Ctrl-C. */
export class Interrupted extends DOMException {
  constructor() {
    super("Interrupted", "AbortError");
  }
}

/** Ends a command that has said everything with an exit code of its own. */
export class Finished extends Error {
  constructor(readonly code: number) {
    super(`finished with exit code ${code}`);
  }
}

/** Whether an error says what somebody can do about it: a typed one, one of the system, or a refused option. */
export function isExpected(error: Error): boolean {
  return error instanceof AttuneError || error instanceof CommanderError ||
    Object.values(Deno.errors).some((known) => error instanceof known);
}

/** Everything that stdin still holds, without the last line break. */
export async function readAll(io: Io): Promise<string> {
  if (io.terminal.stdin) io.note(dim(io, "Reading from the terminal, up to Ctrl-D:"));
  const lines: string[] = [];
  for (const iterator = io.lines();;) {
    const { done, value } = await iterator.next();
    if (done === true) break;
    lines.push(value);
  }
  io.signal.throwIfAborted();
  return lines.join("\n");
}

/** Text for stderr that is less important than the rest. */
export function dim(io: Io, text: string): string {
  return io.color && io.terminal.stderr ? `\x1b[2m${text}\x1b[22m` : text;
}

/** A table with a line of names; columns of numbers are given as text, aligned to the right. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((name, i) => Math.max(name.length, ...rows.map((row) => (row[i] ?? "").length)));
  const numeric = head.map((_, i) =>
    rows.length > 0 && rows.every((row) => /^[\d.,]*( \w+)?$/.test(row[i] ?? ""))
  );
  const line = (cells: readonly string[]) =>
    cells.map((cell, i) => numeric[i] ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)).join("  ")
      .trimEnd();
  return [line(head), line(widths.map((n) => "─".repeat(n))), ...rows.map(line)].join("\n");
}

/** The streams of this process. Listens to Ctrl-C until disposed. */
export function processIo(): Io & Disposable {
  const controller = new AbortController();
  const handlers: (() => void)[] = [];
  const interrupt = () => {
    const handler = handlers.at(-1);
    if (handler !== undefined) handler();
    else if (controller.signal.aborted) Deno.exit(130);
    else controller.abort(new Interrupted());
  };
  Deno.addSignalListener("SIGINT", interrupt);
  const terminal = {
    stdin: Deno.stdin.isTerminal(),
    stdout: Deno.stdout.isTerminal(),
    stderr: Deno.stderr.isTerminal(),
  };
  const lines = interruptible(linesOf(Deno.stdin), controller.signal);
  return {
    print: (text) => writeAll(Deno.stdout, `${text}\n`),
    write: (text) => writeAll(Deno.stdout, text),
    note: (text) => writeAll(Deno.stderr, `${text}\n`),
    writeNote: (text) => writeAll(Deno.stderr, text),
    terminal,
    color: !Deno.noColor,
    get width() {
      // A terminal that does not know says 0.
      return terminal.stdout || terminal.stderr ? Math.max(40, Deno.consoleSize().columns || 80) : 100;
    },
    signal: controller.signal,
    onInterrupt(handler) {
      handlers.push(handler);
      return { [Symbol.dispose]: () => void handlers.splice(handlers.indexOf(handler), 1) };
    },
    lines: () => lines,
    [Symbol.dispose]: () => Deno.removeSignalListener("SIGINT", interrupt),
  };
}

/** Lines that end where the signal aborts: reading stdin cannot be taken back. */
export function interruptible(
  lines: AsyncIterator<string, undefined>,
  signal: AbortSignal,
): AsyncIterator<string, undefined> {
  const end = { done: true, value: undefined } as const;
  return {
    async next() {
      if (signal.aborted) return end;
      const aborted = Promise.withResolvers<typeof end>();
      const stop = () => aborted.resolve(end);
      signal.addEventListener("abort", stop, { once: true });
      try {
        return await Promise.race([lines.next(), aborted.promise]);
      } finally {
        signal.removeEventListener("abort", stop);
      }
    },
  };
}

/** Splits a stream of UTF-8 into lines. @throws {InvalidArgument} at the first line that is something else */
export async function* linesOf(
  stream: { read(into: Uint8Array): Promise<number | null> },
): AsyncGenerator<string, undefined> {
  const buffer = new Uint8Array(2 ** 16);
  let number = 0;
  const decode = (bytes: Uint8Array) => {
    try {
      // A byte order mark is one at the beginning only.
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: number++ > 0 }).decode(bytes);
    } catch (error) {
      throw new InvalidArgument(`Cannot read stdin: expected UTF-8, line ${number} is something else`, {
        cause: error,
      });
    }
  };
  let rest: Uint8Array[] = [];
  for (;;) {
    const n = await stream.read(buffer);
    if (n === null) break;
    let from = 0;
    for (let end; (end = buffer.subarray(0, n).indexOf(LINE_BREAK, from)) !== -1; from = end + 1) {
      const line = decode(joined([...rest, buffer.subarray(from, end)]));
      rest = [];
      yield line.endsWith("\r") ? line.slice(0, -1) : line;
    }
    if (from < n) rest.push(buffer.slice(from, n));
  }
  if (rest.length > 0) yield decode(joined(rest));
  return undefined;
}

const LINE_BREAK = 10;

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Synchronous, so that nothing is lost when the process ends. */
function writeAll(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length;) at += stream.writeSync(bytes.subarray(at));
}
