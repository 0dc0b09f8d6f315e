/**
 * Linear layers: a product of matrices (prefill) and of a vector with a large weight (decode), beside the probes and
 * the peer's MatMul.
 *
 * @module
 */
import { ops, Tensor } from "../mod.ts";
import { defaultDevice } from "../src/devices/mod.ts";
import { seeded } from "../tests/support/random.ts";
import { assertClose, toleranceOf } from "../tests/support/tolerance.ts";
import { fastUniform } from "./compare.ts";
import { transposed } from "./peers/llama.ts";
import { matmulGraph } from "./peers/onnxruntime_web.ts";
import type { BenchContext, Row, Section } from "./report.ts";
import { type Contestant, interleave } from "./timing.ts";

/** x (M, I) · weight (O, I)ᵀ. */
interface LinearShape {
  readonly name: string;
  readonly M: number;
  readonly I: number;
  readonly O: number;
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
  const { peer, probe, effort, depth } = context;
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
    if (peer !== null) {
      context.progress(`${name}: opening ${peer.name}`);
      const session = await peer.open(matmulGraph(M, I, O, transposed(weight, O, I)));
      closing.push(() => session.close());
      const feeds = { x: { type: "float32", data: x, shape: [M, I] } } as const;
      const label = `${peer.name} MatMul`;
      errors.set(label, checkOutputs((await session.run(feeds))["y"]!.data, x, weight, shape));
      contestants.push({ name: label, run: () => session.run(feeds) });
    }
    if (depth === "check") {
      return [...errors].map(([n, error]) => ({ case: name, implementation: n, "max error": error }));
    }
    const streams = M === 1 && O * I * 4 >= STREAMS_FROM;
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
    const yardstick = (M > 1 ? probe.flops : probe.bytes) / (timings.get("probe")?.cpu ?? NaN);
    const rival = peer === null ? null : timings.get(`${peer.name} MatMul`)!.cpu;
    return contestants.map((c): Row => {
      const { cpu, wall, median, rounds } = timings.get(c.name)!;
      const flops = 2 * M * I * O / cpu;
      const bytes = O * I * (c.name.includes("bfloat16") ? 2 : 4) / cpu;
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
        "× peer": rival === null ? null : rival / cpu,
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
    if (shape.depths.includes(context.depth)) rows.push(...await runShape(context, shape));
  }
  return {
    title: "Linear layers",
    rows,
    notes: [
      "“linear” ends when the result lies in the engine's memory, where the next layer takes it; “read back” when it is in a JavaScript array, which is what the peer's time includes.",
      "The peer has no bfloat16 MatMul on this execution provider: its float32 stands beside both.",
      "GEMV GB/s count the weight's bytes once.",
    ],
  };
}
