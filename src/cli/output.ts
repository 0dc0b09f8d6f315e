/**
 * Files that commands write: checked before the work that fills them, and refused in words.
 *
 * @module
 */
import { dirname } from "node:path";
import { InvalidArgument } from "../errors.ts";

/**
 * Checks that files can be written, those that were asked for. What exists keeps its content.
 *
 * @throws {InvalidArgument} with the file and why it cannot
 */
export async function checkOutputs(...files: readonly (string | undefined)[]): Promise<void> {
  for (const file of files) if (file !== undefined) await writing(file, () => probe(file));
}

/** Writes a file. @throws {InvalidArgument} as {@linkcode checkOutputs} */
export async function writeOutput(file: string, data: Uint8Array | string): Promise<void> {
  await writing(
    file,
    () => typeof data === "string" ? Deno.writeTextFile(file, data) : Deno.writeFile(file, data),
  );
}

/** Opens a file as a write does; a new one is gone again afterwards. */
async function probe(file: string): Promise<void> {
  try {
    (await Deno.open(file, { write: true, createNew: true })).close();
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    const { isDirectory, isFile } = await Deno.stat(file);
    if (isDirectory) throw new Deno.errors.IsADirectory();
    // To open a pipe is to take part in it.
    if (isFile) (await Deno.open(file, { write: true })).close();
    return;
  }
  await Deno.remove(file);
}

async function writing(file: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    throw new InvalidArgument(
      `Cannot write ${file === "" ? "a file without a name" : file}: ${why(file, error)}`,
      {
        cause: error,
      },
    );
  }
}

function why(file: string, error: unknown): string {
  if (error instanceof Deno.errors.NotFound) {
    return `expected a folder that exists, there is no ${dirname(file)}`;
  }
  if (error instanceof Deno.errors.NotADirectory) return `expected a folder, ${dirname(file)} is none`;
  if (error instanceof Deno.errors.IsADirectory) return "expected a file, it is a folder";
  if (error instanceof Deno.errors.PermissionDenied) return "writing it is not permitted by the system";
  if (error instanceof Deno.errors.NotCapable) return `expected --allow-write and --allow-read for it`;
  return error instanceof Error ? error.message : String(error);
}
