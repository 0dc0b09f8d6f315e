/**
 * The allocator and the queue of a WASM engine, by themselves.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import fc from "../support/fast_check.ts";
import { ALIGN, Allocator, roundUp } from "../../src/devices/wasm/allocator.ts";
import type { Command } from "../../src/devices/wasm/command.ts";
import { Queue } from "../../src/devices/wasm/queue.ts";
import type { Allocation } from "../../src/devices/device.ts";
import { EngineFailure } from "../../src/errors.ts";

Deno.test("allocator: blocks are aligned, inside the range, never overlap, and the whole range comes back", () => {
  const action = fc.record({ take: fc.boolean(), bytes: fc.nat(5000), which: fc.nat(1000) });
  fc.assert(
    fc.property(fc.array(action, { maxLength: 200 }), fc.integer({ min: 0, max: 300 }), (actions, base) => {
      const limit = 64 * 400, allocator = new Allocator(base, limit);
      const whole = allocator.largest;
      const live: { at: number; bytes: number }[] = [];
      for (const { take, bytes, which } of actions) {
        if (take) {
          const at = allocator.take(bytes);
          if (at === undefined) {
            assert(allocator.largest < roundUp(bytes), "refused although there was room");
            continue;
          }
          assertEquals(at % ALIGN, 0);
          assert(at >= base && at + roundUp(bytes) <= limit, "outside the range");
          for (const other of live) {
            assert(
              at + roundUp(bytes) <= other.at || other.at + roundUp(other.bytes) <= at,
              "blocks overlap",
            );
          }
          live.push({ at, bytes });
        } else if (live.length > 0) {
          const [{ at, bytes }] = live.splice(which % live.length, 1) as [(typeof live)[number]];
          allocator.give(at, bytes);
        }
      }
      const used = live.reduce((n, b) => n + roundUp(b.bytes), 0);
      assert(allocator.largest <= whole - used);
      for (const { at, bytes } of live) allocator.give(at, bytes);
      assertEquals(allocator.largest, whole, "free ranges did not join");
      assertEquals(allocator.take(whole), Math.ceil(base / ALIGN) * ALIGN);
      assertEquals(allocator.take(1), undefined);
    }),
    { seed: 5, numRuns: 300 },
  );
});

Deno.test("allocator: an empty block has an address of its own, a grown range is used", () => {
  const allocator = new Allocator(0, 128);
  assertEquals([allocator.take(0), allocator.take(0), allocator.take(1)], [0, 64, undefined]);
  allocator.extend(256);
  assertEquals([allocator.limit, allocator.take(128), allocator.largest], [256, 128, 0]);
});

function command(kernel: string, parts = 1, cost = 1, writes: Allocation[] = []): Command {
  return { kernel, params: new Int32Array(0), parts, cost, writes };
}

const block = () => ({ device: null as never, bytes: 0, dropped: false });

Deno.test("queue: commands and writes run in order, each part once, in slices by cost", async () => {
  const ran: string[] = [];
  const queue = new Queue((c, begin, end) => void ran.push(`${c.kernel} ${begin}..${end}`));
  queue.push(command("cheap", 4, 10));
  queue.push(() => ran.push("write"));
  queue.push(command("dear", 5, 1e9));
  queue.push(command("empty", 0));
  assertEquals(queue.isEmpty, false);
  await queue.run();
  assertEquals(ran, ["cheap 0..4", "write", ...[0, 1, 2, 3, 4].map((i) => `dear ${i}..${i + 1}`)]);
  assertEquals(queue.isEmpty, true);
});

Deno.test("queue: any cost covers all parts without gaps", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 500 }),
      fc.double({ min: 0, max: 1e12, noNaN: true }),
      (parts, cost) => {
        let done = 0;
        const queue = new Queue((_, begin, end) => {
          assertEquals(begin, done);
          assert(end > begin && end <= parts);
          done = end;
        });
        queue.push(command("k", parts, cost));
        queue.runNow();
        assertEquals(done, parts);
      },
    ),
    { seed: 6, numRuns: 200 },
  );
});

Deno.test("queue: several runs at once share the work; what is pushed meanwhile is run", async () => {
  const ran: string[] = [];
  const queue = new Queue((c) => void ran.push(c.kernel));
  queue.push(command("a"));
  const first = queue.run();
  queue.push(command("b"));
  const second = queue.run();
  await Promise.all([first, second]);
  queue.push(command("c"));
  await queue.run();
  assertEquals(ran, ["a", "b", "c"]);
});

Deno.test("queue: a long queue runs without being asked", () => {
  let ran = 0;
  const queue = new Queue(() => void ran++);
  for (let i = 0; i < 50_000; i++) queue.push(command("k"));
  assert(ran >= 20_000, `only ${ran} ran`);
});

Deno.test("queue: an abort drops what is left, marks what it would have filled, and rejects with its reason", async () => {
  const first = block(), second = block(), reason = new Error("stop"), controller = new AbortController();
  let written = false;
  const queue = new Queue((c) => {
    if (c.kernel === "slow") controller.abort(reason);
    const until = performance.now() + 12;
    while (performance.now() < until);
  });
  queue.push(command("slow", 1, 1, [first]));
  queue.push(command("never", 1, 1, [second]));
  queue.push(() => written = true);
  assertStrictEquals(await assertRejects(() => queue.run(controller.signal)), reason);
  assertEquals([first.dropped, second.dropped], [false, true]);
  queue.push(command("later"));
  await queue.run();
  assertEquals(
    [written, queue.isEmpty],
    [true, true],
    "writes of host data keep their place: their tensors live on",
  );
});

Deno.test("queue: an abort drops what was recorded since a mark, and nothing of others", async () => {
  const ran: string[] = [], mine = block(), theirs = block(), controller = new AbortController();
  const queue = new Queue((c) => {
    ran.push(c.kernel);
    const until = performance.now() + 12;
    while (performance.now() < until);
    if (c.kernel === "before") controller.abort("enough");
  });
  queue.push(command("before", 1, 1, [theirs]));
  const { mark } = queue;
  for (let i = 0; i < 3; i++) queue.push(command("mine", 1, 1, [mine]));
  const aborted = queue.run(controller.signal, mark).then(() => "ran", (reason: unknown) => reason);
  queue.push(command("after", 1, 1, [theirs]));
  const after = queue.run();
  assertEquals(await aborted, "enough");
  await after;
  assertEquals([ran, mine.dropped, theirs.dropped], [["before", "after"], true, false]);
});

Deno.test("queue: an abort is honoured while the queue runs for somebody else", async () => {
  const ran: string[] = [], controller = new AbortController();
  const queue = new Queue((c) => {
    ran.push(c.kernel);
    const until = performance.now() + 12;
    while (performance.now() < until);
  });
  queue.push(command("theirs", 1, 1));
  const other = queue.run();
  const { mark } = queue;
  for (let i = 0; i < 50; i++) queue.push(command("mine", 1, 1));
  const aborted = queue.run(controller.signal, mark).then(() => "ran", (reason: unknown) => reason);
  setTimeout(() => controller.abort("enough"), 30);
  await other;
  assertEquals(await aborted, "enough");
  assert(ran.length < 20, `${ran.length} commands ran`);
});

Deno.test("queue: a trap ends it with a typed error that names the kernel", async () => {
  const lost = block();
  const queue = new Queue((c) => {
    if (c.kernel === "bad") throw new WebAssembly.RuntimeError("memory access out of bounds");
  });
  queue.push(command("good"));
  queue.push(command("bad"));
  queue.push(command("after", 1, 1, [lost]));
  const failure = await assertRejects(() => queue.run(), EngineFailure, '"bad"');
  assert(failure.cause instanceof WebAssembly.RuntimeError);
  assertEquals(lost.dropped, true);
  assertStrictEquals(await assertRejects(() => queue.run()), failure);
  assertEquals(queue.failure, failure);
  assertThrows(() => {
    if (queue.failure !== null) throw queue.failure;
  }, EngineFailure);
});
