/**
 * The test tools themselves: what is asserted here holds for `jsr:@std/assert@1` too, so either may be mapped.
 *
 * @module
 */
import * as a from "@std/assert";
import { seeded } from "./random.ts";
import { assertClose, assertSameBits, EXACT } from "./tolerance.ts";
import { stridesOf } from "./views.ts";

class Odd extends Error {
  override name = "Odd";
}

Deno.test("assertEquals compares structure, typed arrays, NaN, sets, maps and cycles", () => {
  a.assertEquals({ a: [1, { b: new Float32Array([1, NaN]) }] }, {
    a: [1, { b: new Float32Array([1, NaN]) }],
  });
  a.assertEquals(0, -0);
  a.assertEquals(new Set([[1]]), new Set([[1]]));
  a.assertEquals(new Map([[{ a: 1 }, 2]]), new Map([[{ a: 1 }, 2]]));
  a.assertEquals({ a: 1 }, Object.assign(Object.create(null), { a: 1 }));
  const loop: Record<string, unknown> = {};
  loop.me = loop;
  a.assertEquals(loop, loop);
});

Deno.test("assertEquals tells apart lengths, kinds, missing keys and values", () => {
  const pairs: readonly (readonly [unknown, unknown])[] = [
    [[1, 2], [1, 3]],
    [[1], [1, 2]],
    [{ a: undefined }, {}],
    [{}, { a: undefined }],
    [{ a: 1 }, { b: 1 }],
    [new Float32Array([1]), new Float64Array([1])],
    [new Float32Array([1]), new Float32Array([2])],
    [null, undefined],
    ["1", 1],
    [new Odd("a"), new Odd("b")],
    [new Map([[1, 2]]), new Map([[1, 3]])],
  ];
  for (const [x, y] of pairs) {
    a.assertThrows(() => a.assertEquals(x, y), a.AssertionError);
    a.assertNotEquals(x, y);
  }
  a.assertThrows(() => a.assertStrictEquals(0, -0), a.AssertionError);
});

Deno.test("assertThrows and assertRejects check class and message and return the error", async () => {
  const odd = () => {
    throw new Odd("hello");
  };
  const thrown: Odd = a.assertThrows(odd, Odd, "ell");
  a.assertEquals(thrown.message, "hello");
  a.assertThrows(() => a.assertThrows(odd, TypeError), a.AssertionError);
  a.assertThrows(() => a.assertThrows(odd, Odd, "bye"), a.AssertionError);
  a.assertThrows(() => a.assertThrows(() => {}), a.AssertionError);
  const rejected: Odd = await a.assertRejects(() => Promise.reject(new Odd("bye")), Odd, "by");
  a.assertEquals(rejected.message, "bye");
  await a.assertRejects(() => a.assertRejects(() => Promise.resolve(1)), a.AssertionError);
});

Deno.test("the other assertions pass and fail as they should", () => {
  const fails = (fn: () => void) => a.assertThrows(fn, a.AssertionError);
  a.assertAlmostEquals(1, 1.1, 0.2), fails(() => a.assertAlmostEquals(1, 1.1));
  a.assertStringIncludes("abc", "b"), fails(() => a.assertStringIncludes("abc", "d"));
  a.assertArrayIncludes([1, [2]], [[2]]), fails(() => a.assertArrayIncludes([1], [2]));
  a.assertMatch("abc", /b/), fails(() => a.assertMatch("abc", /d/));
  a.assertGreater(2, 1), fails(() => a.assertGreater(1, 1));
  a.assertLess(1, 2), fails(() => a.assertLess(1, 1));
  a.assertGreaterOrEqual(1, 1), fails(() => a.assertGreaterOrEqual(0, 1));
  a.assertLessOrEqual(1, 1), fails(() => a.assertLessOrEqual(1, 0));
  a.assertExists(0), fails(() => a.assertExists(null));
  a.assertFalse(0), fails(() => a.assertFalse(1));
  a.assertInstanceOf(new Odd("x"), Error), fails(() => a.assertInstanceOf(1, Error));
  a.assertObjectMatch({ a: 1, b: { c: 2, d: 3 } }, { b: { c: 2 } });
  fails(() => a.assertObjectMatch({ a: 1 }, { a: 2 }));
  fails(() => a.fail("no"));
});

Deno.test("assertClose reports the worst element, and NaN and infinities only where expected", () => {
  const tolerance = { atol: 0.1, rtol: 0 };
  assertClose([1.05, NaN, Infinity], [1, NaN, Infinity], tolerance);
  for (const [x, y] of [[NaN, 1], [1, NaN], [Infinity, 1], [1, Infinity], [-Infinity, Infinity]] as const) {
    a.assertThrows(() => assertClose([x], [y], tolerance), a.AssertionError);
  }
  const text =
    a.assertThrows(() => assertClose([1.2, 3, 5], [1, 2, 5], tolerance, "x"), a.AssertionError).message;
  a.assertStringIncludes(text, "x: 2 of 3 elements differ; worst at index 1: actual 3, expected 2, error 1");
  a.assertThrows(() => assertClose([1], [1, 2], EXACT), a.AssertionError, "1 elements, expected 2");
  a.assertThrows(() => assertSameBits([0], [-0]), a.AssertionError, "index 0");
});

Deno.test("the same seed gives the same numbers, another seed others", () => {
  a.assertEquals(seeded("x").normal(8), seeded("x").normal(8));
  a.assertNotEquals(seeded("x").normal(8), seeded("y").normal(8));
  const many = seeded(1).normal(4000);
  a.assertLess(Math.abs(many.reduce((s, x) => s + x, 0) / 4000), 0.1);
  const ints = seeded(2).ints(1000, -2, 3);
  a.assertEquals([...new Set(ints)].sort(), [-1, -2, 0, 1, 2]);
});

Deno.test("layouts: permuted, spare and broadcast axes", () => {
  a.assertEquals(stridesOf([2, 3, 4]), { strides: [12, 4, 1], offset: 0, length: 24 });
  a.assertEquals(stridesOf([2, 3, 4], { order: [1, 0, 2] }), { strides: [4, 8, 1], offset: 0, length: 24 });
  a.assertEquals(stridesOf([2, 3], { spare: [0, 2], offset: 5 }), { strides: [5, 1], offset: 5, length: 15 });
  a.assertEquals(stridesOf([2, 3], { broadcast: [0] }), { strides: [0, 1], offset: 0, length: 3 });
});
