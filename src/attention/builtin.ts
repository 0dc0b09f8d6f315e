/**
 * THE list of built-in backends. Adding one is a file and a line here; each brings its mask formatter, so the two
 * public registries cannot drift apart.
 *
 * @module
 */
import { eager_mask } from "../masks/format_eager.ts";
import { flash_attention_mask } from "../masks/format_flash.ts";
import { flex_attention_mask } from "../masks/format_flex.ts";
import { sdpa_mask } from "../masks/format_sdpa.ts";
import { AttentionMaskInterface } from "../masks/interface.ts";
import type { MaskFormatter } from "../masks/types.ts";
import { eager, eager_attention_forward } from "./eager.ts";
import { flash, flash_attention_forward } from "./flash.ts";
import { flex, flex_attention_forward } from "./flex.ts";
import type { Attend } from "./forward.ts";
import { ALL_ATTENTION_FUNCTIONS, AttentionInterface } from "./interface.ts";
import { sdpa, sdpa_attention_forward } from "./sdpa.ts";
import type { AttentionFunction } from "./types.ts";

/** One built-in attention implementation. */
export interface Backend {
  /** Its name in both registries. */
  readonly name: string;
  /** The registered function. */
  readonly forward: AttentionFunction;
  /** The same computation with every result it can give. */
  readonly attend: Attend;
  /** Puts a mask into the form `forward` takes. */
  readonly format_mask: MaskFormatter;
}

/** The built-in backends, in the order error messages list them. */
export const BACKENDS: readonly Backend[] = [
  { name: "eager", forward: eager_attention_forward, attend: eager, format_mask: eager_mask },
  { name: "sdpa", forward: sdpa_attention_forward, attend: sdpa, format_mask: sdpa_mask },
  ...["flash_attention_2", "flash_attention_3", "flash_attention_4"].map((name) => ({
    name,
    forward: flash_attention_forward,
    attend: flash,
    format_mask: flash_attention_mask,
  })),
  { name: "flex_attention", forward: flex_attention_forward, attend: flex, format_mask: flex_attention_mask },
];

for (const { name, forward, format_mask } of BACKENDS) {
  // As in the reference, `eager` has a mask formatter but no entry: it is every model's own default.
  if (name !== "eager") AttentionInterface.register(name, forward);
  AttentionMaskInterface.register(name, format_mask);
}

/** The built-in backend that `name` means now, or undefined where a user's function stands under it. */
export function builtinOf(name: string): Backend | undefined {
  const backend = BACKENDS.find((b) => b.name === name);
  const registered = ALL_ATTENTION_FUNCTIONS.get(name);
  if (backend === undefined || (registered !== undefined && registered !== backend.forward)) return undefined;
  return backend;
}

/**
 * The function `name` means now.
 *
 * @throws {InvalidArgument} for an unknown name
 */
export function attentionFunction(name: string): AttentionFunction {
  return ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention_forward);
}
