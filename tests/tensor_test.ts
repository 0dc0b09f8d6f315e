/**
 * Tensors: what they are made from, what they refuse, what comes back.
 *
 * @module
 */
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import {
  type DType,
  InvalidArgument,
  liveBuffers,
  ops,
  Tensor,
  type TensorData,
  type TensorOptions,
} from "../mod.ts";
import { everywhere, liveTest, reportSkipped } from "./models/support.ts";

/** Data, options, and what the tensor is: dtype, shape, values. */
const MADE: readonly (readonly [
  name: string,
  data: TensorData,
  options: TensorOptions,
  dtype: DType,
  shape: number[],
  list: unknown,
])[] = [
  ["integers", [1, 2, 3], {}, "int32", [3], [1, 2, 3]],
  ["fractions", [1, 2.5], {}, "float32", [2], [1, 2.5]],
  ["booleans", [true, false], {}, "bool", [2], [true, false]],
  ["bigints", [1n, -(2n ** 40n)], {}, "int64", [2], [1, -(2 ** 40)]],
  ["nested arrays", [[1, 2], [3, 4]], {}, "int32", [2, 2], [[1, 2], [3, 4]]],
  ["rank 4", [[[[1.5]]]], {}, "float32", [1, 1, 1, 1], [[[[1.5]]]]],
  ["a number", 2, {}, "int32", [], 2],
  ["a fraction alone", 0.5, {}, "float32", [], 0.5],
  ["nothing", [], {}, "float32", [0], []],
  ["nested nothing", [[], []], {}, "float32", [2, 0], [[], []]],
  ["nothing with a shape", [], { shape: [2, 0, 3] }, "float32", [2, 0, 3], [[], []]],
  ["a shape", [1, 2, 3, 4], { shape: [2, 2] }, "int32", [2, 2], [[1, 2], [3, 4]]],
  ["a rank-0 shape", [7], { shape: [] }, "int32", [], 7],
  ["nested data with another shape", [[1, 2], [3, 4]], { shape: [4] }, "int32", [4], [1, 2, 3, 4]],
  ["typed rows inside an array", [Float32Array.of(1.5, 2), Float32Array.of(3, 4)] as never, {}, "float32", [
    2,
    2,
  ], [[1.5, 2], [3, 4]]],
  ["NaN and infinities", [NaN, Infinity, -Infinity, 0.5], {}, "float32", [4], [
    NaN,
    Infinity,
    -Infinity,
    0.5,
  ]],
  ["Float32Array", Float32Array.of(1.5), {}, "float32", [1], [1.5]],
  ["Float64Array is narrowed", Float64Array.of(0.1), {}, "float32", [1], [Math.fround(0.1)]],
  ["Float16Array", Float16Array.of(1.5), {}, "float16", [1], [1.5]],
  ["Int8Array", Int8Array.of(-3), {}, "int8", [1], [-3]],
  ["Uint8Array", Uint8Array.of(200), {}, "uint8", [1], [200]],
  ["Uint8ClampedArray", Uint8ClampedArray.of(200), {}, "uint8", [1], [200]],
  ["Int16Array", Int16Array.of(-300), {}, "int32", [1], [-300]],
  ["Uint16Array", Uint16Array.of(65535), {}, "int32", [1], [65535]],
  ["Int32Array", Int32Array.of(-7), {}, "int32", [1], [-7]],
  ["Uint32Array in range", Uint32Array.of(7), {}, "int32", [1], [7]],
  ["BigInt64Array", BigInt64Array.of(-7n), {}, "int64", [1], [-7]],
  ["BigUint64Array in range", BigUint64Array.of(7n), {}, "int64", [1], [7]],
  [
    "a view inside a larger buffer",
    new Float32Array(Float32Array.of(9, 1.5, 2, 9).buffer, 4, 2),
    {},
    "float32",
    [2],
    [1.5, 2],
  ],
  ["shared memory", sharedFloats(1.5, 2), {}, "float32", [2], [1.5, 2]],
  ["float16 rounds", [0.1], { dtype: "float16" }, "float16", [1], [Math.f16round(0.1)]],
  ["float16 overflows to infinity", [1e6], { dtype: "float16" }, "float16", [1], [Infinity]],
  ["bfloat16 rounds to even", [1.00390625, 1.01171875], { dtype: "bfloat16" }, "bfloat16", [2], [
    1,
    1.015625,
  ]],
  [
    "a Uint16Array as bfloat16 is converted, not reinterpreted",
    Uint16Array.of(16256),
    { dtype: "bfloat16" },
    "bfloat16",
    [1],
    [16256],
  ],
  ["a Uint8Array as bool", Uint8Array.of(0, 1, 2), { dtype: "bool" }, "bool", [3], [false, true, true]],
  ["numbers as bool", [0, -0, 0.5, NaN], { dtype: "bool" }, "bool", [4], [false, false, true, true]],
  ["booleans as numbers", [true, false], { dtype: "float32" }, "float32", [2], [1, 0]],
  ["booleans as int64", [true, false], { dtype: "int64" }, "int64", [2], [1, 0]],
  ["fractions as integers are truncated", [1.9, -1.9], { dtype: "int32" }, "int32", [2], [1, -1]],
  ["fractions as int64 are truncated", [1.9, -1.9], { dtype: "int64" }, "int64", [2], [1, -1]],
  ["the ends of int8", [-128, 127], { dtype: "int8" }, "int8", [2], [-128, 127]],
  ["the ends of uint8", [0, 255], { dtype: "uint8" }, "uint8", [2], [0, 255]],
  ["the ends of int32", [-2147483648, 2147483647], { dtype: "int32" }, "int32", [2], [
    -2147483648,
    2147483647,
  ]],
  ["the ends of int64", [-(2n ** 63n), 2n ** 63n - 1n], {}, "int64", [2], [-(2 ** 63), 2 ** 63]],
  ["bigints as numbers", [3n], { dtype: "float32" }, "float32", [1], [3]],
];

function sharedFloats(...values: number[]): Float32Array {
  const view = new Float32Array(new SharedArrayBuffer(4 * values.length));
  view.set(values);
  return view;
}

for (const [name, data, options, dtype, shape, list] of MADE) {
  liveTest(`Tensor.from ${name}`, async () => {
    using t = Tensor.from(data, options);
    assertEquals([t.dtype, [...t.shape], t.device], [dtype, shape, "wasm"]);
    assertEquals(await t.tolist(), list);
  });
}

function detached(): Float32Array {
  const view = new Float32Array(4);
  structuredClone(view.buffer, { transfer: [view.buffer] });
  return view;
}

function cyclic(): unknown[] {
  const list: unknown[] = [];
  list.push(list);
  return list;
}

/** Data, options, and what the refusal mentions. */
const REFUSED:
  readonly (readonly [name: string, data: unknown, options: unknown, mentions: readonly string[]])[] = [
    ["ragged arrays", [[1, 2], [3]], {}, ["ragged", "1", "2"]],
    ["ragged with an empty row", [[1], []], {}, ["ragged"]],
    ["uneven depth", [1, [2]], {}, ["uneven"]],
    ["uneven depth, arrays first", [[1], 2], {}, ["uneven"]],
    ["numbers and booleans", [1, true], {}, ["mixture"]],
    ["numbers and bigints", [1, 2n], {}, ["mixture"]],
    ["a string", "12", {}, ["string"]],
    ["strings", ["1"], {}, ["string"]],
    ["null", null, {}, ["null"]],
    ["undefined", undefined, {}, ["undefined"]],
    ["an object", { a: 1 }, {}, ["object"]],
    ["null inside", [1, null], {}, ["null"]],
    ["a hole", Object.assign([1, 2, 3], { 1: undefined }), {}, ["undefined"]],
    ["a DataView", new DataView(new ArrayBuffer(8)), {}, ["DataView", "Float32Array"]],
    ["a bare buffer", new ArrayBuffer(8), {}, ["object"]],
    ["a list inside itself", cyclic(), {}, []],
    ["a detached buffer", detached(), { shape: [4] }, ["detached"]],
    ["a detached buffer without a shape", detached(), {}, ["detached"]],
    ["a shape of another size", [1, 2, 3], { shape: [2, 2] }, ["3 elements", "[2,2]"]],
    ["a negative shape", [1], { shape: [-1] }, ["[-1]"]],
    ["a fractional shape", [1], { shape: [1.5] }, ["1.5"]],
    ["NaN in the shape", [], { shape: [NaN] }, ["NaN"]],
    ["a shape that overflows", [], { shape: [2 ** 40, 2 ** 40] }, ["too many"]],
    ["a shape that is no array", [1], { shape: 1 }, ["array"]],
    ["a shape of strings", [1], { shape: ["1"] }, ["1"]],
    ["rank 7", [1], { shape: [1, 1, 1, 1, 1, 1, 1] }, ["rank 7", "6"]],
    ["an unknown dtype", [1], { dtype: "float64" }, ["float64", "float32", "bool"]],
    ["an unknown device", [1], { device: "cuda" }, ["cuda", "wasm", "webgpu"]],
    ["an unknown option", [1], { dytpe: "int8" }, ["dytpe", "dtype"]],
    ["NaN as int32", [NaN], { dtype: "int32" }, ["element 0", "NaN"]],
    ["NaN as int64", [0, NaN], { dtype: "int64" }, ["element 1", "NaN"]],
    ["infinity as int64", [Infinity], { dtype: "int64" }, ["Infinity"]],
    ["128 as int8", [128], { dtype: "int8" }, ["128", "-128…127"]],
    ["−1 as uint8", [-1], { dtype: "uint8" }, ["-1", "0…255"]],
    ["2³¹ as int32", [2 ** 31], {}, ["2147483648"]],
    ["a large Uint32Array", Uint32Array.of(2 ** 31), {}, ["2147483648"]],
    ["2⁶³ as int64", [2n ** 63n], {}, ["out of range"]],
    ["a large BigUint64Array", BigUint64Array.of(2n ** 63n), {}, ["out of range"]],
    ["1e19 as int64", [1e19], { dtype: "int64" }, ["out of range"]],
  ];

for (const [name, data, options, mentions] of REFUSED) {
  liveTest(`Tensor.from refuses ${name}`, () => {
    const refused = assertThrows(
      () => Tensor.from(data as TensorData, options as TensorOptions),
      InvalidArgument,
    );
    for (const word of mentions) assertStringIncludes(refused.message, word);
  });
}

liveTest("the data is copied: neither side sees what the other changes", async () => {
  const source = Float32Array.of(1, 2);
  using t = Tensor.from(source);
  source[0] = 9;
  assertEquals(await t.tolist(), [1, 2]);
  const read = await t.data() as Float32Array;
  read[0] = 7;
  assertEquals(await t.tolist(), [1, 2]);
  const shape = [2, 1];
  using u = Tensor.from(source, { shape });
  shape[0] = 5;
  assertEquals(u.shape, [2, 1]);
  assertThrows(() => (u.shape as number[])[0] = 3, TypeError);
});

/** What `data()` gives for each dtype. */
const ARRAYS: readonly (readonly [DType, new (n: number) => ArrayBufferView])[] = [
  ["float32", Float32Array],
  ["float16", Float16Array],
  ["bfloat16", Float32Array],
  ["int8", Int8Array],
  ["uint8", Uint8Array],
  ["int32", Int32Array],
  ["int64", BigInt64Array],
  ["bool", Uint8Array],
];

for (const [dtype, Class] of ARRAYS) {
  everywhere(`data() of ${dtype} is a ${Class.name}, from the host and from the device`, async (device) => {
    using t = Tensor.from([1, 0, 1], { dtype, device });
    using onDevice = ops.cat([t, t]);
    for (const x of [t, onDevice]) {
      const values = await x.data();
      assertInstanceOf(values, Class as new () => ArrayBufferView);
      assertEquals(Array.from(values as ArrayLike<number | bigint>, Number).slice(0, 3), [1, 0, 1]);
    }
    assertEquals(
      await onDevice.tolist(),
      dtype === "bool" ? [true, false, true, true, false, true] : [1, 0, 1, 1, 0, 1],
    );
  });
}

everywhere("values pass through a device unchanged", async (device) => {
  const rows: readonly (readonly [DType, readonly number[]])[] = [
    ["float32", [0, -0, 1e-45, 3.4e38, -1.5, NaN, Infinity]],
    ["float16", [0, -0, 6e-8, 65504, -1.5]],
    ["bfloat16", [0, -0, 1.5, 3e38, -2]],
    ["int8", [-128, 127, 0]],
    ["uint8", [255, 0, 1]],
    ["int32", [-2147483648, 2147483647, 0]],
    ["int64", [-2147483648, 2147483647, 0]],
  ];
  for (const [dtype, values] of rows) {
    using t = Tensor.from(values, { dtype, device });
    using copied = ops.cat([t]);
    assertEquals(await copied.tolist(), await t.tolist(), dtype);
  }
});

everywhere("int64 beyond 32 bits stays on the host and is refused on a device", async (device) => {
  using t = Tensor.from([1n, 2n ** 31n], { device });
  assertEquals(await t.tolist(), [1, 2 ** 31]);
  const refused = assertThrows(() => ops.cat([t, t]), InvalidArgument);
  assertStringIncludes(refused.message, "element 1");
});

/** Conversions by `to(dtype)`: values, from, to, and what comes out. */
const CONVERTED: readonly (readonly [readonly number[], DType, DType, unknown])[] = [
  [[1.9, -1.9], "float32", "int32", [1, -1]],
  [[1.5, 0], "float32", "bool", [true, false]],
  [[0.1], "float32", "float16", [Math.f16round(0.1)]],
  [[1.00390625], "float32", "bfloat16", [1]],
  [[1, 0], "bool", "float32", [1, 0]],
  [[7], "int32", "int64", [7]],
  [[7], "int64", "float32", [7]],
  [[1.5], "bfloat16", "float16", [1.5]],
  [[3], "uint8", "int8", [3]],
];

for (const [values, from, to, expected] of CONVERTED) {
  everywhere(`to(dtype): ${from} → ${to}`, async (device) => {
    using t = Tensor.from(values, { dtype: from, device });
    using converted = await t.to(to);
    assertEquals([converted.dtype, converted.device, await converted.tolist()], [to, device, expected]);
    assertEquals(t.dtype, from);
  });
}

liveTest("to() refuses what no dtype or device is, and values that do not fit", async () => {
  using t = Tensor.from([300.5, NaN]);
  await assertRejects(() => t.to("cuda" as never), InvalidArgument, "cuda");
  await assertRejects(() => t.to(undefined as never), InvalidArgument, "undefined");
  await assertRejects(() => t.to("uint8"), InvalidArgument, "element 0");
  await assertRejects(() => t.to("int32"), InvalidArgument, "NaN");
});

liveTest("to() the same dtype or device is a tensor of its own over the same values", async () => {
  const t = Tensor.from([1, 2]);
  using same = await t.to("int32");
  using here = await t.to("wasm");
  t[Symbol.dispose]();
  assertEquals([await same.tolist(), await here.tolist()], [[1, 2], [1, 2]]);
});

everywhere("to(device) carries values there and back", async (device) => {
  for (const dtype of ["float32", "bfloat16", "int64", "bool"] as const) {
    using t = Tensor.from([[1, 0], [1, 1]], { dtype });
    using there = await t.to(device);
    using used = ops.cat([there, there], 1);
    using back = await used.to("wasm");
    assertEquals([there.device, back.device, back.dtype], [device, "wasm", dtype]);
    const [a, b] = dtype === "bool" ? [true, false] : [1, 0];
    assertEquals(await back.tolist(), [[a, b, a, b], [a, a, a, a]]);
  }
});

everywhere("views share storage, which lives as long as one of them", async (device) => {
  const t = Tensor.from([[1.5, 2], [3, 4]], { device });
  const computed = ops.mul(t, 2);
  const live = liveBuffers();
  const row = ops.slice(computed, 0, 1);
  const flat = ops.reshape(computed, [4]);
  assertEquals(liveBuffers(), live, "views allocate nothing");
  computed[Symbol.dispose]();
  t[Symbol.dispose]();
  assertEquals(await row.tolist(), [[6, 8]]);
  row[Symbol.dispose]();
  assertEquals(await flat.tolist(), [3, 4, 6, 8]);
  flat[Symbol.dispose]();
});

liveTest("disposing twice is harmless, also where a view lives on", async () => {
  const t = Tensor.from([1.5, 2]);
  using view = ops.reshape(t, [2, 1]);
  t[Symbol.dispose]();
  t[Symbol.dispose]();
  assert(t.isDisposed && !view.isDisposed);
  assertEquals(await view.tolist(), [[1.5], [2]]);
});

liveTest("a disposed tensor is refused by every use, and still tells its shape", async () => {
  const t = Tensor.from([[1.5, 2]]);
  t[Symbol.dispose]();
  for (
    const use of [
      () => t.data(),
      () => t.tolist(),
      () => t.to("wasm"),
      () => t.to("float16"),
      () => t.to("webgpu"),
    ]
  ) {
    await assertRejects(use, InvalidArgument, "disposed");
  }
  using other = Tensor.from([[1.5, 2]]);
  const uses = [
    () => ops.add(t, other),
    () => ops.add(other, t),
    () => ops.reshape(t, [2]),
    () => ops.slice(t, 0, 0),
    () => ops.permute(t, [1, 0]),
    () => ops.cat([other, t]),
    () => ops.matmul(other, t, { transpose_b: true }),
    () => ops.softmax(t),
    () => ops.sum(t),
    () => ops.cast(t, "float16"),
  ];
  for (const use of uses) assertThrows(use, InvalidArgument, "disposed");
  assertEquals(t.shape, [1, 2]);
  assertStringIncludes(Deno.inspect(t), "disposed");
});

liveTest("making a tensor touches no device; using it allocates once", () => {
  const before = liveBuffers();
  const t = Tensor.from([1.5, 2]);
  using gpu = Tensor.from([1.5], { device: "webgpu" });
  assertEquals([liveBuffers() - before, gpu.device], [0, "webgpu"]);
  using a = ops.neg(t);
  assertEquals(liveBuffers() - before, 2);
  using b = ops.neg(t);
  assertEquals([liveBuffers() - before, a.shape, b.shape], [3, [2], [2]]);
  t[Symbol.dispose]();
});

liveTest("Deno.inspect shows what a tensor is", () => {
  using t = Tensor.from([[1.5, 2]]);
  assertEquals(Deno.inspect(t), 'Tensor([1,2], float32, "wasm")');
});

liveTest("reading waits for what was recorded before, and several reads agree", async () => {
  using t = Tensor.from(new Float32Array(1000).fill(1));
  using a = ops.tidy(() => ops.add(ops.mul(t, 3), 0.5));
  const [x, y] = await Promise.all([a.data(), a.data()]);
  assertEquals(x, y);
  assertStrictEquals((x as Float32Array)[999], 3.5);
});

reportSkipped();
