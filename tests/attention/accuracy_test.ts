/**
 * Attention in float32 errs about as PyTorch's does: over 20 seeds of each shape, by the root mean square and at worst.
 *
 * @module
 */
import { assert } from "@std/assert";
import { configure } from "../../mod.ts";
import { AIM, COMPARED, ourErrors, questionsOf, recordedAccuracy, torchErrors } from "../support/accuracy.ts";

const { seeds, shapes } = await recordedAccuracy();

for (const deterministic of [false, true]) {
  for (const shape of shapes) {
    Deno.test(`accuracy: ${shape.name}, ${deterministic ? "deterministic" : "fast"}`, async () => {
      const theirs = torchErrors(shape), questions = questionsOf(shape, seeds);
      await configure({ deterministic });
      try {
        for (const name of COMPARED) {
          const ours = await ourErrors(name, shape, questions);
          for (const kind of ["rms", "max"] as const) {
            const ratio = ours[kind] / theirs[kind];
            assert(
              ratio <= AIM[kind],
              `${name}: ${kind} error ${ours[kind]} is ${ratio.toFixed(2)} × PyTorch's ${theirs[kind]}`,
            );
          }
        }
      } finally {
        await configure({ deterministic: false });
      }
    });
  }
}
