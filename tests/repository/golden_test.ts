/**
 * The recordings are the ones their index describes.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { goldenIndex, goldenPath } from "../support/golden.ts";

Deno.test("recordings: every file has the recorded size and sha256", async () => {
  for (const [name, { bytes, sha256 }] of Object.entries(goldenIndex().files)) {
    const content = await Deno.readFile(goldenPath(name));
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content)).toHex();
    assertEquals({ name, bytes: content.length, sha256: digest }, { name, bytes, sha256 });
  }
});

Deno.test("recordings: the index holds as many cases of each group as it says", () => {
  const counts: Record<string, number> = {};
  for (const { group } of goldenIndex().cases) counts[group] = (counts[group] ?? 0) + 1;
  assertEquals(counts, { ...goldenIndex().counts });
});
