/**
 * What a model type leads to. Which implementation a request leads to is recorded: tests/decisions/golden_test.ts.
 *
 * @module
 */
import { assertRejects, assertStringIncludes } from "@std/assert";
import {
  AttuneError,
  AutoModel,
  AutoModelForCausalLM,
  AutoModelForImageTextToText,
  InvalidArgument,
} from "../../mod.ts";
import { goldenPath } from "../support/golden.ts";
import { liveTest } from "./support.ts";

const UNKNOWN = "no_such_model";
liveTest("an unknown model type lists the known ones, and a missing head the loader that fits", async () => {
  const folder = await Deno.makeTempDir({ prefix: "unknown_model_" });
  try {
    await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify({ model_type: UNKNOWN }));
    const refused = await assertRejects(() => AutoModel.from_pretrained(folder), AttuneError);
    for (const word of ["bert", "gemma2", "llama", "llama4_text", "llava", "mistral", "no_such_model"]) {
      assertStringIncludes(refused.message, word);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  const rows = [
    [AutoModelForCausalLM, "bert", "AutoModel"],
    [AutoModelForCausalLM, "llava", "AutoModelForImageTextToText"],
    [AutoModelForImageTextToText, "llama", "AutoModelForCausalLM"],
  ] as const;
  for (const [auto, arch, fitting] of rows) {
    const path = goldenPath(`models/${arch}`);
    await assertRejects(() => auto.from_pretrained(path), InvalidArgument, fitting);
  }
});
