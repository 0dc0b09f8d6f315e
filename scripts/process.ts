/**
 * Running a command so that its output is seen as it comes, and read.
 *
 * @module
 */

/** Environment every command of the project gets. */
export function environment(extra: Readonly<Record<string, string>> = {}): Record<string, string> {
  const env: Record<string, string> = { ...extra };
  // Scripts that call `deno` get this one, also where npx brought it.
  const folder = Deno.execPath().replace(/[\\/][^\\/]+$/, "");
  env["PATH"] = [folder, Deno.env.get("PATH") ?? ""].join(Deno.build.os === "windows" ? ";" : ":");
  if (Deno.build.os === "linux") {
    // Without a Vulkan driver Deno would fall back to GLES, whose software form hangs; with this it finds no adapter.
    env["DENO_WEBGPU_BACKEND"] ??= Deno.env.get("DENO_WEBGPU_BACKEND") ?? "vulkan";
    // Vulkan drivers complain on every start without it.
    env["XDG_RUNTIME_DIR"] ??= Deno.env.get("XDG_RUNTIME_DIR") ?? "/tmp";
  }
  if (Deno.stdout.isTerminal() && Deno.env.get("NO_COLOR") === undefined) env["FORCE_COLOR"] = "1";
  return env;
}

/** How a command ended. */
export interface Outcome {
  readonly code: number;
  /** Standard output without colours. */
  readonly output: string;
}

/** Runs a command, passing its output on. Standard input is empty: nothing may wait for an answer. */
export async function run(
  command: readonly string[],
  extra: Readonly<Record<string, string>> = {},
): Promise<Outcome> {
  const [name, ...args] = command;
  const child = new Deno.Command(name!, {
    args,
    env: environment(extra),
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const decoder = new TextDecoder();
  let output = "";
  for await (const chunk of child.stdout) {
    await writeAll(chunk);
    output += decoder.decode(chunk, { stream: true });
  }
  const { code } = await child.status;
  return { code, output: withoutColours(output) };
}

async function writeAll(bytes: Uint8Array): Promise<void> {
  let at = 0;
  while (at < bytes.length) at += await Deno.stdout.write(bytes.subarray(at));
}

function withoutColours(text: string): string {
  // deno-lint-ignore no-control-regex -- colours are control sequences
  return text.replace(/\x1b\[[0-9;]*m/g, "");
}

/** Tests that ran. */
export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

/** Adds up the summary lines of `deno test` and `cargo test`. */
export function countTests(output: string): Counts {
  const counts: Counts = { passed: 0, failed: 0, skipped: 0 };
  const deno =
    /^(?:ok|FAILED) \| (\d+) passed(?: \([^)]*\))? \| (\d+) failed(?: \([^)]*\))?(?: \| (\d+) ignored)?/gm;
  const cargo = /^test result: \S+ (\d+) passed; (\d+) failed; (\d+) ignored/gm;
  for (const pattern of [deno, cargo]) {
    for (const [, passed, failed, skipped] of output.matchAll(pattern)) {
      counts.passed += Number(passed);
      counts.failed += Number(failed);
      counts.skipped += Number(skipped ?? 0);
    }
  }
  return counts;
}

/** Counts as one plain line. */
export function countsLine({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}
