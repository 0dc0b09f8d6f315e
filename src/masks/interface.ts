/**
 * The registry of mask formatters, by attention implementation.
 *
 * @module
 */
import { InvalidArgument } from "../errors.ts";
import { GlobalEntries, Registry } from "../registry.ts";
import type { MaskFormatter } from "./types.ts";

const formatters = new GlobalEntries<MaskFormatter>("attention mask formatter");

/**
 * Implementation name → {@linkcode MaskFormatter}, with a global map and a local overlay per instance.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 * import { sdpa_mask } from "./format_sdpa.ts";
 *
 * AttentionMaskInterface.register("my_attention", sdpa_mask);
 * assert(new AttentionMaskInterface().has("my_attention"));
 * ```
 */
export class AttentionMaskInterface extends Registry<MaskFormatter> {
  /** Lays an empty overlay over the global formatters. */
  constructor() {
    super(formatters);
  }

  /**
   * Adds or replaces a formatter for everybody.
   *
   * @throws {InvalidArgument} for an empty name or no function.
   */
  static register(name: string, fn: MaskFormatter): void {
    formatters.register(name, fn);
  }

  /** The formatter of an implementation; `paged|X` without an entry of its own is X. Undefined when there is none. */
  resolve(attn_implementation: string): MaskFormatter | undefined {
    return this.get(attn_implementation) ??
      (attn_implementation.startsWith("paged|")
        ? this.get(attn_implementation.slice("paged|".length))
        : undefined);
  }

  /**
   * The formatter of an implementation, or `fallback` for an `eager` that nobody registered.
   *
   * @throws {InvalidArgument} for an unknown name, listing the known ones.
   */
  get_interface(attn_implementation: string, fallback: MaskFormatter): MaskFormatter {
    const found = this.resolve(attn_implementation) ??
      (attn_implementation === "eager" ? fallback : undefined);
    if (found === undefined) {
      throw new InvalidArgument(
        `Cannot find a mask formatter for "${attn_implementation}": registered names are ${
          this.valid_keys().join(", ")
        }`,
      );
    }
    return found;
  }
}

/** The formatters the `create_*_mask` family uses. */
export const ALL_MASK_ATTENTION_FUNCTIONS: AttentionMaskInterface = new AttentionMaskInterface();
