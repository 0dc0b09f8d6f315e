/**
 * AttentionInterface: names → attention functions.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import { GlobalEntries, Registry } from "../registry.ts";
import { is_kernel } from "./kernel_name.ts";
import type { AttentionFunction } from "./types.ts";

const entries = new GlobalEntries<AttentionFunction>("attention function");

/**
 * Registry of attention functions: a global map shared by all, and a local overlay per instance, which wins.
 *
 * `eager` is not an entry: it is each model's own default, unless something is registered under that name.
 *
 * Source: Transformers, `AttentionInterface`.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 * import { AttentionInterface, sdpa_attention_forward } from "../../mod.ts";
 * AttentionInterface.register("my_sdpa", (module, q, k, v, mask, kwargs) => sdpa_attention_forward(module, q, k, v, mask, kwargs));
 * assert(new AttentionInterface().has("my_sdpa"));
 * ```
 */
export class AttentionInterface extends Registry<AttentionFunction> {
  /** An overlay that holds nothing yet. */
  constructor() {
    super(entries);
  }

  /**
   * Adds or replaces an attention function for every model.
   *
   * @throws {InvalidArgument} for an empty name or a value that is not a function
   */
  static register(name: string, fn: AttentionFunction): void {
    entries.register(name, fn);
  }

  /**
   * The function of `attn_implementation`; for `"eager"`, `fallback` unless something is registered under that name.
   *
   * @throws {InvalidArgument} for an unknown name, listing the known ones
   */
  get_interface(attn_implementation: string, fallback: AttentionFunction): AttentionFunction {
    const found = this.get(attn_implementation);
    if (found !== undefined) return found;
    if (attn_implementation === "eager") return fallback;
    throw new InvalidArgument(unknownName(attn_implementation, this.valid_keys()));
  }
}

/** Message for a name nobody registered. */
export function unknownName(name: string, known: readonly string[]): string {
  if (is_kernel(name)) {
    return `Cannot use attn_implementation="${name}": it names a kernel package, and kernel packages cannot be loaded yet`;
  }
  return `Cannot use attn_implementation="${name}": expected one of ${
    ["eager", ...known.filter((k) => k !== "eager")].join(", ")
  }, ` +
    "or a name you registered with AttentionInterface.register";
}

/** The registry every model looks its attention up in. */
export const ALL_ATTENTION_FUNCTIONS: AttentionInterface = new AttentionInterface();
