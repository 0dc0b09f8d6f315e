/**
 * Run by leak_test.ts in a process of its own: loads and disposes of a model again and again, and prints the
 * resident memory after each.
 *
 * @module
 */
import { AutoModelForCausalLM, liveBuffers } from "../../mod.ts";

const [folder, times] = Deno.args as [string, string];
for (let i = 0; i < Number(times); i++) {
  await using model = await AutoModelForCausalLM.from_pretrained(folder);
  const loaded = Deno.memoryUsage().rss;
  await model.dispose();
  console.log(JSON.stringify({ i, rss: loaded, live: liveBuffers() }));
}
