/**
 * The oracle against recordings of PyTorch and Transformers, and its own corners. Where the project decides
 * otherwise than the reference (a fully masked row gives zeros, never a uniform average), the row is checked for
 * that instead.
 *
 * @module
 */
import { assertEquals, assertThrows } from "@std/assert";
import { reference_attention, type ReferenceCall } from "../src/attention/reference.ts";
import { InvalidArgument } from "../src/errors.ts";
import { type GoldenCase, goldenCases, goldenTensor, type GoldenValue } from "./support/golden.ts";
import { seeded } from "./support/random.ts";
import { assertClose, EXACT, toleranceOf } from "./support/tolerance.ts";

type Fields = Readonly<Record<string, GoldenValue>>;

/** What a recorded call means, for the oracle. */
function callOf({ op, params: p }: GoldenCase): { call: ReferenceCall; keep: Uint8Array | null } {
  const query = goldenTensor(p.query), key = goldenTensor(p.key), value = goldenTensor(p.value);
  const [B, , Q] = query.shape as [number, number, number], K = key.shape[2]!;
  const call: ReferenceCall = { query, key, value };
  if (typeof p.scaling === "number") call.scaling = p.scaling;
  if (typeof p.softcap === "number") call.softcap = p.softcap;
  // The recorded sdpa drops sinks and windows; the recorded eager calls them `sinks`, flash `s_aux`.
  if (p.sinks !== undefined) call.sinks = goldenTensor(p.sinks);
  if (p.s_aux !== undefined && op === "flash") call.sinks = goldenTensor(p.s_aux);
  const mask = p.mask as Fields | undefined;
  let keep: Uint8Array | null = null;
  if (mask?.kind === "bool2d") {
    call.padding = mask.keep as number[][];
    call.zero_padded_queries = true;
  } else if (mask !== undefined) {
    const dense = goldenTensor(mask.keep);
    keep = Uint8Array.from(dense.data);
    call.mask = { data: keep, shape: dense.shape };
  }
  if (p.position_bias !== undefined) {
    const bias = goldenTensor(p.position_bias), H = bias.shape[1]!;
    const hidden = (at: number) =>
      keep !== null && !keep[Math.floor(at / (H * Q * K)) * Q * K + at % (Q * K)];
    call.mask = { data: bias.data.map((x, at) => hidden(at) ? -Infinity : x), shape: bias.shape };
  }
  if (op === "sdpa") {
    call.is_causal = Q > 1 && mask === undefined && ((p.is_causal ?? p.module_is_causal) === true);
    call.query_offset = 0; // upper-left aligned
  }
  if (op === "flash") {
    call.is_causal = p.is_causal !== false;
    const w = p.sliding_window; // a flash kernel keeps w − 1 on each side
    if (typeof w === "number") call.sliding_window = [w - 1, w - 1];
  }
  assertEquals(query.shape[0], B);
  return { call, keep };
}

for (const recorded of goldenCases("attention")) {
  // Packed rows are several calls; they are compared where packing is implemented.
  if ("position_ids" in recorded.params || "cu_seq_lens_q" in recorded.params) continue;
  Deno.test(`oracle agrees with ${recorded.id}`, () => {
    const { call, keep } = callOf(recorded);
    const { output, weights } = reference_attention(call);
    const expect = recorded.expect as Fields;
    const out = goldenTensor(expect.output), [, Q, H, Dv] = out.shape as [number, number, number, number];
    const K = goldenTensor(recorded.params.key).shape[2]!;
    const blank = (b: number, i: number) =>
      keep !== null && keep.subarray((b * Q + i) * K, (b * Q + i + 1) * K).every((x) => x === 0);
    const expected = out.data.map((x, at) => {
      const row = Math.floor(at / (H * Dv));
      return blank(Math.floor(row / Q), row % Q) ? 0 : x;
    });
    const tolerance = toleranceOf("attention_eager", "wasm");
    assertClose(output, expected, tolerance, "output");
    if (expect.weights === null) return;
    const recordedWeights = goldenTensor(expect.weights).data.map((x, at) => {
      const row = Math.floor(at / K);
      return blank(Math.floor(row / (H * Q)), row % Q) ? 0 : x;
    });
    assertClose(weights, recordedWeights, tolerance, "weights");
  });
}

Deno.test("oracle: a fully masked row is zero, its lse −∞ or the sink", () => {
  const call = {
    query: [[[[1, 2]]]],
    key: [[[[1, 0], [0, 1]]]],
    value: [[[[5], [7]]]],
    mask: [[[[false, false]]]],
  };
  const without = reference_attention(call), withSink = reference_attention({ ...call, sinks: [0.5] });
  assertEquals([...without.output, ...without.weights, ...without.lse], [0, 0, 0, -Infinity]);
  assertEquals([...withSink.output, ...withSink.weights, ...withSink.lse], [0, 0, 0, 0.5]);
});

Deno.test("oracle: no keys", () => {
  const empty = { data: [], shape: [1, 1, 0, 2] };
  const { output, weights, lse } = reference_attention({ query: [[[[1, 2]]]], key: empty, value: empty });
  assertEquals([[...output], [...weights], [...lse]], [[0, 0], [], [-Infinity]]);
});

Deno.test("oracle: an infinite or NaN value behind a mask does not leak", () => {
  const { output } = reference_attention({
    query: [[[[1]]]],
    key: [[[[1], [NaN]]]],
    value: [[[[3], [Infinity]]]],
    mask: (_b, _h, _q, kv) => kv === 0,
  });
  assertEquals([...output], [3]);
});

Deno.test("oracle: predicate, bool array, padding and additive mask say the same thing", () => {
  const random = seeded("forms"), shape = [2, 2, 3, 4];
  const data = () => ({ data: random.normal(48), shape });
  const base: ReferenceCall = { query: data(), key: { ...data(), shape: [2, 2, 3, 4] }, value: data() };
  const keep = (b: number, kv: number) => kv < 3 - b;
  const rows = [0, 1].map((b) => [0, 1, 2].map((kv) => keep(b, kv)));
  const expected = reference_attention({ ...base, mask: (b, _h, _q, kv) => keep(b, kv) }).output;
  const additive = rows.map((row) => [[row.map((x) => x ? 0 : -3.4028234663852886e38)]]);
  for (const form of [{ padding: rows }, { mask: rows.map((row) => [[row]]) }, { mask: additive }]) {
    assertClose(reference_attention({ ...base, ...form }).output, expected, EXACT);
  }
});

Deno.test("oracle: windows and causality follow the query's position", () => {
  const one = (n: number) => [[Array.from({ length: n }, () => [0])]];
  const values = [[Array.from({ length: 5 }, (_, i) => [2 ** i])]];
  const visible = (options: Partial<ReferenceCall>) => {
    const { weights } = reference_attention({ query: one(2), key: one(5), value: values, ...options });
    return [0, 1].map((i) => [...weights.subarray(i * 5, i * 5 + 5)].map((w) => w > 0 ? "■" : "⬚").join(""));
  };
  assertEquals(visible({}), ["■■■■■", "■■■■■"]);
  assertEquals(visible({ is_causal: true }), ["■■■■⬚", "■■■■■"]);
  assertEquals(visible({ is_causal: true, query_offset: 0 }), ["■⬚⬚⬚⬚", "■■⬚⬚⬚"]);
  assertEquals(visible({ is_causal: true, sliding_window: 2 }), ["⬚⬚■■⬚", "⬚⬚⬚■■"]);
  assertEquals(visible({ sliding_window: 1, query_offset: 1 }), ["■■■⬚⬚", "⬚■■■⬚"]);
  assertEquals(visible({ sliding_window: [-1, 0] }), ["■■■■⬚", "■■■■■"]);
});

Deno.test("oracle: shapes that do not fit are refused", () => {
  const call = { query: [[[[1, 2]]]], key: [[[[1]]]], value: [[[[1]]]] };
  assertThrows(() => reference_attention(call), InvalidArgument, "Cannot attend query (1,1,1,2)");
  assertThrows(() => reference_attention({ ...call, query: [[1]] }), InvalidArgument, "Cannot read query");
});
