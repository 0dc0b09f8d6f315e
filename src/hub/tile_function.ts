/**
 * Compiling score functions: a postfix program becomes a WASM module with one function.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import { hostModule, messageOf } from "./host.ts";

/** One step of a score program in postfix order; see {@linkcode encodeTileFunction}. */
export type TileOp =
  | "score"
  | "b"
  | "h"
  | "q"
  | "k"
  | "add"
  | "sub"
  | "mul"
  | "div"
  | "max"
  | "min"
  | "neg"
  | "abs"
  | "floor"
  | "sqrt"
  | "lt"
  | "le"
  | "eq"
  | "select"
  | readonly ["const", value: number]
  | readonly ["param", index: number]
  | readonly ["lookup", base: number, count: number];

/** Codes are positions in this list, the same as in `wasm/host/src/tile.rs`; a test compares the two. */
export const TILE_OPS: readonly string[] = [
  "score",
  "b",
  "h",
  "q",
  "k",
  "const",
  "param",
  "lookup",
  "add",
  "sub",
  "mul",
  "div",
  "max",
  "min",
  "neg",
  "abs",
  "floor",
  "sqrt",
  "lt",
  "le",
  "eq",
  "select",
];

/**
 * Encodes a score function as a WASM module with one function
 * `tile(scores, ld, b, h, q0, k0, rows, cols, params)`, all i32, that replaces every f32 of a `rows` x `cols`
 * tile by the value of `program`.
 *
 * `scores` and `params` are byte addresses in the imported memory `env.memory`, `ld` is the distance of two
 * rows in elements. Values are f32 on a stack: `score`, `b`, `h`, `q`, `k` push the score and its indices
 * (exact below 2^24); `["param", i]` pushes `params[i]`; `["lookup", base, count]` takes `x` and pushes
 * `params[base + clamp(trunc(x), 0, count - 1)]`; comparisons give 1 or 0; `select` takes condition, then and
 * else, in this order.
 *
 * @throws {InvalidArgument} on stack underflow, leftovers, an unknown operation, or a program of more than
 * 256 operations, 64 stack values or 65536 parameters.
 */
export function encodeTileFunction(
  program: readonly TileOp[],
  options: { shared: boolean },
): Uint8Array<ArrayBuffer> {
  const ops = new Uint8Array(program.length);
  const args: number[] = [];
  program.forEach((op, i) => {
    const [name, ...numbers] = typeof op === "string" ? [op] : op;
    const code = TILE_OPS.indexOf(name);
    if (code < 0) {
      throw new InvalidArgument(
        `Cannot encode the score function: operation ${i} is ${JSON.stringify(name)}, known are ${
          TILE_OPS.join(", ")
        }`,
      );
    }
    ops[i] = code;
    args.push(...numbers);
  });
  try {
    return new Uint8Array(hostModule().encode_tile_function(ops, Float64Array.from(args), options.shared));
  } catch (error) {
    throw new InvalidArgument(messageOf(error), { cause: error });
  }
}
