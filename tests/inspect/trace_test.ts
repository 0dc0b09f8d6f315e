import { assertEquals, assertRejects } from "@std/assert";
import { DynamicCache, liveBuffers, trace_attention } from "../../mod.ts";
import { disposeAll, everywhere, ids, liveTest, reportSkipped } from "../models/support.ts";
import { goldenCases, goldenTensor, type GoldenValue } from "../support/golden.ts";
import { assertClose, toleranceOf } from "../support/tolerance.ts";
import { golden, prompt } from "./broken.ts";

everywhere(
  "trace: layers come in order, with their operands, and the output is that of a forward",
  async (device) => {
    await using model = await golden("gemma2", "flash_attention_2", device);
    using input_ids = ids([prompt(6)]);
    const seen: unknown[] = [];
    const traced = await trace_attention(model, { input_ids, use_cache: false }, async (t) => {
      seen.push([t.layer, t.layer_index, t.implementation, t.query.shape, t.key.shape, t.attn_output.shape]);
      assertEquals(t.attn_weights, null);
      assertEquals((await t.attn_output.data()).length, t.attn_output.size);
    });
    const plain = await model.forward({ input_ids, use_cache: false });
    assertEquals(
      seen,
      [0, 1, 2, 3].map((i) => [
        `layers.${i}.self_attn`,
        i,
        "flash_attention_2",
        [1, 4, 6, 8],
        [1, 2, 6, 8],
        [1, 6, 4, 8],
      ]),
    );
    assertEquals(await traced.logits!.data(), await plain.logits!.data());
    disposeAll(traced);
    disposeAll(plain);
  },
);

liveTest("trace: weights go to the visitor, and are those that were recorded", async () => {
  const recorded = goldenCases("model", "forward").filter((c) =>
    c.params.arch === "llama" && c.params.output_attentions === true && c.params.attention_mask === undefined
  );
  assertEquals(recorded.length > 0, true, "no recording has weights");
  for (const c of recorded) {
    await using model = await golden("llama", "sdpa");
    using input_ids = ids(c.params.input_ids as number[][]);
    const expected = (c.expect as Record<string, GoldenValue>).attentions as GoldenValue[];
    const output = await trace_attention(model, { input_ids, output_attentions: true }, async (t) => {
      const weights = await t.attn_weights!.data() as Float32Array;
      assertClose(weights, goldenTensor(expected[t.layer_index]!).data, toleranceOf("hidden", "wasm"));
    });
    assertEquals("attentions" in output, false);
    disposeAll(output);
  }
});

liveTest(
  "trace: positions of queries and keys go on with the sequence, also where a window drops keys",
  async () => {
    await using model = await golden("gemma2");
    using past_key_values = new DynamicCache({ config: model.config });
    const offsets: number[][] = [];
    for (const part of [prompt(7), [5], [6, 7]]) {
      using input_ids = ids([part]);
      const { logits } = await trace_attention(model, { input_ids, past_key_values }, (t) => {
        if (t.layer_index < 2) offsets.push([t.q_offset, t.kv_offset, t.key.shape[2]!]);
      });
      logits![Symbol.dispose]();
    }
    // Layer 0 keeps a window of 4, layer 1 everything.
    assertEquals(offsets, [[0, 0, 7], [0, 0, 7], [7, 4, 4], [7, 0, 8], [8, 5, 5], [8, 0, 10]]);
  },
);

liveTest("trace: what the visitor throws ends the forward, and the cache is as before", async () => {
  await using model = await golden("llama");
  using past_key_values = new DynamicCache({ config: model.config });
  using input_ids = ids([prompt(4)]);
  disposeAll({ logits: (await model.forward({ input_ids, past_key_values })).logits });
  const alive = liveBuffers(), reason = new Error("seen enough");
  const run = trace_attention(
    model,
    { input_ids, past_key_values, output_attentions: true },
    ({ layer_index }) => {
      if (layer_index === 1) throw reason;
    },
  );
  assertEquals(await assertRejects(() => run), reason);
  const stop = new AbortController();
  const stopped = trace_attention(
    model,
    { input_ids, past_key_values, signal: stop.signal },
    () => stop.abort(reason),
  );
  assertEquals(await assertRejects(() => stopped), reason);
  assertEquals([past_key_values.get_seq_length(), liveBuffers()], [4, alive]);
});

reportSkipped();
