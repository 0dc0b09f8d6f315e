/**
 * Configurations and inputs that must be refused with a typed error, soon, leaving nothing behind.
 *
 * @module
 */
import { assert, assertRejects, assertStringIncludes } from "@std/assert";
import { AttuneError, type AutoClass, PretrainedConfig, type PreTrainedModel } from "../../mod.ts";
import { goldenPath } from "../support/golden.ts";
import { disposeAll, liveTest } from "./support.ts";

/** Longest time a refusal may take. */
const SOON_MS = 2000;

/** Fields to change, and what the error names. */
export type HostileConfig = readonly [fields: Readonly<Record<string, unknown>>, ...mentions: string[]];

/** The config of a recorded model with other fields; those of a part are given as an object and merged. */
export async function changedConfig(
  arch: string,
  fields: Readonly<Record<string, unknown>>,
): Promise<PretrainedConfig> {
  const json = JSON.parse(await Deno.readTextFile(goldenPath(`models/${arch}/config.json`)));
  for (const [key, value] of Object.entries(fields)) {
    const part = key.endsWith("_config") && typeof value === "object" && value !== null;
    json[key] = part ? { ...json[key], ...value } : value;
  }
  return new PretrainedConfig(json);
}

/** Registers a test for every configuration that a model of `arch` must refuse to be built from. */
export function hostileConfigs(arch: string, auto: AutoClass, rows: readonly HostileConfig[]): void {
  for (const [fields, ...mentions] of rows) {
    liveTest(`${arch} refuses a config with ${JSON.stringify(fields)?.slice(0, 90)}`, async () => {
      const started = performance.now();
      const refused = await assertRejects(async () => {
        const config = await changedConfig(arch, fields);
        await using _ = await auto.from_pretrained(goldenPath(`models/${arch}`), { config });
      }, AttuneError);
      assert(performance.now() - started < SOON_MS, "the refusal came late");
      for (const word of mentions) assertStringIncludes(refused.message, word);
      assert(refused.message.length < 400, refused.message);
    });
  }
}

/** Inputs of a forward, made anew for every test, and what the error names. */
export type HostileInputs = readonly [
  name: string,
  inputs: () => Record<string, unknown>,
  ...mentions: string[],
];

/** Registers a test for every input that a model of `arch` must refuse, after which it must still take `good`. */
export function hostileInputs(
  arch: string,
  load: () => Promise<PreTrainedModel>,
  good: () => Record<string, unknown>,
  rows: readonly HostileInputs[],
): void {
  for (const [name, inputs, ...mentions] of rows) {
    liveTest(`${arch} refuses ${name}, and lives on`, async () => {
      await using model = await load();
      const given = inputs();
      const refused = await assertRejects(() => model.forward(given), AttuneError);
      for (const word of mentions) assertStringIncludes(refused.message, word);
      disposeAll(given);
      const fine = good();
      disposeAll(await model.forward(fine));
      disposeAll(fine);
    });
  }
}
