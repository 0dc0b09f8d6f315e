import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { InvalidArgument, ModelFileError } from "../../src/errors.ts";
import { hostModule } from "../../src/hub/host.ts";
import { inspectWasm } from "../../src/hub/inspect_wasm.ts";
import { encodeTileFunction, TILE_OPS, type TileOp } from "../../src/hub/tile_function.ts";
import { seeded } from "../support/random.ts";

type Tile = (...args: number[]) => void;

function instantiate(program: readonly TileOp[], memory: WebAssembly.Memory, shared: boolean): Tile {
  const module = new WebAssembly.Module(encodeTileFunction(program, { shared }));
  const { tile } = new WebAssembly.Instance(module, { env: { memory } }).exports;
  assert(typeof tile === "function");
  return (...args) => tile(...args);
}

interface At {
  readonly score: number;
  readonly b: number;
  readonly h: number;
  readonly q: number;
  readonly k: number;
  readonly params: Float32Array;
}

const BINARY: Record<string, (x: number, y: number) => number> = {
  add: (x, y) => x + y,
  sub: (x, y) => x - y,
  mul: (x, y) => x * y,
  div: (x, y) => x / y,
  max: Math.max,
  min: Math.min,
  lt: (x, y) => Number(x < y),
  le: (x, y) => Number(x <= y),
  eq: (x, y) => Number(x === y),
};
const UNARY: Record<string, (x: number) => number> = {
  neg: (x) => -x,
  abs: Math.abs,
  floor: Math.floor,
  sqrt: Math.sqrt,
};

/** The same program, one value at a time. */
function interpret(program: readonly TileOp[], at: At): number {
  const stack: number[] = [];
  const pop = () => stack.pop()!;
  const push = (x: number) => stack.push(Math.fround(x));
  for (const op of program) {
    if (typeof op !== "string") {
      if (op[0] === "const") push(op[1]);
      else if (op[0] === "param") push(at.params[op[1]]!);
      else {
        const x = pop();
        const i = Number.isNaN(x) ? 0 : Math.min(Math.max(Math.trunc(x), 0), op[2] - 1);
        push(at.params[op[1] + i]!);
      }
    } else if (op === "score" || op === "b" || op === "h" || op === "q" || op === "k") push(at[op]);
    else if (op === "select") {
      const [otherwise, then, condition] = [pop(), pop(), pop()];
      push(condition !== 0 ? then : otherwise);
    } else if (op in UNARY) push(UNARY[op]!(pop()));
    else {
      const [y, x] = [pop(), pop()];
      push(BINARY[op]!(x, y));
    }
  }
  return stack[0]!;
}

const PROGRAMS: Record<string, readonly TileOp[]> = {
  "identity": ["score"],
  "relative position": ["score", "q", "k", "sub", ["const", 0.125], "mul", "add"],
  "ALiBi from a table by head": ["score", "h", ["lookup", 2, 4], "k", "q", "sub", "mul", "add"],
  "causal": ["q", "k", "lt", ["const", -Infinity], "score", "select"],
  "window": ["q", "k", "sub", "abs", ["const", 3], "le", "score", ["const", -Infinity], "select"],
  "lookup is clamped at both ends": ["k", ["const", 4], "sub", ["lookup", 0, 5]],
  "lookup of NaN": [["const", 0], "sqrt", ["const", 0], "div", ["lookup", 1, 3]],
  "everything": [
    "score",
    ["param", 1],
    "mul",
    "b",
    "max",
    "h",
    ["const", -2.5],
    "div",
    "neg",
    "min",
    "floor",
    "abs",
    "sqrt",
    "q",
    "k",
    "eq",
    ["const", 0.1],
    "sub",
    "add",
  ],
};

for (const shared of [false, true]) {
  Deno.test(`tile functions compute what an interpreter does, ${shared ? "shared" : "plain"} memory`, async (t) => {
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 4, shared });
    const params = new Float32Array(memory.buffer, 256, 16);
    const all = new Float32Array(memory.buffer);
    params.set([3, -0.5, 0.5, 0.25, 0.125, 0.0625, 7, 8]);
    for (const [name, program] of Object.entries(PROGRAMS)) {
      await t.step(name, () => {
        const tile = instantiate(program, memory, shared);
        const random = seeded(name);
        // Sizes around the SIMD width; ld larger than the row, so that what lies between must stay.
        for (
          const [rows, cols] of [[1, 1], [1, 4], [2, 3], [3, 5], [4, 8], [2, 11], [0, 4], [3, 0]] as const
        ) {
          const ld = cols + 3;
          const start = 1000;
          const before = random.normal(4 * 14 + 8);
          all.set(before, start);
          tile(4 * start, ld, 2, 3, 10, 8, rows, cols, 256);
          const after = all.slice(start, start + before.length);
          const expected = before.slice();
          for (let r = 0; r < rows; r++) {
            for (let c = 0; c < cols; c++) {
              const i = r * ld + c;
              expected[i] = interpret(program, {
                score: before[i]!,
                b: 2,
                h: 3,
                q: 10 + r,
                k: 8 + c,
                params,
              });
            }
          }
          assertEquals(after, expected);
        }
      });
    }
  });
}

Deno.test("tile functions: the operation codes agree with Rust", { permissions: "none" }, () => {
  assertEquals(hostModule().tile_operations().split("\n").map((line) => line.split(" ")[0]), [...TILE_OPS]);
});

Deno.test("tile functions: malformed programs are refused", () => {
  // Programs as a caller without types could send them.
  const rows: [unknown, string][] = [
    [[], "1 to 256 operations, found 0"],
    [["add"], "2 values on the stack, found 0"],
    [["score", "score"], "one value left on the stack, found 2"],
    [["exp"], `operation 0 is "exp", known are score`],
    [[["const"]], "1 arguments, found 0"],
    [[["const", NaN]], "found NaN"],
    [[["const", 1, 2]], "no more arguments"],
    [[["param", -1]], "non-negative integer, found -1"],
    [[["param", 65536]], "at most 65536 parameters"],
    [["q", ["lookup", 0, 0]], "at least one value"],
    [Array(257).fill("score"), "1 to 256 operations, found 257"],
    [Array(65).fill("score"), "at most 64 values on the stack"],
  ];
  for (const [program, says] of rows) {
    assertThrows(
      () => Reflect.apply(encodeTileFunction, undefined, [program, { shared: false }]),
      InvalidArgument,
      says,
    );
  }
});

Deno.test("inspectWasm: lists what a module asks for and offers", { permissions: "none" }, async () => {
  const report = await inspectWasm(encodeTileFunction(["score"], { shared: true }), { threads: true });
  assertEquals(report.imports, [{
    module: "env",
    name: "memory",
    kind: "memory",
    initial: 0,
    maximum: 65536,
    shared: true,
    memory64: false,
  }]);
  assertEquals(report.exports, [{
    name: "tile",
    kind: "function",
    params: Array(9).fill("i32"),
    results: [],
  }]);
  assertEquals([report.start, report.functions, report.data_bytes], [false, 1, 0]);
  assertEquals(report.memories.length, 1);
  assert(report.code_bytes > 100);
});

Deno.test("inspectWasm: refuses what is not asked for, and garbage", async () => {
  const shared = encodeTileFunction(["score"], { shared: true });
  await assertRejects(() => inspectWasm(shared, { name: "x.wasm" }), ModelFileError, "x.wasm");
  await assertRejects(() => inspectWasm(shared), ModelFileError, "threads");
  const plain = encodeTileFunction(["score"], { shared: false });
  await assertRejects(() => inspectWasm(plain, { max_bytes: 50 }), ModelFileError, "at most 50 bytes");
  await assertRejects(() => inspectWasm(new Uint8Array(0)), ModelFileError, "Cannot accept");
  // A valid prefix is a valid module only where a whole section ends; the runtime agrees with every verdict.
  for (let cut = 0; cut <= plain.length; cut++) {
    const bytes = plain.slice(0, cut);
    const accepted = await inspectWasm(bytes).then(() => true, () => false);
    assertEquals(accepted, WebAssembly.validate(bytes), `cut at ${cut}`);
  }
  const random = seeded("flips");
  for (let i = 0; i < 500; i++) {
    const bytes = plain.slice();
    bytes[random.int(8, bytes.length)] = random.int(0, 256);
    try {
      await inspectWasm(bytes);
      assert(WebAssembly.validate(bytes), "accepted what the runtime refuses");
    } catch (error) {
      assert(error instanceof ModelFileError, String(error));
    }
  }
});
