/**
 * Recorded masks and packed positions.
 *
 * @module
 */
import { find_packed_sequence_indices } from "../../mod.ts";
import { flashSequences } from "../../src/masks/packed.ts";
import { difference, FORMATTERS, run } from "../masks/golden_run.ts";
import type { GoldenValue } from "../support/golden.ts";
import { quietly } from "../support/quiet.ts";
import type { Outcome, Runner } from "./outcome.ts";

const BACKENDS = [...Object.keys(FORMATTERS), "not_a_registered_backend"];

/** A builder or a formatter, under every backend it was recorded for. */
export const runMask: Runner = (recorded) => {
  const expect = recorded.expect as { [key: string]: GoldenValue };
  const outcomes = BACKENDS.filter((backend) => expect[backend] !== undefined).map((backend): Outcome => {
    // An implementation without a formatter warns; another test reads the warning.
    const outcome = quietly(() => run(recorded, backend)).result;
    return {
      backend,
      recorded: expect[backend]!,
      difference: (expected) => difference(outcome, expected),
    };
  });
  return Promise.resolve(outcomes);
};

/** Sequences in packed positions. A decision names only the fields it changes. */
export const runPacked: Runner = async (recorded) => {
  const positions = recorded.params.position_ids as unknown as number[][];
  const expect = recorded.expect as { [key: string]: GoldenValue };
  using indices = find_packed_sequence_indices(positions);
  const { isPacked, cuSeqLens, maxLength } = flashSequences(positions);
  const found: Record<string, unknown> = {
    sequence_indices: await indices?.tolist() ?? null,
    cu_seq_lens: [...cuSeqLens],
    max_length: maxLength,
    flash_is_packed: isPacked,
  };
  return [{
    recorded: recorded.expect,
    difference: (expected) => {
      const wanted = { ...expect, ...expected as { [key: string]: GoldenValue } };
      const wrong = Object.keys(wanted).find((k) => JSON.stringify(found[k]) !== JSON.stringify(wanted[k]));
      return wrong === undefined ? null : `${wrong} is ${JSON.stringify(found[wrong])}`;
    },
  }];
};
