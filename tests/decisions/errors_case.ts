/**
 * Recorded calls that must fail, and the contexts of `sdpa_kernel`.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import {
  ALL_ATTENTION_FUNCTIONS,
  and_masks,
  attention,
  type AttentionFunction,
  type AttentionKwargs,
  eager_attention_forward,
  eager_paged_attention_forward,
  flash_attention_forward,
  flex_attention_forward,
  type MaskFunction,
  or_masks,
  PretrainedConfig,
  sdpa_attention_forward,
  sdpa_kernel,
  SDPBackend,
  Tensor,
} from "../../mod.ts";
import { enabledSdpaBackends } from "../../src/attention/sdpa_kernel.ts";
import type { GoldenValue } from "../support/golden.ts";
import { endingDifference, endingOf, faultOf, type Runner } from "./outcome.ts";

const FUNCTIONS: Readonly<Record<string, AttentionFunction>> = {
  sdpa: sdpa_attention_forward,
  flex: flex_attention_forward,
  flash: flash_attention_forward,
  "paged|eager": eager_paged_attention_forward,
};

async function callFunction(op: string, params: Readonly<Record<string, GoldenValue>>): Promise<void> {
  const { s_aux, q_length = 3, ...kwargs } = params;
  using owned = new DisposableStack();
  const states = (n: number) => owned.use(Tensor.from(new Float32Array(2 * n * 4), { shape: [1, 2, n, 4] }));
  const module = {
    config: new PretrainedConfig({}),
    layer_idx: 0,
    is_causal: true,
    scaling: 0.5,
    num_key_value_groups: 1,
  };
  const sinks = s_aux === undefined ? {} : { s_aux: owned.use(Tensor.from(s_aux as number[])) };
  const given = { ...kwargs as AttentionKwargs, ...sinks };
  const [query, key] = [states(Number(q_length)), states(3)];
  for (const t of await FUNCTIONS[op]!(module, query, key, key, null, given)) if (t !== null) owned.use(t);
}

/** A call that must fail. */
export const runError: Runner = async ({ op, params, expect }) => {
  const ending = await endingOf(async () => {
    if (op === "and_masks") and_masks(1 as unknown as MaskFunction);
    else if (op === "or_masks") or_masks(1 as unknown as MaskFunction);
    else if (op === "get_interface") {
      ALL_ATTENTION_FUNCTIONS.get_interface(String(params.name), eager_attention_forward);
    } else await callFunction(op, params);
  });
  return [{ recorded: expect, difference: (expected) => endingDifference(ending, expected) }];
};

const names = (list: readonly SDPBackend[]) => list.map((b) => SDPBackend[b]!);
const backend = (name: string) => SDPBackend[name as keyof typeof SDPBackend];
const sorted = (list: readonly string[]) => [...list].sort();

/** "ok", or the name of the error a call gives under the selection that holds. */
async function call(kind: string): Promise<string> {
  const width = kind === "value_dim" ? 2 : 4;
  using q = Tensor.from(new Float32Array(24).fill(0.5), { shape: [1, 2, 3, 4] });
  using v = Tensor.from(new Float32Array(6 * width).fill(1), { shape: [1, 2, 3, width] });
  using mask = kind === "masked"
    ? Tensor.from(new Uint8Array(9).fill(1), { shape: [1, 1, 3, 3], dtype: "bool" })
    : null;
  const ending = await endingOf(async () => {
    const dropout = (kind === "dropout" ? 0.1 : 0) as 0;
    const { attn_output } = await attention(q, q, v, { attention_mask: mask, dropout });
    attn_output[Symbol.dispose]();
  });
  return ending.kind === "ok" ? "ok" : ending.name;
}

/** Nested contexts: what is enabled in each, what calls give in the innermost, what is left afterwards. */
export const runContext: Runner = async ({ params, expect }) => {
  const held: Disposable[] = [], levels = [];
  for (const [list, set_priority] of params["stack"] as unknown as [string | string[], boolean][]) {
    held.push(sdpa_kernel(Array.isArray(list) ? list.map(backend) : backend(list), { set_priority }));
    const priority = names(enabledSdpaBackends());
    levels.push({ enabled: sorted(priority), priority });
  }
  const calls: Record<string, string> = {};
  const recordedCalls = (expect as { calls: Record<string, string> }).calls;
  for (const kind of Object.keys(recordedCalls)) calls[kind] = await call(kind);
  for (const h of held.reverse()) h[Symbol.dispose]();
  const restored_priority = names(enabledSdpaBackends());
  const found = { levels, restored: sorted(restored_priority), restored_priority };
  // Back to the default order for the next case: the reference, too, leaves a changed order behind.
  sdpa_kernel([1, 2, 0, 3, 4], { set_priority: true });
  return [{
    recorded: expect,
    difference: (expected) =>
      faultOf(() => {
        const { calls: wanted, ...rest } = expected as { calls: Record<string, string> };
        assertEquals<unknown>(found, rest);
        // PyTorch has one class of errors here, this library says which argument or backend it refuses.
        const as = (kind: string) =>
          wanted[kind] === "RuntimeError" && calls[kind] !== "ok" ? "RuntimeError" : calls[kind];
        assertEquals(Object.fromEntries(Object.keys(wanted).map((kind) => [kind, as(kind)])), wanted);
      }),
  }];
};

/** Names and numbers of the backends. */
export const runMembers: Runner = ({ expect }) => {
  const priority = names(enabledSdpaBackends());
  const values = Object.keys((expect as { values: Record<string, number> }).values);
  const found = {
    values: Object.fromEntries(values.map((name) => [name, backend(name)])),
    default_enabled: sorted(priority),
    default_priority: priority,
  };
  return Promise.resolve([{
    recorded: expect,
    difference: (expected) => faultOf(() => assertEquals<unknown>(found, expected)),
  }]);
};

/** Arguments as they were written in Python. */
const ARGUMENTS: Readonly<Record<string, unknown>> = {
  "'math'": "math",
  "('MATH',)": ["MATH"],
  "0": 0,
  None: null,
};

/** What is not a backend. */
export const runBadArgument: Runner = async ({ params, expect }) => {
  const given = ARGUMENTS[String(params["value"])] as SDPBackend;
  const ending = await endingOf(() => sdpa_kernel(given)[Symbol.dispose]());
  return [{ recorded: expect, difference: (expected) => endingDifference(ending, expected) }];
};
