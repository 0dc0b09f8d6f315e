/**
 * Recorded requests: which implementation a name, a dict or a switch leads to.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { AttnImplementation, PreTrainedModel } from "../../mod.ts";
import { loaderOf } from "../models/recorded.ts";
import { type GoldenCase, goldenPath, type GoldenValue } from "../support/golden.ts";
import { type Ending, endingDifference, endingOf, faultOf, type Outcome, type Runner } from "./outcome.ts";

async function load(
  { params }: GoldenCase,
  attn_implementation: AttnImplementation,
): Promise<PreTrainedModel> {
  const path = goldenPath(`models/${params.arch as string}`);
  return await loaderOf(params.arch).from_pretrained(path, { attn_implementation });
}

/** What a model uses, by part. */
function implementationsOf({ config }: PreTrainedModel): Record<string, string> {
  const parts = Object.entries(config.sub_configs).map(([key, part]) => [key, part._attn_implementation]);
  return Object.fromEntries([["", config._attn_implementation], ...parts]);
}

interface Choice {
  readonly kind?: string;
  readonly error?: GoldenValue;
  readonly implementations?: Readonly<Record<string, string>>;
}

/** What keeps an end and the implementations after it from being the expected ones. */
function differenceOf(ending: Ending, implementations: Record<string, string> | null, expected: GoldenValue) {
  const wanted = expected as unknown as Choice;
  const end = wanted.error ?? (wanted.kind === "error" ? expected : { kind: "ok" });
  return endingDifference(ending, { kind: "error", ...end as object } as GoldenValue) ??
    (wanted.implementations === undefined
      ? null
      : faultOf(() => assertEquals(implementations, { ...wanted.implementations })));
}

/** Loading with a request. */
export const runLoad: Runner = async (recorded) => {
  let implementations: Record<string, string> | null = null;
  const ending = await endingOf(async () => {
    await using model = await load(recorded, recorded.params.attn_implementation as AttnImplementation);
    implementations = implementationsOf(model);
    // The report speaks of the layers: all parts but a top level that has none.
    const ofLayers = Object.entries(implementations).filter(([key], _, all) =>
      key !== "" || all.length === 1
    );
    const reported = model.attention_report().map((row) => row.implementation);
    assertEquals(new Set(reported), new Set(ofLayers.map(([, name]) => name)));
  });
  return [{
    recorded: recorded.expect,
    difference: (expected) => differenceOf(ending, implementations, expected),
  }];
};

/** Switching, one call after the other. */
export const runSwitches: Runner = async (recorded) => {
  const { trace } = recorded.expect as unknown as {
    trace: readonly (Choice & { call: AttnImplementation })[];
  };
  await using model = await load(recorded, null);
  const outcomes: Outcome[] = [];
  for (const [step, row] of trace.entries()) {
    const ending = await endingOf(() => step === 0 ? null : model.set_attn_implementation(row.call));
    const implementations = implementationsOf(model);
    outcomes.push({
      step,
      recorded: row as unknown as GoldenValue,
      difference: (expected) => differenceOf(ending, implementations, expected),
    });
  }
  return outcomes;
};
