/**
 * Records attention calls for the WASM kernels.
 *
 * @module
 */
import { InvalidArgument } from "../../errors.ts";
import type { AttentionCall, BlocksView, FlashVersion, View } from "../device.ts";
import { type Recorder, SCRATCH_BYTES } from "./command.ts";
import { checkFloat, checkOutput, codeOf, isContiguous, rowStride, wholly, Words } from "./params.ts";

/** Keys of a tile, as in `tile.rs`. */
const TILE = 64;

/** Floats between the rows of turned keys, as in `flash.rs`. */
const KEY_ROW = TILE + 16;

/** Query rows from which on the lanes of the flash kernel are worth filling; fewer go to the decoding kernel. */
const FLASH_ROWS = 8;

/** Beyond every position: an unbounded side of the window. */
const UNBOUNDED = 0x3fffffff;

/** Most floating point operations of one part: about 0.3 ms, and 3 ms where every row more shares the keys it reads. */
const PART_COST = 16e6;
const FLASH_PART_COST = 128e6;

/** Most rows of a part of the flash kernels, in groups of eight. */
const FLASH_PART_ROWS = 128;

/** Parts from which on a call is divided finely enough. */
const ENOUGH_PARTS = 32;

/** The version where none is asked for; what each gains is in bench/NOTES.md. */
const BEST_VERSION: FlashVersion = 4;

const up4 = (n: number) => Math.ceil(n / 4) * 4;

/** Which kernel runs, with how many rows per part and parts. */
interface Plan {
  readonly kernel: string;
  readonly q_block: number;
  /** Query heads of a part of the flash kernels. */
  readonly q_heads?: number;
  readonly parts: number;
}

function plan(call: AttentionCall, share: number): Plan {
  const [B, H, Q, D] = call.query.shape as [number, number, number, number];
  const [, Hkv, K, Dv] = call.value.shape as [number, number, number, number];
  const [w, wv, floats] = [up4(D), up4(Dv), SCRATCH_BYTES / 4];
  const fit = (kernel: string, fixed: number, perRow: number, step: number, most: number) => {
    const rows = Math.floor(Math.min(most, (floats - fixed) / perRow) / step) * step;
    if (rows >= step) return rows;
    throw new InvalidArgument(
      `Cannot run ${kernel} attention with ${K} keys and head dimensions ${D} and ${Dv}: ` +
        `${step} rows need ${
          4 * (fixed + step * perRow)
        } bytes of scratch memory, there are ${SCRATCH_BYTES}`,
    );
  };
  const wanted = PART_COST / Math.max(1, 2 * K * share * (D + Dv));
  if (call.algorithm === "eager") {
    const perRow = w + (call.weights === null ? K : 0);
    const most = Math.min(24, Math.max(3, Math.ceil(wanted / 3) * 3));
    const rows = fit("eager", TILE * wv, perRow, 1, most);
    const q_block = rows > 3 ? rows - rows % 3 : rows;
    return { kernel: "attention_eager", q_block, parts: B * H * Math.ceil(Q / q_block) };
  }
  if (Q < FLASH_ROWS && call.precision !== "int8") {
    const rows = H / Hkv * Q;
    const q_block = fit("flash", TILE * wv, w + 2 * wv + TILE, 1, Math.min(64, rows));
    return { kernel: "attention_decode", q_block, parts: B * Hkv * Math.ceil(rows / q_block) };
  }
  const heads = flashHeads(H / Hkv, Q);
  const affordable = Math.max(16, Math.ceil(FLASH_PART_COST / PART_COST * wanted / 8) * 8);
  const most = Math.min(FLASH_PART_ROWS, affordable);
  const fixed = TILE * 24 + KEY_ROW * w + Math.max(TILE * wv, 4 * w);
  const rows = fit("flash", fixed, w + wv, 8 * heads, Math.max(8 * heads, most)) / heads;
  const partsOf = (rows: number) => B * H / heads * Math.ceil(Q / rows);
  let q_block = Math.min(rows - rows % 8, Math.ceil(Q / 8) * 8);
  while (q_block > 16 && partsOf(q_block) < ENOUGH_PARTS) q_block = Math.ceil(q_block / 16) * 8;
  return { kernel: flashKernel(call), q_block, q_heads: heads, parts: partsOf(q_block) };
}

/** What an operation of attention costs more where queries are few: keys and values come from memory. */
const DECODE_COST = 3;

/** How many of the heads that share a key head a part takes: all that fit with a group of eight rows each. */
function flashHeads(group: number, queries: number): number {
  const fits = FLASH_PART_ROWS / 8 / Math.min(2, Math.ceil(queries / 8));
  let heads = Math.min(group, fits);
  while (group % heads !== 0) heads--;
  return heads;
}

/** The export that computes a version of flash. */
function flashKernel({ version = BEST_VERSION, precision }: AttentionCall): string {
  if (precision === "int8") return "attention_flash_3_int8";
  return version === 2 ? "attention_flash" : `attention_flash_${version}`;
}

function check(call: AttentionCall): void {
  const { query, key, value, mask, padding, sinks } = call;
  if (call.precision === "int8" && (call.algorithm !== "flash" || call.version !== 3)) {
    throw new InvalidArgument("Cannot attend with precision int8: expected version 3 of flash");
  }
  checkFloat("a query", query, true);
  for (const [what, view] of [["keys", key], ["values", value]] as const) checkRows(what, view);
  checkOutput("an attention output", call.out);
  checkOutput("attention weights", call.weights);
  checkOutput("a log-sum-exp", call.lse);
  for (
    const [what, view] of [["a query", query], ["keys", key], ["values", value], [
      "padding",
      padding,
    ]] as const
  ) {
    if (view !== null) rowStride(what, view);
  }
  if (key.dtype !== value.dtype) {
    throw new InvalidArgument(
      `Cannot attend to ${key.dtype} keys with ${value.dtype} values: expected one dtype`,
    );
  }
  if (mask !== null && mask.dtype !== "bool" && mask.dtype !== "float32") {
    throw new InvalidArgument(`Cannot use a mask of dtype ${mask.dtype}: expected bool or float32`);
  }
  if (padding !== null && padding.dtype !== "bool") {
    throw new InvalidArgument(`Cannot use padding of dtype ${padding.dtype}: expected bool`);
  }
  if (call.blocks !== null) checkBlocks(call.blocks, call);
  checkFloat("sinks", sinks, true);
}

/** Keys or values are floats, or int8 with a scale for every row. */
function checkRows(what: string, view: View): void {
  if (view.scales === undefined) return checkFloat(what, view);
  const { dtype, shape } = view.scales;
  if (view.dtype === "int8" && dtype === "float32" && `${shape}` === `${[...view.shape.slice(0, 3), 1]}`) {
    return;
  }
  throw new InvalidArgument(
    `Cannot use ${what} of dtype ${view.dtype} (${view.shape}) with scales ${dtype} (${shape}): ` +
      `expected int8 with float32 scales (${[...view.shape.slice(0, 3), 1]})`,
  );
}

/** Checks what the kernel relies on, but for the values of lists and entries. */
function checkBlocks({ size: [queries, keys], lists, entries, bits }: BlocksView, call: AttentionCall): void {
  const [B, H, Q] = call.query.shape as [number, number, number];
  const [least, bytes] = [Math.min(queries, Q), Math.ceil(Math.min(keys, call.key.shape[2]!) / 8)];
  const fits = `${lists.shape}` === `${[B, H, Math.ceil(Q / queries), 2]}` && lists.strides[3] === 1 &&
    lists.dtype === "int32" && entries.dtype === "int32" && entries.shape[1] === 2 && isContiguous(entries) &&
    bits.dtype === "uint8" && bits.shape[1]! >= least && bits.shape[2]! >= bytes && isContiguous(bits);
  if (fits) return;
  throw new InvalidArgument(
    `Cannot use ${queries} × ${keys} blocks with lists ${lists.dtype} (${lists.shape}), entries ${entries.dtype} ` +
      `(${entries.shape}), bits ${bits.dtype} (${bits.shape}) for query (${call.query.shape}) and key ` +
      `(${call.key.shape}): expected lists (B, H, ⌈Q / ${queries}⌉, 2), entries (n, 2), bits (m, ≥ ${least}, ≥ ${bytes})`,
  );
}

/** The part of all blocks that is listed, in (0, 1]. */
function shareOf({ size, lists, entries }: BlocksView, keys: number): number {
  const [b, h, rows] = lists.shape.map((n, d) => lists.strides[d] === 0 ? 1 : n) as [number, number, number];
  const all = b * h * rows * Math.ceil(keys / size[1]);
  return Math.min(1, Math.max(1, entries.shape[0]!) / Math.max(1, all));
}

/** Records one attention call; the fields follow `Attention` of `attention.rs`. */
export function recordAttention(recorder: Recorder, call: AttentionCall): void {
  check(call);
  const { query, key, value } = call;
  const [B, H, Q, D] = query.shape as [number, number, number, number];
  const [, Hkv, K, Dv] = value.shape as [number, number, number, number];
  if (B * H * Q === 0) return;
  const { blocks } = call;
  const share = blocks === null ? 1 : shareOf(blocks, K);
  const { kernel, q_block, q_heads = 1, parts } = plan(call, share);
  const limit = (n: number) => n < 0 ? UNBOUNDED : Math.min(n, UNBOUNDED);
  const right = limit(call.window_right);
  const outer = (view: View) => view.strides.slice(0, 3);
  const words = new Words(recorder)
    .pointer(query).int(...outer(query))
    .pointer(key).int(...outer(key)).pointer(key.scales ?? null).int(...outer(key.scales ?? key))
    .pointer(value).int(...outer(value)).pointer(value.scales ?? null).int(...outer(value.scales ?? value))
    .int(codeOf(key.dtype))
    // No block table: page, table, table_stride.
    .int(0, 0, 0)
    .pointer(call.out).pointer(call.weights).pointer(call.lse)
    .int(B, H, Hkv, Q, K, D, Dv)
    .float(call.scaling)
    .int(call.query_offset, limit(call.window_left), call.causal ? Math.min(right, 0) : right)
    .pointer(call.padding).int(call.padding?.strides[0] ?? 0, call.zero_padded_queries)
    .int(call.mask === null ? 0 : call.mask.dtype === "bool" ? 1 : 2)
    .pointer(call.mask).int(...(call.mask?.strides ?? [0, 0, 0, 0]))
    .pointer(blocks && blocks.lists).int(...(blocks === null ? [0, 0, 0] : outer(blocks.lists)))
    .pointer(blocks && blocks.entries).pointer(blocks && blocks.bits)
    .int(blocks?.bits.shape[2] ?? 0, blocks?.bits.strides[0] ?? 0, ...(blocks?.size ?? [0, 0]))
    .pointer(call.sinks).int(call.sinks?.strides[0] ?? 0)
    .int(q_block)
    .int(call.softcap === 0 ? 0 : recorder.tableIndex("softcap"), true)
    .float(call.softcap, 0, 0, 0, 0, 0, 0, 0)
    .int(q_heads, recorder.hasWideTiles);
  const visible = call.causal && Q === K ? K / 2 : K;
  recorder.record({
    kernel,
    params: words.words,
    parts,
    cost: B * H * Q * (visible * share + 1) * 2 * (D + Dv) *
      (kernel === "attention_decode" ? DECODE_COST : 1),
    // Causal, the last queries of a head see most keys.
    lastFirst: call.causal,
    writes: wholly(call.out, call.weights, call.lse),
  });
}
