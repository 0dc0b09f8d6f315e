/**
 * Tile sizes of `flash.wgsl`, from what an adapter has. They decide how fast a call is and never what it computes.
 *
 * @module
 */
import type { FlashVersion } from "../device.ts";

/** What tile sizes are chosen from. */
export interface KernelLimits {
  /** Bytes of workgroup memory. */
  readonly workgroupBytes: number;
  /** Invocations of a workgroup. */
  readonly invocations: number;
  /** Whether long inner loops are written out; software adapters take seconds to compile what that makes. */
  readonly unrolled: boolean;
}

/** What every adapter has: before one is open. */
export const LEAST_LIMITS: KernelLimits = { workgroupBytes: 16384, invocations: 256, unrolled: false };

/** Keys of a tile, the same everywhere: sums are rescaled at its borders. */
export const TILE_KEYS = 32;

/** Workgroup memory in bytes beyond which fewer workgroups would share a core. */
const MOST_BYTES = 32768;

/** Invocations of a row group. */
const LANES = 8;

/** Vectors of a row of workgroup memory where tiles are wide, but for the pad. */
const WIDTH = 16;

/** Constants of `flash.wgsl` that say how large a tile is and how it is worked through. */
export interface FlashTile extends Readonly<Record<string, number | boolean>> {
  /** Row groups, of `LANES` invocations each. */
  readonly TY: number;
  /** Rows of an invocation, in fours. */
  readonly RV: number;
  /** Columns of queries and keys staged at a time, in fours. */
  readonly DC: number;
  /** Values staged at a time. */
  readonly VC: number;
  /** Whether workgroup memory is rows of sixteen vectors and a pad: of chunks and tiles that fill them. */
  readonly WIDE: boolean;
  /** Whether the queries stay in workgroup memory. */
  readonly RESIDENT: boolean;
  /** Whether the next keys and values are loaded while those at hand are worked on. */
  readonly OVERLAP: boolean;
  /** Whether exponentials are shared out to the multiply-add units and scaling waits until it is needed. */
  readonly LAZY: boolean;
}

/** The tile for so many query rows with heads of `d` and `dv`: the first that fits of those in order of speed. */
export function flashTile(
  rows: number,
  d: number,
  dv: number,
  { blocks, version }: { blocks: boolean; version: FlashVersion },
  limits: KernelLimits,
): FlashTile {
  const bytes = Math.min(MOST_BYTES, limits.workgroupBytes);
  const few = rows <= 32;
  // Which keys a list shows is known only when its tile begins; a few rows wait for memory in other ways.
  const stages = { OVERLAP: version > 2 && !blocks && !few, LAZY: version === 4 && !few };
  for (const RESIDENT of few ? [false] : [true, false]) {
    for (const { TY, RV } of shapes(rows, dv, limits)) {
      if (TY * LANES > limits.invocations) continue;
      const room = Math.floor(bytes / 16) - TY * LANES * RV - (blocks ? TY * RV + 1 : 0);
      const tile = chunks(TY * RV * 4, d, dv, RESIDENT, room);
      if (tile !== null) return { TY, RV, ...tile, RESIDENT, ...stages };
    }
  }
  throw new RangeError(`no flash tile for heads of ${d} and ${dv} in ${bytes} bytes`);
}

/** Row groups, and rows of an invocation in fours. Eight rows halve the loads of a product, where registers hold the output. */
function shapes(rows: number, dv: number, { unrolled }: KernelLimits): { TY: number; RV: number }[] {
  if (rows <= 8) return [{ TY: 2, RV: 1 }];
  if (rows <= 16) return [{ TY: 4, RV: 1 }];
  if (rows <= 32) return [{ TY: 8, RV: 1 }];
  const tall = unrolled && dv <= 64 ? [{ TY: 8, RV: 2 }] : [];
  return [...tall, { TY: 16, RV: 1 }];
}

/** How much of D and of the values is staged at a time, or null where nothing fits into `room` vec4. */
function chunks(
  rows: number,
  d: number,
  dv: number,
  resident: boolean,
  room: number,
): { DC: number; VC: number; WIDE: boolean } | null {
  const d4 = Math.ceil(d / 4), dv4 = Math.ceil(dv / 4);
  const weights = TILE_KEYS * (rows / 4 + 1);
  // A row holds values of two groups of eight lanes.
  const groups = Math.ceil(dv4 / 8);
  for (let DC = 16; DC >= 1; DC /= 2) {
    if (DC > 1 && DC >= 2 * d4) continue;
    const WIDE = DC === WIDTH && rows === WIDTH * 4;
    const parts = Math.ceil(d4 / DC);
    const queries = rows * (!resident ? DC + 1 : WIDE ? parts * (DC + 1) : parts * DC + 1);
    if (queries + TILE_KEYS * (DC + 1) > room) continue;
    const rest = room - weights - (resident ? queries : 0);
    for (let VC = TILE_KEYS; VC >= (resident ? 8 : 1); VC /= 2) {
      const values = WIDE ? Math.ceil(VC * groups / 2) * (WIDTH + 1) : VC * dv4;
      if (values <= rest) return { DC, VC, WIDE };
    }
  }
  return null;
}

/** Constants of `flash_few.wgsl`. */
export interface FewTile extends Readonly<Record<string, number>> {
  /** Invocations that share a key. */
  readonly LANES: number;
  /** Rows of a workgroup. */
  readonly ROWS: number;
  /** Keys that are on their way to an invocation at a time. */
  readonly KEYS: number;
}

/** Most vectors of queries an invocation keeps in registers, and as many of outputs. */
const FEW_VECTORS = 16;

/** How few rows are attended over keys that are streamed, or null where they would be streamed more than twice. */
export function fewTile(rows: number, d: number, dv: number): FewTile | null {
  const wide = Math.ceil(Math.max(d, dv) / 4);
  const LANES = wide <= 16 ? 8 : 16;
  const vectors = Math.ceil(wide / LANES);
  let ROWS = 8;
  while (ROWS > 1 && (ROWS / 2 >= rows || ROWS * vectors > FEW_VECTORS)) ROWS /= 2;
  if (ROWS * vectors > FEW_VECTORS || rows > 2 * ROWS) return null;
  const loads = ROWS * vectors > FEW_VECTORS / 2 ? 4 : 8;
  return { LANES, ROWS, KEYS: Math.min(4, Math.max(1, Math.floor(loads / vectors))) };
}
