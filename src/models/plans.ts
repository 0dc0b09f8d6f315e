/**
 * Which attention function every part of a model uses: chosen by name, looked up when a forward begins.
 *
 * @module
 */
import { attentionFunction, builtinOf } from "../attention/builtin.ts";
import type { AttnImplementation, PretrainedConfig } from "../config.ts";
import type { AttentionPlan } from "../layers/attention.ts";

/** What a part uses when nothing was requested. */
export const DEFAULT_IMPLEMENTATION = "sdpa";

/** An attention layer: its name, and the part of the config that chooses its implementation. */
export interface AttentionLayer {
  readonly layer: string;
  readonly config: PretrainedConfig;
}

/** The attention functions of a config and its sub-configs at one moment: a swap replaces names, not what runs. */
export class Plans {
  readonly #plans = new Map<PretrainedConfig, AttentionPlan>();
  /** A function of the user's among them, by name, or null. */
  readonly custom: string | null;

  /**
   * Looks all parts up.
   *
   * @throws {InvalidArgument} for a name nobody registered
   */
  constructor(config: PretrainedConfig) {
    for (const part of partsOf(config)) {
      const implementation = part._attn_implementation ?? DEFAULT_IMPLEMENTATION;
      this.#plans.set(part, { implementation, forward: attentionFunction(implementation) });
    }
    const names = [...this.#plans.values()].map((p) => p.implementation);
    this.custom = names.find((name) => builtinOf(name) === undefined) ?? null;
  }

  /** The plan of one part, which is the config given or one of its sub-configs. */
  of(part: PretrainedConfig): AttentionPlan {
    return this.#plans.get(part)!;
  }
}

function partsOf(config: PretrainedConfig): PretrainedConfig[] {
  return [config, ...Object.values(config.sub_configs).flatMap(partsOf)];
}

/**
 * Writes an implementation choice into a config, after checking every name in it; parts without one get `sdpa`.
 *
 * @throws {InvalidArgument} for an unknown name or sub-config; nothing has changed then
 */
export function applyImplementation(config: PretrainedConfig, choice: AttnImplementation): void {
  const draft = config.clone();
  draft._attn_implementation = choice;
  config._attn_implementation = settled(draft);
}

/** The choice of every part by name, each checked. */
function settled(part: PretrainedConfig): AttnImplementation {
  const name = part._attn_implementation ?? DEFAULT_IMPLEMENTATION;
  attentionFunction(name);
  const parts = Object.entries(part.sub_configs).map(([key, sub]) => [key, settled(sub)] as const);
  return { "": name, ...Object.fromEntries(parts) };
}
