import { assert, assertEquals, assertInstanceOf, assertRejects, assertStringIncludes } from "@std/assert";
import { ModelFileError } from "../../src/errors.ts";
import { openFolder } from "../../src/hub/files.ts";
import { openSafetensors, type SafetensorsFile, type StreamOptions } from "../../src/hub/safetensors.ts";
import { writeSafetensors } from "../../src/hub/safetensors_write.ts";
import { type ByteSource, bytesSource } from "../../src/hub/source.ts";
import { openWeights } from "../../src/hub/weights.ts";

const root = new URL("../", import.meta.url);

/** A file of `header` (text, or JSON of an object) and `dataBytes` of data; `length` overrides the length field. */
function file(header: unknown, dataBytes: number, length?: bigint): Uint8Array {
  const json = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.byteLength + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, length ?? BigInt(json.byteLength), true);
  bytes.set(json, 8);
  return bytes;
}

const entry = (dtype: string, shape: number[], begin: number, end: number) => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});

async function collect(
  weights: Pick<SafetensorsFile, "tensor" | "stream">,
  name: string,
  options: StreamOptions = {},
): Promise<Uint8Array> {
  const out = new Uint8Array(weights.tensor(name).bytes).fill(0xee);
  await weights.stream(name, (chunk, at) => out.set(chunk, at), options);
  return out;
}

const F32 = entry("F32", [2], 0, 8);
const text = JSON.stringify(F32);

/** Malformed files: what is wrong, the bytes, and what the message must say. */
const HOSTILE: readonly (readonly [what: string, bytes: Uint8Array, says: string])[] = [
  ["empty file", new Uint8Array(0), "at least 8 bytes, it has 0"],
  ["7 bytes", new Uint8Array(7), "at least 8 bytes, it has 7"],
  ["length 0", new Uint8Array(8), "its length says 0"],
  ["length 2^63", file({ a: F32 }, 8, 2n ** 63n), "its length says 9223372036854775808"],
  ["length 2^64 - 1", file({ a: F32 }, 8, 2n ** 64n - 1n), "its length says 18446744073709551615"],
  ["length beyond the file", file({ a: F32 }, 0, 10_000n), "its length says 10000"],
  ["not JSON", file("hello, world", 0), "must begin with"],
  ["JSON of another kind", file("[1,2,3]", 0), "must begin with"],
  ["not UTF-8", Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe), "not UTF-8"],
  ["cut JSON", file(`{"a":${text}`, 8), "found the end"],
  ["text after the JSON", file(`{"a":${text}}{}`, 8), "nothing after"],
  ["the same name twice", file(`{"a":${text},"a":${text}}`, 8), `"a": the name comes twice`],
  ["the same name twice, escaped", file(`{"a":${text},"\\u0061":${text}}`, 8), "comes twice"],
  [
    "the same field twice",
    file(`{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8),
    "comes twice",
  ],
  ["__proto__", file(`{"__proto__":${text}}`, 8), "reserved"],
  ["__proto__, escaped", file(`{"__pr\\u006fto__":${text}}`, 8), "reserved"],
  ["constructor in metadata", file(`{"__metadata__":{"constructor":"x"}}`, 0), "reserved"],
  ["metadata that is no string", file(`{"__metadata__":{"a":{"b":"c"}}}`, 0), "string value"],
  ["an entry that is no object", file(`{"a":[]}`, 0), `tensor "a"`],
  ["an unknown field", file({ a: { ...F32, extra: 1 } }, 8), `found "extra"`],
  ["overlap", file({ a: F32, b: entry("F32", [2], 4, 12) }, 12), "overlaps"],
  ["the same span twice", file({ a: F32, b: F32 }, 8), "overlaps"],
  ["a hole", file({ a: F32, b: entry("F32", [1], 12, 16) }, 16), "hole"],
  ["a hole at the start", file({ a: entry("F32", [2], 8, 16) }, 16), "hole"],
  ["end before begin", file({ a: entry("F32", [2], 8, 0) }, 8), "span 8 bytes"],
  ["a zero-size tensor inside another", file({ a: F32, b: entry("F32", [0], 4, 4) }, 8), "overlaps"],
  ["span too small", file({ a: entry("F32", [3], 0, 8) }, 8), "span 12 bytes"],
  ["span too large", file({ a: entry("F16", [2], 0, 8) }, 8), "span 4 bytes"],
  [
    "product that wraps to 4",
    file({ a: entry("F32", [4294967296, 4294967296, 4], 0, 16) }, 16),
    "at most 2^53 bytes",
  ],
  ["product just over 2^53", file({ a: entry("F64", [1125899906842624, 2], 0, 8) }, 8), "at most 2^53 bytes"],
  [
    "a huge dimension beside a zero",
    file({ a: entry("F64", [0, 9007199254740991], 0, 0) }, 0),
    "at most 2^53",
  ],
  [
    "a dimension beyond 2^53",
    file(`{"a":{"dtype":"U8","shape":[9007199254740993],"data_offsets":[0,8]}}`, 8),
    "2^53",
  ],
  ["a negative dimension", file({ a: entry("F32", [-2], 0, 8) }, 8), "non-negative integer"],
  ["a fractional dimension", file({ a: entry("F32", [2.5], 0, 8) }, 8), "non-negative integer"],
  ["a dimension as text", file(`{"a":{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}}`, 8), "dimension"],
  ["too many dimensions", file({ a: entry("F32", Array(33).fill(1), 0, 4) }, 4), "at most 32"],
  ["an unknown dtype", file({ a: entry("F31", [2], 0, 8) }, 8), `found "F31"`],
  ["a lower-case dtype", file({ a: entry("f32", [2], 0, 8) }, 8), "F64, F32"],
  ["an 8-bit float", file({ a: entry("F8_E4M3", [8], 0, 8) }, 8), `found "F8_E4M3"`],
  ["a sub-byte dtype", file({ a: entry("F4", [16], 0, 8) }, 8), `found "F4"`],
  ["truncated data", file({ a: F32 }, 7), "after the end"],
  ["trailing data", file({ a: F32 }, 9), "there are 9 bytes"],
  ["data without tensors", file({}, 1), "there are 1 bytes"],
  ["a long name", file({ ["n".repeat(1025)]: F32 }, 8), "1 to 1024 bytes"],
  ["deep nesting", file(`{"a":`.repeat(100_000), 0), "expected"],
  ["deep lists", file(`{"a":{"shape":${"[".repeat(100_000)}`, 0), "expected"],
];

Deno.test("safetensors: malformed files are refused with a message that says why", async (t) => {
  for (const [what, bytes, says] of HOSTILE) {
    await t.step(what, async () => {
      const error = await assertRejects(() => openSafetensors(bytesSource(bytes, "bad.bin")), ModelFileError);
      assertStringIncludes(error.message, says);
      assertStringIncludes(error.message, "bad.bin");
      assert(error.message.length < 600, "messages are bounded");
    });
  }
});

Deno.test("safetensors: a header over the cap is refused before it is read", async () => {
  let reads = 0;
  const source: ByteSource = {
    name: "huge.bin",
    size: 2 ** 40,
    read(_offset, into) {
      reads += into.byteLength;
      new DataView(into.buffer).setBigUint64(0, 100_000_001n, true);
      return Promise.resolve();
    },
    close() {},
    [Symbol.dispose]() {},
  };
  await assertRejects(() => openSafetensors(source), ModelFileError, "at most 100000000 bytes");
  assertEquals(reads, 8);
});

Deno.test("safetensors: a hundred thousand tiny tensors open within a bounded time", async () => {
  const parts: string[] = [];
  for (let i = 0; i < 100_000; i++) {
    parts.push(`"layer.${(i * 7919) % 100_000}.w":{"dtype":"U8","shape":[1],"data_offsets":[${i},${i + 1}]}`);
  }
  const bytes = file(`{${parts.join(",")}}`, 100_000);
  bytes.fill(7, bytes.length - 100_000);
  const start = performance.now();
  using opened = await openSafetensors(bytesSource(bytes));
  let seen = 0;
  await opened.stream(null, (chunk) => {
    seen += chunk.length;
  });
  assertEquals([opened.tensors.size, seen], [100_000, 100_000]);
  const ms = performance.now() - start;
  assert(ms < 10_000, `took ${ms} ms`);
});

Deno.test("safetensors: what is written is read back, in the order of the reference", async () => {
  const tensors = {
    "z.weight": { dtype: "float32", shape: [2, 2], data: new Float32Array([NaN, -Infinity, 1e-45, -0]) },
    "a.half": { dtype: "float16", shape: [3], data: new Float16Array([1, 2, 3]) },
    "a.brain": { dtype: "bfloat16", shape: [1, 1], data: new Uint16Array([0x3f80]) },
    "ids": { dtype: "int64", shape: [2], data: new BigInt64Array([-1n, 2n ** 40n]) },
    "7": { dtype: "bool", shape: [3], data: new Uint8Array([1, 0, 1]) },
    "i8": { dtype: "int8", shape: [1], data: new Int8Array([-7]) },
    "empty": { dtype: "float32", shape: [0, 5], data: new Float32Array(0) },
    "scalar": { dtype: "int32", shape: [], data: new Int32Array([42]) },
    'ünï"\\code': { dtype: "uint8", shape: [1], data: new Uint8Array([9]) },
  } as const;
  const bytes = writeSafetensors(tensors, { format: "pt", note: 'a "quote"' });
  using opened = await openSafetensors(bytesSource(bytes));
  assertEquals([...opened.tensors.keys()], [
    "ids",
    "empty",
    "z.weight",
    "scalar",
    "a.brain",
    "a.half",
    "i8",
    'ünï"\\code',
    "7",
  ]);
  assertEquals([...opened.metadata], [["format", "pt"], ["note", 'a "quote"']]);
  for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
    const info = opened.tensor(name);
    assertEquals([info.dtype, info.shape], [dtype, shape], name);
    assertEquals(
      await collect(opened, name),
      new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
      name,
    );
  }
});

Deno.test("safetensors: writing refuses what could not be read", async (t) => {
  const data = new Float32Array(2);
  const cases: [string, () => unknown, string][] = [
    [
      "wrong length",
      () => writeSafetensors({ a: { dtype: "float32", shape: [3], data } }),
      "expected 12 bytes",
    ],
    [
      "bad shape",
      () => writeSafetensors({ a: { dtype: "float32", shape: [-2], data } }),
      "its shape is [-2]",
    ],
    ["overflow", () => writeSafetensors({ a: { dtype: "float32", shape: [2 ** 50, 8], data } }), "its shape"],
    ["reserved", () => writeSafetensors({ prototype: { dtype: "float32", shape: [2], data } }), "reserved"],
    ["empty name", () => writeSafetensors({ "": { dtype: "float32", shape: [2], data } }), "1 to 1024"],
  ];
  for (const [what, act, says] of cases) {
    await t.step(what, () => {
      try {
        act();
      } catch (error) {
        assertInstanceOf(error, Error);
        assertEquals(error.name, "InvalidArgument");
        return assertStringIncludes(error.message, says);
      }
      throw new Error("was not refused");
    });
  }
});

Deno.test("safetensors: chunks of every size carry the same bytes, in whole elements", async () => {
  const a = new BigInt64Array(41).map((_, i) => BigInt(i) * 0x0102_0304_0506n);
  const b = new Uint8Array(333).map((_, i) => i * 31);
  const c = new Float16Array(97).map((_, i) => i / 8);
  const source = bytesSource(writeSafetensors({
    a: { dtype: "int64", shape: [41], data: a },
    b: { dtype: "uint8", shape: [333], data: b },
    c: { dtype: "float16", shape: [97], data: c },
  }));
  using opened = await openSafetensors(source);
  for (const chunk_bytes of [64, 65, 71, 100, 127, 328, 329, 1000, 4 * 2 ** 20]) {
    const got = new Map<string, Uint8Array>();
    const order: string[] = [];
    await opened.stream(null, (chunk, at, tensor) => {
      const size = { int64: 8, float16: 2 }[tensor.dtype as string] ?? 1;
      assert(chunk.length > 0 && chunk.length <= chunk_bytes && chunk.length % size === 0);
      const out = got.get(tensor.name) ?? new Uint8Array(tensor.bytes);
      if (at === 0) order.push(tensor.name);
      got.set(tensor.name, out);
      out.set(chunk, at);
    }, { chunk_bytes });
    assertEquals(order, ["a", "c", "b"]);
    assertEquals(got.get("a"), new Uint8Array(a.buffer));
    assertEquals(got.get("b"), b);
    assertEquals(got.get("c"), new Uint8Array(c.buffer));
    assertEquals(await collect(opened, "c", { chunk_bytes }), new Uint8Array(c.buffer));
  }
  // A subset skips what lies between, and a name given twice is read once.
  let total = 0;
  await opened.stream(["b", "a", "b"], (chunk) => {
    total += chunk.length;
  }, { chunk_bytes: 100 });
  assertEquals(total, 333 + 328);
  await assertRejects(() => opened.stream(null, () => {}, { chunk_bytes: 8 }), Error, "from 64 to 2^30");
});

Deno.test("safetensors: an abort stops between two chunks, with the signal's reason", async () => {
  const source = bytesSource(writeSafetensors({
    a: { dtype: "uint8", shape: [1000], data: new Uint8Array(1000) },
  }));
  using opened = await openSafetensors(source);
  const abort = new AbortController();
  let chunks = 0;
  const error = await assertRejects(() =>
    opened.stream("a", () => {
      if (++chunks === 3) abort.abort(new Error("enough"));
    }, { signal: abort.signal, chunk_bytes: 64 })
  );
  assertInstanceOf(error, Error);
  assertEquals([error.message, chunks], ["enough", 3]);
  await assertRejects(() => opened.stream([], () => {}, { signal: abort.signal }));
  // The file is still usable.
  assertEquals((await collect(opened, "a")).length, 1000);
});

Deno.test("safetensors: dtypes we cannot load are listed and refused when asked for", async () => {
  const bytes = file({
    x: entry("F64", [1], 0, 8),
    y: entry("F32", [1], 8, 12),
    z: entry("U16", [2], 12, 16),
  }, 16);
  using opened = await openSafetensors(bytesSource(bytes, "mixed.bin"));
  assertEquals(opened.tensors.get("x")?.dtype, null);
  assertEquals(opened.tensor("y").dtype, "float32");
  await assertRejects(() => opened.stream("x", () => {}), ModelFileError, "it is F64");
  await assertRejects(
    () => opened.stream(null, () => {}),
    ModelFileError,
    "F32, F16, BF16, I64, I32, I8, U8, BOOL",
  );
  await assertRejects(
    () => opened.stream("w", () => {}),
    ModelFileError,
    `Cannot find tensor "w" among the 3`,
  );
});

Deno.test("safetensors: the files of a real model", async () => {
  const files = await openFolder(new URL("golden/models/llama", root));
  using weights = await openWeights(files);
  assertEquals(weights.metadata.get("format"), "pt");
  const embed = weights.tensor("model.embed_tokens.weight");
  assertEquals([embed.dtype, embed.shape], ["float32", [64, 32]]);
  let bytes = 0;
  await weights.stream(null, (chunk) => {
    bytes += chunk.length;
  }, { chunk_bytes: 1000 });
  assertEquals(bytes, [...weights.tensors.values()].reduce((sum, t) => sum + t.bytes, 0));

  // What the reference wrote is what we write, byte for byte.
  const original = await Deno.readFile(new URL("golden/models/llama/model.safetensors", root));
  const copy: Record<string, { dtype: "float32"; shape: readonly number[]; data: Uint8Array }> = {};
  for (const name of weights.tensors.keys()) {
    copy[name] = { dtype: "float32", shape: weights.tensor(name).shape, data: await collect(weights, name) };
  }
  const written = writeSafetensors(copy, { format: "pt" });
  assertEquals(written.length, original.length);
  assert(written.every((byte, i) => byte === original[i]), "the bytes differ");
});

Deno.test("safetensors: the demo model in bfloat16", async () => {
  using weights = await openWeights(await openFolder(new URL("models/demo", root)));
  assertEquals(weights.tensor("model.embed_tokens.weight").dtype, "bfloat16");
  let largest = 0;
  let bytes = 0;
  await weights.stream(null, (chunk) => {
    largest = Math.max(largest, chunk.length);
    bytes += chunk.length;
  }, { chunk_bytes: 1 << 20 });
  assert(bytes > 10_000_000 && largest <= 1 << 20);
});
