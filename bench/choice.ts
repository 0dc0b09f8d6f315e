/**
 * Whether `sdpa` chooses well: its time beside that of every backend it could have been forced to, over the shapes
 * of the attention bench.
 *
 * @module
 */
import {
  attention,
  type AttentionOptions,
  sdpa_mask,
  SDPBackend,
  sliding_window_causal_mask_function,
  type Tensor,
} from "../mod.ts";
import { assertClose, toleranceOf } from "../tests/support/tolerance.ts";
import { type Inputs, operandsOf, plain } from "./attention.ts";
import { type AttentionShape, flopsOf, shapesOf } from "./cases.ts";
import type { BenchContext, Row, Section } from "./report.ts";
import { interleave } from "./timing.ts";

/** What `sdpa` can be forced to with the same operands. */
const KERNELS: Readonly<Record<string, AttentionOptions>> = {
  eager: { sdpa_backends: [SDPBackend.MATH] },
  flash: { sdpa_backends: [SDPBackend.FLASH_ATTENTION] },
};

/** That, and what may be asked for by name, which takes a window as a number. */
const FORCED: Readonly<Record<string, AttentionOptions>> = {
  ...KERNELS,
  flash_attention_2: { attn_implementation: "flash_attention_2" },
  flash_attention_3: { attn_implementation: "flash_attention_3" },
  flash_attention_4: { attn_implementation: "flash_attention_4" },
};

/** Operations of one timed call: short ones are repeated, so that the clock's step does not decide. */
const LEAST_FLOPS = 2e8;
const MOST_REPEATS = 200;

/** Largest number of scores `eager` is timed with; beyond it is never close, and a run should end. */
const EAGER_LIMIT = 2 ** 25;

/** The same call for each contestant; only `flash_attention_*` take a window as a number, as everywhere. */
function optionsOf(shape: AttentionShape, forced: AttentionOptions, mask: Tensor | null): AttentionOptions {
  const { causal = false, window, Q } = shape;
  if (window === undefined) return { attn_implementation: "sdpa", is_causal: causal && Q > 1, ...forced };
  const by_name = forced.attn_implementation !== undefined;
  return by_name
    ? { is_causal: causal, sliding_window: window, ...forced }
    : { attn_implementation: "sdpa", attention_mask: mask, ...forced };
}

function maskOf({ B, Q, K, window }: AttentionShape): Tensor | null {
  if (window === undefined) return null;
  const sizes = { batch_size: B, q_length: Q, kv_length: K, q_offset: K - Q };
  const mask_function = sliding_window_causal_mask_function(window);
  return sdpa_mask({ ...sizes, mask_function, allow_is_causal_skip: false }) as Tensor | null;
}

/** Calls `times` times and waits for the last output. */
async function run({ q, k, v }: Inputs, options: AttentionOptions, times: number): Promise<Float32Array> {
  for (let i = 1; i < times; i++) (await attention(q, k, v, options)).attn_output[Symbol.dispose]();
  using output = (await attention(q, k, v, options)).attn_output;
  return await output.data() as Float32Array;
}

async function runShape(context: BenchContext, shape: AttentionShape): Promise<Row[]> {
  const { depth, effort, clock } = context;
  using inputs = plain(shape, await operandsOf(shape));
  using mask = maskOf(shape);
  const { B, H, Q, K } = shape;
  const names = Object.keys(FORCED).filter((n) => n !== "eager" || B * H * Q * K <= EAGER_LIMIT);
  const all = ["sdpa", ...names].map((name) => ({
    name,
    options: optionsOf(shape, FORCED[name] ?? {}, mask),
  }));
  let first: Float32Array | null = null;
  for (const { name, options } of all) {
    const output = await run(inputs, options, 1);
    first ??= output.slice();
    assertClose(output, first, toleranceOf("attention_flash", "wasm"), `${shape.name}, ${name} beside sdpa`);
  }
  if (depth === "check") return all.map(({ name }) => ({ case: shape.name, implementation: name }));
  const times = Math.min(MOST_REPEATS, Math.ceil(LEAST_FLOPS / flopsOf(shape)));
  const timings = await interleave(
    all.map(({ name, options }) => ({ name, run: () => run(inputs, options, times) })),
    effort,
    (text) => context.progress(`${shape.name}: ${text}`),
  );
  const ms = (name: string) => timings.get(name)![clock] / times;
  const best = (of: readonly string[]) => of.reduce((a, b) => ms(b) < ms(a) ? b : a);
  return [{
    case: shape.name,
    sdpa: ms("sdpa"),
    ...Object.fromEntries(Object.keys(FORCED).map((n) => [n, names.includes(n) ? ms(n) : null])),
    best: best(names),
    "sdpa / best": ms("sdpa") / ms(best(names)),
    "sdpa / forced": ms("sdpa") / ms(best(names.filter((n) => n in KERNELS))),
  }];
}

/** Runs the table; block masks are not a thing of `sdpa`. */
export async function benchChoice(context: BenchContext): Promise<Section> {
  const rows: Row[] = [];
  for (const shape of shapesOf(context.depth)) {
    if (shape.see === undefined) rows.push(...await runShape(context, shape));
  }
  const worst = (column: string) =>
    rows.filter((r) => typeof r[column] === "number")
      .reduce<Row | null>((a, r) => a === null || r[column]! > a[column]! ? r : a, null);
  const notes = ["sdpa / forced", "sdpa / best"].flatMap((column) => {
    const row = worst(column);
    return row === null ? [] : [`Worst ${column}: ${(row[column] as number).toFixed(3)}, ${row["case"]}.`];
  });
  return {
    title: "What sdpa chooses",
    rows,
    notes: [
      "Milliseconds of a call; outputs were compared before. A short call is repeated, and the output of the last one read.",
      "“eager” and “flash” are sdpa under sdpa_kernel; the others are asked for by name. Of a window these are told a number, sdpa a dense mask.",
      `Eager is left out above ${EAGER_LIMIT} scores.`,
      ...notes,
    ],
  };
}
