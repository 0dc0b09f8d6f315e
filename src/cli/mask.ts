/**
 * `attune mask`: what a backend would receive as a mask, drawn.
 *
 * @module
 */
import { Command, InvalidArgumentError, Option } from "npm:commander@14.0.3";
import { encode } from "npm:fast-png@8.0.0";
import "../attention/builtin.ts";
import { ALL_ATTENTION_FUNCTIONS } from "../attention/interface.ts";
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
import { checkOutputs, writeOutput } from "./output.ts";

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

const isCausal = ({ pattern }: MaskOptions) =>
  pattern !== "bidirectional" && pattern !== "bidirectional-sliding";

const keysOf = ({ kv, past, q }: MaskOptions) => kv ?? past + q;

/** What is wrong with lengths that do not go together, or null. */
function misfit(options: MaskOptions): string | null {
  const { past, q, leftPadding } = options;
  const keys = keysOf(options);
  // Only what looks to both sides, and has no past, may look at keys of another sequence.
  const least = isCausal(options) || past > 0 ? past + q : 1;
  if (keys < least) {
    return `option '-k, --kv <n>' argument '${keys}' is invalid. expected at least ${least}: the past (${past}) and the queries (${q})`;
  }
  if (leftPadding >= keys) {
    return `option '--left-padding <n>' argument '${leftPadding}' is invalid. expected less than the ${keys} keys`;
  }
  return null;
}

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
    const names = [...ALL_MASK_ATTENTION_FUNCTIONS.valid_keys(), ...ALL_ATTENTION_FUNCTIONS.valid_keys()];
    const known = new Set(names.filter((name) => ALL_MASK_ATTENTION_FUNCTIONS.resolve(name) !== undefined));
    throw new InvalidArgument(
      `Cannot format a mask for "${options.impl}": formatters exist for ${[...known].join(", ")}`,
    );
  }
  const keys = keysOf(options);
  const { mask_function, local_size } = PATTERNS[options.pattern](options);
  const padding = options.leftPadding === 0
    ? null
    : Tensor.from([Array.from({ length: keys }, (_, j) => j >= options.leftPadding)]);
  const causal = isCausal(options);
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
    : mask instanceof Tensor && mask.shape.length === 4
    ? maskToString(mask, options.q, keys, { q_offset: options.past })
    // Padding and flags are half of it: the pattern is the other.
    : maskToString((_b, _h, q, kv) => seen(q - options.past, kv), options.q, keys, {
      q_offset: options.past,
    });
  const receives = describeMask(
    mask,
    "the flags of the call say the rest (drawn below is what is visible together)",
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
  const command = new Command("mask");
  return command
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
      const odd = misfit(options);
      if (odd !== null) command.error(`error: ${odd}`);
      await checkOutputs(options.png);
      const { mask, visible, keys, report } = received(options);
      try {
        if (options.png !== undefined) await writeOutput(options.png, picture(visible, options.q, keys));
        if (options.json === true) {
          io.print(JSON.stringify({ implementation: options.impl, ...report }, null, 2));
        } else io.print(`${options.impl} receives ${report.receives}\n\n${report.drawing}`);
      } finally {
        if (mask instanceof Tensor || mask instanceof BlockMask) mask[Symbol.dispose]();
      }
    });
}
