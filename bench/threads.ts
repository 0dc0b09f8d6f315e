/**
 * Two threads beside one: products, attention, and the demo model, beside what two threads of this machine can do at
 * all: the probes, run alone and together. Everything is first compared bit for bit.
 *
 * @module
 */
import { AutoModelForCausalLM, configure, type PreTrainedModel, Tensor } from "../mod.ts";
import type { Device, View } from "../src/devices/device.ts";
import { closeEngine, openEngine } from "../src/devices/mod.ts";
import { settings } from "../src/devices/settings.ts";
import { theCrew } from "../src/devices/wasm/crew.ts";
import { type AttentionShape, THREAD_SHAPES } from "./cases.ts";
import { fastUniform } from "./compare.ts";
import { DEMO } from "./generate.ts";
import type { LinearShape } from "./peers/kernels.ts";
import { type KernelCase, OnnxThreads } from "./peers/onnx_threads.ts";
import { type Bound, Probes, SWEEP_MIB } from "./probe_pair.ts";
import { flashCall, placeFloats } from "./raw.ts";
import type { BenchContext, Row, Section } from "./report.ts";
import { type Contestant, Elapsed, interleave, median } from "./timing.ts";

/** Runs on two threads until one of them really shares: nobody starts a thread for a little work. */
const MOST_RUNS = 8;

/** One case: the same work on one thread and on two. */
interface Work extends AsyncDisposable {
  readonly name: string;
  readonly bound: Bound;
  /** By number of threads. A call is complete when its promise resolves. */
  run(threads: 1 | 2): Promise<unknown>;
  /** The bytes of the result, which are the same on any number of threads. */
  result(threads: 1 | 2): Promise<Uint8Array>;
  /** What onnxruntime-web is asked for, where it can do the same. */
  readonly peer?: KernelCase;
}

const PRODUCTS: readonly LinearShape[] = [
  { name: "GEMM 512×512×512", M: 512, I: 512, O: 512 },
  { name: "GEMM 1024×1024×1024", M: 1024, I: 1024, O: 1024 },
];

/** A kernel on an engine with one thread and on one with two. */
function kernelWork(
  name: string,
  bound: Bound,
  make: (device: Device) => { views: readonly View[]; out: View; call(): void },
  peer?: Work["peer"],
): Work {
  const sides = ([1, 2] as const).map((threads) => {
    const engine = openEngine({ threads });
    return { engine, ...make(engine) };
  });
  const side = (threads: 1 | 2) => sides[threads - 1]!;
  return {
    name,
    bound,
    async run(threads) {
      const { engine, call } = side(threads);
      call();
      await engine.flush();
    },
    result(threads) {
      const { engine, call, out } = side(threads);
      call();
      return engine.read(out.allocation, 0, out.allocation.bytes);
    },
    ...(peer === undefined ? {} : { peer }),
    // deno-lint-ignore require-await -- asynchronous by contract
    async [Symbol.asyncDispose]() {
      for (const { engine, views, out } of sides) {
        for (const { allocation } of [...views, out]) engine.release(allocation);
        closeEngine(engine);
      }
    },
  };
}

function product(shape: LinearShape): Work {
  const { name, M, I, O } = shape;
  const x = fastUniform(M * I, 11);
  const w = fastUniform(O * I, 12).map((v) => v / Math.sqrt(I)) as Float32Array<ArrayBuffer>;
  return kernelWork(name, "peak", (device) => {
    const views = [placeFloats(device, [M, I], x), placeFloats(device, [O, I], w)] as const;
    const out = placeFloats(device, [M, O]);
    return { views, out, call: () => device.kernels.linear(views[0], views[1], null, out) };
  }, { what: { linear: shape }, operands: [x, w] });
}

function attention(shape: AttentionShape): Work {
  const { name, B, H, Hkv, Q, K, D, noPeer } = shape;
  const q = fastUniform(B * H * Q * D, 1);
  const [k, v] = [fastUniform(B * Hkv * K * D, 2), fastUniform(B * Hkv * K * D, 3)];
  return kernelWork(name, Q === 1 ? "sweep" : "peak", (device) => {
    const [query, key, value] = [
      placeFloats(device, [B, H, Q, D], q),
      placeFloats(device, [B, Hkv, K, D], k),
      placeFloats(device, [B, Hkv, K, D], v),
    ] as const;
    const out = placeFloats(device, [B, Q, H, D]);
    const call = flashCall(shape, { query, key, value, out });
    return { views: [query, key, value], out, call: () => device.kernels.attention(call) };
  }, noPeer === undefined ? { what: { attention: shape }, operands: [q, k, v] } : undefined);
}

/** The demo model, once on an engine with one thread and once on one with two. */
async function models(): Promise<[Work, Work]> {
  const open = async (threads: number): Promise<PreTrainedModel> => {
    settings.threads = threads; // what the model's engine is made with
    try {
      return await AutoModelForCausalLM.from_pretrained(DEMO);
    } finally {
      settings.threads = 2;
    }
  };
  const both = [await open(1), await open(2)] as const;
  const ids = (n: number) =>
    Tensor.from(Int32Array.from({ length: n }, (_, i) => 3 + i * 37 % 500), { shape: [1, n] });
  const forward = async (threads: 1 | 2, logits_to_keep: number) => {
    using input_ids = ids(512);
    const { logits } = await both[threads - 1]!.forward({ input_ids, use_cache: false, logits_to_keep });
    using all = logits!;
    return await all.data() as Float32Array;
  };
  const generate = async (threads: 1 | 2) => {
    const times: number[] = [];
    const streamer = { put: () => void times.push(performance.now()), end: () => {} };
    using input_ids = ids(64);
    using out = await both[threads - 1]!.generate({
      input_ids,
      max_new_tokens: 48,
      eos_token_id: null,
      streamer,
    });
    return { tokens: Int32Array.from(await out.data(), Number), times };
  };
  const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView) =>
    new Uint8Array(buffer, byteOffset, byteLength);
  return [
    {
      name: "demo model, prefill 512",
      bound: "peak",
      run: (threads) => forward(threads, 1),
      result: async (threads) => bytesOf(await forward(threads, 0)),
      async [Symbol.asyncDispose]() {},
    },
    {
      name: "demo model, a token",
      bound: "peak",
      async run(threads) {
        const { times } = await generate(threads);
        const interval = median(times.slice(1).map((t, i) => t - times[i]!));
        return new Elapsed(interval, interval);
      },
      result: async (threads) => bytesOf((await generate(threads)).tokens),
      async [Symbol.asyncDispose]() {
        for (const model of both) await model.dispose();
      },
    },
  ];
}

/** Compares a case, then times it. */
async function runWork(
  { effort, progress }: BenchContext,
  work: Work,
  probes: Probes | null,
  peers: OnnxThreads | null,
  notes: string[],
): Promise<Row> {
  const { name, bound } = work;
  const crew = theCrew(), before = crew.shared;
  for (let i = 0; i < MOST_RUNS && crew.shared === before; i++) await work.run(2);
  if (crew.shared === before) notes.push(`“${name}” is never shared: its commands are too small.`);
  progress(`${name}: comparing`);
  const [one, two] = [await work.result(1), await work.result(2)];
  if (one.length !== two.length || one.some((byte, i) => byte !== two[i])) {
    throw new Error(`${name}: the result on two threads is not that on one`);
  }
  const at = crew.shared;
  await work.run(2);
  const shared = crew.shared - at;
  if (probes === null) return { case: name, implementation: "equal on 1 and 2 threads" };
  let beside = false;
  if (peers !== null && work.peer !== undefined) {
    try {
      await peers.open(work.peer, new Float32Array(one.slice().buffer), name);
      beside = true;
    } catch (error) {
      notes.push(`onnxruntime-web cannot run “${name}”: ${String(error).trim().slice(-60)}`);
    }
  }
  const contestants: Contestant[] = ([1, 2] as const).flatMap((n) => [
    { name: `ours ${n}`, run: () => work.run(n) },
    { name: `probe ${n}`, run: () => probes.run(bound, n), beside: true },
    ...(beside ? [{ name: `peer ${n}`, run: () => peers!.run(n), beside: true }] : []),
  ]);
  const timings = await interleave(contestants, effort, (text) => progress(`${name}: ${text}`));
  const wall = (contestant: string) => timings.get(contestant)?.wall ?? NaN;
  const gain = wall("ours 1") / wall("ours 2");
  // Two probes do twice the work.
  const possible = 2 * wall("probe 1") / wall("probe 2");
  return {
    case: name,
    implementation: "attune",
    "1 thread ms": wall("ours 1"),
    "2 threads ms": wall("ours 2"),
    "median 1": timings.get("ours 1")!.median,
    "median 2": timings.get("ours 2")!.median,
    rounds: timings.get("ours 2")!.rounds,
    "commands shared": shared,
    "speed-up": gain,
    "of two probes": possible,
    "ours / probes": gain / possible,
    "onnxruntime-web 1 ms": beside ? wall("peer 1") : null,
    "onnxruntime-web 2 ms": beside ? wall("peer 2") : null,
    "its speed-up": beside ? wall("peer 1") / wall("peer 2") : null,
  };
}

/** Runs the table. */
export async function benchThreads(context: BenchContext): Promise<Section> {
  const { depth, threads, peers } = context;
  const title = "Two threads beside one";
  if (depth !== "check" && navigator.hardwareConcurrency < 2) {
    return { title, rows: [], notes: ["This machine has one processor."] };
  }
  await configure({ threads: 2 });
  const notes: string[] = [];
  const rows: Row[] = [];
  const folder = await Deno.makeTempDir({ prefix: "threads_" });
  const probes = depth === "check" ? null : await Probes.open();
  const onnx = depth === "check" || peers.onnx === null ? null : new OnnxThreads(folder);
  const DEPTHS = ["check", "quick", "full"];
  try {
    const works = [
      ...PRODUCTS.slice(0, depth === "full" ? 2 : 1).map((shape) => () => product(shape)),
      ...THREAD_SHAPES.filter((s) => DEPTHS.indexOf(s.depth) <= DEPTHS.indexOf(depth))
        .map((shape) => () => attention(shape)),
    ];
    for (const open of works) {
      await using work = open();
      rows.push(await runWork(context, work, probes, onnx, notes));
    }
    const [prefill, token] = await models();
    await using _closes = token;
    for (const work of [prefill, token]) rows.push(await runWork(context, work, probes, null, notes));
  } finally {
    onnx?.close();
    await probes?.close();
    await Deno.remove(folder, { recursive: true });
    await configure({ threads });
  }
  return {
    title,
    rows,
    notes: [
      "Wall time, the least of the rounds, everything interleaved; results are first compared bit for bit.",
      `“of two probes”: how much more two probes do together than one alone in the same time, each in a thread of its own: multiply-adds on registers, for a token over a long cache reading ${SWEEP_MIB} MiB each. It is what this machine gives two threads at that moment.`,
      "“ours / probes”: our speed-up divided by that of the probes.",
      ...notes,
    ],
  };
}
