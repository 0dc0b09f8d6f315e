/**
 * Linear layers: a product of matrices (prefill) and of a vector with a large weight (decode), beside the probes and
 * the peers.
 *
 * @module
 */
import { ops, Tensor } from "../mod.ts";
import { defaultDevice } from "../src/devices/mod.ts";
import { seeded } from "../tests/support/random.ts";
import { assertClose, toleranceOf } from "../tests/support/tolerance.ts";
import { fastUniform } from "./compare.ts";
import { contestantOf, type LinearShape as Sizes, openAll } from "./peers/kernels.ts";
import type { BenchContext, Row, Section } from "./report.ts";
import { type Contestant, interleave } from "./timing.ts";

interface LinearShape extends Sizes {
  readonly depths: readonly BenchContext["depth"][];
}

const SHAPES: readonly LinearShape[] = [
  { name: "GEMM 61×96×130", M: 61, I: 96, O: 130, depths: ["check"] },
  { name: "GEMV 1×96×130", M: 1, I: 96, O: 130, depths: ["check"] },
  { name: "GEMM 512×512×512", M: 512, I: 512, O: 512, depths: ["quick", "full"] },
  { name: "GEMM 1024×1024×1024", M: 1024, I: 1024, O: 1024, depths: ["full"] },
  { name: "GEMV 1×2048×2048", M: 1, I: 2048, O: 2048, depths: ["quick", "full"] },
  { name: "GEMV 1×8192×8192 (256 MiB in float32)", M: 1, I: 8192, O: 8192, depths: ["full"] },
];

const DTYPES = ["float32", "bfloat16"] as const;

/** Outputs computed again in float64, at most this many multiplications. */
const ORACLE_BUDGET = 2e7;

/** Bytes of a weight from which on it is compared with the read bandwidth. */
const STREAMS_FROM = 64 * 2 ** 20;

/** Compares outputs picked at random with float64 sums. Returns the largest error. */
function checkOutputs(
  y: Float32Array,
  x: Float32Array,
  weight: Float32Array,
  { name, M, I, O }: LinearShape,
): number {
  const total = M * O;
  const budget = Math.floor(ORACLE_BUDGET / I);
  const random = seeded(name);
  const picked = total <= budget
    ? Array.from({ length: total }, (_, i) => i)
    : [0, total - 1, ...random.ints(budget, 0, total)];
  const expected = picked.map((at) => {
    const [row, column] = [Math.floor(at / O), at % O];
    let sum = 0;
    for (let i = 0; i < I; i++) sum += x[row * I + i]! * weight[column * I + i]!;
    return sum;
  });
  const actual = picked.map((at) => y[at]!);
  assertClose(actual, expected, toleranceOf("linear", "wasm"), name);
  return actual.reduce((worst, a, i) => Math.max(worst, Math.abs(a - expected[i]!)), 0);
}

async function runShape(context: BenchContext, shape: LinearShape): Promise<Row[]> {
  const { M, I, O, name } = shape;
  const { peers, probe, effort, depth, clock, threads } = context;
  const engine = defaultDevice("wasm");
  const x = fastUniform(M * I, 11);
  // As initialised layers have it: outputs of variance 1 whatever the width.
  const weight = fastUniform(O * I, 12).map((w) => w / Math.sqrt(I)) as Float32Array<ArrayBuffer>;
  using input = Tensor.from(x, { shape: [M, I] });
  const errors = new Map<string, number>();
  const contestants: Contestant[] = [];
  const closing: (() => Promise<void> | void)[] = [];
  try {
    for (const dtype of DTYPES) {
      const w = Tensor.from(weight, { shape: [O, I], dtype });
      closing.push(() => w[Symbol.dispose]());
      const label = `linear ${dtype}`;
      context.progress(`${name}: comparing ${label}`);
      using y = ops.linear(input, w);
      const stored = dtype === "float32" ? weight : await w.data() as Float32Array;
      errors.set(label, checkOutputs(await y.data() as Float32Array, x, stored, shape));
      contestants.push({
        name: label,
        run: async () => {
          using _y = ops.linear(input, w);
          await engine.flush();
        },
      });
      if (dtype !== "float32") continue;
      errors.set(`${label}, read back`, errors.get(label)!);
      contestants.push({
        name: `${label}, read back`,
        run: async () => {
          using result = ops.linear(input, w);
          await result.data();
        },
      });
    }
    context.progress(`${name}: opening peers`);
    const opened = await openAll(peers.kernels, (p) => p.linear(shape, x, weight));
    for (const operation of opened) {
      closing.push(() => operation.close());
      context.progress(`${name}: comparing ${operation.name}`);
      const output = operation.arrange(await operation.call());
      errors.set(operation.name, checkOutputs(output, x, weight, shape));
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
      const bytes = O * I * (c.name.includes("bfloat16") ? 2 : 4) / time;
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
        "of BW": streams ? bytes / yardstick : null,
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
      "GEMV GB/s count the weight's bytes once.",
    ],
  };
}
