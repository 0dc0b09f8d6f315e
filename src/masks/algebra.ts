/**
 * The algebra of mask predicates: and, or, shifts. Combinations of built-in predicates keep their structure, so
 * their rows are still computed by ranges.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import { describe } from "./structure.ts";
import type { MaskFunction } from "./types.ts";

/**
 * Visible where every predicate says so; without arguments everywhere.
 *
 * @throws {InvalidArgument} for an argument that is not callable.
 */
export function and_masks(...mask_functions: MaskFunction[]): MaskFunction {
  checkCallable(mask_functions, "and_masks");
  return describe((b, h, q, kv) => mask_functions.every((f) => f(b, h, q, kv)), {
    kind: "and",
    parts: mask_functions,
  });
}

/**
 * Visible where any predicate says so; without arguments nowhere.
 *
 * @example A prefix that everybody sees
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { maskToString } from "./draw.ts";
 * import { causal_mask_function } from "./functions.ts";
 *
 * const prefix = or_masks(causal_mask_function, (_b, _h, _q, kv) => kv < 2);
 * assertEquals(maskToString(prefix, 3, 3), "     kv 0…2\nq 0  ■ ■ ⬚\nq 1  ■ ■ ⬚\nq 2  ■ ■ ■");
 * ```
 *
 * @throws {InvalidArgument} for an argument that is not callable.
 */
export function or_masks(...mask_functions: MaskFunction[]): MaskFunction {
  checkCallable(mask_functions, "or_masks");
  return describe((b, h, q, kv) => mask_functions.some((f) => f(b, h, q, kv)), {
    kind: "or",
    parts: mask_functions,
  });
}

/**
 * The predicate seen from positions that start at 0: `fn(b, h, q + q_offset, kv + kv_offset)`.
 *
 * `add_offsets_to_mask_function(causal_mask_function, 2, 0)`:
 *
 * ```text
 *      kv 0…4
 * q 0  ■ ■ ■ ⬚ ⬚
 * q 1  ■ ■ ■ ■ ⬚
 * q 2  ■ ■ ■ ■ ■
 * ```
 *
 * @throws {InvalidArgument} for a predicate that is not callable or offsets that are not integers.
 */
export function add_offsets_to_mask_function(
  fn: MaskFunction,
  q_offset: number,
  kv_offset: number,
): MaskFunction {
  checkCallable([fn], "add_offsets_to_mask_function");
  for (const offset of [q_offset, kv_offset]) {
    if (!Number.isSafeInteger(offset)) {
      throw new InvalidArgument(
        `Cannot shift a mask function by ${String(offset)}: expected an integer offset`,
      );
    }
  }
  return describe((b, h, q, kv) => fn(b, h, q + q_offset, kv + kv_offset), {
    kind: "shift",
    of: fn,
    q: q_offset,
    kv: kv_offset,
  });
}

/**
 * Checks that every argument is a function.
 *
 * @throws {InvalidArgument}
 */
export function checkCallable(fns: readonly unknown[], what: string): void {
  fns.forEach((fn, i) => {
    if (typeof fn !== "function") {
      throw new InvalidArgument(
        `Cannot use argument ${i} of ${what}: expected a callable mask function (b, h, q, kv) => boolean, got ${
          fn === null ? "null" : typeof fn
        }`,
      );
    }
  });
}

/**
 * Checks a window or chunk size.
 *
 * @throws {InvalidArgument}
 */
export function checkSize(size: unknown, what: string): asserts size is number {
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 1) {
    throw new InvalidArgument(`Cannot use ${String(size)} as ${what}: expected an integer ≥ 1`);
  }
}
