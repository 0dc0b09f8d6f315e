/**
 * Caches of every kind against one that keeps lists of numbers, under any order of calls.
 *
 * @module
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import type { CacheSnapshot } from "../../src/cache/cache.ts";
import { DynamicCache } from "../../src/cache/dynamic.ts";
import type { LayeredCache } from "../../src/cache/layered.ts";
import { StaticCache } from "../../src/cache/static.ts";
import { PretrainedConfig } from "../../src/config.ts";
import { InvalidArgument } from "../../src/errors.ts";
import { Tensor } from "../../src/tensor.ts";
import { everywhere, liveTest, reportSkipped } from "../models/support.ts";
import fc from "../support/fast_check.ts";
import { states, tokens } from "./states.ts";

/** What a cache is made of; `max` makes it static. */
interface Kind {
  readonly window: number | null;
  readonly max: number | null;
}

function cacheOf({ window, max }: Kind): LayeredCache {
  const config = new PretrainedConfig({
    num_hidden_layers: 1,
    ...(window === null ? {} : { sliding_window: window }),
  });
  return max === null ? new DynamicCache({ config }) : new StaticCache({ config, max_cache_len: max });
}

/** A cache of one layer as the rules are written down: the tokens of every batch row, and nothing clever. */
class Naive {
  rows: number[][];
  readonly #kind: Kind;

  constructor(kind: Kind, batch: number) {
    this.#kind = kind;
    this.rows = Array.from({ length: batch }, () => []);
  }

  get seen(): number {
    return this.rows[0]!.length;
  }

  /** Slots of a static window, Infinity otherwise. */
  get #slots(): number {
    const { window, max } = this.#kind;
    return window === null ? Infinity : max === null ? window - 1 : Math.min(window, max);
  }

  sizes(q: number): [number, number] {
    const { window, max } = this.#kind, seen = this.seen;
    if (max === null) {
      return window === null || seen < window ? [seen + q, 0] : [window - 1 + q, seen - window + 1];
    }
    if (window === null) return [max, 0];
    const w = this.#slots;
    if (seen >= w) return [w + q - 1, seen - w + 1];
    return [seen + q > w ? seen + q : w, Math.max(seen - w + 1, 0)];
  }

  /** Adds tokens and says what attention gets of a row. */
  update(next: readonly (readonly number[])[], row: number): number[] {
    const [length, offset] = this.sizes(next[0]!.length);
    this.rows = this.rows.map((r, b) => [...r, ...next[b]!]);
    const given = this.rows[row]!.slice(offset);
    return [...given, ...new Array<number>(length - given.length).fill(0)];
  }

  canCrop(n: number): boolean {
    return n === 0 || n >= this.seen || this.seen <= this.#slots;
  }
}

type Step =
  | { readonly do: "update"; readonly n: number }
  | { readonly do: "crop"; readonly n: number }
  | { readonly do: "reorder"; readonly by: readonly number[] }
  | { readonly do: "save" | "restore" | "reset" };

const BATCH = 2;
const kind: fc.Arbitrary<Kind> = fc.record({
  window: fc.option(fc.integer({ min: 1, max: 9 })),
  max: fc.option(fc.integer({ min: 1, max: 30 })),
});
const row = fc.nat({ max: BATCH - 1 });
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant("update" as const), n: fc.integer({ min: 1, max: 3 }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant("update" as const), n: fc.integer({ min: 4, max: 90 }) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("crop" as const), n: fc.nat({ max: 5 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("reorder" as const), by: fc.tuple(row, row) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom("save" as const, "restore" as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("reset" as const) }) },
);

everywhere("any order of calls gives what lists of numbers give", async (device) => {
  await fc.assert(
    fc.asyncProperty(kind, fc.array(step, { maxLength: 25 }), async (kind, steps) => {
      using cache = cacheOf(kind);
      const naive = new Naive(kind, BATCH);
      let saved: { snapshot: CacheSnapshot; rows: number[][] } | null = null;
      let next = 1;
      for (const s of steps) {
        switch (s.do) {
          case "update": {
            using keys = states(next, s.n, { B: BATCH, device });
            using values = states(-next, s.n, { B: BATCH, device });
            if (kind.window === null && kind.max !== null && naive.seen + s.n > kind.max) {
              assertThrows(() => cache.update(keys, values, 0), InvalidArgument, "max_cache_len");
              break;
            }
            assertEquals(cache.get_mask_sizes(s.n), naive.sizes(s.n));
            const at = next % BATCH;
            const added = Array.from(
              { length: BATCH },
              (_, b) => Array.from({ length: s.n }, (_, i) => next + i + b / 8),
            );
            const expected = naive.update(added, at);
            assertEquals(await tokens(cache.update(keys, values, 0), at), expected);
            next += s.n;
            break;
          }
          case "crop":
            if (naive.canCrop(s.n)) {
              cache.crop(-s.n);
              naive.rows = naive.rows.map((r) => r.slice(0, Math.max(0, r.length - s.n)));
              // A snapshot is not valid beyond the point the cache went back to.
              saved?.snapshot[Symbol.dispose]();
              saved = null;
            } else assertThrows(() => cache.crop(-s.n), InvalidArgument, "moved on");
            break;
          case "reorder": {
            using beams = Tensor.from(s.by);
            cache.reorder_cache(beams);
            naive.rows = s.by.map((b) => [...naive.rows[b]!]);
            break;
          }
          case "save":
            saved?.snapshot[Symbol.dispose]();
            saved = { snapshot: cache.snapshot(), rows: naive.rows.map((r) => [...r]) };
            break;
          case "restore":
            if (saved === null) break;
            saved.snapshot.restore();
            naive.rows = saved.rows.map((r) => [...r]);
            break;
          case "reset":
            cache.reset();
            naive.rows = naive.rows.map(() => []);
            saved?.snapshot[Symbol.dispose]();
            saved = null;
            break;
        }
        assertEquals([cache.get_seq_length(), cache.get_query_offset()], [naive.seen, naive.seen]);
      }
      saved?.snapshot[Symbol.dispose]();
    }),
    { seed: 21, numRuns: device === "wasm" ? 150 : 4 },
  );
});

for (
  const [name, kind, most] of [
    ["all tokens", { window: null, max: null }, 6],
    ["a window", { window: 50, max: null }, 14],
    ["a window of fixed size", { window: 50, max: 400 }, 10],
    ["fixed size", { window: null, max: 400 }, 1],
  ] as const
) {
  liveTest(`a token costs no copy of the past: a cache of ${name} changes its storage rarely`, () => {
    using cache = cacheOf(kind);
    let changes = 0, last: unknown = null;
    for (let i = 1; i <= 400; i++) {
      using token = states(i, 1);
      const [k, v] = cache.update(token, token, 0);
      if (k.storage !== last) changes++;
      last = k.storage;
      k[Symbol.dispose]();
      v[Symbol.dispose]();
    }
    assert(changes <= most, `${changes} storages for 400 tokens, expected at most ${most}`);
  });
}

reportSkipped();
