/**
 * Accuracy: how far attention in float32 is from float64, beside what PyTorch errs on the same operands. Nothing is
 * timed: the errors are the result.
 *
 * @module
 */
import { device } from "../mod.ts";
import {
  AIM,
  COMPARED,
  ourErrors,
  pooled,
  questionsOf,
  recordedAccuracy,
  torchErrors,
} from "../tests/support/accuracy.ts";
import type { BenchContext, Row, Section } from "./report.ts";

/** Runs the bench. */
export async function benchAccuracy(context: BenchContext): Promise<Section> {
  const { seeds, shapes, torch, cpu } = await recordedAccuracy();
  const rows: Row[] = [];
  for (const shape of shapes) {
    context.progress(`${shape.name}: oracle`);
    const questions = questionsOf(shape, seeds);
    const best = torchErrors(shape);
    const row = (implementation: string, errors: { readonly rms: number; readonly max: number }): Row => ({
      shape: shape.name,
      implementation,
      "rms error": errors.rms,
      "largest error": errors.max,
      "rms / PyTorch": errors.rms / best.rms,
      "largest / PyTorch": errors.max / best.max,
    });
    for (const name of COMPARED) {
      context.progress(`${shape.name}: ${name}`);
      const found = row(name, await ourErrors(name, shape, questions));
      if (Number(found["rms / PyTorch"]) > AIM.rms || Number(found["largest / PyTorch"]) > AIM.max) {
        throw new Error(
          `${shape.name}: ${name} errs more than ${JSON.stringify(AIM)} times as much as PyTorch`,
        );
      }
      rows.push(found);
    }
    rows.push(row(`PyTorch ${torch}, math`, pooled(shape.torch.math)));
    rows.push(row(`PyTorch ${torch}, flash`, pooled(shape.torch.flash)));
  }
  return {
    title: "Accuracy",
    rows,
    notes: [
      `Absolute errors beside a float64 oracle over ${seeds} seeds, of outputs of operands that are about standard normal; kernels: ${
        (await device("wasm")).description
      }.`,
      `PyTorch's errors are recorded (${cpu}, one thread), on the same operands bit for bit; the quotients are with its better kernel.`,
    ],
  };
}
