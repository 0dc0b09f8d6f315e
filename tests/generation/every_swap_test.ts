/**
 * One generation that goes from every pair of device and attention to every other, with one cache.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { AutoModelForCausalLM, type DeviceName, DynamicCache, type Streamer } from "../../mod.ts";
import { ids, LLAMA, reportSkipped, rowsOf, withGpu } from "../models/support.ts";

const NAMES = [
  "eager",
  "sdpa",
  "flash_attention_2",
  "flash_attention_3",
  "flash_attention_4",
  "flex_attention",
];
const PLACES = (["wasm", "webgpu"] as const).flatMap((device) => NAMES.map((name) => ({ device, name })));
const PROMPT = [[21, 6, 49, 10, 35, 11, 23, 17, 42, 10, 12]];

interface Place {
  readonly device: DeviceName;
  readonly name: string;
}

/** A way that leaves every place once for every other: a circuit of Euler's, as Hierholzer finds it. */
function everyWay(places: readonly Place[]): Place[] {
  const open = new Map(places.map((from) => [from, places.filter((to) => to !== from)]));
  const stack = [places[0]!], way: Place[] = [];
  while (stack.length > 0) {
    const next = open.get(stack.at(-1)!)!.pop();
    if (next === undefined) way.push(stack.pop()!);
    else stack.push(next);
  }
  return way.reverse();
}

withGpu(
  "every ordered pair of device and attention is swapped in one generation with one cache",
  async () => {
    const way = everyWay(PLACES);
    const pairs = new Set(
      way.slice(1).map((to, i) => `${way[i]!.device} ${way[i]!.name} > ${to.device} ${to.name}`),
    );
    assertEquals([pairs.size, way.length], [PLACES.length * (PLACES.length - 1), pairs.size + 1]);

    const [first] = way;
    await using model = await AutoModelForCausalLM.from_pretrained(LLAMA, {
      attn_implementation: first!.name,
    });
    using input_ids = ids(PROMPT);
    const options = { input_ids, max_new_tokens: way.length, eos_token_id: null };
    const expected = await rowsOf(await model.generate(options));

    using past_key_values = new DynamicCache();
    let step = 0;
    const visited: Place[] = [];
    const streamer: Streamer = {
      put: async () => {
        const { implementation, device } = model.attention_report()[0]!;
        visited.push({ device, name: implementation });
        const next = way[++step];
        if (next === undefined) return;
        await model.to(next.device);
        await model.set_attn_implementation(next.name);
      },
      end: () => {},
    };
    const tokens = await rowsOf(await model.generate({ ...options, past_key_values, streamer }));
    assertEquals(visited, way);
    assertEquals(past_key_values.get_seq_length(), PROMPT[0]!.length + way.length - 1);
    assertEquals(tokens, expected);
  },
);

reportSkipped();
