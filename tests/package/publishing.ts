/**
 * What a release holds, asked of `deno publish` itself, and processes that use it as a stranger would.
 *
 * @module
 */
import { assert } from "@std/assert";

/** Root of the repository. */
export const ROOT = new URL("../../", import.meta.url);

/** Path of a file below the root. */
export function pathOf(relative: string): string {
  return decodeURIComponent(new URL(relative, ROOT).pathname);
}

/** A published file. */
export interface PublishedFile {
  /** Relative to the root. */
  readonly path: string;
  readonly bytes: number;
}

/** The files `deno publish` would upload. Types and slow types are checked by `deno task ok`. */
export async function publishedFiles(): Promise<PublishedFile[]> {
  const { code, stdout, stderr } = await deno(
    ["publish", "--dry-run", "--allow-dirty", "--no-check", "--allow-slow-types"],
    { cwd: ROOT },
  );
  assert(code === 0, `deno publish --dry-run failed:\n${stderr}`);
  const listed = [...`${stdout}\n${stderr}`.matchAll(/^\s+(file:\S+) \([\d.]+[A-Z]*B\)$/gm)];
  const files = listed.map(([, url]) => ({
    path: url!.slice(ROOT.href.length),
    bytes: Deno.statSync(new URL(url!)).size,
  }));
  assert(files.length > 0, `deno publish --dry-run lists no files:\n${stdout}\n${stderr}`);
  return files.sort((a, b) => a.path < b.path ? -1 : 1);
}

/** How a process ended. */
export interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs this Deno with nothing of this process but its module cache. */
export async function deno(args: readonly string[], options: { cwd: string | URL }): Promise<Ended> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [...args],
    cwd: options.cwd,
    env: { NO_COLOR: "1" },
    stdin: "null",
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

/** An empty folder outside the repository, removed when disposed. */
export async function temporaryFolder(): Promise<{ path: string } & AsyncDisposable> {
  const path = await Deno.makeTempDir({ prefix: "attune-test-" });
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}
