/**
 * Recorded calls of attention functions: run here, or by the float64 oracle with what this project decides.
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
import { type GoldenCase, goldenTensor, type GoldenValue } from "../support/golden.ts";
import { assertClose, type Tolerance, toleranceOf } from "../support/tolerance.ts";
import { faultOf, type Outcome } from "./outcome.ts";

type Fields = Readonly<Record<string, GoldenValue>>;

const FUNCTIONS: Readonly<Record<string, readonly [names: readonly string[], fn: AttentionFunction]>> = {
  eager: [["eager"], eager_attention_forward],
  sdpa: [["sdpa"], sdpa_attention_forward],
  flex: [["flex_attention"], flex_attention_forward],
  flash: [["flash_attention_2", "flash_attention_3", "flash_attention_4"], flash_attention_forward],
};

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

/** What a recording allows; GPU arithmetic gets what its own row of the table allows, if that is more. */
export function allowedFor(recorded: GoldenCase, device: DeviceName): Tolerance {
  const table = toleranceOf("attention_flash", device);
  return { atol: Math.max(recorded.atol ?? 0, table.atol), rtol: Math.max(recorded.rtol ?? 0, table.rtol) };
}

/** Runs a case under every name of its function. */
export async function runAttention(recorded: GoldenCase, device: DeviceName): Promise<readonly Outcome[]> {
  const [names, fn] = FUNCTIONS[recorded.op]!;
  const outcomes: Outcome[] = [];
  for (const name of names) outcomes.push(await outcomeOf(recorded, name, fn, device));
  return outcomes;
}

async function outcomeOf(
  recorded: GoldenCase,
  name: string,
  fn: AttentionFunction,
  device: DeviceName,
): Promise<Outcome> {
  const { params } = recorded;
  using owned = new DisposableStack();
  const place = (value: GoldenValue | undefined) => {
    const { data, shape } = goldenTensor(value);
    return owned.use(Tensor.from(data, { shape, dtype: "float32", device }));
  };
  const [query, key, value] = [place(params.query), place(params.key), place(params.value)];
  const mask = maskOf(params.mask as Fields | undefined, device);
  if (mask !== null && Symbol.dispose in mask) owned.use(mask as Disposable);
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
  const found = {
    shape: output.shape,
    output: await output.data() as Float32Array,
    weights: weights === null ? null : await weights.data() as Float32Array,
  };
  const within = allowedFor(recorded, device);
  const returns_weights = (recorded.expect as Fields).returns_weights;
  return {
    recorded: recorded.expect,
    difference: (expected) =>
      faultOf(() => {
        const wanted = expected as Fields;
        const values = goldenTensor(wanted.output);
        assertEquals(found.shape, values.shape);
        assertEquals(found.weights !== null, returns_weights);
        assertClose(found.output, values.data, within, `output of ${name}`);
        if (found.weights === null || (wanted.weights ?? null) === null) return;
        assertClose(found.weights, goldenTensor(wanted.weights).data, within, `weights of ${name}`);
      }),
  };
}

/**
 * What this project decides for a case with a dense mask or a window: fully masked rows give zeros, sinks count in
 * every backend, a window to both sides is |q − kv| ≤ w.
 */
export function decidedAttention({ params: p }: GoldenCase): { output: Float64Array; weights: Float64Array } {
  const mask = p.mask as Fields | undefined;
  const keep = mask === undefined ? null : goldenTensor(mask.keep);
  const bias = p.position_bias === undefined ? null : goldenTensor(p.position_bias);
  const sinks = p.sinks ?? p.s_aux;
  return reference_attention({
    query: goldenTensor(p.query),
    key: goldenTensor(p.key),
    value: goldenTensor(p.value),
    ...(typeof p.scaling === "number" ? { scaling: p.scaling } : {}),
    ...(typeof p.softcap === "number" ? { softcap: p.softcap } : {}),
    ...(sinks === undefined ? {} : { sinks: goldenTensor(sinks) }),
    ...(keep === null
      ? { sliding_window: p.sliding_window as number }
      : bias === null
      ? { mask: { data: Uint8Array.from(keep.data), shape: keep.shape } }
      : { mask: biased(bias, keep) }),
  });
}

/** The bias (B, H, Q, K) where `keep` (B, 1, Q, K) shows the key, else −∞. */
function biased(bias: { data: Float64Array; shape: readonly number[] }, keep: typeof bias) {
  const [B, H, Q, K] = bias.shape as [number, number, number, number];
  const data = bias.data.map((x, at) => {
    const b = Math.floor(at / (H * Q * K)) % (keep.shape[0] === 1 ? 1 : B);
    return keep.data[b * Q * K + at % (Q * K)] === 1 ? x : -Infinity;
  });
  return { data, shape: bias.shape };
}
