/**
 * GGUF files of a hub and behind URLs: the header tells configuration and vocabulary, the rest is fetched for weights.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { AutoConfig, AutoModelForCausalLM, AutoTokenizer } from "../../mod.ts";
import { serveModel, temporaryFolder } from "../hub/remote_server.ts";
import { DEMO, ids, liveTest, rowsOf } from "../models/support.ts";
import { ggufBytes } from "../support/gguf.ts";
import { bytePairMetadata, llamaParts } from "../support/llama_gguf.ts";

const { metadata, tensors } = llamaParts(DEMO, "Q8_0");
const FILE = ggufBytes({ ...metadata, ...bytePairMetadata(DEMO) }, tensors);

liveTest("hub and URL: the same tokens; of a header no more is fetched than it takes", async () => {
  await using site = await serveModel({ "a.gguf": FILE });
  await using folder = await temporaryFolder();
  await Deno.writeFile(`${folder.path}/b.gguf`, FILE);
  await using local = await AutoModelForCausalLM.from_pretrained(`${folder.path}/b.gguf`);
  using input_ids = ids([[3, 14, 15, 9]]);
  const expected = await rowsOf(await local.generate({ input_ids, max_new_tokens: 8 }));
  const hub = { gguf_file: "a.gguf", endpoint: site.origin, cache_dir: null };
  const ways = [["org/name", hub], [`${site.origin}/plain/a.gguf`, { cache_dir: null }]] as const;
  for (const [name, options] of ways) {
    site.seen.length = 0;
    assertEquals((await AutoConfig.from_pretrained(name, options))["vocab_size"], 3072);
    const tokenizer = await AutoTokenizer.from_pretrained(name, options);
    assertEquals(tokenizer.decode(tokenizer.encode("In the beginning")), "In the beginning");
    const parts = site.seen.filter(({ method, headers }) => method === "GET" && headers.has("range"));
    assertEquals([parts.length, site.seen.filter(({ method }) => method === "GET").length], [2, 2]);
    const events: number[] = [];
    await using model = await AutoModelForCausalLM.from_pretrained(name, {
      ...options,
      progress_callback: ({ loaded, total }) => void events.push(loaded / total),
    });
    assertEquals(events.at(-1), 1);
    assertEquals(await rowsOf(await model.generate({ input_ids, max_new_tokens: 8 })), expected);
  }
});
