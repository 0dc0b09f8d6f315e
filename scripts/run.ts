/**
 * `deno run` with the environment a GPU needs: everything after the script's name goes to `deno run`.
 *
 * @module
 */
import { requireDeno } from "./deno_version.ts";
import { environment } from "./process.ts";

requireDeno();

const { code } = await new Deno.Command(Deno.execPath(), {
  args: ["run", ...Deno.args],
  env: environment(),
}).spawn().status;
Deno.exit(code);
