/**
 * What a recorded case gives here, in a form that can be held against the recording and against a decision of ours.
 *
 * @module
 */
import type { DeviceName } from "../../mod.ts";
import type { GoldenCase, GoldenValue } from "../support/golden.ts";

/** One result of a case: there are several where it was recorded for several backends or steps. */
export interface Outcome {
  readonly backend?: string;
  readonly step?: number;
  /** What the reference gives. */
  readonly recorded: GoldenValue;
  /** What keeps the result from being `expected`, or null. */
  difference(expected: GoldenValue): string | null;
}

/** Runs one case. */
export type Runner = (recorded: GoldenCase, device: DeviceName) => Promise<readonly Outcome[]>;

/** The message of what `check` throws, or null. */
export function faultOf(check: () => void): string | null {
  try {
    check();
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** How a call ended, as errors are recorded. */
export type Ending = { readonly kind: "ok" } | {
  readonly kind: "error";
  readonly name: string;
  readonly message: string;
};

/** Runs `call` to its end. */
export async function endingOf(call: () => unknown): Promise<Ending> {
  try {
    await call();
    return { kind: "ok" };
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return { kind: "error", name: error.name, message: error.message };
  }
}

/** What keeps an ending from being the recorded one: errors must mention the recorded identifiers. */
export function endingDifference(ending: Ending, expected: GoldenValue): string | null {
  const { kind, mentions = [] } = expected as { kind: string; mentions?: readonly string[] };
  if (ending.kind !== kind) {
    return `is ${ending.kind}${ending.kind === "error" ? ` (${ending.message})` : ""}, expected ${kind}`;
  }
  if (ending.kind === "ok") return null;
  const missing = mentions.filter((m) => !ending.message.includes(m));
  return missing.length === 0 ? null : `does not mention ${missing.join(", ")}: ${ending.message}`;
}
