/**
 * Options of tokenizers, and what they decode.
 *
 * @module
 */
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { AutoTokenizer, type EncodeOptions, InvalidArgument, Tensor, TextStreamer } from "../../mod.ts";
import { hostData } from "../../src/tensor.ts";
import { tokenizerOf } from "../../src/text/tokenizer.ts";
import { DEMO, liveTest } from "../models/support.ts";
import { quietly } from "../support/quiet.ts";

const tokenizer = await AutoTokenizer.from_pretrained(DEMO);

/** Rows of ids and of the mask. */
async function encode(texts: string | string[], options: EncodeOptions = {}): Promise<number[][][]> {
  const { input_ids, attention_mask } = tokenizer(texts, options);
  using a = input_ids;
  using b = attention_mask;
  return [await a.tolist() as number[][], await b.tolist() as number[][]];
}

liveTest("padding and truncation are those of Transformers", async () => {
  const texts = ["In", "the beginning"];
  const [a, b] = [[1151], [259, 71, 2061]];
  assertEquals(await encode(texts, { padding: "longest" }), [[[...a, 2, 2], b], [[1, 0, 0], [1, 1, 1]]]);
  assertEquals(await encode(texts, { padding: "max_length", max_length: 5 }), [
    [[...a, 2, 2, 2, 2], [...b, 2, 2]],
    [[1, 0, 0, 0, 0], [1, 1, 1, 0, 0]],
  ]);
  const cut = { padding: "max_length", max_length: 2, truncation: true } as const;
  assertEquals((await encode(texts, cut))[0], [[...a, 2], b.slice(0, 2)]);
  assertEquals((await encode(texts[1]!, { ...cut, truncation_side: "left" }))[0], [b.slice(1)]);
});

liveTest("special tokens around a text stay when it is cut, as in Transformers", async () => {
  const json = JSON.parse(await Deno.readTextFile(`${DEMO}/tokenizer.json`));
  const around = { SpecialToken: { id: "<s>", type_id: 0 } };
  json.post_processor.single = [around, ...json.post_processor.single, around];
  json.post_processor.special_tokens = { "<s>": { id: "<s>", ids: [0], tokens: ["<s>"] } };
  const framed = tokenizerOf(json, {}, "framed");
  const cut = (options: EncodeOptions) => {
    const { input_ids, attention_mask } = framed("In the beginning God created", options);
    using a = input_ids;
    using _ = attention_mask;
    return Array.from(hostData(a), Number);
  };
  const all = [0, 1151, 261, 2061, 389, 2295, 285, 0];
  // Recorded with Transformers 5.23.
  assertEquals(cut({}), all);
  assertEquals(cut({ max_length: 5, truncation: true }), [0, 1151, 261, 2061, 0]);
  assertEquals(cut({ max_length: 2, truncation: true }), [0, 0]);
  assertEquals(cut({ max_length: 5, truncation: true, truncation_side: "left" }), [0, 389, 2295, 285, 0]);
  assertEquals(cut({ max_length: 5, padding: true }), all);
  assertEquals(cut({ max_length: 5, truncation: false }), all);
  assertThrows(() => cut({ max_length: 1, truncation: true }), InvalidArgument, "special tokens around it");
  // A length by itself cuts, and says so.
  const { result, warnings } = quietly(() => cut({ max_length: 5 }));
  assertEquals([result, warnings.length], [[0, 1151, 261, 2061, 0], 1]);
});

Deno.test("options that are unknown or do not fit are refused with what is allowed", () => {
  for (
    const [options, message] of [
      [{ paddin: true }, 'did you mean "padding"'],
      [{ stride: 2 }, "known are padding"],
      [{ return_tensors: "pt" }, "return_tensor: true"],
      [{ padding: "foo" }, '"longest"'],
      [{ padding_side: "up" }, '"left" or "right"'],
      [{ truncation_side: "up" }, '"left" or "right"'],
      [{ truncation: 1 }, "true or false"],
      [{ max_length: 0 }, "an integer ≥ 1"],
      [{ max_length: 1.5 }, "an integer ≥ 1"],
      [{ padding: "max_length", max_length: 1 }, "truncation: true"],
      ["the end", "pairs of texts are not supported"],
    ] as const
  ) {
    const call = () => tokenizer("the beginning", options as unknown as EncodeOptions);
    assertStringIncludes(assertThrows(call, InvalidArgument).message, message);
  }
  assertThrows(() => tokenizer.decode([5], { skip_special: true } as object), InvalidArgument, "known are");
  assertThrows(() => tokenizer.encode("a", { add_special_token: true } as object), InvalidArgument);
});

liveTest("one id, a list, rows and tensors decode as in Transformers; anything else is refused", () => {
  using flat = Tensor.from([5, 6], { dtype: "int64" });
  using rows = Tensor.from([[5, 6]], { dtype: "int64" });
  using deep = Tensor.from([[[5, 6]]], { dtype: "int64" });
  using floats = Tensor.from([5, 6], { dtype: "float32" });
  using batch = Tensor.from([[5, 6], [5, 6]], { dtype: "int64" });
  assertEquals([tokenizer.decode(5), tokenizer.decode([5, 6]), tokenizer.decode(flat)], ["#", "#$", "#$"]);
  assertEquals(tokenizer.decode(rows), "#$");
  assertEquals(tokenizer.batch_decode([[5, 6], [7]]), ["#$", "%"]);
  for (const one of [[5, 6], flat, rows]) assertEquals(tokenizer.batch_decode(one), ["#$"]);
  assertEquals(tokenizer.batch_decode(5), ["#"]);
  for (const odd of [batch, deep, floats, [[5], [6]], "5", null, [[[5]]]]) {
    assertThrows(() => tokenizer.decode(odd as unknown as number[]), InvalidArgument, "Cannot decode");
  }
  for (const odd of [deep, floats, "5", null, [[[5]]], [5, [6]]]) {
    assertThrows(() => tokenizer.batch_decode(odd as unknown as number[]), InvalidArgument, "Cannot decode");
  }
});

Deno.test("a streamer without options prints the text and ends the line", async () => {
  const { writeSync } = Deno.stdout, printed: string[] = [];
  Deno.stdout.writeSync = (bytes) => {
    printed.push(new TextDecoder().decode(bytes));
    return bytes.length;
  };
  try {
    const streamer = new TextStreamer(tokenizer);
    await streamer.put([5]);
    await streamer.put([6]);
    await streamer.end();
  } finally {
    Deno.stdout.writeSync = writeSync;
  }
  assertEquals(printed.join(""), "#$\n");
  assertThrows(() => new TextStreamer(undefined as never), InvalidArgument, "expected a tokenizer");
  assertThrows(() => new TextStreamer(tokenizer, { write: 5 as never }), InvalidArgument, "a function");
});
