/**
 * Every kernel but attention, on every device, through the raw contract of `src/devices/device.ts`: shapes,
 * strides, dtypes and corners, against the formulas of `support/kernel_oracles.ts`.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { type BinaryOp, MAX_RANK, type UnaryOp } from "../src/devices/device.ts";
import { convertTo, type DType, DTYPES, isFloat, present } from "../src/dtype.ts";
import fc from "./support/fast_check.ts";
import { deviceTest, reportSkips, testDevices } from "./support/devices.ts";
import {
  BINARY,
  layerNormRow,
  product,
  REDUCE,
  rmsNormRow,
  rotateRow,
  rowsOf,
  softmaxRow,
  UNARY,
} from "./support/kernel_oracles.ts";
import { type Random, seeded } from "./support/random.ts";
import { assertClose, assertSameBits, EXACT, type Kind, toleranceOf } from "./support/tolerance.ts";
import { Bench, type Layout, type Placed, sizeOf } from "./support/views.ts";

const FLOATS = ["float32", "float16", "bfloat16"] as const;

/** Shapes with odd sizes, of every rank a strided kernel takes. */
const SHAPES: readonly (readonly number[])[] = [
  [],
  [1],
  [7],
  [1025],
  [3, 5],
  [2, 3, 4],
  [2, 1, 5, 3],
  [2, 3, 1, 2, 5],
  [2, 1, 2, 3, 2, 3],
];

/** Layouts of a rank-4 tensor whose last dimension stays contiguous, as tensors of this library are. */
const LAYOUTS: Readonly<Record<string, Layout>> = {
  contiguous: {},
  "outer dims permuted": { order: [0, 2, 1, 3] },
  "outer dims reversed": { order: [2, 1, 0, 3] },
  "with an offset": { offset: 5 },
  "with spare capacity": { spare: [0, 0, 3, 0], offset: 8 },
  "rows apart": { spare: [0, 0, 0, 3] },
};

/** Layouts that only the elementwise kernels have to read. */
const ANY_LAYOUTS: Readonly<Record<string, Layout>> = {
  ...LAYOUTS,
  "transposed (last dimension strided)": { order: [0, 1, 3, 2] },
  "all dims reversed": { order: [3, 2, 1, 0] },
  "broadcast over the batch": { broadcast: [0] },
  "broadcast over rows": { broadcast: [2] },
  "broadcast over the last dimension": { broadcast: [3] },
  "one value": { broadcast: [0, 1, 2, 3] },
};

const UNARY_KIND: Readonly<Record<UnaryOp, Kind>> = {
  copy: "exact",
  neg: "exact",
  relu: "exact",
  sqrt: "elementwise",
  exp: "transcendental",
  log: "transcendental",
  tanh: "transcendental",
  sigmoid: "transcendental",
  silu: "transcendental",
  gelu: "transcendental",
  gelu_tanh: "transcendental",
  quick_gelu: "transcendental",
};

const BINARY_KIND: Readonly<Record<BinaryOp, Kind>> = {
  add: "elementwise",
  sub: "elementwise",
  mul: "elementwise",
  div: "elementwise",
  maximum: "exact",
  silu_mul: "transcendental",
};

const unaryOps = Object.keys(UNARY) as UnaryOp[];
const binaryOps = Object.keys(BINARY) as BinaryOp[];

/** Number of stored elements of a shape under a layout. */
function storedSize(shape: readonly number[], layout: Layout): number {
  return sizeOf(shape.filter((_, axis) => !layout.broadcast?.includes(axis)));
}

function placeNormal(
  bench: Bench,
  random: Random,
  shape: readonly number[],
  layout: Layout = {},
  dtype: DType = "float32",
) {
  return bench.place(shape, random.normal(storedSize(shape, layout)), dtype, layout);
}

/** Positive numbers, for functions with a restricted domain. */
function operandOf(op: UnaryOp, random: Random, n: number): Float32Array<ArrayBuffer> {
  return op === "log" || op === "sqrt" ? random.uniform(n, 0.01, 10) : random.normal(n, 3);
}

/** Small values every dtype can hold after conversion, with fractions and signs where the source has them. */
function conversionValues(from: DType, to: DType): number[] {
  const values = isFloat(from)
    ? [0, 1, 0.5, 1.75, 2.99, 100, 126.5, 3.140625]
    : [0, 1, 2, 3, 50, 99, 126, 127];
  if (from === "bool") return [0, 1, 1, 0, 0, 0, 1, 1];
  const signed = from !== "uint8" && to !== "uint8";
  return signed ? [...values, ...values.map((x) => -x)] : values;
}

for (const on of await testDevices({ every_build: true })) {
  const wasm = on.name === "wasm";
  const test = (name: string, fn: (bench: Bench, random: Random) => Promise<void>) =>
    deviceTest(on, name, async (device) => {
      using bench = new Bench(device);
      await fn(bench, seeded(name));
    });
  const near = (kind: Kind, dtype?: DType) => toleranceOf(kind, on.name, dtype);

  // Elementwise

  for (const op of unaryOps) {
    test(`unary ${op}: every rank and odd sizes`, async (bench, random) => {
      for (const shape of SHAPES) {
        const x = bench.place(shape, operandOf(op, random, sizeOf(shape)));
        const out = bench.empty(shape);
        bench.device.kernels.unary(op, x.view, out);
        assertClose(
          await bench.read(out),
          x.values.map(UNARY[op]),
          near(UNARY_KIND[op]),
          `${op} of (${shape})`,
        );
      }
    });
  }

  test("unary: large arguments neither overflow nor turn into NaN", async (bench) => {
    const extremes = [-100, -50, -20, -10, 0, 10, 20, 50, 80];
    for (const op of ["exp", "tanh", "sigmoid", "silu", "gelu", "gelu_tanh", "quick_gelu"] as const) {
      const x = bench.place([extremes.length], extremes), out = bench.empty([extremes.length]);
      bench.device.kernels.unary(op, x.view, out);
      assertClose(await bench.read(out), x.values.map(UNARY[op]), near("transcendental"), op);
    }
  });

  for (const [layout, how] of Object.entries(ANY_LAYOUTS)) {
    test(`unary copy and silu: operand ${layout}`, async (bench, random) => {
      const shape = [2, 3, 5, 7];
      for (const op of ["copy", "silu"] as const) {
        const x = placeNormal(bench, random, shape, how);
        const out = bench.empty(shape);
        bench.device.kernels.unary(op, x.view, out);
        assertClose(await bench.read(out), x.values.map(UNARY[op]), near(UNARY_KIND[op]), op);
      }
    });
  }

  for (const [layout, how] of Object.entries(LAYOUTS)) {
    test(`unary copy: result ${layout}, and nothing else is written`, async (bench, random) => {
      for (const dtype of FLOATS) {
        const x = placeNormal(bench, random, [2, 3, 5, 7], {}, dtype);
        const out = bench.empty([2, 3, 5, 7], dtype, how);
        bench.device.kernels.unary("copy", x.view, out);
        assertClose(await bench.read(out), x.values, EXACT, dtype);
        const untouched = (await bench.readStorage(out)).filter((v) => v === 77).length;
        assertEquals(
          untouched,
          (await bench.readStorage(out)).length - x.values.length,
          `${dtype} free places`,
        );
      }
    });
  }

  for (const from of DTYPES) {
    test(`unary copy: ${from} to every dtype`, async (bench) => {
      for (const to of DTYPES) {
        const values = conversionValues(from, to);
        const x = bench.place([values.length], values, from), out = bench.empty([values.length], to, {}, 0);
        bench.device.kernels.unary("copy", x.view, out);
        const expected = Float64Array.from(present(to, convertTo(to, x.values)), Number);
        assertClose(await bench.read(out), expected, EXACT, `${from} to ${to}`);
      }
    });
  }

  test("unary copy: a bool is whatever is not 0", async (bench) => {
    const x = bench.place([6], [0, 0.25, -0.25, 1e-30, -7, 0]), out = bench.empty([6], "bool", {}, 0);
    bench.device.kernels.unary("copy", x.view, out);
    assertEquals([...await bench.read(out)], [0, 1, 1, 1, 1, 0]);
  });

  test(
    "unary copy: float32 rounds to the nearest float16 and bfloat16, and widens exactly",
    async (bench, random) => {
      const values = [
        ...random.normal(500),
        ...random.normal(100, 1e4),
        ...random.normal(100, 1e-3),
        ...[0, -0, 1 + 2 ** -9, 1 + 3 * 2 ** -9, 1 + 2 ** -11, 1 + 3 * 2 ** -11, 65504, -65504, 2 ** -14],
      ];
      const x = bench.place([values.length], values);
      for (const dtype of ["float16", "bfloat16"] as const) {
        const half = bench.empty([values.length], dtype), wide = bench.empty([values.length]);
        bench.device.kernels.unary("copy", x.view, half);
        bench.device.kernels.unary("copy", half, wide);
        const stored = await bench.read(half);
        const rounded = Float64Array.from(present(dtype, convertTo(dtype, x.values)), Number);
        assertClose(stored, rounded, dtype === "float16" ? near("conversion") : EXACT, `rounded to ${dtype}`);
        assertClose(await bench.read(wide), stored, EXACT, `widened from ${dtype}`);
      }
    },
  );

  test("unary: half operands and half results of a function", async (bench, random) => {
    for (const from of FLOATS) {
      for (const to of FLOATS) {
        const x = placeNormal(bench, random, [3, 35], {}, from), out = bench.empty([3, 35], to);
        bench.device.kernels.unary("silu", x.view, out);
        const rounding = to === "float16" && !wasm ? near("conversion") : near("transcendental", to);
        const base = near("transcendental");
        assertClose(
          await bench.read(out),
          x.values.map(UNARY.silu),
          { atol: rounding.atol + base.atol, rtol: rounding.rtol + base.rtol },
          `silu ${from} to ${to}`,
        );
      }
    }
  });

  for (const op of binaryOps) {
    test(`binary ${op}: every rank and odd sizes`, async (bench, random) => {
      for (const shape of SHAPES) {
        const a = placeNormal(bench, random, shape);
        const b = bench.place(
          shape,
          op === "div" ? random.uniform(sizeOf(shape), 0.5, 2) : random.normal(sizeOf(shape)),
        );
        const out = bench.empty(shape);
        bench.device.kernels.binary(op, a.view, b.view, out);
        const expected = a.values.map((x, i) => BINARY[op](x, b.values[i]!));
        assertClose(await bench.read(out), expected, near(BINARY_KIND[op]), `${op} of (${shape})`);
      }
    });
  }

  for (const [layout, how] of Object.entries(ANY_LAYOUTS)) {
    test(`binary add and mul: one operand ${layout}`, async (bench, random) => {
      const shape = [2, 3, 5, 7];
      for (const op of ["add", "mul"] as const) {
        for (const swap of [false, true]) {
          const a = placeNormal(bench, random, shape, swap ? how : {});
          const b = placeNormal(bench, random, shape, swap ? {} : how);
          const out = bench.empty(shape);
          bench.device.kernels.binary(op, a.view, b.view, out);
          const expected = a.values.map((x, i) => BINARY[op](x, b.values[i]!));
          assertClose(
            await bench.read(out),
            expected,
            near("elementwise"),
            `${op}${swap ? ", swapped" : ""}`,
          );
        }
      }
    });
  }

  test("binary: int32 add, sub, mul, maximum are exact", async (bench, random) => {
    for (const op of ["add", "sub", "mul", "maximum"] as const) {
      const a = bench.place([3, 37], random.ints(111, -40000, 40000), "int32");
      const b = bench.place([3, 37], random.ints(37, -40000, 40000), "int32", { broadcast: [0] });
      const out = bench.empty([3, 37], "int32");
      bench.device.kernels.binary(op, a.view, b.view, out);
      const expected = a.values.map((x, i) => BINARY[op](x, b.values[i]!));
      assertClose(await bench.read(out), expected, EXACT, op);
    }
  });

  test("binary: values that float32 cannot hold survive in int32", async (bench) => {
    const a = bench.place([3], [16777217, -2147483647, 2147483646], "int32");
    const b = bench.place([3], [1, -1, 1], "int32"), out = bench.empty([3], "int32");
    bench.device.kernels.binary("add", a.view, b.view, out);
    assertEquals([...await bench.read(out)], [16777218, -2147483648, 2147483647]);
  });

  test("where: condition, both branches and the result broadcast by strides", async (bench, random) => {
    for (const [layout, how] of Object.entries(ANY_LAYOUTS)) {
      const shape = [2, 3, 5, 7];
      const condition = bench.place(shape, random.bools(storedSize(shape, how)), "bool", how);
      const a = placeNormal(bench, random, shape),
        b = placeNormal(bench, random, shape, { broadcast: [0, 1, 2, 3] });
      const out = bench.empty(shape);
      bench.device.kernels.where(condition.view, a.view, b.view, out);
      const expected = a.values.map((x, i) => condition.values[i] ? x : b.values[i]!);
      assertClose(await bench.read(out), expected, EXACT, layout);
    }
  });

  test("where: an infinite branch that is not taken does not leak", async (bench) => {
    const condition = bench.place([4], [1, 0, 1, 0], "bool");
    const a = bench.place([4], [1, Infinity, 3, Infinity]),
      b = bench.place([4], [-Infinity, 2, -Infinity, 4]);
    const out = bench.empty([4]);
    bench.device.kernels.where(condition.view, a.view, b.view, out);
    assertEquals([...await bench.read(out)], [1, 2, 3, 4]);
  });

  test(`elementwise kernels take rank ${MAX_RANK} with every outer dim permuted`, async (bench, random) => {
    const shape = [2, 3, 2, 1, 3, 5];
    const a = placeNormal(bench, random, shape, { order: [4, 2, 0, 3, 1, 5] });
    const b = placeNormal(bench, random, shape, { broadcast: [1, 4] });
    const out = bench.empty(shape, "float32", { order: [1, 0, 3, 2, 4, 5] });
    bench.device.kernels.binary("sub", a.view, b.view, out);
    assertClose(await bench.read(out), a.values.map((x, i) => x - b.values[i]!), near("elementwise"));
  });

  test("elementwise kernels take empty tensors", async (bench) => {
    const x = bench.place([3, 0], []), y = bench.place([3, 0], []), out = bench.empty([3, 0]);
    bench.device.kernels.unary("silu", x.view, out);
    bench.device.kernels.binary("add", x.view, y.view, out);
    assertEquals((await bench.read(out)).length, 0);
  });

  // Rows

  for (const op of ["sum", "max", "mean"] as const) {
    test(`reduce ${op}: row lengths and layouts`, async (bench, random) => {
      for (const N of [1, 2, 3, 5, 8, 17, 64, 100, 500]) {
        const x = placeNormal(bench, random, [5, N]), out = bench.empty([5]);
        bench.device.kernels.reduce(op, x.view, out);
        const expected = rowsOf(x.values, N).map(REDUCE[op]);
        assertClose(
          await bench.read(out),
          expected,
          near(op === "max" ? "exact" : "reduce"),
          `${op} of 5 x ${N}`,
        );
      }
      for (const [layout, how] of Object.entries(LAYOUTS)) {
        const x = placeNormal(bench, random, [2, 3, 4, 9], how), out = bench.empty([2, 3, 4]);
        bench.device.kernels.reduce(op, x.view, out);
        const expected = rowsOf(x.values, 9).map(REDUCE[op]);
        assertClose(await bench.read(out), expected, near(op === "max" ? "exact" : "reduce"), layout);
      }
      const x = placeNormal(bench, random, [33]), out = bench.empty([]);
      bench.device.kernels.reduce(op, x.view, out);
      assertClose(await bench.read(out), [REDUCE[op](x.values)], near("reduce"), "of a vector");
    });
  }

  test("reduce max: negative rows", async (bench, random) => {
    const x = bench.place([3, 17], random.uniform(51, -9, -1)), out = bench.empty([3]);
    bench.device.kernels.reduce("max", x.view, out);
    assertClose(await bench.read(out), rowsOf(x.values, 17).map(REDUCE.max), EXACT);
  });

  test("softmax: row lengths and layouts, with and without lse", async (bench, random) => {
    const check = async (x: Placed, withLse: boolean, label: string) => {
      const N = x.shape.at(-1)!, outer = x.shape.slice(0, -1);
      const out = bench.empty(x.shape), lse = withLse ? bench.empty(outer) : null;
      bench.device.kernels.softmax(x.view, out, lse);
      const rows = rowsOf(x.values, N).map(softmaxRow);
      assertClose(await bench.read(out), rows.flatMap((r) => [...r.probabilities]), near("softmax"), label);
      if (lse !== null) {
        assertClose(
          await bench.read(lse),
          rows.map((r) => r.lse),
          near("softmax"),
          `lse, ${label}`,
        );
      }
    };
    for (const N of [1, 2, 3, 5, 8, 17, 64, 100, 500]) {
      await check(bench.place([3, N], random.normal(3 * N, 4)), N % 2 === 1, `3 x ${N}`);
    }
    for (const [layout, how] of Object.entries(LAYOUTS)) {
      await check(placeNormal(bench, random, [2, 3, 4, 9], how), true, layout);
    }
    await check(placeNormal(bench, random, [9]), true, "a vector");
  });

  test("softmax: −∞ elements give 0, a row of −∞ gives zeros and lse −∞", async (bench) => {
    const no = -Infinity;
    const x = bench.place([4, 5], [no, no, no, no, no, 1, no, 2, no, 3, no, no, no, no, -7, 0, 0, 0, 0, 0]);
    const out = bench.empty([4, 5]), lse = bench.empty([4]);
    bench.device.kernels.softmax(x.view, out, lse);
    const rows = rowsOf(x.values, 5).map(softmaxRow);
    assertClose(await bench.read(out), rows.flatMap((r) => [...r.probabilities]), near("softmax"));
    assertClose(await bench.read(lse), rows.map((r) => r.lse), near("softmax"), "lse");
  });

  test("softmax: large and float32-min scores", async (bench) => {
    const min = -3.4028234663852886e38;
    const x = bench.place([3, 4], [1e4, 9999, 1e4, min, -1e30, -1e30, min, min, 88, 89, 90, -90]);
    const out = bench.empty([3, 4]), lse = bench.empty([3]);
    bench.device.kernels.softmax(x.view, out, lse);
    const rows = rowsOf(x.values, 4).map(softmaxRow);
    assertClose(await bench.read(out), rows.flatMap((r) => [...r.probabilities]), near("softmax"));
    assertClose(await bench.read(lse), rows.map((r) => r.lse), near("softmax"), "lse");
  });

  deviceTest(on, "softmax: random rows sum to 1 and do not change when rows are permuted", async (device) => {
    const rows = fc.tuple(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 130 }), fc.integer());
    await fc.assert(
      fc.asyncProperty(rows, async ([M, N, seed]) => {
        using bench = new Bench(device);
        const values = seeded(seed).normal(M * N, 5);
        const reversed = rowsOf(Float64Array.from(values), N).reverse().flatMap((r) => [...r]);
        const out = bench.empty([M, N]), back = bench.empty([M, N]), total = bench.empty([M]);
        device.kernels.softmax(bench.place([M, N], values).view, out, null);
        device.kernels.softmax(bench.place([M, N], reversed).view, back, null);
        device.kernels.reduce("sum", out, total);
        assertClose(await bench.read(total), new Float64Array(M).fill(1), near("softmax"), "sum of a row");
        const again = rowsOf(await bench.read(back), N).reverse().flatMap((r) => [...r]);
        assertSameBits(again, await bench.read(out), "permuted");
      }),
      { seed: 7, numRuns: wasm ? 100 : 10 },
    );
  });

  test("argmax: row lengths, strided rows, and the first of ties", async (bench, random) => {
    for (const N of [1, 2, 3, 5, 8, 17, 64, 100, 1000]) {
      for (const spare of [0, 3]) {
        const x = placeNormal(bench, random, [4, N], { spare: [0, spare] }), out = bench.empty([4], "int32");
        bench.device.kernels.argmax(x.view, out);
        assertEquals(
          [...await bench.read(out)],
          rowsOf(x.values, N).map((r) => r.indexOf(REDUCE.max(r))),
          `4 x ${N}`,
        );
      }
    }
    const ties = bench.place([4, 6], [
      1,
      5,
      5,
      2,
      5,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      -3,
      -2,
      -2,
      -9,
      -2,
      -2,
      7,
      1,
      1,
      1,
      1,
      7,
    ]);
    const out = bench.empty([4], "int32");
    bench.device.kernels.argmax(ties.view, out);
    assertEquals([...await bench.read(out)], [1, 0, 1, 0]);
    const long = new Float32Array(4096);
    long[1777] = long[3001] = 4;
    const first = bench.empty([1], "int32");
    bench.device.kernels.argmax(bench.place([1, 4096], long).view, first);
    assertEquals([...await bench.read(first)], [1777]);
  });

  test("argmax: −∞ elements, also first or all", async (bench) => {
    const no = -Infinity;
    const x = bench.place([3, 4], [no, no, -8, no, no, no, no, no, 3, no, 3, no]),
      out = bench.empty([3], "int32");
    bench.device.kernels.argmax(x.view, out);
    assertEquals([...await bench.read(out)], [2, 0, 0]);
  });

  test("argmax and max: NaN is larger than everything, wherever it is in a row", async (bench) => {
    const N = 200, no = -Infinity;
    const rows = [0, 1, 63, 64, 70, 199].map((at) =>
      Array.from({ length: N }, (_, i) => i === at ? NaN : i === 100 ? Infinity : i % 7 - 3)
    );
    rows.push(
      new Array(N).fill(NaN),
      new Array(N).fill(no),
      Array.from({ length: N }, (_, i) => i < 150 ? no : -1),
    );
    // The zeros are equal.
    rows.push(Array.from({ length: N }, (_, i) => i < 80 ? -1 : i % 2 === 0 ? -0 : 0));
    const x = bench.place([rows.length, N], rows.flat());
    const at = bench.empty([rows.length], "int32"), top = bench.empty([rows.length]);
    bench.device.kernels.argmax(x.view, at);
    bench.device.kernels.reduce("max", x.view, top);
    assertEquals([...await bench.read(at)], [0, 1, 63, 64, 70, 199, 0, 0, 150, 80]);
    const largest = [...await bench.read(top)].map((value) => value + 0);
    assertEquals(largest, [...new Array(7).fill(NaN), no, -1, 0]);
  });

  // Products

  const sizes = [1, 2, 3, 5, 8, 17, 33, 64, 100];
  for (const transpose_b of [false, true]) {
    for (const M of wasm ? sizes : [1, 5, 33, 100]) {
      test(`matmul${transpose_b ? " with b transposed" : ""}: ${M} rows`, async (bench, random) => {
        for (const N of wasm ? sizes : [1, 3, 64, 100]) {
          for (const P of wasm ? sizes : [1, 8, 33]) {
            const a = placeNormal(bench, random, [M, N]);
            const b = placeNormal(bench, random, transpose_b ? [P, N] : [N, P]);
            const out = bench.empty([M, P]);
            bench.device.kernels.matmul(a.view, b.view, out, transpose_b);
            const expected = product(a.values, b.values, [M, N, P], transpose_b);
            assertClose(await bench.read(out), expected, near("matmul"), `${M} x ${N} x ${P}`);
          }
        }
      });
    }

    test(
      `matmul${transpose_b ? " with b transposed" : ""}: batches, broadcast and strided`,
      async (bench, random) => {
        const [M, N, P] = [5, 17, 9], batch = 6;
        const bShape = transpose_b ? [P, N] : [N, P];
        const layouts: Readonly<Record<string, readonly [Layout, Layout]>> = {
          contiguous: [{}, {}],
          "a projected": [{ order: [0, 2, 1, 3] }, {}],
          "b projected": [{}, { order: [0, 2, 1, 3] }],
          "b with capacity": [{}, { spare: [0, 0, 5, 0], offset: 4 }],
          "rows apart": [{ spare: [0, 0, 0, 3] }, { spare: [0, 0, 0, 5] }],
          "one b for the batch": [{}, { broadcast: [0] }],
          "one b for all": [{}, { broadcast: [0, 1] }],
          "one a for all": [{ broadcast: [0, 1] }, {}],
        };
        for (const [name, [ofA, ofB]] of Object.entries(layouts)) {
          const a = placeNormal(bench, random, [2, 3, M, N], ofA),
            b = placeNormal(bench, random, [2, 3, ...bShape], ofB);
          const out = bench.empty([2, 3, M, P]);
          bench.device.kernels.matmul(a.view, b.view, out, transpose_b);
          const expected = Array.from({ length: batch }, (_, i) => [...product(
            a.values.subarray(i * M * N, (i + 1) * M * N),
            b.values.subarray(i * N * P, (i + 1) * N * P),
            [M, N, P],
            transpose_b,
          )]).flat();
          assertClose(await bench.read(out), expected, near("matmul"), name);
        }
      },
    );
  }

  for (const dtype of FLOATS) {
    test(`linear: ${dtype} weights, with and without bias`, async (bench, random) => {
      const shapes = [[1, 1], [5, 3], [8, 17], [30, 64], [64, 8], [100, 33], [256, 40]] as const;
      for (const [I, O] of wasm ? shapes : [[5, 3], [64, 8], [100, 33]] as const) {
        for (const M of wasm ? [1, 2, 3, 4, 7, 33] : [1, 3, 33]) {
          const x = placeNormal(bench, random, [M, I]),
            weight = placeNormal(bench, random, [O, I], {}, dtype);
          for (const biased of [null, "float32", dtype] as const) {
            const bias = biased === null ? null : placeNormal(bench, random, [O], {}, biased);
            const out = bench.empty([M, O]);
            bench.device.kernels.linear(x.view, weight.view, bias?.view ?? null, out);
            const expected = product(x.values, weight.values, [M, I, O], true)
              .map((s, at) => s + (bias?.values[at % O] ?? 0));
            assertClose(
              await bench.read(out),
              expected,
              near("linear"),
              `M=${M} I=${I} O=${O}, bias ${biased}`,
            );
          }
        }
      }
    });

    test(`linear: ${dtype} weights, rows apart and views with an offset`, async (bench, random) => {
      const [M, I, O] = [5, 20, 11];
      const x = placeNormal(bench, random, [M, I], { spare: [0, 7], offset: 3 });
      const weight = placeNormal(bench, random, [O, I], { offset: I * 2 }, dtype);
      const out = bench.empty([M, O]);
      bench.device.kernels.linear(x.view, weight.view, null, out);
      assertClose(await bench.read(out), product(x.values, weight.values, [M, I, O], true), near("linear"));
    });

    test(`linear: ${dtype} weights, a row has the same bits in any batch`, async (bench, random) => {
      for (const [I, O] of [[7, 5], [64, 33], [100, 17], [256, 40], [1027, 19]] as const) {
        const weight = placeNormal(bench, random, [O, I], {}, dtype), bias = placeNormal(bench, random, [O]);
        const x = placeNormal(bench, random, [wasm ? 331 : 33, I]);
        for (const M of wasm ? [2, 3, 4, 7, 33, 48, 331] : [2, 3, 4, 7, 33]) {
          const out = bench.empty([M, O]);
          bench.device.kernels.linear({ ...x.view, shape: [M, I] }, weight.view, bias.view, out);
          const together = await bench.read(out);
          for (const m of new Set([0, 1, M >> 1, M - 1])) {
            const alone = bench.empty([1, O]);
            const row = { ...x.view, shape: [1, I], offset: m * I };
            bench.device.kernels.linear(row, weight.view, bias.view, alone);
            const label = `row ${m} of ${M}, I=${I} O=${O}`;
            assertSameBits(await bench.read(alone), together.subarray(m * O, (m + 1) * O), label);
          }
        }
      }
    });

    test(`embedding: ${dtype} weights`, async (bench, random) => {
      for (const E of [1, 3, 8, 33, 64]) {
        const weight = placeNormal(bench, random, [11, E], {}, dtype);
        for (const N of [1, 2, 7, 40]) {
          const ids = bench.place([N], random.ints(N, 0, 11), "int32"), out = bench.empty([N, E]);
          bench.device.kernels.embedding(ids.view, weight.view, out);
          const expected = [...ids.values].flatMap((id) => [...weight.values.subarray(id * E, (id + 1) * E)]);
          assertClose(await bench.read(out), expected, EXACT, `${N} rows of ${E}`);
        }
      }
    });
  }

  // Norms

  for (const unit_offset of [0, 1]) {
    test(`rms_norm: weight + ${unit_offset}`, async (bench, random) => {
      for (const N of [1, 2, 3, 4, 5, 8, 17, 64, 100, 256]) {
        for (const dtype of FLOATS) {
          const x = placeNormal(bench, random, [5, N]), weight = placeNormal(bench, random, [N], {}, dtype);
          const out = bench.empty([5, N]);
          bench.device.kernels.rms_norm(x.view, weight.view, 1e-6, unit_offset, out);
          const expected = rowsOf(x.values, N).flatMap((
            r,
          ) => [...rmsNormRow(r, weight.values, 1e-6, unit_offset)]);
          assertClose(await bench.read(out), expected, near("norm"), `5 x ${N}, ${dtype} weight`);
        }
      }
    });
  }

  test("rms_norm: without weight, rows apart, and rows of zeros", async (bench, random) => {
    const check = async (x: Placed, eps: number, label: string) => {
      const out = bench.empty(x.shape);
      bench.device.kernels.rms_norm(x.view, null, eps, 0, out);
      const expected = rowsOf(x.values, x.shape[1]!).flatMap((r) => [...rmsNormRow(r, null, eps, 0)]);
      assertClose(await bench.read(out), expected, near("norm"), label);
    };
    await check(placeNormal(bench, random, [5, 17]), 1e-5, "no weight");
    await check(placeNormal(bench, random, [5, 17], { spare: [0, 4], offset: 2 }), 1e-5, "rows apart");
    await check(bench.place([2, 8], new Float32Array(16)), 1e-6, "zeros");
    await check(bench.place([2, 8], random.normal(16, 1e-4)), 1e-6, "eps decides");
  });

  test("layer_norm: row lengths, with and without bias, weights of every dtype", async (bench, random) => {
    for (const N of [1, 2, 3, 4, 5, 8, 17, 64, 100, 256]) {
      for (const dtype of FLOATS) {
        const x = bench.place([4, N], random.normal(4 * N).map((v) => 2 * v + 3), "float32", {
          spare: [0, N % 3],
        });
        const weight = placeNormal(bench, random, [N], {}, dtype);
        for (const bias of [null, placeNormal(bench, random, [N], {}, dtype)]) {
          const out = bench.empty([4, N]);
          bench.device.kernels.layer_norm(x.view, weight.view, bias?.view ?? null, 1e-5, out);
          const rows = rowsOf(x.values, N).map((r) =>
            layerNormRow(r, weight.values, bias?.values ?? null, 1e-5)
          );
          const label = `4 x ${N}, ${dtype} weight${bias === null ? "" : " and bias"}`;
          assertClose(await bench.read(out), rows.flatMap((r) => [...r]), near("norm"), label);
        }
      }
    }
  });

  // Rotary

  const frequencies = (D: number, base = 10000) =>
    Float32Array.from({ length: D / 2 }, (_, i) => base ** (-2 * i / D));

  test("rotary_table: positions up to 100000", async (bench) => {
    for (const D of [2, 8, 12, 64, 128]) {
      const f = frequencies(D);
      for (const [first, rows] of [[0, 33], [1000, 5], [99_990, 11]] as const) {
        for (const scaling of [1, 1.25]) {
          const out = bench.empty([rows, D]);
          bench.device.kernels.rotary_table(f, first, scaling, out);
          const expected = Array.from({ length: rows }, (_, r) => {
            const angles = [...f].map((x) => Math.fround((first + r) * x));
            return [...angles.map((a) => Math.cos(a) * scaling), ...angles.map((a) => Math.sin(a) * scaling)];
          }).flat();
          const label = `D=${D}, positions from ${first}, scaling ${scaling}`;
          assertClose(await bench.read(out), expected, near("rotary_table"), label);
        }
      }
    }
  });

  test("rotary: positions, layouts and head dimensions", async (bench, random) => {
    for (const D of [2, 4, 6, 8, 12, 20, 64]) {
      const [B, H, N, rows] = [2, 3, 5, 40];
      const table = placeNormal(bench, random, [rows, D]);
      for (const [layout, how] of Object.entries(LAYOUTS)) {
        const shared = layout !== "contiguous";
        const x = placeNormal(bench, random, [B, H, N, D], how);
        const positions = bench.place(
          [B, N],
          random.ints(shared ? N : B * N, 0, rows),
          "int32",
          shared ? { broadcast: [0] } : {},
        );
        const out = bench.empty([B, H, N, D]);
        bench.device.kernels.rotary(x.view, table.view, positions.view, out);
        const expected = rowsOf(x.values, D).flatMap((row, at) => {
          const p = positions.values[Math.floor(at / (H * N)) * N + at % N]!;
          return [...rotateRow(row, table.values.subarray(p * D, (p + 1) * D))];
        });
        assertClose(await bench.read(out), expected, near("rotary"), `D=${D}, ${layout}`);
      }
    }
  });

  test("kernels run in the order they were recorded", async (bench) => {
    const x = bench.place([8], [1, 2, 3, 4, 5, 6, 7, 8]);
    let from = x.view;
    for (let i = 0; i < 20; i++) {
      const to = bench.empty([8]);
      bench.device.kernels.binary("add", from, x.view, to);
      from = to;
    }
    assertEquals([...await bench.read(from)], [...x.values].map((v) => 21 * v));
  });

  test("memory released after a kernel was recorded may be taken again at once", async (bench) => {
    const x = bench.place([64], new Float32Array(64).fill(3)), out = bench.empty([64]);
    const temporary = bench.device.allocate(256);
    const view = { ...x.view, allocation: temporary };
    bench.device.kernels.unary("neg", x.view, view);
    bench.device.kernels.unary("neg", view, out);
    bench.device.release(temporary);
    const next = bench.device.allocate(256);
    bench.device.write(next, 0, bench.device.encode("float32", new Float32Array(64).fill(-1)));
    assertEquals([...await bench.read(out)], new Array(64).fill(3));
    assertEquals([...await bench.read({ ...view, allocation: next })], new Array(64).fill(-1));
    bench.device.release(next);
  });

  deviceTest(on, "kernels leave nothing allocated", async (device) => {
    await device.flush();
    assertEquals(device.live, 0);
  });
}
reportSkips();
