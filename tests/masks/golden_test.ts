/**
 * Masks against what Transformers really builds, but for the cases where this project decides otherwise: those are
 * listed one by one, with our value and the number of the decision, in `tests/golden/decided.json`.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { find_packed_sequence_indices, flashSequences } from "../../src/masks/packed.ts";
import { type GoldenCase, goldenCases, goldenPath, type GoldenValue } from "../support/golden.ts";
import { difference, FORMATTERS, run } from "./golden_run.ts";

/** A recorded case this project answers differently. */
interface Decided {
  readonly id: string;
  readonly backend?: string;
  /** 7 refusal under flash, 13 packing without causality, 18 packing per row, 19 short padding extended. */
  readonly point: number;
  readonly value: GoldenValue;
}

const decided = JSON.parse(Deno.readTextFileSync(goldenPath("decided.json"))) as readonly Decided[];
const key = (id: string, backend = ""): string => `${id} ${backend}`.trim();
const decisions = new Map(decided.map((d) => [key(d.id, d.backend), d.value]));

/** Backends of these groups. */
const BACKENDS = [...Object.keys(FORMATTERS), "not_a_registered_backend"];

for (const group of ["mask", "mask_formatter", "mask_generate"]) {
  const cases = goldenCases(group);
  for (const backend of BACKENDS) {
    const rows = cases.filter((c) => expected(c, backend) !== undefined);
    if (rows.length === 0) continue;
    Deno.test(`golden ${group}: ${rows.length} masks for ${backend}`, () => {
      const differing: string[] = [], wrong: string[] = [];
      for (const c of rows) {
        const outcome = withoutWarnings(() => run(c, backend));
        const ours = decisions.get(key(c.id, backend));
        if (difference(outcome, expected(c, backend)!) !== null) differing.push(c.id);
        const fault = difference(outcome, ours ?? expected(c, backend)!);
        if (fault !== null) wrong.push(`${c.id} ${fault}`);
      }
      assertEquals(wrong, []);
      const listed = decided.filter((d) => d.backend === backend && rows.some((c) => c.id === d.id)).map((
        d,
      ) => d.id);
      assertEquals(differing, listed, "exactly the listed cases differ from the recording");
    });
  }
}

Deno.test("golden packed: sequences are found as recorded, and for every row", async () => {
  const differing: string[] = [];
  for (const c of goldenCases("packed")) {
    const positions = c.params.position_ids as unknown as number[][];
    const expect = c.expect as { [key: string]: GoldenValue };
    const indices = find_packed_sequence_indices(positions);
    assertEquals(await indices?.tolist() ?? null, expect.sequence_indices, c.id);
    const { isPacked, cuSeqLens, maxLength } = flashSequences(positions);
    assertEquals([...cuSeqLens], expect.cu_seq_lens, c.id);
    assertEquals(maxLength, expect.max_length, c.id);
    if (isPacked !== expect.flash_is_packed) {
      differing.push(c.id);
      assertEquals(decisions.get(c.id), { flash_is_packed: isPacked }, c.id);
    }
  }
  assertEquals(differing, decided.filter((d) => d.id.startsWith("packed/")).map((d) => d.id));
});

Deno.test("golden: every decision is about a recorded case", () => {
  const ids = new Set(
    ["mask", "mask_formatter", "mask_generate", "packed"].flatMap((g) => goldenCases(g).map((c) => c.id)),
  );
  assertEquals(decided.filter((d) => /^(mask|packed)/.test(d.id) && !ids.has(d.id)), []);
});

function expected(c: GoldenCase, backend: string): GoldenValue | undefined {
  return (c.expect as { [key: string]: GoldenValue })[backend];
}

/** An implementation without a formatter warns; another test reads the warning. */
function withoutWarnings<T>(fn: () => T): T {
  const warn = console.warn;
  console.warn = () => {};
  try {
    return fn();
  } finally {
    console.warn = warn;
  }
}
