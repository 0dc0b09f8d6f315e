/**
 * Mistral against recordings of Transformers, and configurations it must refuse.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import {
  type AttentionFunction,
  AttentionInterface,
  AttentionMaskInterface,
  AutoModelForCausalLM,
  sdpa_attention_forward,
  sdpa_mask,
} from "../../mod.ts";
import { goldenPath } from "../support/golden.ts";
import { changedConfig, hostileConfigs } from "./hostile.ts";
import { recordedTests } from "./recorded.ts";
import { disposeAll, ids, liveTest, reportSkipped } from "./support.ts";

recordedTests({ arch: "mistral" });

hostileConfigs("mistral", AutoModelForCausalLM, [
  [{ sliding_window: 0 }, "sliding_window", "at least 1"],
  [{ sliding_window: -4 }, "sliding_window", "found -4"],
  [{ sliding_window: 1.5 }, "sliding_window"],
  [{ sliding_window: "4" }, "sliding_window"],
  [{ num_key_value_heads: 3 }, "num_key_value_heads", "divisor"],
  [{ num_hidden_layers: 1e6 }, "num_hidden_layers"],
  [{ num_hidden_layers: 4 }, "model.layers.3."],
  [{ vocab_size: 65 }, "embed_tokens", "[65,32]"],
  [{ head_dim: 1e9 }, "head_dim"],
  [{ rope_parameters: { rope_type: "yarn" } }, "rope_type"],
]);

const PROMPT = [12, 61, 45, 9, 43, 33, 44, 4];

liveTest("every attention call is told the window, and none without one", async () => {
  const seen = new Set<unknown>();
  const spy: AttentionFunction = (...args) => {
    seen.add(args[5].sliding_window);
    return sdpa_attention_forward(...args);
  };
  AttentionInterface.register("window_spy", spy);
  AttentionMaskInterface.register("window_spy", sdpa_mask);
  for (const [sliding_window, told] of [[4, [4]], [null, [undefined]], [undefined, [4096]]] as const) {
    const config = await changedConfig("mistral", { sliding_window });
    const options = { config, attn_implementation: "window_spy" };
    await using model = await AutoModelForCausalLM.from_pretrained(goldenPath("models/mistral"), options);
    using input_ids = ids([PROMPT]);
    seen.clear();
    disposeAll(await model.forward({ input_ids }));
    assertEquals([...seen], [...told]);
    assertEquals(model.config["sliding_window"], sliding_window === undefined ? 4096 : sliding_window);
  }
});

reportSkipped();
