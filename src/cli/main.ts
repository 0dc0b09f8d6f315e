/**
 * The command line.
 *
 * @module
 */
import { Command, CommanderError } from "npm:commander@14.0.3";
import { AttuneError } from "../errors.ts";
import { maskCommand } from "./mask.ts";

/** Runs the command line and returns the exit code: 0 done, 1 failed, 2 wrong usage. */
export async function main(
  args: readonly string[],
  print: (text: string) => void = console.log,
): Promise<number> {
  const program = new Command("attune").description("Attention of transformer models, made visible.")
    .exitOverride();
  program.addCommand(maskCommand(print).exitOverride());
  try {
    await program.parseAsync([...args], { from: "user" });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (
      error instanceof AttuneError || error instanceof Deno.errors.PermissionDenied ||
      error instanceof Deno.errors.NotCapable
    ) {
      console.error(error.message);
      return 1;
    }
    throw error;
  }
}

if (import.meta.main) Deno.exitCode = await main(Deno.args);
