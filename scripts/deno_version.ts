/**
 * The oldest Deno this project runs on, and a clear word to an older one.
 *
 * @module
 */

/** Oldest version that has what the sources use (`using`, Float16Array, Promise.try, WebGPU without a flag). */
export const OLDEST = "2.9.0";

/** Whether version `a` is older than `b`, both `major.minor.patch`. */
export function isOlder(a: string, b: string): boolean {
  const [x, y] = [a, b].map((v) => v.split(/[.+-]/).slice(0, 3).map(Number));
  for (let i = 0; i < 3; i++) if (x![i] !== y![i]) return x![i]! < y![i]!;
  return false;
}

/** Ends the process with a message when Deno is too old. */
export function requireDeno(): void {
  if (!isOlder(Deno.version.deno, OLDEST)) return;
  console.error(
    `This project needs Deno ${OLDEST} or newer and this is ${Deno.version.deno}: run \`deno upgrade\`, ` +
      "or use `npx -y deno@2.9.6` in place of `deno`",
  );
  Deno.exit(1);
}
