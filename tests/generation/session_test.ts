/**
 * Sessions: what a prompt has in common with the last turn is not computed again, and the tokens are the same.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import {
  AutoModelForCausalLM,
  AutoModelForImageTextToText,
  DynamicCache,
  type GenerateOptions,
  GenerationConfig,
  GenerationSession,
  InvalidArgument,
  ModelFileError,
  type PreTrainedModel,
  save_cache,
  StaticCache,
  Tensor,
} from "../../mod.ts";
import { everywhere, ids, liveTest, LLAMA, reportSkipped, rowsOf } from "../models/support.ts";
import { inFolder } from "../support/folders.ts";
import { goldenPath } from "../support/golden.ts";

const OPTIONS = { max_new_tokens: 6, eos_token_id: null } as const;
const FIRST = Array.from({ length: 9 }, (_, i) => (7 * i + 3) % 60);

interface Generator {
  generate(options: GenerateOptions): Promise<Tensor>;
}

async function turn(on: Generator, row: readonly number[], options: Partial<GenerateOptions> = {}) {
  using input_ids = ids([row]);
  return (await rowsOf(await on.generate({ input_ids, ...OPTIONS, ...options })))[0]!;
}

/** Counts the tokens that go through a model's forward, until it is put back. */
function counting(model: PreTrainedModel): { tokens: number } & Disposable {
  const count = { tokens: 0, [Symbol.dispose]: () => Reflect.deleteProperty(model, "forward") };
  const { forward } = model;
  Object.defineProperty(model, "forward", {
    configurable: true,
    value: (inputs: { input_ids: Tensor }) => {
      count.tokens += inputs.input_ids.size;
      return forward.call(model, inputs);
    },
  });
  return count;
}

everywhere(
  "turns of a conversation give the tokens of fresh generations, without computing twice",
  async (device) => {
    await using model = await AutoModelForCausalLM.from_pretrained(LLAMA, { device });
    using session = new GenerationSession(model);
    let text: number[] = [];
    for (const more of [FIRST, [4, 5, 6], [50], [7, 8, 9, 10]]) {
      const held = session.token_ids.length;
      text = [...text, ...more];
      const expected = await turn(model, text);
      using count = counting(model);
      assertEquals(await turn(session, text), expected);
      // All but the last token of the turn before is kept.
      assertEquals(session.reused, held);
      assertEquals(count.tokens, expected.length - 1 - held);
      assertEquals(session.restarted, null);
      assertEquals([...session.token_ids], expected.slice(0, -1));
      text = expected;
    }
  },
);

liveTest("a prompt that goes another way keeps what it has in common", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  using session = new GenerationSession(model);
  const first = await turn(session, FIRST);
  for (
    const [prompt, reused] of [
      [[...FIRST.slice(0, 5), 50, 51], 5],
      [FIRST.slice(0, 5), 4],
      [FIRST, 5],
      [FIRST, 8],
      [first, 14],
      [[50, 51, 52], 0],
    ] as const
  ) {
    const expected = await turn(model, prompt);
    using count = counting(model);
    assertEquals(await turn(session, prompt), expected);
    assertEquals(session.reused, reused);
    assertEquals(count.tokens, expected.length - 1 - reused);
    assertEquals(session.restarted, null);
  }
});

for (const arch of ["gemma2", "mistral", "llama4"]) {
  liveTest(`${arch}: where a window has moved on, going back begins anew and says so`, async () => {
    await using model = await AutoModelForCausalLM.from_pretrained(goldenPath(`models/${arch}`));
    using session = new GenerationSession(model);
    const long = Array.from({ length: 24 }, (_, i) => (5 * i + 1) % 60);
    const first = await turn(session, long);
    // Going on needs nothing back.
    const next = [...first, 11, 12];
    assertEquals(await turn(session, next), await turn(model, next));
    assertEquals([session.reused, session.restarted], [first.length - 1, null]);
    const back = [...long, 13, 14];
    const expected = await turn(model, back);
    using count = counting(model);
    assertEquals(await turn(session, back), expected);
    assertEquals([session.reused, count.tokens], [0, expected.length - 1]);
    assertStringIncludes(session.restarted!, "window");
    await turn(session, [...expected, 1]);
    assertEquals(session.restarted, null);
  });
}

liveTest("a static cache, an assistant, sampling and a dict work in a session", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  await using other = await AutoModelForCausalLM.from_pretrained(goldenPath("models/mistral"));
  using session = new GenerationSession(model, {
    past_key_values: new StaticCache({ config: model.config, max_cache_len: 64 }),
  });
  const options = [{}, { assistant_model: other }, { do_sample: true, seed: 5 }, {
    prompt_lookup_num_tokens: 3,
  }];
  let text: readonly number[] = FIRST;
  for (const option of options) {
    const expected = await turn(model, text, option);
    assertEquals(await turn(session, text, option), expected);
    assertEquals([...session.token_ids], expected.slice(0, -1));
    text = [...expected, 3];
  }
  using input_ids = ids([text]);
  using output = await session.generate({ input_ids, ...OPTIONS, return_dict_in_generate: true });
  assertEquals((await output.sequences.tolist() as number[][])[0], await turn(model, text));
  assert(session.reused > 20);
});

liveTest("after an abort or an error the session goes on with what was computed", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  await using other = await AutoModelForCausalLM.from_pretrained(goldenPath("models/mistral"));
  const expected = await turn(model, FIRST);
  for (
    const option of [{}, { assistant_model: other }, { assistant_model: model, num_assistant_tokens: 4 }]
  ) {
    for (const after of [1, 3]) {
      using session = new GenerationSession(model);
      const reason = new Error("enough");
      let seen = 0;
      let ended: unknown = null;
      const streamer = {
        put: () => {
          if (++seen === after) throw reason;
        },
        end: (error?: unknown) => void (ended = error),
      };
      assertEquals(await assertRejects(() => turn(session, FIRST, { ...option, streamer })), reason);
      assertEquals(ended, reason);
      // All tokens but the last, which was seen but not computed.
      assertEquals([...session.token_ids], expected.slice(0, FIRST.length + after - 1));
      assertEquals(await turn(session, expected.slice(0, FIRST.length + after)), [
        ...expected,
        ...(await turn(model, expected, { max_new_tokens: after })).slice(-after),
      ]);
      assertEquals(session.reused, FIRST.length + after - 1);
    }
    using session = new GenerationSession(model);
    const controller = new AbortController();
    controller.abort(new Error("before"));
    await assertRejects(() => turn(session, FIRST, { signal: controller.signal }), Error, "before");
    assertEquals([...session.token_ids], []);
    assertEquals(await turn(session, FIRST), expected);
  }
});

liveTest("a streamer receives prompt, tokens and end as without a session", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  using session = new GenerationSession(model);
  const heard: unknown[] = [];
  const streamer = {
    put_prompt: (rows: number[][]) => void heard.push(rows),
    put: (tokens: number[]) => void heard.push(tokens),
    end: () => void heard.push("end"),
  };
  await turn(model, FIRST, { streamer });
  const expected = heard.splice(0);
  assertEquals(expected.length, 8);
  await turn(session, FIRST, { streamer });
  assertEquals(heard, expected);
});

everywhere("a session is saved and goes on elsewhere", async (device) => {
  await inFolder(async (folder) => {
    await using model = await AutoModelForCausalLM.from_pretrained(LLAMA, { device });
    using session = new GenerationSession(model);
    const first = await turn(session, FIRST);
    await session.save(`${folder}/session`);
    using again = await GenerationSession.load(model, `${folder}/session`);
    assertEquals([...again.token_ids], first.slice(0, -1));
    const next = [...first, 9, 8];
    using count = counting(model);
    const got = await turn(again, next);
    assertEquals([again.reused, count.tokens], [first.length - 1, got.length - first.length]);
    assertEquals(got, await turn(session, next));
  });
});

liveTest("reset forgets, and a session that was disposed is refused", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  const session = new GenerationSession(model);
  const first = await turn(session, FIRST);
  session.reset();
  assertEquals([...session.token_ids], []);
  assertEquals(await turn(session, FIRST), first);
  assertEquals(session.reused, 0);
  // Disposed while a call runs: the cache is given back when it ends.
  const running = turn(session, FIRST);
  await assertRejects(() => turn(session, FIRST), InvalidArgument, "while another of its calls runs");
  assertThrows(() => session.reset(), InvalidArgument, "while another");
  session[Symbol.dispose]();
  await running.catch(() => {});
  await assertRejects(() => turn(session, FIRST), InvalidArgument, "disposed");
  session[Symbol.dispose]();
});

liveTest("what a session cannot do is refused, and leaves it as it was", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  using session = new GenerationSession(model);
  const first = await turn(session, FIRST);
  const refuse = async (options: Record<string, unknown>, ...words: string[]) => {
    const error = await assertRejects(() => turn(session, FIRST, options), InvalidArgument);
    for (const word of words) assertStringIncludes(error.message, word);
    assertEquals([...session.token_ids], first.slice(0, -1));
  };
  using two = ids([FIRST, FIRST]);
  using mask = ids([FIRST.map(() => 1)]);
  using cache = new DynamicCache();
  await refuse({ input_ids: two }, "(1, N)");
  await refuse({ num_beams: 2 }, "num_beams 1");
  await refuse({ generation_config: new GenerationConfig({ num_beams: 3 }) }, "3");
  await refuse({ do_sample: true, num_return_sequences: 2 }, "num_return_sequences 1");
  await refuse({ attention_mask: mask }, "attention_mask");
  await refuse({ past_key_values: cache }, "past_key_values");
  await refuse({ streamer: {} }, "streamer");
  await refuse({ input_ids: [[1]] }, "input_ids");
  assertThrows(() => new GenerationSession(model, { token_ids: [1, 2] }), InvalidArgument, "2 token_ids");
  assertThrows(() => new GenerationSession(model, { cache } as object), InvalidArgument, '"cache"');
  await inFolder(async (folder) => {
    await using mistral = await AutoModelForCausalLM.from_pretrained(goldenPath("models/mistral"));
    await session.save(`${folder}/a`);
    await assertRejects(() => GenerationSession.load(mistral, `${folder}/a`), ModelFileError, "fingerprint");
    using empty = new DynamicCache({ config: model.config });
    await save_cache(empty, `${folder}/b`, { config: model.config });
    await assertRejects(() => GenerationSession.load(model, `${folder}/b`), InvalidArgument, "one row");
  });
  await using llava = await AutoModelForImageTextToText.from_pretrained(goldenPath("models/llava"));
  using pictured = new GenerationSession(llava);
  using pixel_values = Tensor.from(new Float32Array(192), { shape: [1, 3, 8, 8] });
  await assertRejects(() => turn(pictured, FIRST, { pixel_values }), InvalidArgument, "pixel_values");
  assertEquals(await turn(pictured, FIRST), await turn(llava, FIRST));
});

reportSkipped();
