/**
 * The probe that chooses between kinds of register tiles.
 *
 * @module
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { support } from "../../mod.ts";
import type { KernelExports } from "../../src/devices/wasm/loader.ts";
import { TileProbe } from "../../src/devices/wasm/tiles.ts";

/** Kernels whose tiles take so many milliseconds a look, by a clock that only they move. */
function timed(narrow: number, wide: (look: number) => number): { probe: TileProbe; looks: () => number } {
  let now = 0, looks = 0;
  const kernels: KernelExports = {
    probe_tiles: (isWide) => now += isWide ? wide(looks) : narrow,
  };
  const probe = new TileProbe(6, () => now);
  return {
    probe,
    looks() {
      while (probe.verdict === null) {
        probe.look(kernels, 0);
        looks++;
      }
      return looks;
    },
  };
}

Deno.test("tiles: wide ones are chosen as soon as they gain more than a fifth, three looks in a row", () => {
  // A wide tile has 64 sums and a narrow one 48: in the same time wide ones are 4 / 3 as fast.
  const { probe, looks } = timed(0.1, () => 0.1);
  assertEquals(looks(), 3);
  assertEquals(probe.verdict, "wide");
  assertEquals(probe.gain.toFixed(3), "1.333");
});

Deno.test("tiles: code that becomes fast late is waited for", () => {
  const { probe, looks } = timed(0.1, (look) => look < 30 ? 0.4 : 0.07);
  assertEquals(looks(), 33);
  assertEquals(probe.verdict, "wide");
});

Deno.test("tiles: one fast look is no choice, and at most 60 are taken", () => {
  const { probe, looks } = timed(0.1, (look) => look % 3 === 0 ? 0.05 : 0.12);
  assertEquals(looks(), 60);
  assertEquals(probe.verdict, "narrow");
});

Deno.test("tiles: the probe ends after 20 ms", () => {
  const { probe, looks } = timed(3, () => 4);
  assertEquals(looks(), 3);
  assertEquals(probe.verdict, "narrow");
});

Deno.test("tiles: support says which tiles are used, and why", async () => {
  const rows = await support();
  const row = rows.find(({ device, implementation }) => device === "wasm" && implementation === "sdpa");
  assert(row !== undefined);
  assertMatch(
    row.why,
    /, (6 × 8 tiles \(4 × 16 are \d\.\d\d times as fast\)|4 × 16 tiles \(\d\.\d\d times as fast as 6 × 8\))$/,
  );
});
