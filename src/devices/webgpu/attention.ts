/**
 * Launches of the attention kernels. Length: eager and flash share masks, operands and what they do with int8.
 *
 * @module
 */
import { InvalidArgument } from "../../errors.ts";
import type { AttentionCall, BlocksView, FlashVersion, View } from "../device.ts";
import type { Dispatch } from "./command.ts";
import { binary, unary } from "./elementwise.ts";
import { fewTile, flashTile, type KernelLimits, TILE_KEYS } from "./flash_tile.ts";
import { product, transposed } from "./matmul.ts";
import {
  count,
  expectDType,
  floatType,
  fold,
  GRID,
  isContiguous,
  launch,
  type Operand,
  operand,
  Params,
} from "./record.ts";

/** Up to this many queries, heads that share keys share a tile. */
const PACKED_QUERIES = 16;

/** With few queries, more keys than this are split over workgroups, … */
const SPLIT_FROM = 256;
/** … at least so many each, … */
const SPLIT_KEYS = 64;
/** … into at most so many parts, which is what `flash_merge.wgsl` holds, … */
const MOST_SPLITS = 128;
/** … until one sequence has so many workgroups: several on each of the 100 to 200 cores of the largest GPUs. */
const ENOUGH_WORKGROUPS = 1024;

/** Makes a temporary float32 view. */
export type Scratch = (shape: readonly number[]) => View;

/** What the mask forms of a call add to a kernel: flags, operands and parameters. */
interface Masking {
  readonly flags: Readonly<Record<string, boolean | string>>;
  readonly padding: Operand | null;
  readonly mask: Operand | null;
  readonly sinks: Operand | null;
  readonly blocks: Blocks | null;
  /** padding, mask, sinks, query_offset and windows, as both kernels declare them. */
  readonly ints: readonly number[];
}

/** A mask by blocks as kernels take it. */
interface Blocks {
  /** The lists with their entries, and the bits. */
  readonly operands: readonly [Operand, Operand];
  readonly ints: readonly number[];
}

/** @throws {InvalidArgument} for lists that do not fit the call */
function byBlocks({ size, lists, entries, bits }: BlocksView, { query, key }: AttentionCall): Blocks {
  const [B, H, Q] = query.shape as [number, number, number];
  const [least, bytes] = [Math.min(size[0], Q), Math.ceil(Math.min(size[1], key.shape[2]!) / 8)];
  const fits = `${lists.shape}` === `${[B, H, Math.ceil(Q / size[0]), 2]}` && lists.strides[3] === 1 &&
    lists.dtype === "int32" && entries.dtype === "int32" && entries.shape[1] === 2 && isContiguous(entries) &&
    entries.allocation === lists.allocation && bits.dtype === "uint8" && bits.shape[1]! >= least &&
    bits.shape[2]! >= bytes && isContiguous(bits);
  if (!fits) {
    throw new InvalidArgument(
      `Cannot use ${size[0]} × ${size[1]} blocks with lists ${lists.dtype} (${lists.shape}), entries ` +
        `${entries.dtype} (${entries.shape}), bits ${bits.dtype} (${bits.shape}) for query (${query.shape}) and key ` +
        `(${key.shape}) on webgpu: expected lists (B, H, ⌈Q / ${
          size[0]
        }⌉, 2) and entries (n, 2) of one allocation, ` +
        `bits (m, ≥ ${least}, ≥ ${bytes})`,
    );
  }
  // Bound from its start: an allocation that holds both is far smaller than a binding may be.
  const index = operand(lists), shown = operand(bits);
  return {
    operands: [index, shown],
    ints: [
      ...size,
      ...[index.offset, ...lists.strides.slice(0, 3), entries.offset + index.offset - lists.offset],
      ...[shown.offset, bits.strides[0]!, bits.strides[1]!],
    ],
  };
}

function masking(call: AttentionCall): Masking {
  const { padding, mask, sinks } = call;
  if (padding) expectDType("a padding mask", padding, "bool");
  if (mask) expectDType("an attention mask", mask, "bool", "float32");
  if (sinks) expectDType("sinks", sinks, "float32");
  const p = padding ? operand(padding) : null,
    m = mask ? operand(mask) : null,
    s = sinks ? operand(sinks) : null;
  return {
    flags: {
      BLOCKS: call.blocks !== null,
      SOFTCAP: call.softcap > 0,
      CAUSAL: call.causal,
      LEFT: call.window_left >= 0,
      RIGHT: call.window_right >= 0,
      PADDING: padding !== null,
      ZERO_QUERIES: padding !== null && call.zero_padded_queries,
      MASK: mask === null ? "none" : mask.dtype === "bool" ? "bool" : "additive",
      SINKS: sinks !== null,
      LSE: call.lse !== null,
    },
    padding: p,
    mask: m,
    sinks: s,
    blocks: call.blocks === null ? null : byBlocks(call.blocks, call),
    ints: [
      ...[p?.offset ?? 0, padding?.strides[0] ?? 0, padding?.strides[1] ?? 0],
      ...[m?.offset ?? 0, ...(mask?.strides ?? [0, 0, 0, 0])],
      ...[s?.offset ?? 0, sinks?.strides[0] ?? 0],
      ...[call.query_offset, call.window_left, call.window_right],
    ],
  };
}

/** Keys or values of a call as floats: what is int8 is widened into scratch. */
function widened(view: View, scratch: Scratch): [view: View, commands: (Dispatch | null)[]] {
  if (view.scales === undefined) return [view, []];
  const integers = scratch(view.shape), floats = scratch(view.shape);
  const scales = { ...view.scales, shape: view.shape, strides: [...view.scales.strides.slice(0, 3), 0] };
  return [floats, [unary("copy", view, integers), binary("mul", integers, scales, floats)]];
}

/** A call with float keys and values, and what makes them so. */
function wide(call: AttentionCall, scratch: Scratch): [call: AttentionCall, commands: Dispatch[]] {
  const [key, first] = widened(call.key, scratch), [value, second] = widened(call.value, scratch);
  return [{ ...call, key, value }, [...first, ...second].filter((command) => command !== null)];
}

/** Materialised scores: product, masked softmax in place, product. `scratch` holds the scores when no weights are asked for. */
export function eager(given: AttentionCall, scratch: Scratch): Dispatch[] {
  const [call, before] = wide(given, scratch);
  const { query, key, value, out, lse } = call;
  const [b, h, q, d] = query.shape as [number, number, number, number];
  const [, groups, k] = key.shape as [number, number, number];
  const per = h / groups;
  if (count(out.shape) === 0) return [];
  const weights = call.weights ?? scratch([b, h, q, k]);
  // Query heads as (Hkv, H / Hkv), over which keys and values broadcast.
  const grouped = (v: View): View => ({
    ...v,
    shape: [b, groups, per, v.shape[2]!, v.shape[3]!],
    strides: [v.strides[0]!, v.strides[1]! * per, v.strides[1]!, v.strides[2]!, v.strides[3]!],
  });
  const shared = (v: View): View => ({
    ...v,
    shape: [b, groups, per, k, v.shape[3]!],
    strides: [v.strides[0]!, v.strides[1]!, 0, v.strides[2]!, v.strides[3]!],
  });
  const outByHead: View = {
    ...out,
    shape: [b, h, q, out.shape[3]!],
    strides: [0, 2, 1, 3].map((i) => out.strides[i]!),
  };
  const queries = { ...query, shape: [b, h, q, d] };
  const commands = [...before, ...product(grouped(queries), transposed(shared(key)), grouped(weights))];

  const mask = masking(call);
  const scores = operand(weights, true), sums = lse ? operand(lse, true) : null;
  const { grid, pitch } = fold(b * h * q, 1);
  if (mask.blocks !== null) {
    const words = new Params().int(b * h * q, pitch, h, q, k, scores.offset, ...mask.blocks.ints);
    commands.push(launch("blocks", {}, [scores, ...mask.blocks.operands], [], words, grid));
  }
  const params = new Params().int(b * h * q, pitch, h, q, k, scores.offset, sums?.offset ?? 0, ...mask.ints)
    .float(call.scaling, call.softcap);
  const operands = [scores, sums, mask.padding, mask.mask, mask.sinks];
  const outputs = lse ? [weights, lse] : [weights];
  commands.push(launch("eager", mask.flags, operands, outputs, params, grid));
  commands.push(...product(grouped(weights), shared(value), grouped(outByHead)));
  return commands;
}

/** Fused attention on a GPU with these limits. `scratch` holds the parts when keys are split. */
export function flash(call: AttentionCall, scratch: Scratch, limits: KernelLimits): Dispatch[] {
  const { query, key, value, out, lse, sinks } = call;
  const [b, h, q, d] = query.shape as [number, number, number, number];
  const [, groups, k] = key.shape as [number, number, number];
  const dv = value.shape[3]!;
  if (call.precision === "int8") {
    throw new InvalidArgument("Cannot attend in int8 on webgpu: expected float32");
  }
  if (count(out.shape) === 0) return [];
  if (b > GRID || h > GRID) {
    throw new InvalidArgument(`Cannot attend over ${b} x ${h} heads on webgpu: at most ${GRID} each`);
  }
  expectDType("a query", query, "float32");
  expectDType("an attention output", out, "float32");
  const per = h / groups;
  const pack = q <= PACKED_QUERIES ? per : 1;
  const rows = q * pack;
  // Whether keys are split, and where, depends on the sequence alone, never on the batch.
  const many = q <= PACKED_QUERIES && k > SPLIT_FROM;
  const mask = masking(call);
  const version = call.version ?? bestVersion(q, k);
  const tile = flashTile(rows, d, dv, { blocks: call.blocks !== null, version }, limits);
  const few = many && call.blocks === null ? fewTile(rows, d, dv) : null;
  const queries = few?.ROWS ?? tile.TY * tile.RV * 4;
  const splitKeys = many ? splitOf(k, Math.ceil(rows / queries) * h / pack) : Math.max(1, k);
  const splits = many ? Math.ceil(k / splitKeys) : 1;
  // What the merge binds the first kernel need not, and every adapter has eight bindings only.
  const extras = [call.blocks, call.blocks, call.padding, call.mask, sinks, lse].filter((view) =>
    view !== null
  );
  const scaled = key.scales !== undefined ? 2 : 0;
  const SPLIT = many || extras.length + scaled > 4;
  // Even so there may be more than an adapter binds: then keys and values become floats first.
  if (scaled > 0 && extras.filter((view) => view !== sinks && view !== lse).length + scaled > 4) {
    const [floats, before] = wide(call, scratch);
    return [...before, ...flash(floats, scratch, limits)];
  }
  const parts = SPLIT ? scratch([b, h, q, splits, 4 + Math.ceil(dv / 4) * 4]) : null;

  const from = operand(query), keys = operand(key), values = operand(value), to = operand(parts ?? out, true);
  const sums = lse ? operand(lse, true) : null;
  const types = {
    QUERY: vectorType("a query", query, from),
    KEY: vectorType("a key", key, keys),
    VALUE: vectorType("a value", value, values),
  };
  const { BLOCKS, SINKS, LSE, ...hiding } = mask.flags;
  const shared = { D: d, DV: dv, ...types, SCALED: scaled > 0, ...hiding };
  const constants = {
    ...shared,
    ...tile,
    OUT4: !SPLIT && dv % 4 === 0 && to.offset % 4 === 0,
    BLOCKS: BLOCKS!,
    SPLIT,
    ...(SPLIT ? { SINKS: false, LSE: false } : { SINKS: SINKS!, LSE: LSE! }),
  };
  const scalesOf = ({ scales }: View) => scales === undefined ? null : operand(scales);
  const keyScales = scalesOf(key), valueScales = scalesOf(value);
  const scales = ({ scales }: View, o: Operand | null) => [
    o?.offset ?? 0,
    ...(scales?.strides.slice(0, 3) ?? [0, 0, 0]),
  ];
  const outer = (v: View, o: Operand) => [o.offset, v.strides[0]!, v.strides[1]!, v.strides[2]!];
  const params = new Params().int(q, k, h, per, pack, ...outer(query, from), ...outer(key, keys))
    .int(...outer(value, values), ...scales(key, keyScales), ...scales(value, valueScales))
    .int(to.offset, sums?.offset ?? 0, ...mask.ints)
    .float(call.scaling, call.softcap).int(splits, splitKeys, ...(mask.blocks?.ints ?? []));
  const [ownSums, ownSinks] = SPLIT ? [null, null] : [sums, mask.sinks];
  const operands = [
    from,
    keys,
    values,
    to,
    ownSums,
    mask.padding,
    mask.mask,
    ownSinks,
    ...(mask.blocks?.operands ?? [null, null]),
    keyScales,
    valueScales,
  ];
  const grid = [Math.ceil(rows / queries) * splits, h / pack, b] as const;
  const outputs = lse ? [out, lse] : [out];
  if (!parts) return [launch("flash", constants, operands, outputs, params, grid)];

  const joined = operand(out, true);
  const merge = fold(b * h * q, 1);
  const words = new Params().int(b * h * q, merge.pitch, h, q, dv, splits, joined.offset, sums?.offset ?? 0)
    .int(mask.sinks?.offset ?? 0, sinks?.strides[0] ?? 0);
  return [
    few === null
      ? launch("flash", constants, operands, [parts], params, grid)
      : launch("flash_few", { ...shared, ...few }, operands, [parts], params, grid),
    launch(
      "flash_merge",
      { SINKS: sinks !== null, LSE: lse !== null },
      [operand(parts), joined, sums, mask.sinks],
      outputs,
      words,
      merge.grid,
    ),
  ];
}

/** The version where none is asked for: with one tile of keys there is nothing to overlap and nothing to rescale. */
function bestVersion(queries: number, keys: number): FlashVersion {
  return queries <= PACKED_QUERIES || keys <= TILE_KEYS ? 2 : 4;
}

/** Keys of a part, a multiple of a tile, when each of so many workgroups is split. Depends on one sequence alone. */
function splitOf(keys: number, workgroups: number): number {
  const parts = Math.min(MOST_SPLITS, Math.ceil(ENOUGH_WORKGROUPS / workgroups));
  return Math.max(SPLIT_KEYS, Math.ceil(keys / parts / TILE_KEYS) * TILE_KEYS);
}

/** Element type of rows that may be loaded four elements at a time. */
function vectorType(name: string, view: View, { offset }: Operand): string {
  const type = view.scales === undefined ? floatType(name, view.dtype) : "q8";
  if (view.strides[3] !== 1 && view.shape[3] !== 1) {
    throw new InvalidArgument(
      `Cannot attend with ${name} of strides [${view.strides}]: expected the last to be 1`,
    );
  }
  const aligned = [offset, view.shape[3]!, ...view.strides.slice(0, 3)].every((n) => n % 4 === 0);
  return aligned ? `${type}x4` : type;
}
