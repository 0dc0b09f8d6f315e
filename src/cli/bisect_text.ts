/**
 * What `attune bisect` found, in words.
 *
 * @module
 */
import type { Tolerance } from "../attention/tolerance.ts";
import type {
  AttentionBisection,
  AttentionDivergence,
  ComparedSide,
  DifferenceSummary,
} from "../inspect/bisect_types.ts";
import type { ReceivedMask } from "../inspect/mask_at.ts";
import { brief } from "../draw/heatmap.ts";
import { table } from "./io.ts";

const sideOf = ({ implementation, device }: ComparedSide) => `${implementation} on ${device}`;
const short = (x: number) => x === 0 ? "0" : Number.isFinite(x) ? x.toExponential(1) : String(x);

/** The report; `label` shows a token. */
export function bisectionText(found: AttentionBisection, label: (id: number) => string): string {
  const { a, b, divergence } = found;
  return [
    `a: ${sideOf(a)}`,
    `b: ${sideOf(b)}`,
    `tolerance over the same inputs: ${allowed(found.tolerance, found.scaled.tolerance)}`,
    `tolerance of the runs:          ${allowed(found.run_tolerance, found.scaled.run_tolerance)}`,
    "",
    divergence === null ? agreement(found) : difference(found, divergence, label),
    "",
    profile(found),
    "",
    ...outputs(found, label),
    ...(divergence === null ? [] : ["", ...masks(divergence)]),
  ].join("\n");
}

function allowed({ atol, rtol }: Tolerance, scaled: boolean): string {
  return `${short(atol)}${scaled ? "·max|value|" : ""} + ${short(rtol)}·|element|${
    scaled ? " (documented error of the devices)" : ""
  }`;
}

function agreement({ steps, layers }: AttentionBisection): string {
  const tokens = steps.reduce((n, { length }) => n + length, 0);
  return `AGREE: ${tokens} tokens in ${steps.length} forwards, ${layers.length} layers, all heads`;
}

function difference(
  found: AttentionBisection,
  at: AttentionDivergence,
  label: (id: number) => string,
): string {
  const token = at.token_id === null
    ? `patch ${at.position}`
    : `token ${at.position} (${label(at.token_id)})`;
  const rows = found.tokens.length > 1 ? `, row ${at.batch}` : "";
  const when = at.step === 0 ? "in the prompt" : `in the forward of new token ${at.step}`;
  const heads = at.heads.length > 1 ? ` (of heads ${at.heads.join(", ")} there)` : "";
  const measured = (name: string, { worst, max_abs, ratio }: DifferenceSummary) =>
    worst === null ? [`  ${name}: equal`] : [
      `  ${name}: largest |a − b| ${short(max_abs)}, ${
        brief(ratio)
      } times the tolerance; the worst element at`,
      `    token ${worst.position}, head ${worst.head}, channel ${worst.channel}: a ${worst.a}, b ${worst.b}`,
    ];
  return [
    `DIFFER first at ${token}${rows}, ${at.layer}, head ${at.head}${heads}, ${when}`,
    at.origin === "attention"
      ? "  Made by this layer's attention: over the same queries, keys and values b differs from a."
      : "  Inherited: over the same inputs this layer's attention agrees; what it was given had drifted apart before.",
    ...measured("over the same inputs", at.isolated),
    ...measured("as they ran", at.in_run),
  ].join("\n");
}

function profile({ layers }: AttentionBisection): string {
  const verdict = (isolated: DifferenceSummary, in_run: DifferenceSummary) =>
    isolated.ratio > 1 ? "differs" : in_run.ratio > 1 ? "inherited" : "agrees";
  return table(
    ["layer", "same inputs: max|a−b|", "relative", "rms", "as they ran: max|a−b|", "relative", "rms", ""],
    layers.map(({ layer, isolated, in_run }) => [
      layer,
      ...[isolated, in_run].flatMap((d) => [short(d.max_abs), short(d.relative), short(d.rms)]),
      verdict(isolated, in_run),
    ]),
  );
}

function outputs({ steps }: AttentionBisection, label: (id: number) => string): string[] {
  const most = Math.max(...steps.map(({ output }) => output));
  if (steps[0]!.greedy === null) return [`last hidden states: largest |a − b| ${short(most)}`];
  const logits = `logits: largest |a − b| ${short(most)}`;
  const odd = steps.findIndex(({ greedy }) => `${greedy!.a}` !== `${greedy!.b}`);
  if (odd === -1) return [`${logits}; both choose the same tokens`];
  const { a, b } = steps[odd]!.greedy!;
  const row = a.findIndex((id, i) => id !== b[i]);
  return [`${logits}; new token ${odd + 1} differs: a ${label(a[row]!)}, b ${label(b[row]!)}`];
}

/** What a side was given as its mask, for a line above the drawing. */
export function receivedText(side: string, { words, drawing }: ReceivedMask): string {
  return `${side} received ${words}${drawing === null ? " (only its receiver can read it)" : ""}`;
}

function masks({ mask_a, mask_b }: AttentionDivergence): string[] {
  const one = (side: string, received: ReceivedMask) => [
    receivedText(side, received),
    ...(received.drawing === null ? [] : [received.drawing]),
  ];
  const same = mask_a.drawing === mask_b.drawing && mask_a.drawing !== null;
  const visible = (mine: ReceivedMask, other: ReceivedMask) =>
    mine.visible?.filter((kv) => other.visible !== null && !other.visible.includes(kv)) ?? [];
  const only = [["a", visible(mask_a, mask_b)], ["b", visible(mask_b, mask_a)]] as const;
  return [
    ...(same
      ? [receivedText("a", mask_a), ...one("b", mask_b)]
      : [...one("a", mask_a), "", ...one("b", mask_b)]),
    ...only.flatMap(([side, keys]) =>
      keys.length === 0
        ? []
        : [`only ${side} sees keys ${keys.slice(0, 16).join(", ")}${keys.length > 16 ? ", …" : ""}`]
    ),
  ];
}
