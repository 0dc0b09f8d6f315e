/**
 * Streamers and aborts: what is delivered, and that model and cache live on whatever happens.
 *
 * @module
 */
import { assertEquals, assertRejects, assertStrictEquals } from "@std/assert";
import {
  AutoModelForCausalLM,
  AutoTokenizer,
  DynamicCache,
  type GenerateOptions,
  type PreTrainedModel,
  type Streamer,
  TextStreamer,
} from "../../mod.ts";
import { DEMO, disposeAll, ids, liveTest, LLAMA, rowsOf } from "../models/support.ts";

const PROMPT = [3, 41, 19, 10, 47, 6, 12, 36];

const load = (): Promise<PreTrainedModel> => AutoModelForCausalLM.from_pretrained(LLAMA);

async function generate(model: PreTrainedModel, options: Partial<GenerateOptions> = {}): Promise<number[][]> {
  using input_ids = ids([PROMPT]);
  return await rowsOf(await model.generate({ input_ids, max_new_tokens: 8, ...options }));
}

/** A streamer that notes what it is given, and calls `then` after each. */
function recorder(
  then: (step: number) => void | Promise<void> = () => {},
): Streamer & { puts: number[][]; ends: number } {
  const puts: number[][] = [];
  return {
    puts,
    ends: 0,
    async put(tokens) {
      puts.push(tokens);
      await then(puts.length);
    },
    end() {
      this.ends++;
    },
  };
}

liveTest("a streamer gets every new token once, in order, then one end", async () => {
  await using model = await load();
  const streamer = recorder();
  const tokens = await generate(model, { streamer });
  assertEquals(streamer.puts.flat(), tokens[0]!.slice(PROMPT.length));
  assertEquals([streamer.puts.length, streamer.ends], [8, 1]);
});

liveTest("a batch streams one token per row; a finished row gives padding", async () => {
  await using model = await load();
  using input_ids = ids([PROMPT, [...PROMPT].reverse()]);
  const plain = await rowsOf(await model.generate({ input_ids, max_new_tokens: 6 }));
  const [a, b] = plain.map((row) => row.slice(PROMPT.length)) as [number[], number[]];
  const eos = a.find((t) => !b.includes(t))!, at = a.indexOf(eos);
  const streamer = recorder();
  (await model.generate({ input_ids, max_new_tokens: 6, streamer, eos_token_id: eos, pad_token_id: 1 }))
    [Symbol.dispose]();
  assertEquals(streamer.puts, b.map((t, i) => [i <= at ? a[i]! : 1, t]));
});

liveTest("a slow streamer holds generation back: no token is lost", async () => {
  await using model = await load();
  const streamer = recorder(() => new Promise((resolve) => setTimeout(resolve, 3)));
  assertEquals((await generate(model, { streamer }))[0]!.slice(PROMPT.length), streamer.puts.flat());
});

for (const kind of ["throws", "rejects"] as const) {
  liveTest(`a streamer that ${kind} ends generation with its error; model and cache live on`, async () => {
    await using model = await load();
    const whole = await generate(model);
    const mistake = new Error("the client went away");
    using past_key_values = new DynamicCache();
    const streamer: Streamer & { ends: number } = {
      ends: 0,
      put: (tokens) => {
        if (past_key_values.get_seq_length() < PROMPT.length + 2) return;
        assertEquals(tokens.length, 1);
        if (kind === "throws") throw mistake;
        return Promise.reject(mistake);
      },
      end() {
        this.ends++;
      },
    };
    assertStrictEquals(await assertRejects(() => generate(model, { streamer, past_key_values })), mistake);
    assertEquals(streamer.ends, 1, "end is called after an error, too");
    assertEquals(past_key_values.get_seq_length(), PROMPT.length + 2, "the cache keeps the finished steps");
    using sofar = ids([whole[0]!.slice(0, PROMPT.length + 3)]);
    const rest = await rowsOf(await model.generate({ input_ids: sofar, max_new_tokens: 5, past_key_values }));
    assertEquals(rest, whole);
    assertEquals(await generate(model), whole);
  });
}

liveTest("a streamer whose end throws still leaves the model usable and nothing behind", async () => {
  await using model = await load();
  const mistake = new Error("cannot close");
  const streamer: Streamer = {
    put: () => {},
    end: () => {
      throw mistake;
    },
  };
  assertStrictEquals(await assertRejects(() => generate(model, { streamer })), mistake);
  assertEquals((await generate(model))[0]!.length, PROMPT.length + 8);
});

liveTest("a signal aborted before the call: its reason, nothing computed, no token streamed", async () => {
  await using model = await load();
  using past_key_values = new DynamicCache();
  const reason = { code: 42 };
  const streamer = recorder();
  const signal = AbortSignal.abort(reason);
  const rejected = await generate(model, { signal, streamer, past_key_values }).catch((e: unknown) => e);
  assertStrictEquals(rejected, reason);
  assertEquals([streamer.puts.length, past_key_values.get_seq_length()], [0, 0]);
  assertEquals((await generate(model, { past_key_values }))[0]!.length, PROMPT.length + 8);
});

liveTest("an abort without a reason rejects with an AbortError, a timeout with a TimeoutError", async () => {
  await using model = await load();
  const aborted = await assertRejects(() => generate(model, { signal: AbortSignal.abort() }), DOMException);
  assertEquals(aborted.name, "AbortError");
  let slow: Promise<void> = Promise.resolve();
  const streamer = recorder(() => slow = new Promise((resolve) => setTimeout(resolve, 10)));
  const late = await assertRejects(
    () => generate(model, { signal: AbortSignal.timeout(25), streamer, max_new_tokens: 100 }),
    DOMException,
  );
  assertEquals(late.name, "TimeoutError");
  // The abort does not wait for the streamer; the test does.
  await slow;
});

liveTest("an abort between two steps: the cache holds the finished steps and can be continued", async () => {
  await using model = await load();
  const whole = await generate(model);
  using past_key_values = new DynamicCache();
  const controller = new AbortController();
  const reason = new Error("stop");
  const streamer = recorder((step) => {
    if (step === 3) controller.abort(reason);
  });
  const stopped = generate(model, { signal: controller.signal, streamer, past_key_values });
  assertStrictEquals(await assertRejects(() => stopped), reason);
  assertEquals([streamer.puts.length, streamer.ends], [3, 1]);
  assertEquals(past_key_values.get_seq_length(), PROMPT.length + 2);
  using sofar = ids([whole[0]!.slice(0, PROMPT.length + 3)]);
  assertEquals(
    await rowsOf(await model.generate({ input_ids: sofar, max_new_tokens: 5, past_key_values })),
    whole,
  );
});

liveTest("an abort during a prefill: the reason, the passed cache unchanged, the model usable", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(DEMO);
  const long = Array.from({ length: 1500 }, (_, i) => 3 + i * 31 % 3000);
  using past_key_values = new DynamicCache();
  using head = ids([long.slice(0, 40)]);
  disposeAll(
    await model.forward({ input_ids: head, past_key_values, logits_to_keep: 1 }).then(({ logits }) => ({
      logits,
    })),
  );
  using input_ids = ids([long]);
  using short = ids([long.slice(0, 60)]);
  const expected = await rowsOf(await model.generate({ input_ids: short, max_new_tokens: 4 }));
  const controller = new AbortController();
  const reason = new Error("changed my mind");
  setTimeout(() => controller.abort(reason), 30);
  const stopped = model.generate({
    input_ids,
    past_key_values,
    max_new_tokens: 4,
    signal: controller.signal,
  });
  assertStrictEquals(await assertRejects(() => stopped), reason);
  assertEquals(past_key_values.get_seq_length(), 40);
  const after = await rowsOf(await model.generate({ input_ids: short, past_key_values, max_new_tokens: 4 }));
  assertEquals(after, expected, "the cache has the values it had before");
});

liveTest(
  "aborts at any moment leave nothing wrong behind: the next tokens are those of a fresh model",
  async () => {
    const long = Array.from({ length: 1500 }, (_, i) => 3 + i * 31 % 3000);
    await using model = await AutoModelForCausalLM.from_pretrained(DEMO);
    using input_ids = ids([long]);
    using short = ids([long.slice(0, 60)]);
    const next = async () => await rowsOf(await model.generate({ input_ids: short, max_new_tokens: 4 }));
    const expected = await next();
    for (const after of [0, 1, 3, 6, 12, 25, 50, 100]) {
      const stopped = model.forward({ input_ids, signal: AbortSignal.timeout(after) });
      await assertRejects(() => stopped, DOMException);
      assertEquals(await next(), expected, `after an abort at ${after} ms`);
    }
  },
);

liveTest("a long prefill that is aborted does not disturb a generation beside it", async () => {
  const long = Array.from({ length: 1500 }, (_, i) => 3 + i * 31 % 3000);
  await using model = await AutoModelForCausalLM.from_pretrained(DEMO);
  using input_ids = ids([long]);
  using short = ids([long.slice(0, 60)]);
  const next = async () => await rowsOf(await model.generate({ input_ids: short, max_new_tokens: 12 }));
  const expected = await next();
  for (const after of [5, 20, 45]) {
    const [stopped, tokens] = await Promise.allSettled([
      model.forward({ input_ids, signal: AbortSignal.timeout(after) }),
      next(),
    ]);
    assertEquals(stopped.status, "rejected");
    assertEquals(tokens, { status: "fulfilled", value: expected });
  }
});

liveTest("an aborted call does not disturb one that runs beside it", async () => {
  await using model = await load();
  const whole = await generate(model);
  for (const after of [0, 1, 2, 5]) {
    const controller = new AbortController();
    const reason = new Error("only me");
    const streamer = recorder((step) => {
      if (step === after) controller.abort(reason);
    });
    if (after === 0) queueMicrotask(() => controller.abort(reason));
    const [mine, other] = await Promise.allSettled([
      generate(model, { signal: controller.signal, streamer }),
      generate(model),
    ]);
    assertEquals(mine, { status: "rejected", reason });
    assertEquals(other, { status: "fulfilled", value: whole });
  }
});

liveTest("a streamer may use the model: it sees the tokens of its own step", async () => {
  await using model = await load();
  const whole = await generate(model);
  const inner: number[][][] = [];
  const streamer = recorder(async (step) => {
    if (step === 2) inner.push(await generate(model));
  });
  assertEquals(await generate(model, { streamer }), whole);
  assertEquals(inner, [whole]);
});

liveTest("TextStreamer writes the text of the demo model piece by piece, whole characters only", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(DEMO);
  const tokenizer = await AutoTokenizer.from_pretrained(DEMO);
  const encoded = tokenizer("In the beginning");
  using input_ids = encoded.input_ids;
  encoded.attention_mask[Symbol.dispose]();
  const pieces: string[] = [];
  const streamer = new TextStreamer(tokenizer, { write: (text) => void pieces.push(text) });
  const [row] = await rowsOf(await model.generate({ input_ids, max_new_tokens: 30, streamer })) as [number[]];
  const expected = tokenizer.decode(row.slice(input_ids.shape[1]!), { skip_special_tokens: true });
  assertEquals(pieces.join(""), expected);
  assertEquals(pieces.some((p) => p.includes("\uFFFD")), false);
});
