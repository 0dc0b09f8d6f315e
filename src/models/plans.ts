/**
 * Which attention function every part of a model uses: chosen by name, looked up when a forward begins.
 *
 * @module
 */
import { attentionFunction, builtinOf, modelAttentionFunction, withoutPages } from "../attention/builtin.ts";
import type { AttentionFunction } from "../attention/types.ts";
import type { AttnImplementation, PretrainedConfig } from "../config.ts";
import type { AttentionPlan } from "../layers/attention.ts";
import { cast } from "../ops/elementwise.ts";
import { Tensor } from "../tensor.ts";
import { untilAborted } from "./turns.ts";

/** What a part uses when nothing was requested. */
export const DEFAULT_IMPLEMENTATION = "sdpa";

/** An attention layer: its name, and the part of the config that chooses its implementation. */
export interface AttentionLayer {
  readonly layer: string;
  readonly config: PretrainedConfig;
}

/** Puts a function around the attention function of every part, for one forward: to look at its calls. */
export type AttentionTap = (forward: AttentionFunction, implementation: string) => AttentionFunction;

/** Key of a forward's inputs that only this library uses. */
export const ATTENTION_TAP: unique symbol = Symbol("attention tap");

/** Inputs that may bring a tap. */
export interface Tapped {
  /** Around every attention function of this forward. */
  readonly [ATTENTION_TAP]?: AttentionTap | undefined;
}

/** The attention functions of a config and its sub-configs at one moment: a swap replaces names, not what runs. */
export class Plans {
  readonly #plans = new Map<PretrainedConfig, AttentionPlan>();
  /** A function of the user's among them, by name, or null. */
  readonly custom: string | null;
  /** Whether a built-in `paged|` implementation is among them, which reads arguments of its own. */
  readonly paged: boolean;

  /**
   * Looks all parts up. An abort by `signal` ends the waiting for a function, whatever that still does.
   *
   * @throws {InvalidArgument} for a name nobody registered
   */
  constructor(config: PretrainedConfig, tap: AttentionTap = (forward) => forward, signal?: AbortSignal) {
    for (const part of partsOf(config)) {
      const implementation = part._attn_implementation ?? DEFAULT_IMPLEMENTATION;
      this.#plans.set(part, {
        implementation,
        forward: abortable(tap(attentionOf(implementation), implementation), signal),
      });
    }
    const names = [...this.#plans.values()].map((p) => p.implementation);
    this.custom = names.find((name) => builtinOf(withoutPages(name)) === undefined) ?? null;
    this.paged = names.some((name) => name !== withoutPages(name));
  }

  /** The plan of one part, which is the config given or one of its sub-configs. */
  of(part: PretrainedConfig): AttentionPlan {
    return this.#plans.get(part)!;
  }
}

/** The function of an implementation: one of the user's is given floats, whatever the cache keeps. */
function attentionOf(implementation: string): AttentionFunction {
  const forward = modelAttentionFunction(implementation);
  if (builtinOf(withoutPages(implementation)) !== undefined) return forward;
  const wide = (t: Tensor) => t.scales === null ? t : cast(t, "float32");
  return (module, query, key, value, ...rest) => forward(module, query, wide(key), wide(value), ...rest);
}

/** A function that may never be done: an abort ends the waiting, and what comes later is disposed. */
function abortable(forward: AttentionFunction, signal: AbortSignal | undefined): AttentionFunction {
  if (signal === undefined) return forward;
  return (...args) => {
    const result = forward(...args);
    return result instanceof Promise ? untilAborted(result, signal, disposeResult) : result;
  };
}

/** Gives back what an attention function returned, whatever that is. */
function disposeResult(late: unknown): void {
  for (const t of Array.isArray(late) ? late : [late]) if (t instanceof Tensor) t[Symbol.dispose]();
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
