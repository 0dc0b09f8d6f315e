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
import { FLASH_VERSIONS, flashOf } from "./flash.ts";
import { flex, flex_attention_forward } from "./flex.ts";
import { type Attend, forwardOf } from "./forward.ts";
import { ALL_ATTENTION_FUNCTIONS, AttentionInterface } from "./interface.ts";
import {
  eager_paged_attention_forward,
  pagedCache,
  pagedEager,
  pagedFlashOf,
  pagedSdpa,
  sdpa_paged_attention_forward,
} from "./paged.ts";
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

/** What stands before the name of an implementation that reads its past from a cache of pages. */
const PAGED = "paged|";

/** A backend for each version of flash attention, with and without pages. */
function flashBackends(prefix: string, wrap: (attend: Attend) => Attend): Backend[] {
  return FLASH_VERSIONS.map((version) => {
    const attend = wrap(flashOf(version));
    const name = `${prefix}flash_attention_${version}`;
    return { name, forward: forwardOf(attend), attend, format_mask: flash_attention_mask };
  });
}

/** The built-in backends, in the order error messages list them. */
export const BACKENDS: readonly Backend[] = [
  { name: "eager", forward: eager_attention_forward, attend: eager, format_mask: eager_mask },
  { name: "sdpa", forward: sdpa_attention_forward, attend: sdpa, format_mask: sdpa_mask },
  ...flashBackends("", (attend) => attend),
  { name: "flex_attention", forward: flex_attention_forward, attend: flex, format_mask: flex_attention_mask },
  {
    name: `${PAGED}eager`,
    forward: eager_paged_attention_forward,
    attend: pagedEager,
    format_mask: eager_mask,
  },
  { name: `${PAGED}sdpa`, forward: sdpa_paged_attention_forward, attend: pagedSdpa, format_mask: sdpa_mask },
  ...flashBackends(PAGED, pagedFlashOf),
];

for (const { name, forward, format_mask } of BACKENDS) {
  // As in the reference, `eager` has a mask formatter but no entry: it is every model's own default.
  if (name !== "eager") AttentionInterface.register(name, forward);
  // The registry itself finds the masks of `paged|X` under X, also when those were replaced.
  if (!name.startsWith(PAGED)) AttentionMaskInterface.register(name, format_mask);
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

/** The name whose function computes where there is no paged cache: X for a built-in `paged|X`, else the name itself. */
export function withoutPages(name: string): string {
  return name.startsWith(PAGED) && builtinOf(name) !== undefined ? name.slice(PAGED.length) : name;
}

/**
 * The function a model calls for `name`: that of a built-in `paged|X` where a call brings a paged cache, else X.
 *
 * @throws {InvalidArgument} for an unknown name
 */
export function modelAttentionFunction(name: string): AttentionFunction {
  const own = attentionFunction(name), plain = attentionFunction(withoutPages(name));
  if (own === plain) return own;
  return (...args) => (pagedCache(args[5]) === null ? plain : own)(...args);
}
