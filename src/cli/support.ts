/**
 * `attune support`: which attention implementation can run where, here.
 *
 * @module
 */
import { Command } from "npm:commander@14.0.3";
import "../attention/builtin.ts";
import { support } from "../support.ts";
import { type Io, table } from "./io.ts";

/** The command. */
export function supportCommand(io: Io): Command {
  return new Command("support")
    .description("Say which attention implementations can run here, and on what.")
    .option("--json", "print JSON")
    .addHelpText("after", "\nExamples:\n  deno task attune support\n  deno task attune support --json")
    .action(async (options: { json?: true }) => {
      const rows = await support();
      if (options.json === true) return io.print(JSON.stringify(rows, null, 2));
      io.print(table(
        ["implementation", "wasm", "webgpu"],
        [...new Set(rows.map((row) => row.implementation))].map((name) => [
          name,
          ...(["wasm", "webgpu"] as const).map((device) =>
            rows.some((r) => r.implementation === name && r.device === device && r.available) ? "yes" : "no"
          ),
        ]),
      ));
      io.print("");
      for (const device of ["wasm", "webgpu"] as const) {
        const why = rows.find((row) => row.device === device)?.why ?? "";
        io.print(`${device}: ${why}`);
      }
    });
}
