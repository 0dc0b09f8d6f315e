/**
 * Options of generate and generation configs: which value counts, what is refused, and what is only noted.
 *
 * @module
 */
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import {
  AutoModelForCausalLM,
  DynamicCache,
  type GenerateOptions,
  GenerationConfig,
  InvalidArgument,
  ModelFileError,
  type PreTrainedModel,
  Tensor,
} from "../../mod.ts";
import { DEMO, ids, liveTest, LLAMA, rowsOf } from "../models/support.ts";

const PROMPT = [3, 41, 19, 10, 47, 6, 12, 36];
const load = (): Promise<PreTrainedModel> => AutoModelForCausalLM.from_pretrained(LLAMA);

/** New tokens after the prompt. */
async function generate(
  model: PreTrainedModel,
  options: Partial<GenerateOptions> = {},
  rows: number[][] = [PROMPT],
): Promise<number[][]> {
  using input_ids = ids(rows);
  const tokens = await rowsOf(await model.generate({ input_ids, ...options }));
  return tokens.map((row) => row.slice(rows[0]!.length));
}

/** What `fn` warns of. */
async function warningsOf(fn: () => Promise<unknown>): Promise<string[]> {
  const { warn } = console, warnings: string[] = [];
  console.warn = (...args: unknown[]) => void warnings.push(args.join(" "));
  try {
    await fn();
  } finally {
    console.warn = warn;
  }
  return warnings;
}

/** A copy of the tiny Llama with other content in generation_config.json; undefined leaves it out. */
async function folderWith(content: unknown): Promise<{ folder: string } & AsyncDisposable> {
  const folder = await Deno.makeTempDir({ prefix: "generation_config_" });
  for (const name of ["config.json", "model.safetensors"]) {
    await Deno.copyFile(`${LLAMA}/${name}`, `${folder}/${name}`);
  }
  if (content !== undefined) {
    await Deno.writeTextFile(`${folder}/generation_config.json`, JSON.stringify(content));
  }
  return { folder, [Symbol.asyncDispose]: () => Deno.remove(folder, { recursive: true }) };
}

liveTest(
  "a parameter comes from the call, else its generation_config, else the model's, else the default",
  async () => {
    await using made = await folderWith({ max_new_tokens: 3, future_field: { a: [1] } });
    await using model = await AutoModelForCausalLM.from_pretrained(made.folder);
    const lengthOf = async (options: Partial<GenerateOptions>) => (await generate(model, options))[0]!.length;
    assertEquals(await lengthOf({}), 3);
    assertEquals(await lengthOf({ generation_config: { max_new_tokens: 4 } }), 4);
    assertEquals(await lengthOf({ generation_config: new GenerationConfig({ max_new_tokens: 5 }) }), 5);
    assertEquals(await lengthOf({ generation_config: { max_new_tokens: 4 }, max_new_tokens: 6 }), 6);
    assertEquals(
      await lengthOf({ generation_config: { num_beams: 1 } }),
      3,
      "what it does not say is the model's",
    );
    assertEquals(model.generation_config["future_field"], { a: [1] });
    model.generation_config.max_new_tokens = 2;
    assertEquals(await lengthOf({}), 2);
    delete model.generation_config.max_new_tokens;
    assertEquals(await lengthOf({}), 20);
  },
);

liveTest("do_sample of a model's file makes it sample, and a call can say otherwise", async () => {
  await using made = await folderWith({ do_sample: true, temperature: 5, top_k: 0 });
  await using model = await AutoModelForCausalLM.from_pretrained(made.folder);
  await using plain = await load();
  const greedy = await generate(plain);
  assert(JSON.stringify(await generate(model, { seed: 1 })) !== JSON.stringify(greedy));
  assertEquals(await generate(model, { do_sample: false }), greedy);
  assertEquals(await generate(model, { top_k: 1 }), greedy);
});

liveTest("end and padding tokens come from the file, or without one from config.json", async () => {
  const [plain] = await (async () => {
    await using model = await load();
    return await generate(model);
  })() as [number[]];
  const eos = plain[3]!;
  await using made = await folderWith({ eos_token_id: [eos], pad_token_id: null });
  await using model = await AutoModelForCausalLM.from_pretrained(made.folder);
  const expected = plain.slice(0, plain.indexOf(eos) + 1);
  assertEquals(await generate(model), [expected]);
  assertEquals(await generate(model, { eos_token_id: null }), [plain]);
  await using bare = await folderWith(undefined);
  const json = JSON.parse(await Deno.readTextFile(`${bare.folder}/config.json`));
  await Deno.writeTextFile(`${bare.folder}/config.json`, JSON.stringify({ ...json, eos_token_id: eos }));
  await using old = await AutoModelForCausalLM.from_pretrained(bare.folder);
  assertEquals(old.generation_config.to_dict(), { _from_model_config: true, eos_token_id: eos });
  assertEquals(await generate(old), [expected]);
});

/** Files that are refused, and what the error names. */
const WRONG_FILES: readonly (readonly [content: unknown, ...mentions: string[]])[] = [
  [[1], "generation_config.json", "object"],
  [{ temperature: "0.7" }, "generation_config.json", "temperature", '"0.7"'],
  [{ do_sample: 1 }, "generation_config.json", "do_sample", "true or false"],
  [{ eos_token_id: "</s>" }, "generation_config.json", "eos_token_id"],
  [{ early_stopping: "sometimes" }, "generation_config.json", "early_stopping", "never"],
  [{ stop_strings: [1] }, "generation_config.json", "stop_strings"],
  [{ to_dict: 1 }, "generation_config.json", "to_dict"],
];

for (const [content, ...mentions] of WRONG_FILES) {
  liveTest(`a generation_config.json of ${JSON.stringify(content)} is refused by name`, async () => {
    await using made = await folderWith(content);
    for (const load of [AutoModelForCausalLM.from_pretrained, GenerationConfig.from_pretrained]) {
      const error = await assertRejects(() => load(made.folder), ModelFileError);
      for (const word of mentions) assertStringIncludes(error.message, word);
    }
  });
}

liveTest(
  "an odd number of a file matters only where it is used, and the error says whose it is",
  async () => {
    await using made = await folderWith({
      temperature: 0,
      pad_token_id: -1,
      length_penalty: 1e999,
      top_k: -5,
    });
    await using model = await AutoModelForCausalLM.from_pretrained(made.folder);
    assertEquals((await generate(model, { max_new_tokens: 2 }))[0]!.length, 2);
    const error = await assertRejects(() => generate(model, { do_sample: true }), InvalidArgument);
    assertStringIncludes(error.message, "temperature 0 of model.generation_config");
    await assertRejects(
      () => generate(model, { generation_config: { do_sample: true, temperature: -1 } }),
      InvalidArgument,
      "temperature -1 of generation_config",
    );
    assertEquals((await generate(model, { do_sample: true, temperature: 1, top_k: 0 }))[0]!.length, 20);
  },
);

Deno.test("a GenerationConfig is plain fields: read, changed, saved", async () => {
  const config = await GenerationConfig.from_pretrained(DEMO);
  assertEquals([config["bos_token_id"], config.eos_token_id, config.pad_token_id], [0, 1, 2]);
  const again = new GenerationConfig(config.to_dict());
  assertEquals(JSON.stringify(again), JSON.stringify(config));
  const list = [1, 2];
  const own = new GenerationConfig({ eos_token_id: list });
  list.push(3);
  assertEquals(own.eos_token_id, [1, 2], "fields are copied");
  assertThrows(() => new GenerationConfig({ top_k: "5" } as never), InvalidArgument, "top_k");
  assertThrows(() => new GenerationConfig(null as never), InvalidArgument, "GenerationConfig");
  assertThrows(() => new GenerationConfig({ x: () => 1 }), InvalidArgument, "x");
  await assertRejects(() => GenerationConfig.from_pretrained(LLAMA + "/none"), ModelFileError);
});

liveTest(
  "max_new_tokens comes before max_length, min_new_tokens before min_length, each with a notice",
  async () => {
    await using model = await load();
    const [plain] = await generate(model) as [number[]];
    assertEquals(await generate(model, { max_length: 11 }), [plain.slice(0, 3)]);
    assertEquals(await generate(model, { max_length: 11, generation_config: { max_length: 9 } }), [
      plain.slice(0, 3),
    ]);
    let warnings = await warningsOf(async () => {
      assertEquals(await generate(model, { max_length: 11, max_new_tokens: 5 }), [plain.slice(0, 5)]);
    });
    assertEquals(warnings.length, 1);
    assertStringIncludes(warnings[0]!, "max_new_tokens (5) takes precedence over max_length (11)");
    const eos = plain[0]!;
    warnings = await warningsOf(async () => {
      const [row] = await generate(model, { eos_token_id: eos, min_new_tokens: 2, min_length: 40 });
      assert(row!.indexOf(eos) >= 2 || !row!.includes(eos));
    });
    assertStringIncludes(warnings[0]!, "min_new_tokens (2) takes precedence over min_length (40)");
  },
);

liveTest("what has no effect is noted once", async () => {
  await using made = await folderWith({ no_repeat_ngram_size: 3, typical_p: 1.0, suppress_tokens: null });
  await using model = await AutoModelForCausalLM.from_pretrained(made.folder);
  const warnings = await warningsOf(async () => {
    await generate(model, { max_new_tokens: 1, output_hidden_states: true });
    await generate(model, { max_new_tokens: 1, output_hidden_states: true });
  });
  assertEquals(warnings.length, 2);
  assertStringIncludes(warnings.join("\n"), "no_repeat_ngram_size of the generation config has no effect");
  assertStringIncludes(
    warnings.join("\n"),
    "output_hidden_states has no effect without return_dict_in_generate",
  );
});

liveTest(
  "a cache a file asks for is made, or refused by name; the names of old checkpoints are passed over",
  async () => {
    await using model = await load();
    const expected = await generate(model);
    for (const cache_implementation of ["static", "hybrid"]) {
      model.generation_config = new GenerationConfig({ cache_implementation } as never);
      assertEquals(await generate(model), expected);
    }
    model.generation_config = new GenerationConfig({ cache_implementation: "static" });
    using past_key_values = new DynamicCache();
    assertEquals(await generate(model, { past_key_values }), expected, "one that is given comes first");
    model.generation_config = new GenerationConfig({ cache_implementation: "quantized" } as never);
    await assertRejects(() => generate(model), InvalidArgument, '"quantized"');
  },
);

const decode = () => "";

/** Options generate refuses, and what the message names. */
const REFUSED: readonly (readonly [name: string, options: Record<string, unknown>, ...mentions: string[]])[] =
  [
    ["a negative min_new_tokens", { min_new_tokens: -1 }, "min_new_tokens -1", "≥ 0"],
    ["a fractional min_length", { min_length: 2.5 }, "min_length 2.5"],
    ["a max_length of 0", { max_length: 0 }, "max_length 0", "≥ 1"],
    ["a max_length no longer than the prompt", { max_length: 8 }, "max_length 8", "8 tokens already"],
    ["min_p above 1", { do_sample: true, min_p: 1.5 }, "min_p 1.5", "[0, 1]"],
    ["a negative min_p", { min_p: -0.1 }, "min_p -0.1"],
    ["NaN as min_p", { min_p: NaN }, "min_p NaN"],
    ["a repetition_penalty of 0", { repetition_penalty: 0 }, "repetition_penalty 0", "> 0"],
    ["a repetition_penalty as a string", { repetition_penalty: "1.2" }, 'repetition_penalty "1.2"'],
    ["no beams", { num_beams: 0 }, "num_beams 0", "from 1 to"],
    ["half a beam", { num_beams: 1.5 }, "num_beams 1.5"],
    ["an infinite length_penalty", { num_beams: 2, length_penalty: Infinity }, "length_penalty Infinity"],
    ["another early_stopping", { num_beams: 2, early_stopping: "always" }, '"always"', '"never"'],
    ["no sequences", { num_return_sequences: 0 }, "num_return_sequences 0"],
    ["several greedy results", { num_return_sequences: 2 }, "num_return_sequences 2", "greedy"],
    [
      "more results than beams",
      { num_beams: 2, num_return_sequences: 3 },
      "3",
      "at most num_beams, which is 2",
    ],
    ["a streamer with beams", { num_beams: 2, streamer: { put() {}, end() {} } }, "streamer", "num_beams 2"],
    ["stop_strings without a tokenizer", { stop_strings: "a" }, "stop_strings", "tokenizer"],
    [
      "stop_strings of a generation config without a tokenizer",
      { generation_config: { stop_strings: ["a"] } },
      "stop_strings",
      "tokenizer",
    ],
    ["an empty stop string", { stop_strings: ["a", ""], tokenizer: { decode } }, "stop_strings", "not empty"],
    ["a number as stop string", { stop_strings: 7, tokenizer: { decode } }, "stop_strings 7"],
    ["a tokenizer that cannot decode", { stop_strings: "a", tokenizer: {} }, "tokenizer", "decode"],
    ["a logits_processor that is no list", { logits_processor: () => {} }, "logits_processor", "list"],
    ["a logits_processor without process", { logits_processor: [{}] }, "logits_processor[0]", "process"],
    ["a stopping_criteria that is no list", { stopping_criteria: () => true }, "stopping_criteria", "list"],
    ["a stopping criterion of null", { stopping_criteria: [null] }, "stopping_criteria[0]"],
    ["return_dict_in_generate as a string", { return_dict_in_generate: "yes" }, "return_dict_in_generate"],
    ["output_scores as a number", { output_scores: 1 }, "output_scores 1"],
    ["a generation_config that is a string", { generation_config: "greedy" }, "generation_config"],
    [
      "a field of a generation_config of the wrong type",
      { generation_config: { top_k: "9" } },
      "top_k",
    ],
    [
      "a misspelt field of a generation_config",
      { generation_config: { temprature: 2 } },
      "temprature",
      "temperature",
    ],
    ["null where it means nothing", { num_beams: null }, "num_beams null"],
    ["a misspelt num_beams", { num_beam: 2 }, "num_beam", "num_beams"],
    ["a misspelt min_p", { min_pp: 0.1 }, "min_pp", "min_p"],
    [
      "a cache that cannot be reordered, with beams",
      {
        num_beams: 2,
        past_key_values: {
          update() {},
          get_seq_length: () => 0,
          get_mask_sizes() {},
          to() {},
          snapshot() {},
        },
      },
      "num_beams 2",
      "reorder_cache",
    ],
  ];

for (const [name, options, ...mentions] of REFUSED) {
  liveTest(`generate refuses ${name}, before anything is computed`, async () => {
    await using model = await load();
    let forwards = 0;
    const { forward } = model;
    model.forward = (inputs) => {
      forwards++;
      return forward.call(model, inputs);
    };
    using input_ids = ids([PROMPT]);
    const refused = await assertRejects(
      () =>
        model.generate(
          {
            input_ids,
            max_new_tokens: 2,
            ...("max_length" in options ? { max_new_tokens: undefined } : {}),
            ...options,
          } as never,
        ),
      InvalidArgument,
    );
    for (const word of mentions) assertStringIncludes(refused.message, word);
    assertEquals(forwards, 0);
  });
}

liveTest(
  "num_return_sequences with do_sample: rows of one prompt stand together, and each draws for itself",
  async () => {
    await using model = await load();
    const other = [...PROMPT].reverse();
    using input_ids = ids([PROMPT, other]);
    const rows = await rowsOf(
      await model.generate({
        input_ids,
        do_sample: true,
        num_return_sequences: 3,
        seed: 5,
        max_new_tokens: 6,
      }),
    );
    assertEquals(rows.map((row) => row.slice(0, 8)), [PROMPT, PROMPT, PROMPT, other, other, other]);
    assertEquals(new Set(rows.slice(0, 3).map(String)).size, 3);
    const alone = await generate(model, {
      do_sample: true,
      num_return_sequences: 3,
      seed: 5,
      max_new_tokens: 6,
    });
    assertEquals(alone, rows.slice(0, 3).map((row) => row.slice(8)));
    using repeated = ids([PROMPT, PROMPT, PROMPT]);
    const copies = await rowsOf(
      await model.generate({ input_ids: repeated, do_sample: true, seed: 5, max_new_tokens: 6 }),
    );
    assertEquals(copies, rows.slice(0, 3), "as if the prompt had been given three times");
  },
);

liveTest("repeated rows of padded prompts keep their masks", async () => {
  await using model = await load();
  const short = PROMPT.slice(3);
  using attention_mask = Tensor.from([[0, 0, 0, 1, 1, 1, 1, 1], PROMPT.map(() => 1)]);
  const options = { do_sample: true, num_return_sequences: 2, seed: 9, max_new_tokens: 5 };
  const rows = await generate(model, { ...options, attention_mask }, [[7, 7, 7, ...short], PROMPT]);
  assertEquals(rows.slice(0, 2), await generate(model, options, [short]));
});
