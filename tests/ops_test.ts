/**
 * Operations, on every device, against plain JavaScript over row-major arrays.
 *
 * @module
 */
import {
  assertEquals,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import fc from "./support/fast_check.ts";
import { type DeviceName, type DType, InvalidArgument, liveBuffers, ops, Tensor } from "../mod.ts";
import { WasmEngine } from "../src/devices/wasm/engine.ts";
import { contiguousStrides } from "../src/shape.ts";
import { seeded } from "./support/random.ts";
import { assertClose, EXACT, type Kind, toleranceOf } from "./support/tolerance.ts";
import { everywhere, liveTest, reportSkipped, withGpu } from "./models/support.ts";

/** A row-major array, as simple as can be. */
interface NDArray {
  readonly shape: readonly number[];
  readonly data: readonly number[];
}

const sizeOf = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

/** Index of element `at` of a row-major array of `shape`. */
function unravel(at: number, shape: readonly number[]): number[] {
  const index = new Array<number>(shape.length);
  for (let d = shape.length - 1; d >= 0; d--) {
    index[d] = at % shape[d]!;
    at = Math.floor(at / shape[d]!);
  }
  return index;
}

function build(shape: readonly number[], value: (index: number[]) => number): NDArray {
  return { shape, data: Array.from({ length: sizeOf(shape) }, (_, at) => value(unravel(at, shape))) };
}

/** Element of an array at an index of a shape it broadcasts to. */
function pick({ shape, data }: NDArray, index: readonly number[]): number {
  const strides = contiguousStrides(shape), lead = index.length - shape.length;
  return data[shape.reduce((at, n, d) => at + (n === 1 ? 0 : index[lead + d]!) * strides[d]!, 0)]!;
}

function broadcast(...shapes: (readonly number[])[]): number[] {
  const rank = Math.max(...shapes.map((s) => s.length));
  return Array.from({ length: rank }, (_, d) => {
    const sizes = shapes.map((s) => s[d - (rank - s.length)] ?? 1);
    return sizes.find((n) => n !== 1) ?? 1;
  });
}

function normal(shape: readonly number[], seed: string, scale = 1): NDArray {
  return { shape, data: [...seeded(seed).normal(sizeOf(shape), scale)] };
}

function tensor({ shape, data }: NDArray, device: DeviceName, dtype: DType = "float32"): Tensor {
  return Tensor.from(data, { shape, dtype, device });
}

/** Checks a result and disposes it. */
async function check(
  actual: Tensor,
  expected: NDArray,
  kind: Kind,
  device: DeviceName,
  label = "",
): Promise<void> {
  using owned = actual;
  assertEquals(owned.shape, expected.shape, label);
  const values = Array.from(await owned.data() as ArrayLike<number | bigint>, Number);
  assertClose(values, expected.data, toleranceOf(kind, device), label);
}

/** Pairs of shapes that broadcast. */
const PAIRS: readonly (readonly [readonly number[], readonly number[]])[] = [
  [[3], [3]],
  [[], []],
  [[2, 3], []],
  [[2, 3], [3]],
  [[2, 3], [2, 1]],
  [[2, 1, 4], [3, 1]],
  [[1, 5], [4, 1]],
  [[2, 3, 4, 5], [3, 1, 5]],
  [[2, 2, 1, 2, 3], [1, 3, 1, 3]],
  [[0, 3], [1, 3]],
  [[1], [70, 3]],
];

const BINARY: readonly (readonly [
  name: "add" | "sub" | "mul" | "div" | "maximum",
  fn: (a: number, b: number) => number,
  kind: Kind,
])[] = [
  ["add", (a, b) => a + b, "elementwise"],
  ["sub", (a, b) => a - b, "elementwise"],
  ["mul", (a, b) => a * b, "elementwise"],
  ["div", (a, b) => a / b, "elementwise"],
  ["maximum", Math.max, "exact"],
];

for (const [name, fn, kind] of BINARY) {
  everywhere(`${name} broadcasts as NumPy does`, async (device) => {
    for (const [sa, sb] of PAIRS) {
      const a = normal(sa, `${name} a ${sa}`), b = normal(sb, `${name} b ${sb}`);
      using x = tensor(a, device);
      using y = tensor(b, device);
      const expected = build(broadcast(sa, sb), (i) => fn(pick(a, i), pick(b, i)));
      await check(ops[name](x, y), expected, kind, device, `[${sa}] and [${sb}]`);
    }
  });

  everywhere(`${name} takes numbers on either side`, async (device) => {
    const a = normal([2, 5], name);
    using x = tensor(a, device);
    await check(ops[name](x, 3), build(a.shape, (i) => fn(pick(a, i), 3)), kind, device);
    await check(ops[name](0.5, x), build(a.shape, (i) => fn(0.5, pick(a, i))), kind, device);
  });
}

everywhere("integers stay integers: int32 with int32, int64, bool and whole numbers", async (device) => {
  using a = Tensor.from([[7, -2], [2 ** 24 + 1, 5]], { device });
  using b = Tensor.from([3n, 4n], { device });
  using yes = Tensor.from([true, false], { device });
  const cases: readonly (readonly [Tensor, string, unknown])[] = [
    [ops.add(a, b), "int32", [[10, 2], [2 ** 24 + 4, 9]]],
    [ops.sub(a, 1), "int32", [[6, -3], [2 ** 24, 4]]],
    [ops.mul(a, yes), "int32", [[7, 0], [2 ** 24 + 1, 0]]],
    [ops.maximum(a, b), "int32", [[7, 4], [2 ** 24 + 1, 5]]],
    [ops.neg(a), "int32", [[-7, 2], [-(2 ** 24) - 1, -5]]],
    [ops.div(b, 2), "float32", [1.5, 2]],
    [ops.add(b, 0.5), "float32", [3.5, 4.5]],
  ];
  for (const [result, dtype, expected] of cases) {
    using owned = result;
    assertEquals([owned.dtype, await owned.tolist()], [dtype, expected]);
  }
});

const UNARY: readonly (readonly [
  name: "neg" | "exp" | "log" | "tanh" | "sigmoid" | "sqrt",
  fn: (x: number) => number,
  kind: Kind,
  positive?: true,
])[] = [
  ["neg", (x) => -x, "exact"],
  ["exp", Math.exp, "transcendental"],
  ["log", Math.log, "transcendental", true],
  ["tanh", Math.tanh, "transcendental"],
  ["sigmoid", (x) => 1 / (1 + Math.exp(-x)), "transcendental"],
  ["sqrt", Math.sqrt, "elementwise", true],
];

for (const [name, fn, kind, positive] of UNARY) {
  everywhere(`${name}, on any shape, view and float type`, async (device) => {
    const a = normal([3, 4, 5], name);
    const x = positive ? { ...a, data: a.data.map((v) => Math.fround(Math.abs(v) + 0.1)) } : a;
    using t = tensor(x, device);
    await check(ops[name](t), { ...x, data: x.data.map(fn) }, kind, device);
    using view = ops.tidy(() => ops.slice(ops.permute(t, [1, 0, 2]), 0, 1, 3));
    await check(
      ops[name](view),
      build([2, 3, 5], ([j, i, k]) => fn(pick(x, [i!, j! + 1, k!]))),
      kind,
      device,
      "view",
    );
    for (const dtype of ["float16", "bfloat16"] as const) {
      using half = tensor(x, device, dtype);
      const stored = Array.from(await half.data() as ArrayLike<number>, Number);
      const result = ops[name](half);
      assertEquals(result.dtype, "float32");
      await check(result, { ...x, data: stored.map(fn) }, kind, device, dtype);
    }
    using empty = Tensor.from([], { shape: [0, 3], device });
    await check(ops[name](empty), { shape: [0, 3], data: [] }, "exact", device, "empty");
  });
}

everywhere("corners of the functions: overflow, infinities, NaN, logarithm of 0", async (device) => {
  using x = Tensor.from([1000, -1000, 0], { dtype: "float32", device });
  await check(ops.exp(x), { shape: [3], data: [Infinity, 0, 1] }, "exact", device);
  await check(ops.sigmoid(x), { shape: [3], data: [1, 0, 0.5] }, "transcendental", device);
  await check(ops.tanh(x), { shape: [3], data: [1, -1, 0] }, "transcendental", device);
  using zero = Tensor.from([0, 1], { dtype: "float32", device });
  await check(ops.log(zero), { shape: [2], data: [-Infinity, 0] }, "transcendental", device);
});

everywhere("where selects with broadcasting, tensors or numbers", async (device) => {
  const a = normal([2, 3, 4], "where a"), b = normal([4], "where b");
  const bits = [...seeded("where c").bools(12)];
  const c = { shape: [3, 4], data: bits };
  using x = tensor(a, device);
  using y = tensor(b, device);
  using condition = tensor(c, device, "bool");
  const expected = (f: (i: number[]) => number, g: (i: number[]) => number, shape: number[]) =>
    build(shape, (i) => pick(c, i) ? f(i) : g(i));
  await check(
    ops.where(condition, x, y),
    expected((i) => pick(a, i), (i) => pick(b, i), [2, 3, 4]),
    "exact",
    device,
  );
  await check(
    ops.where(condition, x, -Infinity),
    expected((i) => pick(a, i), () => -Infinity, [2, 3, 4]),
    "exact",
    device,
  );
  await check(ops.where(condition, 0.5, y), expected(() => 0.5, (i) => pick(b, i), [3, 4]), "exact", device);
  using ints = ops.where(condition, 1, 0);
  assertEquals([ints.dtype, Array.from(await ints.data() as Int32Array)], ["int32", bits]);
  using column = tensor({ shape: [2, 1, 1], data: [1, 0] }, device, "bool");
  await check(ops.where(column, x, 0), build([2, 3, 4], (i) => i[0] === 0 ? pick(a, i) : 0), "exact", device);
});

const REDUCTIONS: readonly (readonly [name: "sum" | "max" | "mean", fn: (xs: number[]) => number])[] = [
  ["sum", (xs) => xs.reduce((a, b) => a + b, 0)],
  ["max", (xs) => Math.max(...xs)],
  ["mean", (xs) => xs.reduce((a, b) => a + b, 0) / xs.length],
];

for (const [name, fn] of REDUCTIONS) {
  everywhere(`${name} over every dimension, kept or not, and over all`, async (device) => {
    for (const shape of [[3, 4, 5], [7], [2, 1, 3], [1, 1], [2, 3, 2, 2]]) {
      const a = normal(shape, `${name} ${shape}`);
      using x = tensor(a, device);
      for (let dim = -shape.length; dim < shape.length; dim++) {
        const d = (dim + shape.length) % shape.length;
        const kept = shape.map((n, i) => i === d ? 1 : n);
        const expected = build(
          kept,
          (i) => fn(Array.from({ length: shape[d]! }, (_, j) => pick(a, i.with(d, j)))),
        );
        await check(
          ops[name](x, { dim, keepdim: true }),
          expected,
          "reduce",
          device,
          `[${shape}] dim ${dim}`,
        );
        const dropped = { ...expected, shape: kept.filter((_, i) => i !== d) };
        await check(ops[name](x, { dim }), dropped, "reduce", device, `[${shape}] dim ${dim}`);
      }
      await check(ops[name](x), { shape: [], data: [fn([...a.data])] }, "reduce", device, `[${shape}]`);
      await check(
        ops[name](x, { keepdim: true }),
        { shape: shape.map(() => 1), data: [fn([...a.data])] },
        "reduce",
        device,
      );
    }
  });
}

everywhere("softmax over every dimension, with the log-sum-exp", async (device) => {
  for (const shape of [[3, 4, 5], [6], [2, 1, 33]]) {
    const a = normal(shape, `softmax ${shape}`, 3);
    using x = tensor(a, device);
    for (let dim = -shape.length; dim < shape.length; dim++) {
      const d = (dim + shape.length) % shape.length;
      const row = (i: number[]) =>
        Array.from({ length: shape[d]! }, (_, j) => Math.exp(pick(a, i.with(d, j))));
      const total = (i: number[]) => row(i).reduce((p, q) => p + q);
      const expected = build(shape, (i) => Math.exp(pick(a, i)) / total(i));
      await check(ops.softmax(x, { dim }), expected, "softmax", device, `[${shape}] dim ${dim}`);
      const [weights, lse] = ops.softmax(x, { dim, return_lse: true });
      await check(weights, expected, "softmax", device);
      const logs = build(shape.map((n, i) => i === d ? 1 : n), (i) => Math.log(total(i)));
      await check(
        lse,
        { ...logs, shape: shape.filter((_, i) => i !== d) },
        "softmax",
        device,
        `lse dim ${dim}`,
      );
    }
  }
});

everywhere("softmax of a row of −∞ is zeros, and of large numbers finite", async (device) => {
  using x = Tensor.from([[-Infinity, -Infinity], [1000, 1000], [-1000, -Infinity]], { device });
  const [weights, lse] = ops.softmax(x, { return_lse: true });
  await check(weights, { shape: [3, 2], data: [0, 0, 0.5, 0.5, 1, 0] }, "softmax", device);
  await check(lse, { shape: [3], data: [-Infinity, 1000 + Math.log(2), -1000] }, "softmax", device);
});

everywhere("argmax takes the first of equals, as int32", async (device) => {
  using x = Tensor.from([[[1, 3, 3], [-5, -7, -5]], [[0, 0, 0], [-Infinity, -1, -Infinity]]], {
    dtype: "float32",
    device,
  });
  using best = ops.argmax(x);
  assertEquals([best.dtype, await best.tolist()], ["int32", [[1, 0], [0, 1]]]);
  using wide = tensor(build([2, 3000], ([i, j]) => i === 0 ? j! : -j!), device);
  using at = ops.argmax(wide);
  assertEquals(await at.tolist(), [2999, 0]);
});

/** Shapes of products, with b as it is or transposed. */
const PRODUCTS: readonly (readonly [readonly number[], readonly number[]])[] = [
  [[2, 3], [3, 4]],
  [[1, 1], [1, 1]],
  [[17, 33], [33, 9]],
  [[5, 2, 3], [5, 3, 4]],
  [[5, 2, 3], [3, 4]],
  [[2, 3], [5, 3, 4]],
  [[2, 1, 2, 3], [1, 4, 3, 5]],
  [[2, 4, 1, 16], [2, 4, 16, 7]],
  [[0, 3], [3, 2]],
  [[2, 0], [0, 3]],
];

everywhere("matmul broadcasts batches, transposes b, and takes views", async (device) => {
  for (const [sa, sb] of PRODUCTS) {
    const a = normal(sa, `a ${sa}`), b = normal(sb, `b ${sb}`);
    const [m, n] = sa.slice(-2) as [number, number], p = sb.at(-1)!;
    const expected = build([...broadcast(sa.slice(0, -2), sb.slice(0, -2)), m, p], (i) => {
      const batch = i.slice(0, -2), [r, c] = i.slice(-2) as [number, number];
      let sum = 0;
      for (let k = 0; k < n; k++) sum += pick(a, [...batch, r, k]) * pick(b, [...batch, k, c]);
      return sum;
    });
    using x = tensor(a, device);
    using y = tensor(b, device);
    await check(ops.matmul(x, y), expected, "matmul", device, `[${sa}] · [${sb}]`);
    using turned = ops.transpose(y, -1, -2);
    await check(
      ops.matmul(x, turned, { transpose_b: true }),
      expected,
      "matmul",
      device,
      `[${sa}] · [${sb}]ᵀᵀ`,
    );
  }
  const a = normal([4, 6, 5], "views");
  using x = tensor(a, device);
  using left = ops.tidy(() => ops.slice(ops.permute(x, [1, 0, 2]), 0, 2, 5));
  using right = ops.slice(x, 1, 0, 3);
  const expected = build([3, 4, 3], ([i, r, c]) => {
    let sum = 0;
    for (let k = 0; k < 5; k++) sum += pick(a, [r!, i! + 2, k]) * pick(a, [i!, c!, k]);
    return sum;
  });
  using first = ops.slice(right, 0, 0, 3);
  await check(ops.matmul(left, first, { transpose_b: true }), expected, "matmul", device, "views");
});

everywhere("linear: x · weightᵀ + bias for any rank and weight type", async (device) => {
  for (const dtype of ["float32", "float16", "bfloat16"] as const) {
    for (const shape of [[6], [1, 6], [2, 3, 6], [20, 6]]) {
      const a = normal(shape, `x ${shape}`), b = normal([5], "bias");
      using x = tensor(a, device);
      using w = tensor(normal([5, 6], "weight"), device, dtype);
      using bias = tensor(b, device);
      const stored = { shape: [5, 6], data: Array.from(await w.data() as ArrayLike<number>, Number) };
      const product = (withBias: boolean) =>
        build([...shape.slice(0, -1), 5], (i) => {
          let sum = withBias ? b.data[i.at(-1)!]! : 0;
          for (let k = 0; k < 6; k++) sum += pick(a, i.with(-1, k)) * pick(stored, [i.at(-1)!, k]);
          return sum;
        });
      await check(ops.linear(x, w), product(false), "linear", device, `${dtype} [${shape}]`);
      await check(ops.linear(x, w, bias), product(true), "linear", device, `${dtype} [${shape}] with bias`);
    }
  }
});

everywhere("embedding picks rows, for ids of any shape and integer type", async (device) => {
  const w = normal([7, 3], "embedding");
  using weight = tensor(w, device);
  for (const [shape, dtype] of [[[4], "int32"], [[2, 2], "int64"], [[1, 2, 2], "uint8"]] as const) {
    const ids = [6, 0, 3, 6];
    using input = Tensor.from(ids, { shape, dtype, device });
    const expected = ids.flatMap((id) => w.data.slice(id * 3, id * 3 + 3));
    await check(
      ops.embedding(input, weight),
      { shape: [...shape, 3], data: expected },
      "exact",
      device,
      dtype,
    );
  }
  for (const bad of [7, -1, 1000]) {
    using input = Tensor.from([0, bad], { device });
    const refused = assertThrows(() => ops.embedding(input, weight), InvalidArgument);
    assertStringIncludes(refused.message, `${bad} (element 1)`);
    assertStringIncludes(refused.message, "0…6");
  }
});

everywhere("rms_norm with and without a weight", async (device) => {
  const a = normal([2, 3, 20], "rms"), w = normal([20], "rms weight");
  using x = tensor(a, device);
  using weight = tensor(w, device);
  const scale = (i: number[], eps: number) =>
    1 /
    Math.sqrt(
      Array.from({ length: 20 }, (_, k) => pick(a, i.with(-1, k)) ** 2).reduce((p, q) => p + q) / 20 + eps,
    );
  const expected = (eps: number, f: (k: number) => number) =>
    build(a.shape, (i) => pick(a, i) * scale(i, eps) * f(i.at(-1)!));
  await check(ops.rms_norm(x), expected(1e-6, () => 1), "norm", device);
  await check(ops.rms_norm(x, weight), expected(1e-6, (k) => w.data[k]!), "norm", device);
  await check(
    ops.rms_norm(x, weight, { eps: 0.5, unit_offset: 1 }),
    expected(0.5, (k) => w.data[k]! + 1),
    "norm",
    device,
  );
});

everywhere("repeat_kv repeats each head in a row", async (device) => {
  const a = normal([2, 3, 4, 5], "repeat");
  using x = tensor(a, device);
  for (const n of [1, 2, 4]) {
    const expected = build([2, 3 * n, 4, 5], ([b, h, k, d]) => pick(a, [b!, Math.floor(h! / n), k!, d!]));
    await check(ops.repeat_kv(x, n), expected, "exact", device, `${n} times`);
  }
  using view = ops.slice(x, 2, 1, 3);
  await check(
    ops.repeat_kv(view, 2),
    build([2, 6, 2, 5], ([b, h, k, d]) => pick(a, [b!, h! >> 1, k! + 1, d!])),
    "exact",
    device,
  );
});

everywhere("cat joins along every dimension, views and empty parts too", async (device) => {
  for (const dim of [0, 1, 2, -1, -2, -3]) {
    const d = (dim + 3) % 3;
    const parts = [1, 0, 3].map((n, i) => normal([2, 3, 4].with(d, n), `cat ${dim} ${i}`));
    const tensors = parts.map((p) => tensor(p, device));
    const expected = build(
      [2, 3, 4].with(d, 4),
      (i) => i[d]! < 1 ? pick(parts[0]!, i) : pick(parts[2]!, i.with(d, i[d]! - 1)),
    );
    await check(ops.cat(tensors, dim), expected, "exact", device, `dim ${dim}`);
    for (const t of tensors) t[Symbol.dispose]();
  }
  for (const dtype of ["int64", "bool", "bfloat16", "uint8"] as const) {
    using a = Tensor.from([[1, 0]], { dtype, device });
    using joined = ops.cat([a, a], 0);
    assertEquals([joined.dtype, joined.shape], [dtype, [2, 2]]);
  }
});

everywhere("cast converts between all types", async (device) => {
  const rows: readonly (readonly [readonly number[], DType, DType, readonly (number | boolean)[]])[] = [
    [[1.75, -1.75, 0], "float32", "int32", [1, -1, 0]],
    [[1.75, -1.75, 0], "float32", "bool", [true, true, false]],
    [[1.5, -2], "float32", "float16", [1.5, -2]],
    [[1.00390625, 3.5], "float32", "bfloat16", [1, 3.5]],
    [[1, 0], "bool", "float32", [1, 0]],
    [[5, 0], "int64", "bool", [true, false]],
    [[5, -3], "int64", "float32", [5, -3]],
    [[5, 200], "uint8", "float32", [5, 200]],
    [[5, -100], "int8", "int32", [5, -100]],
    [[2.5, -0.5], "bfloat16", "float16", [2.5, -0.5]],
    [[7, -7], "int32", "int64", [7, -7]],
    [[7, -7], "int32", "float16", [7, -7]],
  ];
  for (const [values, from, to, expected] of rows) {
    using t = Tensor.from(values, { dtype: from, device });
    using converted = ops.cast(t, to);
    assertEquals([converted.dtype, await converted.tolist()], [to, expected], `${from} to ${to}`);
  }
  using t = Tensor.from([1.5], { device });
  using same = ops.cast(t, "float32");
  assertEquals(await same.tolist(), [1.5]);
});

everywhere("zeros, full and arange", async (device) => {
  const rows: readonly (readonly [Tensor, DType, unknown])[] = [
    [ops.zeros([2, 2], { device }), "float32", [[0, 0], [0, 0]]],
    [ops.zeros([], { device, dtype: "int64" }), "int64", 0],
    [ops.full([3], 0.5, { device }), "float32", [0.5, 0.5, 0.5]],
    [ops.full([2], 1, { device, dtype: "bool" }), "bool", [true, true]],
    [ops.full([2], 3, { device, dtype: "bfloat16" }), "bfloat16", [3, 3]],
    [ops.arange(4, undefined, 1, { device }), "int32", [0, 1, 2, 3]],
    [ops.arange(1, 2, 0.25, { device }), "float32", [1, 1.25, 1.5, 1.75]],
    [ops.arange(3, 0, -1, { device }), "int32", [3, 2, 1]],
    [ops.arange(3, 3, 1, { device }), "int32", []],
    [ops.arange(0, 3, 1, { device, dtype: "float32" }), "float32", [0, 1, 2]],
  ];
  for (const [made, dtype, expected] of rows) {
    using owned = made;
    assertEquals([owned.dtype, await owned.tolist(), owned.device], [dtype, expected, device]);
  }
});

/** One step on an array and on a tensor. `at` chooses among what is possible. */
type Step = readonly [kind: "reshape" | "permute" | "transpose" | "slice", at: number, by: number];

function divisorsOf(n: number): number[] {
  return Array.from({ length: n }, (_, i) => i + 1).filter((d) => n % d === 0);
}

/** Applies a step to both; returns null where it does not apply. */
function apply([kind, at, by]: Step, a: NDArray, t: Tensor): [NDArray, Tensor] {
  const { shape } = a, rank = shape.length;
  switch (kind) {
    case "reshape": {
      const size = sizeOf(shape);
      if (size === 0) return [{ ...a, shape: [0, 2] }, ops.reshape(t, [0, 2])];
      const first = divisorsOf(size)[at % divisorsOf(size).length]!, rest = divisorsOf(size / first);
      const second = rest[by % rest.length]!;
      const next = [first, second, size / first / second, ...(at % 2 ? [1] : [])];
      return [{ ...a, shape: next }, ops.reshape(t, at % 3 ? next : next.with(1, -1))];
    }
    case "permute": {
      const dims = shape.map((_, i) => i), order: number[] = [];
      for (let i = 0; dims.length > 0; i++) order.push(dims.splice((at + i * by) % dims.length, 1)[0]!);
      const next = build(
        order.map((d) => shape[d]!),
        (i) => pick(a, order.map((_, d) => i[order.indexOf(d)]!)),
      );
      return [next, ops.permute(t, order.map((d) => by % 2 ? d - rank : d))];
    }
    case "transpose": {
      if (rank === 0) return [a, ops.permute(t, [])];
      const [p, q] = [at % rank, by % rank];
      const swap = <T>(list: readonly T[]) => list.with(p, list[q]!).with(q, list[p]!);
      return [build(swap(shape), (i) => pick(a, swap(i))), ops.transpose(t, p, q - rank)];
    }
    case "slice": {
      if (rank === 0) return [a, ops.reshape(t, [])];
      const d = at % rank, n = shape[d]!, from = by % (n + 1), to = Math.min(n, from + 1 + at % 3);
      const next = build(shape.with(d, to - from), (i) => pick(a, i.with(d, i[d]! + from)));
      return [next, ops.slice(t, d, from === n ? from : from - n, to === n ? undefined : to)];
    }
  }
}

everywhere(
  "any sequence of reshape, permute, transpose and slice agrees with plain arrays",
  async (device) => {
    const step = fc.tuple(
      fc.constantFrom("reshape" as const, "permute" as const, "transpose" as const, "slice" as const),
      fc.nat(50),
      fc.nat(50),
    );
    const start = fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 0, maxLength: 4 });
    const dtypes = fc.constantFrom<DType>("float32", "bfloat16", "int64", "bool");
    await fc.assert(
      fc.asyncProperty(start, dtypes, fc.array(step, { maxLength: 6 }), async (shape, dtype, steps) => {
        let array = build(
          shape,
          (i) => i.reduce((n, x, d) => n * shape[d]! + x, 0) % (dtype === "bool" ? 2 : 97),
        );
        using host = tensor(array, device, dtype);
        let t = ops.tidy(() => ops.cat([ops.reshape(host, [1, ...shape])], 0));
        const owned = [t];
        t = ops.reshape(t, shape);
        owned.push(t);
        try {
          for (const s of steps) {
            [array, t] = apply(s, array, t);
            owned.push(t);
            assertEquals(t.shape, array.shape, `${s}`);
            const values = Array.from(await t.data() as ArrayLike<number | bigint>, Number);
            assertClose(values, array.data, EXACT, `after ${s}`);
            // Kernels must see the view as `data` does.
            if (t.size > 0 && t.shape.length > 0) {
              using copy = ops.cat([t, t], 0);
              const twice = Array.from(await copy.data() as ArrayLike<number | bigint>, Number);
              assertClose(twice, [...array.data, ...array.data], EXACT, `kernel after ${s}`);
            }
          }
        } finally {
          for (const x of owned) x[Symbol.dispose]();
        }
      }),
      { seed: 20250301, numRuns: device === "wasm" ? 300 : 15, endOnFailure: device !== "wasm" },
    );
  },
);

/** Calls that do not fit, and what the message mentions. */
const REFUSED: readonly (readonly [
  name: string,
  act: (a: Tensor, b: Tensor, bool: Tensor) => unknown,
  mentions: readonly string[],
])[] = [
  ["add of shapes that do not broadcast", (a, b) => ops.add(a, b), ["add", "[2,3]", "[4,5]"]],
  ["where of shapes that do not broadcast", (a, b, c) => ops.where(c, a, b), ["where", "[2,3]", "[4,5]"]],
  ["where by a float", (a) => ops.where(a, a, a), ["float32", "bool"]],
  ["add of a string", (a) => ops.add(a, "1" as never), ["string"]],
  ["add of null", (a) => ops.add(null as never, a), ["null"]],
  ["neg of a number", () => ops.neg(1 as never), ["number"]],
  ["matmul of inner dimensions that differ", (a, b) => ops.matmul(a, b), ["[2,3]", "[4,5]", "inner"]],
  [
    "matmul of inner dimensions that differ, transposed",
    (a, b) => ops.matmul(a, b, { transpose_b: true }),
    ["[2,3]", "[4,5]", "transposed"],
  ],
  ["matmul of a vector", (a) => ops.tidy(() => ops.matmul(a, ops.zeros([3]))), ["[2,3]", "[3]"]],
  [
    "matmul of batches that differ",
    () => ops.tidy(() => ops.matmul(ops.zeros([2, 1, 1]), ops.zeros([3, 1, 1]))),
    ["[2]", "[3]"],
  ],
  ["linear with another width", (a, b) => ops.linear(a, b), ["[2,3]", "[4,5]"]],
  [
    "linear with a bias of another length",
    (a) => ops.tidy(() => ops.linear(a, ops.zeros([4, 3]), ops.zeros([3]))),
    ["[4,3]", "[3]"],
  ],
  [
    "linear with integer weights",
    (a) => ops.tidy(() => ops.linear(a, ops.zeros([4, 3], { dtype: "int32" }))),
    ["int32"],
  ],
  ["embedding with fractional ids", (a, b) => ops.embedding(a, b), ["float32"]],
  ["rms_norm with a weight of another length", (a) => ops.tidy(() => ops.rms_norm(a, ops.zeros([2]))), [
    "[2,3]",
    "[2]",
  ]],
  ["reshape to another size", (a) => ops.reshape(a, [4]), ["[2,3]", "[4]", "6"]],
  ["reshape with two holes", (a) => ops.reshape(a, [-1, -1]), ["[-1,-1]"]],
  ["reshape with a hole that does not divide", (a) => ops.reshape(a, [4, -1]), ["[4,-1]"]],
  ["reshape to rank 7", (a) => ops.reshape(a, [1, 1, 1, 1, 1, 1, 6]), ["rank 7"]],
  ["permute that misses a dimension", (a) => ops.permute(a, [0]), ["[2,3]", "[0]"]],
  ["permute that repeats one", (a) => ops.permute(a, [0, 0]), ["[0,0]"]],
  ["transpose beyond the rank", (a) => ops.transpose(a, 0, 2), ["dimension 2"]],
  ["slice beyond the rank", (a) => ops.slice(a, -3, 0), ["dimension -3"]],
  ["slice by fractions", (a) => ops.slice(a, 0, 0.5), ["0.5"]],
  ["sum beyond the rank", (a) => ops.sum(a, { dim: 2 }), ["dimension 2"]],
  ["softmax by a fraction", (a) => ops.softmax(a, { dim: 0.5 }), ["0.5"]],
  ["cat of nothing", () => ops.cat([]), ["empty"]],
  ["cat of shapes that differ", (a, b) => ops.cat([a, b]), ["[2,3]", "[4,5]"]],
  ["cat of types that differ", (a, _b, c) => ops.cat([a, c]), ["float32", "bool"]],
  ["repeat_kv of rank 2", (a) => ops.repeat_kv(a, 2), ["[2,3]"]],
  ["repeat_kv half a time", () => ops.tidy(() => ops.repeat_kv(ops.zeros([1, 1, 1, 1]), 0.5)), ["0.5"]],
  ["cast to no type", (a) => ops.cast(a, "float64" as never), ["float64"]],
  ["arange that never ends", () => ops.arange(0, 1, 0), ["step"]],
  ["arange to infinity", () => ops.arange(Infinity), ["Infinity"]],
  ["zeros of a negative shape", () => ops.zeros([-1]), ["-1"]],
  ["full of a string", () => ops.full([1], "x" as never), ["string"]],
];

for (const [name, act, mentions] of REFUSED) {
  liveTest(`refuses ${name}`, () => {
    using a = Tensor.from(new Float32Array(6), { shape: [2, 3] });
    using b = Tensor.from(new Float32Array(20), { shape: [4, 5] });
    using c = Tensor.from([true]);
    const refused = assertThrows(() => act(a, b, c), InvalidArgument);
    for (const word of mentions) assertStringIncludes(refused.message, word);
  });
}

liveTest("max and mean of nothing", () => {
  using empty = Tensor.from([], { shape: [2, 0] });
  for (const act of [() => ops.max(empty, { dim: -1 }), () => ops.argmax(empty)]) {
    assertThrows(act, InvalidArgument, "[2,0]");
  }
});

liveTest("tidy disposes what it made, and keeps what it returns, in lists and records too", async () => {
  using x = Tensor.from([1.5, 2]);
  const made: Tensor[] = [];
  const note = (t: Tensor) => (made.push(t), t);
  const { sum, list } = ops.tidy(() => {
    const a = note(ops.add(x, 1));
    return { sum: note(ops.add(a, a)), list: [note(ops.neg(a)), [note(ops.exp(a))]] as const };
  });
  assertEquals(made.map((t) => t.isDisposed), [true, false, false, false]);
  assertEquals(await sum.tolist(), [5, 6]);
  for (const t of [sum, list[0], list[1][0]!]) t[Symbol.dispose]();
});

liveTest("tidy nests: what an inner one returns belongs to the outer one", async () => {
  using x = Tensor.from([1.5, 2]);
  let inner: Tensor | undefined;
  using result = ops.tidy(() => {
    inner = ops.tidy(() => ops.add(ops.mul(x, 2), 1));
    assertEquals(inner.isDisposed, false);
    return ops.neg(inner);
  });
  assertEquals([inner?.isDisposed, await result.tolist()], [true, [-4, -5]]);
});

liveTest("keep takes a tensor out of all scopes", async () => {
  using x = Tensor.from([1.5, 2]);
  let kept: Tensor | undefined;
  ops.tidy(() => {
    ops.tidy(() => {
      kept = ops.keep(ops.neg(x));
      ops.exp(kept);
    });
  });
  assertEquals(await kept!.tolist(), [-1.5, -2]);
  kept![Symbol.dispose]();
});

liveTest("tidy disposes everything when its function throws, also inside another", () => {
  using x = Tensor.from([1.5, 2]);
  const mistake = new Error("mine");
  const before = liveBuffers();
  const thrown = assertThrows(() =>
    ops.tidy(() => {
      ops.neg(x);
      return ops.tidy(() => {
        ops.exp(x);
        throw mistake;
      });
    })
  );
  assertStrictEquals(thrown, mistake);
  assertEquals(liveBuffers() - before, 1, "only the uploaded input");
  const after = ops.neg(x);
  assertEquals(after.isDisposed, false, "the scope is closed");
  after[Symbol.dispose]();
});

liveTest("tidy refuses an asynchronous function, and disposes what it had made", async () => {
  using x = Tensor.from([1.5, 2]);
  const made: Tensor[] = [];
  assertThrows(
    () =>
      ops.tidy(async () => {
        made.push(ops.neg(x));
        await Promise.resolve();
      }),
    InvalidArgument,
    "async",
  );
  await Promise.resolve();
  assertEquals(made.map((t) => t.isDisposed), [true]);
  assertThrows(() => ops.tidy(() => Promise.reject(new Error("late"))), InvalidArgument);
  await new Promise((resolve) => setTimeout(resolve, 0));
});

liveTest("tidy leaves what it was given, and a view of it is its own", async () => {
  using x = Tensor.from([[1.5, 2]]);
  using y = ops.tidy(() => ops.reshape(x, [2]));
  assertEquals(ops.tidy(() => x), x);
  assertEquals([await x.tolist(), await y.tolist()], [[[1.5, 2]], [1.5, 2]]);
});

liveTest("tensors of two engines work together: one is copied to the other's", async () => {
  const other = new WasmEngine();
  try {
    using a = Tensor.from([1.5, 2]);
    using here = ops.mul(a, 2);
    using there = Tensor.empty(other, "float32", [2]);
    other.write(there.storage.on(other), 0, new Uint8Array(Float32Array.of(10, 20).buffer));
    using sum = ops.add(here, there);
    using turned = ops.sub(there, here);
    assertEquals([await sum.tolist(), await turned.tolist()], [[13, 24], [7, 16]]);
    using joined = ops.cat([here, there, turned]);
    assertEquals(await joined.tolist(), [3, 4, 10, 20, 7, 16]);
  } finally {
    other.close();
  }
});

withGpu("tensors of two devices are refused by name, and meet after to()", async () => {
  using a = Tensor.from([1.5, 2]);
  using b = Tensor.from([3, 4], { dtype: "float32", device: "webgpu" });
  const refused = assertThrows(() => ops.add(a, b), InvalidArgument);
  for (const word of ["wasm", "webgpu", "to("]) assertStringIncludes(refused.message, word);
  using moved = await a.to("webgpu");
  using sum = ops.add(moved, b);
  assertEquals(await sum.tolist(), [4.5, 6]);
});

liveTest(
  "a device that does not exist is refused when work is awaited, not when it is recorded",
  async () => {
    await assertRejects(() => Tensor.from([1]).to("cpu" as never), InvalidArgument, "cpu");
  },
);

reportSkipped();
