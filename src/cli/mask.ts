/**
 * `attune mask`: what a backend would receive as a mask, drawn.
 *
 * @module
 */
import { Command, InvalidArgumentError, Option } from "npm:commander@14.0.3";
import { encode } from "npm:fast-png@8.0.0";
import "../attention/builtin.ts";
import { InvalidArgument } from "../errors.ts";
import { BlockMask } from "../masks/block_mask.ts";
import { maskToString } from "../masks/draw.ts";
import {
  bidirectional_mask_function,
  causal_mask_function,
  chunked_causal_mask_function,
  sliding_window_bidirectional_mask_function,
  sliding_window_causal_mask_function,
} from "../masks/functions.ts";
import { ALL_MASK_ATTENTION_FUNCTIONS } from "../masks/interface.ts";
import type { AttentionMask, MaskFunction } from "../masks/types.ts";
import { describeMask } from "../masks/visible.ts";
import { Tensor } from "../tensor.ts";
import type { Io } from "./io.ts";

/** Options of the command. */
interface MaskOptions {
  readonly impl: string;
  readonly pattern: keyof typeof PATTERNS;
  readonly q: number;
  readonly kv?: number;
  readonly window: number;
  readonly chunk: number;
  readonly leftPadding: number;
  readonly past: number;
  readonly png?: string;
  readonly json?: boolean;
}

/** A pattern, and the size that makes it local. */
interface Pattern {
  readonly mask_function: MaskFunction;
  readonly local_size?: number;
}

const PATTERNS = {
  causal: (): Pattern => ({ mask_function: causal_mask_function }),
  sliding: ({ window }: MaskOptions): Pattern => ({
    mask_function: sliding_window_causal_mask_function(window),
    local_size: window,
  }),
  chunked: ({ chunk, leftPadding }: MaskOptions): Pattern => ({
    mask_function: chunked_causal_mask_function(chunk, [leftPadding]),
    local_size: chunk,
  }),
  bidirectional: (): Pattern => ({ mask_function: bidirectional_mask_function }),
  "bidirectional-sliding": ({ window }: MaskOptions): Pattern => ({
    mask_function: sliding_window_bidirectional_mask_function(window),
    local_size: window,
  }),
} as const;

/** What the command found. */
interface Received {
  /** In words, what the attention function is given. */
  readonly receives: string;
  readonly shape: readonly number[] | null;
  readonly drawing: string;
}

/** Asks the formatter of `options.impl` for the mask. @throws {InvalidArgument} for an implementation without one */
function received(
  options: MaskOptions,
): { mask: AttentionMask; visible: Uint8Array; keys: number; report: Received } {
  const format = ALL_MASK_ATTENTION_FUNCTIONS.resolve(options.impl);
  if (format === undefined) {
    throw new InvalidArgument(
      `Cannot format a mask for "${options.impl}": formatters exist for ${
        ALL_MASK_ATTENTION_FUNCTIONS.valid_keys().join(", ")
      }`,
    );
  }
  const keys = options.kv ?? options.past + options.q;
  const { mask_function, local_size } = PATTERNS[options.pattern](options);
  const padding = options.leftPadding === 0
    ? null
    : Tensor.from([Array.from({ length: keys }, (_, j) => j >= options.leftPadding)]);
  const causal = options.pattern !== "bidirectional" && options.pattern !== "bidirectional-sliding";
  const mask = format({
    batch_size: 1,
    q_length: options.q,
    kv_length: keys,
    q_offset: options.past,
    mask_function,
    attention_mask: padding,
    allow_is_causal_skip: causal,
    allow_is_bidirectional_skip: !causal,
    ...(local_size === undefined ? {} : { local_size }),
  });
  const seen = (q: number, kv: number) =>
    mask_function(0, 0, q + options.past, kv) && kv >= options.leftPadding;
  const visible = Uint8Array.from(
    { length: options.q * keys },
    (_, i) => seen(Math.floor(i / keys), i % keys) ? 1 : 0,
  );
  const drawing = mask instanceof BlockMask
    ? String(mask)
    : mask instanceof Tensor
    ? maskToString(mask, options.q, keys, { q_offset: options.past })
    : maskToString((_b, _h, q, kv) => seen(q - options.past, kv), options.q, keys, {
      q_offset: options.past,
    });
  const receives = describeMask(
    mask,
    `${
      causal ? "its own causal flag or offsets say" : "every key is visible, which says"
    } the same (drawn below is the pattern)`,
  );
  return {
    mask,
    visible,
    keys,
    report: { receives, shape: mask === null ? null : [...mask.shape], drawing },
  };
}

/** A picture of the mask: dark cells are visible, a cell is a square of `CELL` pixels. */
function picture(visible: Uint8Array, queries: number, keys: number): Uint8Array {
  const cell = Math.max(1, Math.min(16, Math.floor(1024 / Math.max(queries, keys))));
  const [width, height] = [keys * cell, queries * cell];
  const data = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const border = cell > 4 && (x % cell === 0 || y % cell === 0);
      const shown = visible[Math.floor(y / cell) * keys + Math.floor(x / cell)] === 1;
      data[y * width + x] = border ? 200 : shown ? 40 : 245;
    }
  }
  return encode({ width, height, data, channels: 1 });
}

function count(least: number): (text: string) => number {
  return (text) => {
    const n = Number(text);
    if (!Number.isInteger(n) || n < least || n > 4096) {
      throw new InvalidArgumentError(`expected an integer from ${least} to 4096`);
    }
    return n;
  };
}

/** The command. */
export function maskCommand(io: Io): Command {
  return new Command("mask")
    .description("Show what a backend would receive as its mask.")
    .option("-i, --impl <name>", "attention implementation", "sdpa")
    .addOption(
      new Option("-p, --pattern <name>", "what may be seen").choices(Object.keys(PATTERNS)).default("causal"),
    )
    .option("-q, --q <n>", "query length", count(1), 8)
    .option("-k, --kv <n>", "key length (default: past + q)", count(1))
    .option("--window <n>", "window of the sliding patterns", count(1), 4)
    .option("--chunk <n>", "chunk of the chunked pattern", count(1), 4)
    .option("--left-padding <n>", "padding tokens on the left", count(0), 0)
    .option("--past <n>", "tokens already in the cache", count(0), 0)
    .option("--png <file>", "also write a picture")
    .option("--json", "print JSON")
    .addHelpText(
      "after",
      "\nExamples:\n  deno task attune mask --impl eager --pattern sliding --window 3 --q 8\n" +
        "  deno task attune mask --impl flex_attention --q 512 --png mask.png",
    )
    .action(async (options: MaskOptions) => {
      const { mask, visible, keys, report } = received(options);
      try {
        if (options.png !== undefined) await Deno.writeFile(options.png, picture(visible, options.q, keys));
        if (options.json === true) {
          io.print(JSON.stringify({ implementation: options.impl, ...report }, null, 2));
        } else io.print(`${options.impl} receives ${report.receives}\n\n${report.drawing}`);
      } finally {
        if (mask instanceof Tensor || mask instanceof BlockMask) mask[Symbol.dispose]();
      }
    });
}
