import { assert, assertEquals, assertRejects } from "@std/assert";
import { AttentionInterface, InvalidArgument, sdpa_attention_forward, trace_attention } from "../../mod.ts";
import { attention_weights } from "../../src/inspect/weights.ts";
import { reference_attention } from "../../testing.ts";
import { disposeAll, everywhere, ids, liveTest, reportSkipped } from "../models/support.ts";
import { assertClose, toleranceOf } from "../support/tolerance.ts";
import { golden, prompt } from "./broken.ts";

const WINDOW = 4;

everywhere("weights: are the oracle's, over a prompt and its answer, past a window", async (device) => {
  for (const implementation of ["eager", "sdpa", "flash_attention_2", "flex_attention"]) {
    await using model = await golden("mistral", implementation, device);
    const { tokens, matrices } = await attention_weights(model, prompt(6), {
      layer: "all",
      head: "all",
      new_tokens: 4,
    });
    assertEquals([tokens.length, matrices.length], [10, 3 * 4]);
    // The oracle sees the whole sequence at once: 6 of the prompt, and 3 of the answer that were queries.
    using input_ids = ids([tokens.slice(0, 9)]);
    const output = await trace_attention(model, { input_ids, use_cache: false }, async (t) => {
      const of = async (x: typeof t.query) => ({ data: await x.data() as Float32Array, shape: x.shape });
      const { weights } = reference_attention({
        query: await of(t.query),
        key: await of(t.key),
        value: await of(t.value),
        mask: (_b, _h, q, kv) => kv <= q && q - kv < WINDOW,
      });
      const own = matrices.filter((m) => m.layer_index === t.layer_index);
      assertEquals(
        own.map(({ head, queries, keys }) => [head, queries, keys]),
        [0, 1, 2, 3].map((h) => [h, 9, 9]),
      );
      const joined = Float64Array.from(own.flatMap((m) => [...m.weights]));
      // Of a whole model: the answer's keys came from a cache, the oracle's from one forward.
      assertClose(joined, weights, toleranceOf("hidden", device), implementation);
      for (const { hidden } of own) {
        const expected = Array.from({ length: 81 }, (_, i) => {
          const [q, kv] = [Math.floor(i / 9), i % 9];
          return kv <= q && q - kv < WINDOW ? 0 : 1;
        });
        assertEquals([...hidden], expected);
      }
    });
    disposeAll(output);
  }
});

liveTest("weights: heads become one matrix as asked, and each is what JSON holds", async () => {
  await using model = await golden("llama");
  const of = async (head: number | "mean" | "max" | "all") =>
    (await attention_weights(model, prompt(4), { layer: 1, head, new_tokens: 0 })).matrices;
  const all = (await of("all")).map(({ weights }) => weights);
  assertEquals((await of(2))[0]!.weights, all[2]!);
  const [max] = await of("max"), [mean] = await of("mean");
  assertEquals([...max!.weights], [...all[0]!].map((_, i) => Math.max(...all.map((w) => w[i]!))));
  assertEquals([...mean!.weights], [...all[0]!].map((_, i) => all.reduce((sum, w) => sum + w[i]!, 0) / 4));
  assert(mean!.weights.every((x, i) => mean!.hidden[i] === 1 || x > 0));
});

liveTest("weights: an encoder has no answer, and sees both ways", async () => {
  await using model = await golden("bert");
  const { matrices: [m] } = await attention_weights(model, prompt(3), { layer: 0, head: 0, new_tokens: 0 });
  assertEquals([...m!.hidden], new Array(9).fill(0));
  await assertRejects(
    () => attention_weights(model, prompt(3), { layer: 0, head: 0, new_tokens: 1 }),
    InvalidArgument,
    "no language-modelling head",
  );
});

liveTest("weights: refuses what is not there", async () => {
  await using model = await golden("llama");
  const ask = (layer: number, head: number) =>
    assertRejects(() => attention_weights(model, prompt(2), { layer, head, new_tokens: 0 }), InvalidArgument);
  assertEquals((await ask(2, 0)).message, "Cannot show attention layer 2: the model has layers 0…1");
  assertEquals((await ask(0, 4)).message, "Cannot show head 4 of layers.0.self_attn: it has heads 0…3");
  AttentionInterface.register("mute", (...given) => [sdpa_attention_forward(...given)[0], null]);
  await model.set_attn_implementation("mute");
  assert((await ask(0, 0)).message.includes('"mute": it returned no weights'));
});

reportSkipped();
