/**
 * Linear layers: a product of matrices (prefill) and of a vector with a large weight (decode), in every format, beside
 * the probes and the peers.
 *
 * @module
 */
import { ops, Tensor } from "../mod.ts";
import { defaultDevice } from "../src/devices/mod.ts";
import { groupsOf, packedWords, type QuantizedFormat } from "../src/devices/quantized.ts";
import { linearQuantized } from "../src/ops/quantized.ts";
import { emptyPacked, fillPacked, unpack } from "../src/quantize/steps.ts";
import { roundedRows } from "../tests/support/kernel_oracles.ts";
import { seeded } from "../tests/support/random.ts";
import { assertClose, toleranceOf } from "../tests/support/tolerance.ts";
import { fastUniform } from "./compare.ts";
import { contestantOf, type LinearShape as Sizes, openAll } from "./peers/kernels.ts";
import type { BenchContext, Row, Section } from "./report.ts";
import { type Contestant, interleave } from "./timing.ts";

const FORMATS = ["float32", "bfloat16", "int8", "int4"] as const;
type Format = typeof FORMATS[number];

interface LinearShape extends Sizes {
  readonly depths: readonly BenchContext["depth"][];
  /** Formats of the weight; default all. Where float32 is missing, so are the peers. */
  readonly formats?: readonly Format[];
}

const SHAPES: readonly LinearShape[] = [
  { name: "GEMM 61×96×130", M: 61, I: 96, O: 130, depths: ["check"] },
  { name: "GEMV 1×96×130", M: 1, I: 96, O: 130, depths: ["check"] },
  { name: "GEMM 512×512×512", M: 512, I: 512, O: 512, depths: ["quick", "full"] },
  { name: "GEMM 1024×1024×1024", M: 1024, I: 1024, O: 1024, depths: ["full"] },
  { name: "GEMV 1×2048×2048", M: 1, I: 2048, O: 2048, depths: ["quick", "full"] },
  { name: "GEMV 1×8192×8192 (256 MiB in float32)", M: 1, I: 8192, O: 8192, depths: ["full"] },
  {
    name: "GEMV 1×8192×16384 (72 MiB in int4)",
    M: 1,
    I: 8192,
    O: 16384,
    depths: ["full"],
    formats: ["int8", "int4"],
  },
];

/** Outputs computed again in float64, at most this many multiplications. */
const ORACLE_BUDGET = 2e7;

/** Bytes of a weight from which on it is compared with the read bandwidth. */
const STREAMS_FROM = 64 * 2 ** 20;

/** What a product is compared with: x as it is multiplied, and a row of the weight as it is stored. */
interface Stored {
  readonly x: ArrayLike<number>;
  row(o: number): ArrayLike<number>;
}

/** Compares outputs picked at random with float64 sums. Returns the largest error. */
function checkOutputs(y: Float32Array, { x, row }: Stored, { name, M, I, O }: LinearShape): number {
  const total = M * O;
  const budget = Math.floor(ORACLE_BUDGET / I);
  const random = seeded(name);
  const picked = total <= budget
    ? Array.from({ length: total }, (_, i) => i)
    : [0, total - 1, ...random.ints(budget, 0, total)];
  const expected = picked.map((at) => {
    const from = Math.floor(at / O) * I, weight = row(at % O);
    let sum = 0;
    for (let i = 0; i < I; i++) sum += x[from + i]! * weight[i]!;
    return sum;
  });
  const actual = picked.map((at) => y[at]!);
  assertClose(actual, expected, toleranceOf("linear", "wasm"), name);
  return actual.reduce((worst, a, i) => Math.max(worst, Math.abs(a - expected[i]!)), 0);
}

/** A layer in one format, ready to be called. */
interface Layer extends Disposable {
  readonly bytes: number;
  readonly stored: Stored;
  call(): Tensor;
}

/** A weight in one of the types of tensors. */
async function typed(
  dtype: "float32" | "bfloat16",
  { I, O }: LinearShape,
  x: Float32Array,
  input: Tensor,
  floats: Float32Array<ArrayBuffer>,
): Promise<Layer> {
  const weight = Tensor.from(floats, { shape: [O, I], dtype });
  const data = dtype === "float32" ? floats : await weight.data() as Float32Array;
  return {
    bytes: O * I * (dtype === "float32" ? 4 : 2),
    stored: { x, row: (o) => data.subarray(o * I, o * I + I) },
    call: () => ops.linear(input, weight),
    [Symbol.dispose]: () => weight[Symbol.dispose](),
  };
}

/** A weight in few bits. Its product rounds x as well, so the oracle is given the rounded one. */
async function quantised(
  format: QuantizedFormat,
  { I, O }: LinearShape,
  x: Float32Array,
  input: Tensor,
  floats: Float32Array<ArrayBuffer>,
): Promise<Layer> {
  const device = defaultDevice("wasm");
  const matrix = { format, shape: [O, I] as const };
  const packed = emptyPacked(device, matrix);
  using source = Tensor.from(floats, { shape: [O, I] });
  await fillPacked(device, packed, matrix, source, null);
  const form = await unpack(packed, matrix);
  const q = await form.values.data() as Int8Array | Uint8Array;
  const scales = await form.scales.data() as Float32Array;
  form.values[Symbol.dispose]();
  form.scales[Symbol.dispose]();
  const integer = (at: number) => format === "int4" ? (q[at >> 1]! >> (at % 2 * 4) & 15) - 8 : q[at]!;
  const scale = (o: number, i: number) => scales[format === "int8" ? o : o * groupsOf(I) + (i >> 5)]!;
  return {
    bytes: packedWords(matrix) * 4,
    stored: {
      x: roundedRows(x, I, format === "int4" ? 127 : 63),
      row: (o) => Float64Array.from({ length: I }, (_, i) => integer(o * I + i) * scale(o, i)),
    },
    call: () => linearQuantized(input, packed, matrix),
    [Symbol.dispose]: () => packed[Symbol.dispose](),
  };
}

async function runShape(context: BenchContext, shape: LinearShape): Promise<Row[]> {
  const { M, I, O, name, formats = FORMATS } = shape;
  const { peers, probe, effort, depth, clock, threads } = context;
  const engine = defaultDevice("wasm");
  const x = fastUniform(M * I, 11);
  // As initialised layers have it: outputs of variance 1 whatever the width.
  const weight = fastUniform(O * I, 12).map((w) => w / Math.sqrt(I)) as Float32Array<ArrayBuffer>;
  using input = Tensor.from(x, { shape: [M, I] });
  const floats: Stored = { x, row: (o) => weight.subarray(o * I, o * I + I) };
  const errors = new Map<string, number>(), sizes = new Map<string, number>();
  const contestants: Contestant[] = [];
  const closing: (() => Promise<void> | void)[] = [];
  try {
    for (const format of formats) {
      const make = format === "int8" || format === "int4"
        ? quantised(format, shape, x, input, weight)
        : typed(format, shape, x, input, weight);
      const layer = await make;
      closing.push(() => layer[Symbol.dispose]());
      const label = `linear ${format}`;
      context.progress(`${name}: comparing ${label}`);
      using y = layer.call();
      errors.set(label, checkOutputs(await y.data() as Float32Array, layer.stored, shape));
      sizes.set(label, layer.bytes);
      contestants.push({
        name: label,
        run: async () => {
          using _y = layer.call();
          await engine.flush();
        },
      });
      if (format !== "float32") continue;
      errors.set(`${label}, read back`, errors.get(label)!);
      contestants.push({
        name: `${label}, read back`,
        run: async () => {
          using result = layer.call();
          await result.data();
        },
      });
    }
    context.progress(`${name}: opening peers`);
    const rivalry = formats.includes("float32") ? peers.kernels : [];
    const opened = await openAll(rivalry, (p) => p.linear(shape, x, weight));
    for (const operation of opened) {
      closing.push(() => operation.close());
      context.progress(`${name}: comparing ${operation.name}`);
      const output = operation.arrange(await operation.call());
      errors.set(operation.name, checkOutputs(output, floats, shape));
      contestants.push(contestantOf(operation));
    }
    if (depth === "check") {
      return [...errors].map(([n, error]) => ({ case: name, implementation: n, "max error": error }));
    }
    const streams = threads === 1 && M === 1 && O * I * 4 >= STREAMS_FROM;
    const probing: Contestant[] = M > 1
      ? [{ name: "probe", run: () => probe.peak() }]
      : streams
      ? [{ name: "probe", run: () => probe.sweep() }]
      : [];
    const timings = await interleave(
      [...probing, ...contestants],
      effort,
      (t) => context.progress(`${name}: ${t}`),
    );
    const yardstick = (M > 1 ? probe.flops * threads : probe.bytes) / (timings.get("probe")?.[clock] ?? NaN);
    const rivals = opened.filter((p) => !p.native).map((p) => timings.get(p.name)![clock]);
    return contestants.map((c): Row => {
      const { cpu, wall, median, rounds } = timings.get(c.name)!;
      const time = { cpu, wall }[clock];
      const flops = 2 * M * I * O / time;
      const read = sizes.get(c.name) ?? O * I * 4;
      const bytes = read / time;
      return {
        case: name,
        implementation: c.name,
        "cpu ms": cpu,
        "wall ms": wall,
        "median ms": median,
        rounds,
        "GFLOP/s": M > 1 ? flops / 1e6 : null,
        "GB/s": M > 1 ? null : bytes / 1e6,
        "of P128": M > 1 ? flops / yardstick : null,
        "of BW": streams && read >= STREAMS_FROM ? bytes / yardstick : null,
        "× peer": rivals.length === 0 ? null : Math.min(...rivals) / time,
        "max error": errors.get(c.name)!,
      };
    });
  } finally {
    for (const close of closing) await close();
  }
}

/** Runs the table. */
export async function benchLinear(context: BenchContext): Promise<Section> {
  const rows: Row[] = [];
  for (const shape of SHAPES) {
    if (context.threads > 1 && shape.M === 1) continue;
    if (shape.depths.includes(context.depth)) rows.push(...await runShape(context, shape));
  }
  return {
    title: "Linear layers",
    rows,
    notes: [
      "“linear” ends when the result lies in the engine's memory, where the next layer takes it; “read back” when it is in a JavaScript array, which is what a peer's time includes.",
      "No peer has a bfloat16 product on WebAssembly: their float32 stands beside both.",
      "“× peer”: the time of the fastest peer that is WebAssembly, divided by this time.",
      "Products with int8 and int4 weights round x as well, 32 columns at a time: that is in their times, and the oracle is given the same integers.",
      "GEMV GB/s count the weight's bytes once.",
    ],
  };
}
