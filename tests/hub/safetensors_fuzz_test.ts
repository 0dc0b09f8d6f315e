import { assert, assertEquals } from "@std/assert";
import { ModelFileError } from "../../src/errors.ts";
import { openSafetensors, STORED_DTYPES } from "../../src/hub/safetensors.ts";
import { writeSafetensors } from "../../src/hub/safetensors_write.ts";
import { bytesSource } from "../../src/hub/source.ts";
import fc from "../support/fast_check.ts";

const VALID = writeSafetensors({
  "model.a": { dtype: "float32", shape: [2, 3], data: new Float32Array(6) },
  "model.b": { dtype: "bfloat16", shape: [5], data: new Uint16Array(5) },
  "model.c": { dtype: "uint8", shape: [0, 4], data: new Uint8Array(0) },
  "d": { dtype: "int64", shape: [], data: new BigInt64Array(1) },
}, { format: "pt" });

/** If a file is accepted, its tensors must tile its data exactly and streaming must give each byte once; says whether it was accepted. */
async function neverWronglyAccepted(bytes: Uint8Array): Promise<boolean> {
  let opened;
  try {
    opened = await openSafetensors(bytesSource(bytes));
  } catch (error) {
    assert(error instanceof ModelFileError, `untyped error: ${error}`);
    return false;
  }
  using file = opened;
  const headerBytes = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  let at = 8 + headerBytes;
  for (const [name, tensor] of file.tensors) {
    assertEquals(name, tensor.name);
    assertEquals(tensor.offset, at);
    const elements = tensor.shape.reduce((product, dim) => product * dim, 1);
    assertEquals(tensor.bytes, elements * STORED_DTYPES[tensor.stored]!.bytes);
    at += tensor.bytes;
    if (tensor.dtype === null) continue;
    let next = 0;
    await file.stream(name, (chunk, offset) => {
      assertEquals(offset, next);
      const there = bytes.subarray(tensor.offset + offset, tensor.offset + offset + chunk.length);
      assertEquals(chunk, there);
      next += chunk.length;
    }, { chunk_bytes: 64 });
    assertEquals(next, tensor.bytes);
  }
  assertEquals(at, bytes.length);
  return true;
}

Deno.test("safetensors: flipped, cut, grown and spliced bytes are refused or harmless", async () => {
  const mutation = fc.oneof(
    fc.record({
      at: fc.nat(VALID.length - 1),
      cut: fc.constant(0),
      insert: fc.uint8Array({ minLength: 1, maxLength: 1 }),
    }),
    fc.record({ at: fc.nat(VALID.length), cut: fc.nat(40), insert: fc.uint8Array({ maxLength: 40 }) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(mutation, { minLength: 1, maxLength: 3 }), async (mutations) => {
      let bytes: Uint8Array = VALID;
      for (const { at, cut, insert } of mutations) {
        const skip = cut === 0 && insert.length === 1 ? 1 : cut;
        const tail = bytes.subarray(Math.min(bytes.length, at + skip));
        bytes = Uint8Array.from([...bytes.subarray(0, at), ...insert, ...tail]);
      }
      await neverWronglyAccepted(bytes);
    }),
    { numRuns: 1000, seed: 1 },
  );
});

/** A file with `header` and `dataBytes` of data. */
function fileOf(header: unknown, dataBytes: number): Uint8Array {
  const json = new TextEncoder().encode(JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes;
}

Deno.test("safetensors: layouts that are nearly right are refused or harmless", async () => {
  const number = fc.oneof(
    fc.nat(40),
    fc.constantFrom(2 ** 31, 2 ** 32, 2 ** 53 - 1, 2 ** 53, -1, 1.5, 1e300),
  );
  const tensor = fc.record({
    dtype: fc.constantFrom(...Object.keys(STORED_DTYPES)),
    shape: fc.array(fc.nat(3), { maxLength: 3 }),
  });
  // Each kind of damage breaks one rule while the others still hold, so that no rule hides another.
  const damage = fc.record({
    kind: fc.constantFrom("begin", "end", "shift", "stretch", "dim", "dtype", "data", "replace", "none"),
    at: fc.nat(7),
    by: fc.constantFrom(-8, -4, -2, -1, 1, 2, 4, 8),
    number,
    dtype: fc.constantFrom(...Object.keys(STORED_DTYPES), "F8_E5M2", "F4", ""),
  });
  let accepted = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(tensor, { minLength: 1, maxLength: 5 }),
      fc.array(damage, { maxLength: 2 }),
      fc.boolean(),
      async (tensors, damages, reversed) => {
        let dataBytes = 0;
        const list = tensors.map(({ dtype, shape }) => {
          const begin = dataBytes;
          dataBytes += shape.reduce((product, dim) => product * dim, STORED_DTYPES[dtype]!.bytes);
          return { dtype, shape: [...shape], data_offsets: [begin, dataBytes] };
        });
        for (const { kind, at, by, number, dtype } of damages) {
          const i = at % list.length;
          const { shape, data_offsets } = list[i]!;
          const move = (k: number, side: 0 | 1) => list[k]!.data_offsets[side]! += by;
          if (kind === "begin") move(i, 0);
          if (kind === "end") move(i, 1);
          if (kind === "shift" || kind === "stretch") {
            if (kind === "shift") move(i, 0);
            move(i, 1);
            for (let k = i + 1; k < list.length; k++) for (const side of [0, 1] as const) move(k, side);
          }
          if (kind === "shift" || kind === "stretch" || kind === "data") {
            dataBytes = Math.max(0, dataBytes + by);
          }
          if (kind === "dim" && shape.length > 0) shape[at % shape.length]! += by;
          if (kind === "dtype") list[i]!.dtype = dtype;
          if (kind === "replace") (at % 2 === 0 ? shape : data_offsets)[0] = number;
        }
        const entries = list.map((entry, i) => [`t${i}`, entry]);
        const header = Object.fromEntries(reversed ? entries.reverse() : entries);
        if (await neverWronglyAccepted(fileOf(header, dataBytes))) accepted++;
        else assert(damages.length > 0, "an undamaged file was refused");
      },
    ),
    { numRuns: 3000, seed: 2 },
  );
  assert(accepted > 300, `only ${accepted} files were accepted, the property says little`);
});

Deno.test("safetensors: any set of tensors survives a round trip", async () => {
  const tensor = fc.record({
    dtype: fc.constantFrom("float32", "bfloat16", "int8", "int64", "bool"),
    shape: fc.array(fc.nat(5), { maxLength: 3 }),
  });
  const name = fc.string({ minLength: 1, maxLength: 12, unit: "grapheme" }).filter((s) =>
    !["__proto__", "constructor", "prototype", "__metadata__"].includes(s) && s.isWellFormed()
  );
  await fc.assert(
    fc.asyncProperty(fc.dictionary(name, tensor, { maxKeys: 8 }), async (shapes) => {
      const sizes = { float32: 4, bfloat16: 2, int8: 1, int64: 8, bool: 1 } as const;
      let next = 0;
      const tensors = Object.fromEntries(
        Object.entries(shapes).map(([key, { dtype, shape }]) => {
          const bytes = shape.reduce((product, dim) => product * dim, 1) * sizes[dtype];
          return [key, { dtype, shape, data: new Uint8Array(bytes).map(() => next++) }];
        }),
      );
      const written = writeSafetensors(tensors);
      await neverWronglyAccepted(written);
      using file = await openSafetensors(bytesSource(written));
      assertEquals(file.tensors.size, Object.keys(tensors).length);
      for (const [key, { dtype, shape, data }] of Object.entries(tensors)) {
        const stored = file.tensor(key);
        assertEquals([stored.dtype, stored.shape], [dtype, shape]);
        assertEquals(written.slice(stored.offset, stored.offset + stored.bytes), data);
      }
    }),
    { numRuns: 200, seed: 3 },
  );
});
