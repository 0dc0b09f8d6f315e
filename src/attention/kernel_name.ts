/**
 * The grammar of names that mean a kernel package: `owner/repo`, with an optional `@revision` and an optional
 * `:function`, each also behind `paged|`.
 *
 * Source: Transformers, `is_kernel`.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";

const NAME = /^[^/:]+\/[^/:]+(?:@[^/:]+)?(?::[^/:]+)?$/;

/**
 * Whether `name` is that of a kernel package, by its form alone: whether there is such a package is not looked up.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 * import { is_kernel } from "../../mod.ts";
 *
 * assert(is_kernel("kernels-community/flash-attn2@v3:flash_attn_func"));
 * assert(!is_kernel("flash_attention_2"));
 * ```
 */
export function is_kernel(name: string): boolean {
  return typeof name === "string" && NAME.test(name);
}

/** The parts of a kernel package's name. */
export interface KernelName {
  /** `owner/repo`. */
  readonly repo_id: string;
  /** Branch, tag or commit; null where none is given, and then a version decides. */
  readonly revision: string | null;
  /** The function to use; null for the package's own choice. */
  readonly function: string | null;
  /** Whether `paged|` stands before it. */
  readonly paged: boolean;
}

/**
 * Splits the name of a kernel package.
 *
 * @throws {InvalidArgument} for a name of another form
 */
export function parseKernelName(name: string): KernelName {
  if (!is_kernel(name)) {
    throw new InvalidArgument(
      `Cannot read "${
        String(name)
      }" as the name of a kernel package: expected owner/repo[@revision][:function]`,
    );
  }
  const bar = name.indexOf("|");
  const [place, fn = ""] = name.slice(bar + 1).split(":") as [string, string?];
  const at = place.indexOf("@");
  const revision = at < 0 ? "" : place.slice(at + 1).trim();
  return {
    repo_id: (at < 0 ? place : place.slice(0, at)).trim(),
    revision: revision === "" ? null : revision,
    function: fn.trim() === "" ? null : fn.trim(),
    paged: bar >= 0 && name.slice(0, bar) === "paged",
  };
}
