/**
 * Writes the rows of `decided.json` that are about numbers, with our values in `decided.safetensors`: the recorded
 * calls of attention functions that this project answers differently, by the float64 oracle.
 *
 *     deno run -A tests/golden/make_decided.ts
 *
 * The other rows are written by hand.
 *
 * @module
 */
import { writeSafetensors } from "../../src/hub/safetensors_write.ts";
import { decidedAttention } from "../decisions/attention_case.ts";
import type { Decided } from "../support/decided.ts";
import { type GoldenCase, goldenCases, goldenPath, goldenTensor, type GoldenValue } from "../support/golden.ts";

const FILE = "decided.safetensors";

/** The point of the decision that may change a case, or null. */
function pointOf({ id, params }: GoldenCase): number | null {
  if (id.startsWith("attention/sdpa/ignores_window_and_sinks")) return 10;
  if (id.startsWith("attention/flash/window_not_causal")) return 11;
  const mask = params.mask as { kind: string } | undefined;
  return mask === undefined || mask.kind === "bool2d" ? null : 9;
}

const tensors: Record<string, { dtype: "float32"; shape: readonly number[]; data: Float32Array }> = {};
const rows: Decided[] = [];
for (const recorded of goldenCases("attention")) {
  const point = pointOf(recorded);
  if (point === null) continue;
  const ours = decidedAttention(recorded);
  const expect = recorded.expect as Readonly<Record<string, GoldenValue>>;
  const within = (recorded.atol ?? 0) + (recorded.rtol ?? 0);
  const { data } = goldenTensor(expect.output);
  if (data.every((x, i) => Math.abs(x - ours.output[i]!) <= within * Math.max(1, Math.abs(x)))) continue;
  const value: Record<string, GoldenValue> = {};
  for (const name of ["output", "weights"] as const) {
    if ((expect[name] ?? null) === null) continue;
    const key = `${recorded.id}/${name}`;
    tensors[key] = {
      dtype: "float32",
      shape: goldenTensor(expect[name]).shape,
      data: Float32Array.from(ours[name]),
    };
    value[name] = { $t: `${FILE}#${key}` };
  }
  rows.push({ id: recorded.id, point, value });
}

const path = goldenPath("decided.json");
const others = (JSON.parse(Deno.readTextFileSync(path)) as Decided[]).filter((row) =>
  !row.id.startsWith("attention/")
);
Deno.writeFileSync(goldenPath(FILE), writeSafetensors(tensors));
const lines = [...others, ...rows].map((row) => `  ${JSON.stringify(row)}`);
Deno.writeTextFileSync(path, `[\n${lines.join(",\n")}\n]\n`);
console.log(`${rows.length} rows about attention, ${others.length} others`);
