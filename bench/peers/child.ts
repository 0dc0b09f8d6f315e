/**
 * A peer in a process of its own: it is asked by a line of JSON and answers with one.
 *
 * @module
 */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";

/** What an answer is: what was asked for, or why not. */
type Answer = Readonly<Record<string, unknown>> | { readonly error: string };

/** A running child. */
export class Child {
  readonly #name: string;
  readonly #process: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: AsyncIterator<string>;

  constructor(
    name: string,
    command: string,
    args: readonly string[],
    { cwd, env = {} }: { readonly cwd?: string; readonly env?: Readonly<Record<string, string>> } = {},
  ) {
    this.#name = name;
    this.#process = spawn(command, [...args], {
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...Deno.env.toObject(), ...env },
      ...(cwd === undefined ? {} : { cwd }),
    });
    // Without a listener an interpreter that does not exist would end this process; its silence is noticed below.
    this.#process.on("error", () => {});
    this.#process.stdin.on("error", () => {});
    this.#lines = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();
  }

  /** @throws {Error} when the child refuses, or ends without an answer */
  async ask<T extends object>(request: object): Promise<T> {
    this.#process.stdin.write(`${JSON.stringify(request)}\n`);
    for (;;) {
      const { value, done } = await this.#lines.next();
      if (done === true) throw new Error(`${this.#name} ended without an answer`);
      if (!value.startsWith("{")) continue; // a library that prints
      const answer = JSON.parse(value) as Answer;
      if (typeof answer["error"] === "string") throw new Error(`${this.#name}: ${answer["error"]}`);
      return answer as T;
    }
  }

  close(): void {
    this.#process.stdin.end();
    this.#process.kill();
  }
}
