/**
 * The public conformance suite on the built-in implementations, on a toy backend, and on faulty ones.
 *
 * @module
 */
import { assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import {
  type AttentionFunction,
  AttentionInterface,
  AttentionMaskInterface,
  eager_attention_forward,
  InvalidArgument,
  liveBuffers,
  ops,
  sdpa_mask,
  type Tensor,
} from "../../mod.ts";
import { conformance, type ConformanceCase } from "../../testing.ts";
import { DEVICES, liveTest, reportSkipped } from "../models/support.ts";

/** A toy backend: all it needs to be swapped in, without a line of `src`. */
const toy: AttentionFunction = (module, query, key, value, attention_mask, kwargs) => {
  const mask = attention_mask as Tensor | null;
  const groups = query.shape[1]! / key.shape[1]!;
  let scores = ops.matmul(query, ops.repeat_kv(key, groups), { transpose_b: true });
  scores = ops.mul(scores, kwargs.scaling ?? module.scaling);
  if (kwargs.softcap) scores = ops.mul(ops.tanh(ops.div(scores, kwargs.softcap)), kwargs.softcap);
  if (mask !== null) scores = ops.where(mask, scores, -Infinity);
  if (kwargs.s_aux) {
    const [b, h, q] = scores.shape as [number, number, number];
    const sink = ops.add(
      ops.reshape(kwargs.s_aux, [1, h, 1, 1]),
      ops.zeros([b, h, q, 1], { device: query.device }),
    );
    scores = ops.cat([scores, sink], 3);
  }
  const weights = ops.slice(ops.softmax(scores), 3, 0, key.shape[2]!);
  return [ops.permute(ops.matmul(weights, ops.repeat_kv(value, groups)), [0, 2, 1, 3]), weights];
};
AttentionInterface.register("toy", toy);
AttentionMaskInterface.register("toy", (args) => sdpa_mask({ ...args, allow_is_causal_skip: false }));

for (const { name: device, skip } of DEVICES) {
  const options = { device, ...(skip === undefined ? {} : { ignore: skip }) };
  for (
    const name of [
      "eager",
      "sdpa",
      "flash_attention_2",
      "flash_attention_3",
      "flash_attention_4",
      "flex_attention",
      "paged|eager",
      "paged|sdpa",
      "paged|flash_attention_2",
      "toy",
    ]
  ) {
    conformance(name, options);
  }
}
conformance(toy, { format_mask: (args) => sdpa_mask({ ...args, allow_is_causal_skip: false }) });

/** Runs what `conformance` registers by hand, and returns the names of its steps with their errors. */
async function outcome(
  fn: AttentionFunction,
  cases: readonly ConformanceCase[],
): Promise<Map<string, string | null>> {
  const registered: Deno.TestDefinition[] = [];
  const { test } = Deno;
  Object.assign(Deno, { test: (definition: Deno.TestDefinition) => void registered.push(definition) });
  try {
    conformance(fn, { cases });
  } finally {
    Object.assign(Deno, { test });
  }
  const steps = new Map<string, string | null>();
  const step = async ({ name, fn }: Deno.TestStepDefinition) => {
    const error = await Promise.resolve(fn(context)).then(() => null, (e: unknown) => (e as Error).message);
    steps.set(name, error);
    return error === null;
  };
  const context = { step } as unknown as Deno.TestContext;
  for (const definition of registered) await definition.fn(context);
  return steps;
}

const CASES: readonly ConformanceCase[] = [
  { name: "plain", queries: 3, keys: 5 },
  {
    name: "padded",
    batch: 2,
    queries: 3,
    keys: 3,
    is_causal: true,
    padding: { side: "left", lengths: [3, 1] },
  },
];

liveTest("the suite finds a function that ignores its mask", async () => {
  const maskless: AttentionFunction = (m, q, k, v, _mask, kwargs) =>
    eager_attention_forward(m, q, k, v, null, kwargs);
  const steps = await outcome(maskless, CASES);
  assertEquals(steps.get("plain"), null);
  assertStringIncludes(steps.get("padded")!, "attn_output[");
});

liveTest("the suite finds NaN, wrong shapes and errors, and leaves nothing behind", async () => {
  const live = liveBuffers();
  const nan = await outcome(
    (_m, q) => [ops.full([1, 3, 2, 8], NaN, { device: q.device }), null],
    CASES.slice(0, 1),
  );
  assertStringIncludes(nan.get("plain")!, "NaN");
  const shape = await outcome((_m, q) => [q.view(q.shape, q.strides), null], CASES.slice(0, 1));
  assertStringIncludes(shape.get("plain")!, "[1,2,3,8]");
  const thrown = await outcome(() => Promise.reject(new Error("mine")), CASES.slice(0, 1));
  assertEquals(thrown.get("plain"), "mine");
  assertEquals(liveBuffers(), live);
});

liveTest("a name without a formatter is refused", async () => {
  AttentionInterface.register("without_formatter", toy);
  assertThrows(() => conformance("without_formatter"), InvalidArgument, "AttentionMaskInterface.register");
  await assertRejects(() => outcome("nobody" as never, CASES));
});

Deno.test("the suite leaves no tensor alive", () => assertEquals(liveBuffers(), 0));

reportSkipped();
