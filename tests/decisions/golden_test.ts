/**
 * Every recorded case against what this library gives. A case either agrees with Transformers or stands in
 * `tests/golden/decided.json` with the number of our decision and the value we give instead; one test asserts that
 * exactly the cases listed there differ, and one that no case was left out.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { DeviceName } from "../../mod.ts";
import { liveTest, reportSkipped, withGpu } from "../models/support.ts";
import { runModel } from "../models/recorded.ts";
import { type Decided, decided } from "../support/decided.ts";
import { type GoldenCase, goldenCases } from "../support/golden.ts";
import { runAttention } from "./attention_case.ts";
import { runCache } from "./cache_case.ts";
import { runLoad, runSwitches } from "./dispatch_case.ts";
import { runBadArgument, runContext, runError, runMembers } from "./errors_case.ts";
import { runMask, runPacked } from "./mask_case.ts";
import type { Outcome, Runner } from "./outcome.ts";

/** Who runs the cases of a group: one runner, or one for each operation. */
const RUNNERS: Readonly<Record<string, Runner | Readonly<Record<string, Runner>>>> = {
  mask: runMask,
  mask_formatter: runMask,
  mask_generate: runMask,
  packed: runPacked,
  cache: runCache,
  dispatch: { load: runLoad, set_attn_implementation: runSwitches },
  errors: runError,
  sdpa_kernel: { members: runMembers, context: runContext, bad_argument: runBadArgument },
  attention: runAttention,
  model: runModel,
};

/** Groups whose results depend on the device. Models have tests of their own on every device. */
const ON_EVERY_DEVICE = ["attention", "cache"];

type Key = Pick<Decided, "id" | "backend" | "step">;
const keyOf = ({ id, backend, step }: Key): string => JSON.stringify([id, backend ?? null, step ?? null]);
const decisions = new Map(decided().map((row) => [keyOf(row), row]));

/** Ids that were run, once for each time, and the results that were not the recorded ones. */
const ran = new Map<string, number>();
const differing = new Set<string>();

/** What is wrong with a case: a result that is neither the recorded one nor, where there is a decision, ours. */
async function faultsOf(recorded: GoldenCase, runner: Runner, device: DeviceName): Promise<string[]> {
  const faults: string[] = [];
  for (const outcome of await runner(recorded, device)) {
    const key = keyOf({ id: recorded.id, ...partOf(outcome) });
    const decision = decisions.get(key);
    const asRecorded = outcome.difference(outcome.recorded);
    if (asRecorded !== null) differing.add(key);
    if (decision !== undefined && asRecorded === null) {
      faults.push(`${key} is as recorded, though decision L${decision.point} says otherwise`);
    }
    const fault = decision === undefined ? asRecorded : outcome.difference(decision.value);
    if (fault !== null) faults.push(`${key} ${fault}`);
  }
  return faults;
}

function partOf({ backend, step }: Outcome): Pick<Decided, "backend" | "step"> {
  return { ...(backend === undefined ? {} : { backend }), ...(step === undefined ? {} : { step }) };
}

/** Runs the cases of a group and asserts that each gives what it should. */
async function runGroup(group: string, device: DeviceName): Promise<void> {
  const runners = RUNNERS[group]!, faults: string[] = [];
  for (const recorded of goldenCases(group)) {
    const runner = typeof runners === "function" ? runners : runners[recorded.op]!;
    faults.push(...await faultsOf(recorded, runner, device));
    if (device === "wasm") ran.set(recorded.id, (ran.get(recorded.id) ?? 0) + 1);
  }
  assertEquals(faults, []);
}

// One test, because the last steps are about all the others, and tests are shuffled.
liveTest("golden: every case is as recorded, but for those decided otherwise", async (t) => {
  for (const group of Object.keys(RUNNERS)) {
    await t.step(`${group}: ${goldenCases(group).length} cases`, () => runGroup(group, "wasm"));
  }
  await t.step("exactly the decided cases differ", () => {
    assertEquals([...differing].sort(), [...decisions.keys()].sort());
    assertEquals(decisions.size, decided().length, "each is listed once");
  });
  await t.step("every case was run, and once", () => {
    const recorded = Object.keys(RUNNERS).flatMap((group) => goldenCases(group).map(({ id }) => id));
    assertEquals([...ran.keys()].sort(), recorded.sort());
    assertEquals([...ran].filter(([, n]) => n !== 1), []);
  });
});

for (const group of ON_EVERY_DEVICE) {
  withGpu(`golden ${group}: ${goldenCases(group).length} cases`, () => runGroup(group, "webgpu"));
}

Deno.test("golden: every decision has the number of a point", () => {
  assertEquals(decided().filter(({ point }) => !(Number.isInteger(point) && point >= 1 && point <= 25)), []);
});

reportSkipped();
