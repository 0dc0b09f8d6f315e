/**
 * The built-in attention functions against the recordings of Transformers. Where the project decides otherwise, the
 * row is named with the point of the decision and checked for what the decision says.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import {
  type AttentionFunction,
  type AttentionMask,
  type AttentionModule,
  create_block_mask,
  type DeviceName,
  eager_attention_forward,
  flash_attention_forward,
  flex_attention_forward,
  PretrainedConfig,
  sdpa_attention_forward,
  Tensor,
} from "../../mod.ts";
import { reference_attention } from "../../src/attention/reference.ts";
import {
  type GoldenCase,
  goldenCases,
  type GoldenTensor,
  goldenTensor,
  type GoldenValue,
} from "../support/golden.ts";
import { assertClose, type Tolerance, toleranceOf } from "../support/tolerance.ts";
import { everywhere, reportSkipped } from "../models/support.ts";

type Fields = Readonly<Record<string, GoldenValue>>;

const FUNCTIONS: Readonly<Record<string, readonly [names: readonly string[], fn: AttentionFunction]>> = {
  eager: [["eager"], eager_attention_forward],
  sdpa: [["sdpa"], sdpa_attention_forward],
  flex: [["flex_attention"], flex_attention_forward],
  flash: [["flash_attention_2", "flash_attention_3", "flash_attention_4"], flash_attention_forward],
};

/**
 * Rows that a decision of this project changes: which, by which point, and what is expected instead. The points:
 * 9, a fully masked row gives zeros, never a uniform average; 10, sinks work in every backend; 11, a bidirectional
 * window is |q − kv| ≤ w everywhere.
 */
const DECIDED: readonly {
  readonly point: number;
  readonly applies: (recorded: GoldenCase) => boolean;
  readonly expected: (recorded: GoldenCase) => { output: Float64Array; weights?: Float64Array };
}[] = [
  { point: 9, applies: hasBlankRowsOfNumbers, expected: blankRowsAreZero },
  {
    point: 10,
    applies: ({ id }) => id.startsWith("attention/sdpa/ignores_window_and_sinks"),
    expected: byOracle,
  },
  { point: 11, applies: ({ id }) => id.startsWith("attention/flash/window_not_causal"), expected: byOracle },
];

/** Whether the reference gives numbers where a query sees nothing. */
function hasBlankRowsOfNumbers(recorded: GoldenCase): boolean {
  if (keepOf(recorded) === null) return false;
  const { output } = blankRowsAreZero(recorded);
  return goldenTensor((recorded.expect as Fields).output).data.some((x, at) => x !== output[at]);
}

/** The dense mask of a case as 0 and 1. */
function keepOf(recorded: GoldenCase): GoldenTensor | null {
  const mask = recorded.params.mask as Fields | undefined;
  return mask === undefined || mask.kind === "bool2d" ? null : goldenTensor(mask.keep);
}

function blankRowsAreZero(recorded: GoldenCase): { output: Float64Array; weights?: Float64Array } {
  const expect = recorded.expect as Fields, keep = keepOf(recorded)!;
  const output = goldenTensor(expect.output), [, Q, H, Dv] = output.shape as [number, number, number, number];
  const K = keep.shape[3]!;
  const blank = (b: number, i: number) => {
    const at = ((keep.shape[0] === 1 ? 0 : b) * keep.shape[1]! * Q + i) * K;
    return keep.data.subarray(at, at + K).every((x) => x === 0);
  };
  const changed = (
    t: GoldenTensor,
    b: (line: number) => number,
    i: (line: number) => number,
    width: number,
  ) => t.data.map((x, at) => blank(b(Math.floor(at / width)), i(Math.floor(at / width))) ? 0 : x);
  return {
    output: changed(output, (line) => Math.floor(line / Q), (line) => line % Q, H * Dv),
    ...(expect.weights === null ? {} : {
      weights: changed(
        goldenTensor(expect.weights),
        (line) => Math.floor(line / (H * Q)),
        (line) => line % Q,
        K,
      ),
    }),
  };
}

function byOracle({ params: p }: GoldenCase): { output: Float64Array } {
  const mask = p.mask as Fields | undefined;
  const dense = mask === undefined ? null : goldenTensor(mask.keep);
  return reference_attention({
    query: goldenTensor(p.query),
    key: goldenTensor(p.key),
    value: goldenTensor(p.value),
    ...(typeof p.scaling === "number" ? { scaling: p.scaling } : {}),
    ...(p.s_aux === undefined ? {} : { sinks: goldenTensor(p.s_aux) }),
    ...(dense === null
      ? { sliding_window: p.sliding_window as number }
      : { mask: { data: Uint8Array.from(dense.data), shape: dense.shape } }),
  });
}

/** The mask as the function takes it. */
function maskOf(mask: Fields | undefined, device: DeviceName): AttentionMask {
  if (mask === undefined) return null;
  if (mask.kind === "bool2d") return Tensor.from(mask.keep as number[][], { dtype: "bool", device });
  const { data, shape } = goldenTensor(mask.keep);
  if (mask.kind === "block_mask") {
    const [B, , Q, K] = shape as [number, number, number, number];
    return create_block_mask((b, _h, q, kv) => data[(b * Q + q) * K + kv] === 1, B, null, Q, K, { device });
  }
  if (mask.kind === "bool") return Tensor.from(data, { shape, dtype: "bool", device });
  return Tensor.from(data.map((x) => x ? 0 : -3.4028234663852886e38), { shape, device });
}

function allowed(recorded: GoldenCase, device: DeviceName): Tolerance {
  const table = toleranceOf("attention_flash", device);
  return { atol: Math.max(recorded.atol ?? 0, table.atol), rtol: Math.max(recorded.rtol ?? 0, table.rtol) };
}

const used = new Set<number>();

for (const recorded of goldenCases("attention")) {
  const [names, fn] = FUNCTIONS[recorded.op]!;
  const { params } = recorded;
  const decided = DECIDED.find((d) => d.applies(recorded));
  if (decided !== undefined) used.add(decided.point);
  for (const name of names) {
    const label = `${name} agrees with ${recorded.id}${
      decided ? `, except by decision L${decided.point}` : ""
    }`;
    everywhere(label, async (device) => {
      using owned = new DisposableStack();
      const place = (value: GoldenValue | undefined) => {
        const { data, shape } = goldenTensor(value);
        return owned.use(Tensor.from(data, { shape, dtype: "float32", device }));
      };
      const [query, key, value] = [place(params.query), place(params.key), place(params.value)];
      const mask = maskOf(params.mask as Fields | undefined, device);
      if (mask instanceof Tensor) owned.use(mask);
      const module: AttentionModule = {
        config: new PretrainedConfig({}, { attn_implementation: name }),
        layer_idx: 0,
        is_causal: params.module_is_causal !== false,
        scaling: query.shape[3]! ** -0.5,
        num_key_value_groups: query.shape[1]! / key.shape[1]!,
      };
      const sinks = params.sinks ?? params.s_aux;
      const [output, weights] = await fn(module, query, key, value, mask, {
        dropout: 0,
        ...(typeof params.scaling === "number" ? { scaling: params.scaling } : {}),
        ...(typeof params.softcap === "number" ? { softcap: params.softcap } : {}),
        ...(typeof params.is_causal === "boolean" ? { is_causal: params.is_causal } : {}),
        ...(typeof params.sliding_window === "number" ? { sliding_window: params.sliding_window } : {}),
        ...(params.position_ids === undefined
          ? {}
          : { position_ids: owned.use(Tensor.from(params.position_ids as number[][])) }),
        ...(params.position_bias === undefined ? {} : { position_bias: place(params.position_bias) }),
        ...(sinks === undefined ? {} : { s_aux: place(sinks) }),
      });
      owned.use(output);
      if (weights !== null) owned.use(weights);
      const expect = recorded.expect as Fields;
      const expected = decided?.expected(recorded) ?? {
        output: goldenTensor(expect.output).data,
        ...(expect.weights === null ? {} : { weights: goldenTensor(expect.weights).data }),
      };
      assertEquals(output.shape, goldenTensor(expect.output).shape);
      assertClose(await output.data() as Float32Array, expected.output, allowed(recorded, device), "output");
      assertEquals(weights !== null, expect.returns_weights);
      if (weights === null || expected.weights === undefined) return;
      assertClose(
        await weights.data() as Float32Array,
        expected.weights,
        allowed(recorded, device),
        "weights",
      );
    });
  }
}

Deno.test("decisions: every point of the table changes a recording", () => {
  assertEquals([...used].sort((a, b) => a - b), DECIDED.map((d) => d.point));
});

reportSkipped();
