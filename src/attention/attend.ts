/**
 * The one place where attention becomes a kernel call: checks operands, resolves defaults, records.
 *
 * @module
 */
import type {
  AttentionAlgorithm,
  AttentionPrecision,
  BlocksView,
  Device,
  DeviceName,
  FlashVersion,
  View,
} from "../devices/device.ts";
import { AttentionRefused, InvalidArgument } from "../errors.ts";
import type { BlockMask } from "../masks/block_mask.ts";
import { expandView, placeOf, viewAs } from "../ops/place.ts";
import { tidy } from "../scope.ts";
import { Tensor } from "../tensor.ts";
import type { AttentionKwargs } from "./types.ts";

/** What {@linkcode attend} computes; all mask forms that are present hold at once. */
export interface AttendOptions {
  readonly algorithm: AttentionAlgorithm;
  /** Which `flash`; default: the device's best. */
  readonly version?: FlashVersion | undefined;
  /** How scores are multiplied; default `float32`. */
  readonly precision?: AttentionPrecision | undefined;
  /** Default D^-0.5. */
  readonly scaling?: number | null | undefined;
  readonly softcap?: number | null | undefined;
  readonly sinks?: Tensor | null | undefined;
  /** Queries see no later key: query i sits at key position i + query_offset. */
  readonly causal?: boolean;
  readonly query_offset?: number;
  /** Keys visible to the left and right of the query's position; default unbounded. */
  readonly window?: readonly [left: number, right: number];
  /** (B, K) bool. */
  readonly padding?: Tensor | null;
  readonly zero_padded_queries?: boolean;
  /** Broadcastable to (B, H, Q, K): bool, or float added to the scores. */
  readonly mask?: Tensor | null;
  /** A block mask that was made for these lengths, B and H may be 1. */
  readonly blocks?: BlockMask | null;
  readonly weights?: boolean;
  readonly lse?: boolean;
}

/** What {@linkcode attend} returns. */
export interface Attended {
  /** (B, Q, H, Dv). */
  readonly attn_output: Tensor;
  /** (B, H, Q, K), when asked for. */
  readonly attn_weights: Tensor | null;
  /** (B, H, Q), when asked for. */
  readonly lse: Tensor | null;
}

/**
 * Checks that query, key and value fit together.
 *
 * @throws {InvalidArgument} naming all three shapes
 */
export function checkOperands(query: Tensor, key: Tensor, value: Tensor): void {
  const [b, h, , d] = query.shape;
  const [bk, hk, k, dk] = key.shape;
  const [bv, hv, kv] = value.shape;
  const fits = [query, key, value].every((t) => t.shape.length === 4) && bk === b && bv === b && hv === hk &&
    kv === k && dk === d &&
    d! > 0 && hk! > 0 && h! % hk! === 0;
  if (!fits) {
    throw new InvalidArgument(
      `Cannot attend with query [${query.shape}], key [${key.shape}], value [${value.shape}]: ` +
        "expected (B, H, Q, D), (B, Hkv, K, D), (B, Hkv, K, Dv) with H a multiple of Hkv",
    );
  }
  if (key.dtype !== value.dtype || (key.scales === null) !== (value.scales === null)) {
    throw new InvalidArgument(
      `Cannot attend with key ${key.dtype} and value ${value.dtype}: expected one dtype`,
    );
  }
}

/**
 * Checks the keyword arguments every built-in understands.
 *
 * @throws {InvalidArgument}
 */
export function checkKwargs(kwargs: AttentionKwargs, heads: number): void {
  const { dropout = 0, scaling, softcap, s_aux, sliding_window } = kwargs;
  if (dropout !== 0) {
    throw new InvalidArgument(
      `Cannot attend with dropout ${dropout}: this library runs inference only, pass 0`,
    );
  }
  if (scaling !== undefined && scaling !== null && !Number.isFinite(scaling)) {
    throw new InvalidArgument(`Cannot attend with scaling ${scaling}: expected a finite number`);
  }
  if (softcap !== undefined && softcap !== null && !(Number.isFinite(softcap) && softcap > 0)) {
    throw new InvalidArgument(`Cannot attend with softcap ${softcap}: expected a positive number, or null`);
  }
  if (
    sliding_window !== undefined && sliding_window !== null &&
    !(Number.isInteger(sliding_window) && sliding_window >= 1)
  ) {
    throw new InvalidArgument(
      `Cannot attend with sliding_window ${sliding_window}: expected an integer ≥ 1, or null`,
    );
  }
  if (s_aux !== undefined && s_aux !== null && !(s_aux instanceof Tensor && s_aux.size === heads)) {
    throw new InvalidArgument(
      `Cannot attend with sinks of shape [${
        s_aux instanceof Tensor ? s_aux.shape : typeof s_aux
      }]: expected one logit for each of ${heads} heads`,
    );
  }
}

/**
 * The precision a call asks for. Only the devices in `int8` have that path under the implementation `name`.
 *
 * @throws {InvalidArgument} for anything but the two precisions
 * @throws {AttentionRefused} where there is no such path
 */
export function precisionOf(
  kwargs: AttentionKwargs,
  name: string,
  device: DeviceName,
  int8: readonly DeviceName[] = [],
): AttentionPrecision {
  const precision = kwargs.precision ?? "float32";
  if (precision !== "float32" && precision !== "int8") {
    throw new InvalidArgument(
      `Cannot attend with precision ${JSON.stringify(precision)}: expected "float32" or "int8"`,
    );
  }
  if (precision === "float32" || int8.includes(device)) return precision;
  throw new AttentionRefused(
    `Cannot attend in int8 with "${name}" on "${device}": expected precision "float32"; ` +
      `"flash_attention_3" on "wasm" has int8`,
  );
}

/**
 * A mask's view broadcast to (B, H, Q, K). A mask with more key columns than there are keys is cut, as the reference does.
 *
 * @throws {InvalidArgument} for a shape or dtype no kernel takes
 */
function maskView(mask: Tensor, shape: readonly number[], take: (t: Tensor) => View): View {
  if (
    mask.dtype !== "bool" && mask.dtype !== "float32" && mask.dtype !== "float16" && mask.dtype !== "bfloat16"
  ) {
    throw new InvalidArgument(
      `Cannot attend with a mask of dtype ${mask.dtype}: expected bool (true = attend) or a float added to the scores`,
    );
  }
  const rank = mask.shape.length;
  const fits = rank >= 2 && rank <= 4 && mask.shape.every((m, i) => {
    const want = shape[4 - rank + i]!;
    return m === 1 || m === want || (i === rank - 1 && m > want);
  });
  if (!fits) {
    throw new InvalidArgument(
      `Cannot attend with a mask of shape [${mask.shape}]: it must broadcast to (B, H, Q, K) = [${shape}]`,
    );
  }
  const view = take(mask);
  const cut = view.shape.map((m, i) => i === rank - 1 ? Math.min(m, shape[3]!) : m);
  return expandView({ ...view, shape: cut }, shape);
}

/** A block mask as the kernel reads it, broadcast to (B, H). */
function blocksView({ tensors }: BlockMask, leading: readonly number[], device: Device): BlocksView {
  const { size, lists, entries, bits } = tensors;
  return {
    size,
    lists: expandView(lists.on(device), [...leading, ...lists.shape.slice(2)]),
    entries: entries.on(device),
    bits: bits.on(device),
  };
}

/**
 * Records attention over checked operands.
 *
 * @throws {InvalidArgument} for masks or sinks that do not fit
 */
export function attend(query: Tensor, key: Tensor, value: Tensor, options: AttendOptions): Attended {
  checkOperands(query, key, value);
  const [b, h, q, d] = query.shape as [number, number, number, number];
  const k = key.shape[2]!;
  const dv = value.shape[3]!;
  const { padding = null, mask = null, blocks = null, sinks = null } = options;
  if (
    padding !== null &&
    (padding.dtype !== "bool" || padding.shape.length !== 2 || padding.shape[0] !== b ||
      padding.shape[1] !== k)
  ) {
    throw new InvalidArgument(
      `Cannot attend with padding ${padding.dtype} [${padding.shape}]: expected bool (B, K) = [${b},${k}]`,
    );
  }
  return tidy(() => {
    const operands = [key, value, query, padding, mask, blocks?.tensors.lists, sinks];
    const tensors = operands.filter((t) => t !== null && t !== undefined);
    const device = placeOf(tensors, "attend to");
    const weights = options.weights === true ? Tensor.empty(device, "float32", [b, h, q, k]) : null;
    const lse = options.lse === true ? Tensor.empty(device, "float32", [b, h, q]) : null;
    const out = Tensor.empty(device, "float32", [b, q, h, dv]);
    const float = (t: Tensor) => viewAs(t, "float32", device);
    device.kernels.attention({
      algorithm: options.algorithm,
      version: options.version,
      precision: options.precision,
      query: float(query),
      key: key.withScales(device),
      value: value.withScales(device),
      out: out.on(device),
      weights: weights?.on(device) ?? null,
      lse: lse?.on(device) ?? null,
      scaling: options.scaling ?? d ** -0.5,
      softcap: options.softcap ?? 0,
      query_offset: options.query_offset ?? 0,
      causal: options.causal ?? false,
      window_left: options.window?.[0] ?? -1,
      window_right: options.window?.[1] ?? -1,
      padding: padding?.on(device) ?? null,
      zero_padded_queries: options.zero_padded_queries ?? false,
      mask: mask === null
        ? null
        : maskView(mask, [b, h, q, k], (t) => t.dtype === "bool" ? t.on(device) : float(t)),
      blocks: blocks === null ? null : blocksView(blocks, [b, h], device),
      sinks: sinks === null ? null : float(sinks),
    });
    return { attn_output: out, attn_weights: weights, lse };
  });
}
