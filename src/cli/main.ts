/**
 * The command line. `deno task attune <command>` in a checkout, `deno run -A jsr:@attune/attune/cli <command>`
 * elsewhere.
 *
 * @module
 */
import { Command, CommanderError } from "npm:commander@14.0.3";
import { attentionCommand } from "./attention.ts";
import { bisectCommand } from "./bisect.ts";
import { chatCommand } from "./chat.ts";
import { generateCommand } from "./generate.ts";
import { inspectCommand } from "./inspect.ts";
import { Finished, Interrupted, type Io, isExpected, processIo } from "./io.ts";
import { maskCommand } from "./mask.ts";
import { supportCommand } from "./support.ts";

export type { Io } from "./io.ts";

/** The commands, in the order of the help text: one file each. */
const COMMANDS: readonly ((io: Io) => Command)[] = [
  generateCommand,
  chatCommand,
  inspectCommand,
  supportCommand,
  maskCommand,
  attentionCommand,
  bisectCommand,
];

/** The version in deno.json. */
export const VERSION = "0.1.0";

/**
 * Runs the command line. Returns the exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 141 where nobody
 * reads the output any more.
 */
export async function main(args: readonly string[], io: Io): Promise<number> {
  const program = new Command("attune")
    .description("Transformer models with attention that is swapped while they run.")
    .version(VERSION, "-V, --version", "print the version")
    .option("--no-color", "no colours (as does NO_COLOR)")
    .option("--debug", "show where an error came from")
    .helpOption("-h, --help", "explain a command")
    .exitOverride()
    .configureOutput({
      writeOut: io.write,
      writeErr: io.writeNote,
      getOutHelpWidth: () => io.width,
      getErrHelpWidth: () => io.width,
      getOutHasColors: () => io.color && io.terminal.stdout,
      getErrHasColors: () => io.color && io.terminal.stderr,
    })
    .hook("preAction", () => {
      if (program.opts<{ color: boolean }>().color === false) io.color = false;
    });
  for (const make of COMMANDS) program.addCommand(make(io).copyInheritedSettings(program));
  try {
    await program.parseAsync([...args], { from: "user" });
    return 0;
  } catch (error) {
    return codeOf(error, io, program.opts<{ debug?: boolean }>().debug === true);
  }
}

/** The exit code of an error, after saying what there is to say. */
function codeOf(error: unknown, io: Io, debug: boolean): number {
  if (error instanceof Finished) return error.code;
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  if (error instanceof Deno.errors.BrokenPipe) return 141;
  if (error instanceof Interrupted) return 130;
  if (!(error instanceof Error)) io.note(String(error));
  else if (debug) io.note(error.stack ?? error.message);
  else if (isExpected(error)) io.note(error.message);
  else io.note(`${error.name}: ${error.message} (--debug shows where)`);
  return 1;
}

if (import.meta.main) {
  using io = processIo();
  // A read of stdin that nobody waits for any more would keep the process alive.
  Deno.exit(await main(Deno.args, io));
}
