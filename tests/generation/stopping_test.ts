/**
 * When rows end: stop strings wherever tokens divide them, and criteria of the caller's.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStrictEquals } from "@std/assert";
import {
  AutoModelForCausalLM,
  AutoTokenizer,
  InvalidArgument,
  type StoppingCriterion,
  TextStreamer,
} from "../../mod.ts";
import { endsWithText } from "../../src/generation/stopping.ts";
import { DEMO, ids, liveTest, LLAMA, rowsOf } from "../models/support.ts";
import fc from "../support/fast_check.ts";

/** A tokenizer whose tokens are pieces of bytes: a character may be divided. */
function bytesTokenizer() {
  const pieces: Uint8Array[] = [];
  return {
    /** The tokens of a text that is cut into pieces of these sizes, over and over. */
    cut(text: string, sizes: readonly number[]): number[] {
      const bytes = new TextEncoder().encode(text), tokens: number[] = [];
      for (let at = 0, i = 0; at < bytes.length; at += sizes[i % sizes.length]!, i++) {
        tokens.push(pieces.push(bytes.subarray(at, at + sizes[i % sizes.length]!)) - 1);
      }
      return tokens;
    },
    decode(ids: readonly number[]): string {
      return new TextDecoder().decode(Uint8Array.from(ids.flatMap((id) => [...pieces[id]!])));
    },
  };
}

const anyText = fc.array(fc.constantFrom(..."abc é☃🙂 \n"), { minLength: 1, maxLength: 30 }).map((c) =>
  c.join("")
);
const anySizes = fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 5 });

Deno.test("a stop string ends a row with the token that completes it, however tokens divide the text", () => {
  fc.assert(
    fc.property(
      anyText,
      anyText,
      anySizes,
      fc.nat(29),
      fc.integer({ min: 1, max: 6 }),
      (prompt, text, sizes, at, n) => {
        const characters = [...text];
        const stop = characters.slice(at % characters.length, at % characters.length + n).join("");
        const tokenizer = bytesTokenizer();
        const before = tokenizer.cut(prompt, sizes), generated = tokenizer.cut(text, sizes);
        const ends = endsWithText(tokenizer, ["never in it", stop], before.length);
        const found = generated.findIndex((_, i) => ends([...before, ...generated.slice(0, i + 1)]));
        // The definition: the first moment at which the generated text has it.
        const expected = generated.findIndex((_, i) =>
          tokenizer.decode(generated.slice(0, i + 1)).includes(stop)
        );
        assertEquals(found, expected);
      },
    ),
    { numRuns: 500 },
  );
});

Deno.test("a stop string divided at every boundary is found, and one across the prompt's end is not", () => {
  const tokenizer = bytesTokenizer();
  const stop = "</end>";
  for (let cut = 1; cut < stop.length; cut++) {
    const head = tokenizer.cut("text" + stop.slice(0, cut), [100]);
    const tail = tokenizer.cut(stop.slice(cut) + "more", [100]);
    const prompt = tokenizer.cut("question", [3]);
    const ends = endsWithText(tokenizer, [stop], prompt.length);
    assertEquals(ends([...prompt, ...head]), false);
    assertEquals(ends([...prompt, ...head, ...tail]), true);
    assertEquals(
      ends([...prompt, ...head, ...tail, ...prompt]),
      false,
      "it is complete before the last token",
    );
    const inPrompt = endsWithText(tokenizer, [stop], prompt.length + 1);
    assertEquals(inPrompt([...prompt, ...head, ...tail]), false, "it began in the prompt");
  }
});

liveTest("each row of a batch ends with its own stop string, keeps it and is padded", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  // One word a token: "t12 ".
  const tokenizer = { decode: (tokens: readonly number[]) => tokens.map((t) => `t${t} `).join("") };
  const rows = [[3, 41, 19, 10], [10, 19, 41, 3]];
  using input_ids = ids(rows);
  const max_new_tokens = 10;
  const plain = (await rowsOf(await model.generate({ input_ids, max_new_tokens }))).map((row) =>
    row.slice(4)
  );
  const [a, b] = plain as [number[], number[]];
  const at = 4;
  const stop = `${a[at]} t${a[at + 1]} t`;
  assert(!tokenizer.decode(b).includes(stop));
  const options = { input_ids, max_new_tokens, tokenizer, pad_token_id: 63 };
  const stopped = await rowsOf(await model.generate({ ...options, stop_strings: stop }));
  const first = a.findIndex((_, i) => tokenizer.decode(a.slice(0, i + 1)).includes(stop));
  const filled = a.map((t, i) => i <= first ? t : 63);
  assertEquals(stopped.map((row) => row.slice(4)), [filled, b]);
  const both = [stop, `t${b[1]} t${b[2]} `];
  const streamed: number[][] = [];
  const ended = await rowsOf(
    await model.generate({
      ...options,
      stop_strings: both,
      streamer: { put: (tokens) => void streamed.push(tokens), end() {} },
    }),
  );
  const width = ended[0]!.length - 4;
  assert(width < max_new_tokens);
  assertEquals(streamed, Array.from({ length: width }, (_, i) => ended.map((row) => row[4 + i]!)));
});

liveTest("a TextStreamer writes the stop string too", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(DEMO);
  const tokenizer = await AutoTokenizer.from_pretrained(DEMO);
  const { input_ids: encoded, attention_mask } = tokenizer("In the beginning");
  using input_ids = encoded;
  attention_mask[Symbol.dispose]();
  let text = "";
  const streamer = new TextStreamer(tokenizer, { write: (piece) => void (text += piece) });
  const stop_strings = "the LORD";
  (await model.generate({ input_ids, max_new_tokens: 30, stop_strings, tokenizer, streamer }))
    [Symbol.dispose]();
  assert(text.endsWith(stop_strings), text);
  assertEquals(text.indexOf(stop_strings), text.length - stop_strings.length);
});

liveTest("a criterion of yours ends the rows it says, function or object, also with beams", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  const rows = [[3, 41, 19, 10], [10, 19, 41, 3]];
  using input_ids = ids(rows);
  const plain = await rowsOf(await model.generate({ input_ids, max_new_tokens: 6 }));
  const criterion: StoppingCriterion = (tokens, row) => tokens.length >= 6 + row;
  for (const stopping_criteria of [[criterion], [() => false, { should_stop: criterion }]]) {
    const stopped = await rowsOf(
      await model.generate({ input_ids, max_new_tokens: 6, stopping_criteria, pad_token_id: 63 }),
    );
    assertEquals(stopped, [[...plain[0]!.slice(0, 6), 63], plain[1]!.slice(0, 7)]);
  }
  const beams = await rowsOf(
    await model.generate({ input_ids, num_beams: 2, stopping_criteria: [(tokens) => tokens.length >= 7] }),
  );
  assertEquals(beams.map((row) => row.length), [7, 7]);
});

liveTest("a criterion that throws or answers nothing ends the generation with an error", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(LLAMA);
  using input_ids = ids([[3, 41, 19, 10]]);
  const mistake = new Error("mine");
  const thrower = () => {
    throw mistake;
  };
  const thrown = await model.generate({ input_ids, stopping_criteria: [thrower] }).catch((e: unknown) => e);
  assertStrictEquals(thrown, mistake);
  for (const answer of [undefined, Promise.resolve(true), 1]) {
    await assertRejects(
      () => model.generate({ input_ids, stopping_criteria: [(() => answer) as never] }),
      InvalidArgument,
      "stopping_criteria[0]",
    );
  }
});
