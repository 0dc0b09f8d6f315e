/**
 * Static and sliding caches under whole models: the recorded tokens, the same tokens as without them, and what a failed
 * forward leaves.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  AttentionInterface,
  AttentionMaskInterface,
  AutoModelForCausalLM,
  type DeviceName,
  DynamicCache,
  eager_attention_forward,
  eager_mask,
  type GenerateOptions,
  InvalidArgument,
  liveBuffers,
  type PreTrainedModel,
  StaticCache,
} from "../../mod.ts";
import {
  everywhere,
  ids,
  liveTest,
  LLAMA,
  reportSkipped,
  rowsOf,
  writeTinyLlama,
} from "../models/support.ts";
import { type GoldenCase, goldenCases, goldenPath } from "../support/golden.ts";
import { assertClose, toleranceOf } from "../support/tolerance.ts";

const IMPLEMENTATIONS = ["eager", "sdpa", "flash_attention_2"] as const;
const PROMPT = [3, 41, 19, 10, 47, 6, 12, 36];

/** As `everywhere`, without a GPU. */
function onWasm(name: string, fn: (device: DeviceName) => Promise<void>): void {
  liveTest(name, () => fn("wasm"));
}

/** New tokens after the prompt of a recording. */
async function generated(model: PreTrainedModel, c: GoldenCase, options: Partial<GenerateOptions>) {
  const rows = c.params.input_ids as number[][], mask = c.params.attention_mask as number[][] | undefined;
  using input_ids = ids(rows);
  using attention_mask = mask === undefined ? null : ids(mask);
  const max_new_tokens = c.params.max_new_tokens as number;
  const all = await rowsOf(
    await model.generate({
      input_ids,
      max_new_tokens,
      ...(attention_mask === null ? {} : { attention_mask }),
      ...options,
    }),
  );
  return all.map((row) => row.slice(rows[0]!.length));
}

const RECORDED = goldenCases("model", "generate").filter((c) =>
  c.params.cache === "static" && c.params.attn_implementation === "eager" &&
  ["llama", "mistral", "gemma2"].includes(c.params.arch as string)
);

for (const c of RECORDED) {
  for (const attn_implementation of IMPLEMENTATIONS) {
    // The tests of the models run the same recordings on every device.
    const register = c.id.includes("llama/generate/left_padded") ? everywhere : onWasm;
    register(`${c.id} with cache_implementation: "static" as ${attn_implementation}`, async (device) => {
      const folder = goldenPath(c.params.model as string);
      await using model = await AutoModelForCausalLM.from_pretrained(folder, { attn_implementation, device });
      const { tokens } = c.expect as unknown as { tokens: number[][] };
      assertEquals(await generated(model, c, { cache_implementation: "static" }), tokens);
    });
  }
}

/** Logits of a prompt read in pieces. */
async function inPieces(
  model: PreTrainedModel,
  past_key_values: DynamicCache | StaticCache,
  sizes: readonly number[],
  inputs: Record<string, unknown> = {},
): Promise<Float64Array> {
  const all: number[] = [];
  let at = 0;
  for (const n of sizes) {
    using input_ids = ids([PROMPT.slice(at, at + n)]);
    const { logits } = await model.forward({ input_ids, past_key_values, ...inputs });
    using owned = logits!;
    all.push(...await owned.data() as Float32Array);
    at += n;
  }
  return Float64Array.from(all);
}

for (const window of [null, 3]) {
  for (const is_causal of [true, false]) {
    const name = `${window === null ? "full" : "sliding"} layers, ${
      is_causal ? "causal" : "both directions"
    }`;
    liveTest(`a static cache computes what a dynamic one does, whole and in pieces: ${name}`, async () => {
      await using checkpoint = await writeTinyLlama({
        config: window === null ? {} : { sliding_window: window },
      });
      await using model = await AutoModelForCausalLM.from_pretrained(checkpoint.folder);
      for (const sizes of [[8], [5, 3], [1, 1, 4, 1, 1]]) {
        let expected: Float64Array | null = null;
        for (const implementation of IMPLEMENTATIONS) {
          await model.set_attn_implementation(implementation);
          using all = new DynamicCache();
          using dynamic = new DynamicCache({ config: model.config });
          using fixed = new StaticCache({ config: model.config, max_cache_len: 16 });
          // A cache of all tokens and a mask need no window in the cache: it is what the others are measured by.
          expected ??= await inPieces(model, all, sizes, { is_causal });
          for (const cache of is_causal || window === null ? [all, dynamic, fixed] : [all]) {
            cache.reset();
            const logits = await inPieces(model, cache, sizes, { is_causal });
            assertClose(logits, expected, toleranceOf("logits", "wasm"), `${implementation} ${sizes}`);
          }
        }
      }
    });
  }
}

/** An attention function that does in its last layer what it is told to. */
const told = { to: () => {} };
AttentionMaskInterface.register("interrupted", eager_mask);
AttentionInterface.register("interrupted", (module, ...rest) => {
  if (module.layer_idx === 1) told.to();
  return eager_attention_forward(module, ...rest);
});

for (const kind of ["dynamic", "static"] as const) {
  for (const window of [null, 3]) {
    liveTest(
      `a forward that fails half-way leaves a ${kind} cache ${
        window === null ? "" : "with a window "
      }as it was`,
      async () => {
        await using checkpoint = await writeTinyLlama({
          config: window === null ? {} : { sliding_window: window },
        });
        await using model = await AutoModelForCausalLM.from_pretrained(checkpoint.folder);
        const { config } = model;
        const make = () =>
          kind === "dynamic" ? new DynamicCache({ config }) : new StaticCache({ config, max_cache_len: 16 });
        using undisturbed = make();
        using cache = make();
        await model.set_attn_implementation("interrupted");
        const sizes = [4, 1, 1, 2];
        const expected = await inPieces(model, undisturbed, sizes);
        const actual: number[] = [];
        let at = 0;
        for (const n of sizes) {
          using input_ids = ids([PROMPT.slice(at, at + n)]);
          const live = liveBuffers();
          const controller = new AbortController();
          const interruptions = [
            () => {
              throw new Error("told to");
            },
            () => controller.abort(new Error("told to")),
          ];
          for (const to of interruptions) {
            told.to = to;
            const inputs = { input_ids, past_key_values: cache, signal: controller.signal };
            await assertRejects(() => model.forward(inputs), Error, "told to");
            told.to = () => {};
            assertEquals([cache.get_seq_length(0), cache.get_seq_length(1)], [at, at]);
            assert(liveBuffers() <= live, "nothing more is alive than before");
          }
          const { logits } = await model.forward({ input_ids, past_key_values: cache });
          using owned = logits!;
          actual.push(...await owned.data() as Float32Array);
          at += n;
        }
        assertClose(actual, expected, toleranceOf("logits", "wasm"));
      },
    );
  }
}

for (const window of [null, 20]) {
  const name = window === null ? "grows" : "moves its window";
  liveTest(
    `an aborted forward in which a cache ${name} has dropped the copies, and the cache does not miss them`,
    async () => {
      const config = { max_position_embeddings: 256, ...(window === null ? {} : { sliding_window: window }) };
      await using checkpoint = await writeTinyLlama({ config });
      await using model = await AutoModelForCausalLM.from_pretrained(checkpoint.folder);
      await model.set_attn_implementation("interrupted");
      const last = async (past_key_values: DynamicCache, n: number, signal?: AbortSignal) => {
        using input_ids = ids([Array.from({ length: n }, (_, i) => (i * 7 + n) % 48)]);
        const { logits } = await model.forward({ input_ids, past_key_values, ...(signal ? { signal } : {}) });
        using owned = logits!;
        return await owned.data() as Float32Array;
      };
      using undisturbed = new DynamicCache({ config: model.config });
      using cache = new DynamicCache({ config: model.config });
      // Buffers have room for 64 tokens at first.
      await last(undisturbed, 40);
      await last(cache, 40);
      for (const n of [30, 50]) {
        const expected = await last(undisturbed, n);
        const controller = new AbortController();
        told.to = () => controller.abort(new Error("enough"));
        await assertRejects(() => last(cache, n, controller.signal), Error, "enough");
        told.to = () => {};
        assertClose(await last(cache, n), expected, toleranceOf("logits", "wasm"));
      }
    },
  );
}

liveTest("implementations are swapped under one static cache", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  using cache = new StaticCache({ config: model.config, max_cache_len: PROMPT.length + 12 });
  using prompt = ids([PROMPT]);
  const expected = (await rowsOf(await model.generate({ input_ids: prompt, max_new_tokens: 12 })))[0]!;
  let row = PROMPT;
  for (const name of [...IMPLEMENTATIONS, ...IMPLEMENTATIONS]) {
    await model.set_attn_implementation(name);
    using input_ids = ids([row]);
    row = (await rowsOf(await model.generate({ input_ids, max_new_tokens: 2, past_key_values: cache })))[0]!;
  }
  assertEquals(row, expected);
  using input_ids = ids([[...row, 1]]);
  const more = model.generate({ input_ids, max_new_tokens: 2, past_key_values: cache });
  await assertRejects(() => more, InvalidArgument, "max_cache_len");
});

liveTest("generate refuses a cache it does not know, and two", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  using input_ids = ids([PROMPT]);
  for (const cache_implementation of ["offloaded", "", null, true] as never[]) {
    await assertRejects(
      () => model.generate({ input_ids, cache_implementation }),
      InvalidArgument,
      "dynamic, static",
    );
  }
  using past_key_values = new DynamicCache();
  await assertRejects(
    () => model.generate({ input_ids, past_key_values, cache_implementation: "static" }),
    InvalidArgument,
    "one of them",
  );
});

reportSkipped();
