/**
 * Text on the standard output, where there is one; else lines on the console.
 *
 * @module
 */

/** Prints pieces of text as they come. */
export class Print {
  /** What waits for the end of its line, where only lines can be printed. */
  #line = "";

  /** Prints a piece. */
  write(text: string): void {
    if (typeof Deno !== "undefined") return writeAll(text);
    const lines = (this.#line + text).split("\n");
    this.#line = lines.pop()!;
    for (const line of lines) console.log(line);
  }

  /** Ends the line. */
  end(): void {
    this.write("\n");
  }
}

function writeAll(text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
}
