/**
 * What formats cost over held-out text, of which this is a small part: bench/quality.ts takes all of it.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { liveTest } from "../models/support.ts";
import { FORMATS, measureQuality, tooDear } from "../support/quality.ts";

liveTest("formats: none costs more than it may, and what rounds shows", async () => {
  const { qualities, bytes } = await measureQuality(FORMATS, { length: 48, most: 1 });
  assert(bytes > 2000, `${bytes} bytes`);
  assertEquals(tooDear(qualities, FORMATS), []);
  const of = (name: string) => qualities.find((q) => q.name === name)!;
  // The reference of all: what it says is text of this book.
  assert(of("float32").bits_per_byte < 2);
  const rounding = ["float32", "float16", "Q8_0", "int8", "int4", "Q4_0"].map((name) => of(name).rms);
  assertEquals(rounding, rounding.toSorted((a, b) => a - b));
  const cached = ["float32", "cache float16", "cache bfloat16", "cache int8"].map((name) => of(name).rms);
  assertEquals(cached, cached.toSorted((a, b) => a - b));
  assert(rounding[1]! > 0 && cached[1]! > 0);
});

liveTest("formats: a cost beyond its limit is told", async () => {
  const strict = FORMATS.slice(0, 4).map((format) => ({
    ...format,
    limits: { bits: 1, rms: format.name === "int8" ? 1e-3 : 1, max: 100, other: 1 },
  }));
  const { qualities } = await measureQuality(strict, { length: 16, most: 1 });
  const dear = tooDear(qualities, strict);
  assertEquals(dear.length, 1);
  assert(dear[0]!.startsWith("int8: rms 0.0"), dear[0]);
  assertEquals(tooDear([{ ...qualities[0]!, bits: NaN }], strict).length, 1);
});
