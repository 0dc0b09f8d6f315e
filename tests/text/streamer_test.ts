/**
 * Streamed text: the pieces joined are what all tokens decode to, for every kind of decoder.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  AutoModelForCausalLM,
  AutoTokenizer,
  InvalidArgument,
  TextIteratorStreamer,
  TextStreamer,
  type Tokenizer,
} from "../../mod.ts";
import { tokenizerOf } from "../../src/text/tokenizer.ts";
import fc from "../support/fast_check.ts";
import { DEMO } from "../models/support.ts";

const demo = await AutoTokenizer.from_pretrained(DEMO);

/** The character that stands for each byte in byte-level vocabularies. */
function byteLetters(): string[] {
  const plain = (b: number) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint(plain(b) ? b : next++));
}

const SPECIAL = ["<s>", "</s>", "<unk>"];

function small(
  vocab: readonly string[],
  rest: Record<string, unknown>,
  config: Record<string, unknown> = {},
) {
  const tokens = [...SPECIAL, ...vocab];
  return tokenizerOf(
    {
      added_tokens: SPECIAL.map((content, id) => ({ id, content, special: true })),
      normalizer: null,
      pre_tokenizer: null,
      post_processor: null,
      ...rest,
      model: {
        type: "BPE",
        vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
        merges: [],
        ...rest["model"] as Record<string, unknown> | undefined,
      },
    },
    { bos_token: "<s>", eos_token: "</s>", ...config },
    "test",
  );
}

const letters = byteLetters();
const TOKENIZERS: Readonly<Record<string, { tokenizer: Tokenizer; size: number; decodesAll: boolean }>> = {
  demo: { tokenizer: demo, size: 3072, decodesAll: true },
  "byte-level": {
    tokenizer: small(letters, {
      pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, use_regex: true },
      decoder: { type: "ByteLevel" },
    }),
    size: 259,
    decodesAll: true,
  },
  "byte-fallback": {
    tokenizer: small(
      [
        ...Array.from({ length: 256 }, (_, b) => `<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`),
        ..."▁abcdefghijklmnopqrstuvwxyz.,'é世界\n",
        "▁the",
        "▁▁",
        "n't",
      ],
      {
        normalizer: {
          type: "Sequence",
          normalizers: [
            { type: "Prepend", prepend: "▁" },
            { type: "Replace", pattern: { String: " " }, content: "▁" },
          ],
        },
        decoder: {
          type: "Sequence",
          decoders: [
            { type: "Replace", pattern: { String: "▁" }, content: " " },
            { type: "ByteFallback" },
            { type: "Fuse" },
            { type: "Strip", content: " ", start: 1, stop: 0 },
          ],
        },
        model: { byte_fallback: true, unk_token: "<unk>" },
      },
    ),
    size: 3 + 256 + 36,
    decodesAll: true,
  },
  metaspace: {
    tokenizer: small(["▁", "a", "▁b", "▁▁c", "é", "."], {
      pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "always" },
      decoder: { type: "Metaspace", replacement: "▁", prepend_scheme: "always" },
    }),
    size: 9,
    decodesAll: false,
  },
  "word pieces that are cleaned up": {
    tokenizer: small(["a", "##b", ".", ",", "n", "s", "t", "ve", "n't", "'s", "!"], {
      model: { type: "WordPiece", unk_token: "<unk>", continuing_subword_prefix: "##" },
      decoder: { type: "WordPiece", prefix: "##", cleanup: false },
    }, { clean_up_tokenization_spaces: true }),
    size: 14,
    decodesAll: false,
  },
};

async function streamed(
  tokenizer: Tokenizer,
  tokens: readonly number[],
  options: { skip_special_tokens?: boolean } = {},
): Promise<string[]> {
  const pieces: string[] = [];
  const streamer = new TextStreamer(tokenizer, { ...options, write: (text) => void pieces.push(text) });
  for (const token of tokens) await streamer.put([token]);
  await streamer.end();
  return pieces;
}

for (const [name, { tokenizer, size, decodesAll }] of Object.entries(TOKENIZERS)) {
  Deno.test(`${name}: random tokens stream to what they decode to`, async () => {
    const tokens = fc.array(fc.integer({ min: 0, max: size - 1 }), { maxLength: 60 });
    await fc.assert(
      fc.asyncProperty(tokens, fc.boolean(), async (ids, skip_special_tokens) => {
        const pieces = await streamed(tokenizer, ids, { skip_special_tokens });
        assertEquals(pieces.join(""), tokenizer.decode(ids, { skip_special_tokens }));
        assert(pieces.every((piece) => piece !== ""));
      }),
      { numRuns: 400, seed: 7 },
    );
  });
  if (!decodesAll) continue;
  Deno.test(`${name}: random texts stream whole characters`, async () => {
    const text = fc.string({ unit: "binary", maxLength: 30 });
    await fc.assert(
      fc.asyncProperty(text, async (original) => {
        const whole = original.replaceAll("\uFEFF", "").toWellFormed();
        const pieces = await streamed(tokenizer, tokenizer.encode(whole, { add_special_tokens: false }));
        assertEquals(
          pieces.join(""),
          tokenizer.decode(tokenizer.encode(whole, { add_special_tokens: false })),
        );
        for (const piece of pieces) assert(piece.isWellFormed());
        if (!whole.includes("\uFFFD")) assert(!pieces.join("").includes("\uFFFD"), JSON.stringify(pieces));
      }),
      { numRuns: 300, seed: 11 },
    );
  });
}

Deno.test("characters split over tokens are written once they are whole", async () => {
  const { tokenizer } = TOKENIZERS["byte-level"]!;
  const bytes = (text: string) => tokenizer.encode(text, { add_special_tokens: false });
  assertEquals(await streamed(tokenizer, bytes("a世👋🏽")), ["a", "世", "👋", "🏽"]);
  // A replacement character that is meant is written when the next token shows that it is.
  assertEquals(await streamed(tokenizer, bytes("\uFFFDa")), ["\uFFFDa"]);
  assertEquals(await streamed(tokenizer, bytes("\uFFFD")), ["\uFFFD"]);
  // Bytes that are no character are replaced, and do not hold back what follows.
  assertEquals(await streamed(tokenizer, [...bytes("👋").slice(0, 2), ...bytes("ok")]), ["\uFFFDo", "k"]);
});

Deno.test("a token costs the same at the end of a long line as at its beginning", async () => {
  let decoded = 0;
  const counting = new Proxy(demo, {
    get: (target, name) =>
      name === "decode"
        ? (ids: number[], options: { skip_special_tokens?: boolean }) => {
          decoded += ids.length;
          return target.decode(ids, options);
        }
        : Reflect.get(target, name),
  });
  const { size } = TOKENIZERS["demo"]!;
  const rows: Readonly<Record<string, (i: number) => number>> = {
    words: (i) => 300 + (i * 7919) % (size - 300),
    "broken bytes": (i) => 3 + 128 + i % 60,
    spaces: () => demo.encode(" ")[0]!,
    specials: () => 0,
  };
  for (const [name, token] of Object.entries(rows)) {
    const streamer = new TextStreamer(counting, { write: () => {}, skip_special_tokens: false });
    const cost = async (n: number) => {
      decoded = 0;
      for (let i = 0; i < n; i++) await streamer.put([token(i)]);
      return decoded / n;
    };
    await cost(200);
    const early = await cost(200);
    await cost(2000);
    const late = await cost(200);
    assert(late <= 2 * early + 8 && late <= 64, `${name}: ${early} tokens decoded for one, later ${late}`);
  }
});

Deno.test("the prompt is left out unless it is asked for", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(DEMO);
  const { input_ids } = demo("In the beginning");
  const run = async (skip_prompt?: boolean) => {
    let text = "";
    const streamer = new TextStreamer(demo, {
      write: (piece) => void (text += piece),
      ...(skip_prompt === undefined ? {} : { skip_prompt }),
    });
    const tokens = await model.generate({ input_ids, max_new_tokens: 6, streamer });
    const all = demo.batch_decode(tokens, { skip_special_tokens: true })[0]!;
    tokens[Symbol.dispose]();
    return { text, all };
  };
  const [plain, skipped, shown] = [await run(), await run(true), await run(false)];
  assertEquals(shown.text, shown.all);
  assertEquals(plain.text, skipped.text);
  assertEquals("In the beginning" + plain.text, plain.all);
  input_ids[Symbol.dispose]();
});

Deno.test("TextIteratorStreamer gives the text of a generation, and its errors", async () => {
  await using model = await AutoModelForCausalLM.from_pretrained(DEMO);
  const { input_ids } = demo("In the beginning");
  const read = async (streamer: TextIteratorStreamer) => {
    let text = "";
    for await (const piece of streamer) text += piece;
    return text;
  };
  const streamer = new TextIteratorStreamer(demo, { skip_prompt: false, high_water_mark: 1 });
  for (let round = 0; round < 2; round++) {
    const done = model.generate({ input_ids, max_new_tokens: 12, streamer });
    const text = await read(streamer);
    const tokens = await done;
    assertEquals(text, demo.batch_decode(tokens, { skip_special_tokens: true })[0]);
    tokens[Symbol.dispose]();
  }
  // Read after the end, too.
  (await model.generate({ input_ids, max_new_tokens: 3, streamer }))[Symbol.dispose]();
  assert((await read(streamer)).startsWith("In the beginning"));
  // What is refused ends the reader as well.
  const refused = model.generate({ input_ids, max_new_tokens: -1, streamer });
  await assertRejects(() => read(streamer), InvalidArgument, "max_new_tokens");
  await assertRejects(() => refused, InvalidArgument);
  const aborted = model.generate({ input_ids, streamer, signal: AbortSignal.abort(new Error("enough")) });
  await assertRejects(() => read(streamer), Error, "enough");
  await assertRejects(() => aborted, Error, "enough");
  // A reader that leaves does not stop the generation.
  const left = model.generate({ input_ids, max_new_tokens: 12, streamer });
  for await (const _ of streamer) break;
  assertEquals((await left).shape[1], input_ids.shape[1]! + 12);
  (await left)[Symbol.dispose]();
  const again = model.generate({ input_ids, max_new_tokens: 4, streamer });
  assert((await read(streamer)).startsWith("In the beginning"));
  (await again)[Symbol.dispose]();
  input_ids[Symbol.dispose]();
});

Deno.test("generation waits for a slow reader, within high_water_mark pieces", async () => {
  const { tokenizer } = TOKENIZERS["byte-level"]!;
  const streamer = new TextIteratorStreamer(tokenizer, { high_water_mark: 3 });
  const text = "abcdefghijklmnop";
  let put = 0;
  const writing = (async () => {
    for (const token of tokenizer.encode(text)) {
      await streamer.put([token]);
      put++;
    }
    await streamer.end();
  })();
  let read = 0, most = 0;
  for await (const _ of streamer) {
    read++;
    for (let i = 0; i < 20; i++) await Promise.resolve();
    if (read < text.length / 2) most = Math.max(most, put - read);
  }
  await writing;
  assertEquals(read, text.length);
  assert(most <= 16, `${most} pieces ahead`);
  const reader = streamer[Symbol.asyncIterator]();
  const second = streamer[Symbol.asyncIterator]();
  const waiting = reader.next();
  await assertRejects(() => second.next(), InvalidArgument, "twice");
  await streamer.end(new Error("gone"));
  await assertRejects(() => waiting, Error, "gone");
});

Deno.test("streams of more than one row, and bad options, are refused", async () => {
  const streamer = new TextStreamer(demo, { write: () => {} });
  await assertRejects(() => streamer.put([1, 2]), InvalidArgument, "2 rows");
  await assertRejects(() => streamer.put([]), InvalidArgument, "0 rows");
  await assertRejects(() => streamer.put_prompt([[1], [2]]), InvalidArgument, "2 rows");
  await assertRejects(() => streamer.put([1e9]), InvalidArgument, "no such token");
  for (const high_water_mark of [0, NaN, -1]) {
    assertThrows(
      () => new TextIteratorStreamer(demo, { high_water_mark }),
      InvalidArgument,
      "high_water_mark",
    );
  }
});
