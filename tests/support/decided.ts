/**
 * The recorded cases this project answers differently, one row each in `tests/golden/decided.json`.
 *
 * @module
 */
import { goldenPath, type GoldenValue } from "./golden.ts";

/** A recorded case this project answers differently. */
export interface Decided {
  readonly id: string;
  /** Only under this implementation. */
  readonly backend?: string;
  /** Only this step of the case. */
  readonly step?: number;
  /** Number of the decision. */
  readonly point: number;
  /** Our value. */
  readonly value: GoldenValue;
}

let rows: readonly Decided[] | undefined;

/** All rows. */
export function decided(): readonly Decided[] {
  return rows ??= JSON.parse(Deno.readTextFileSync(goldenPath("decided.json"))) as readonly Decided[];
}

/** The row about a case, or about one step of it. */
export function decidedFor(id: string, step?: number): Decided | undefined {
  return decided().find((d) => d.id === id && d.step === step);
}
