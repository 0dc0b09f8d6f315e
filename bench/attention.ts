/**
 * Attention: every implementation through the public `attention()`, on plain tensors and on the views a model
 * makes, compared with the float64 oracle and with the peers, then timed beside the probe and the peers.
 *
 * @module
 */
import {
  attention,
  type AttentionOptions,
  BlockMask,
  causal_mask_function,
  create_block_mask,
  eager_mask,
  type MaskFunction,
  ops,
  sdpa_mask,
  sliding_window_causal_mask_function,
  Tensor,
} from "../mod.ts";
import type { KvDType } from "../src/cache/kv_dtype.ts";
import { defaultDevice } from "../src/devices/mod.ts";
import { assertClose, toleranceOf } from "../tests/support/tolerance.ts";
import { type AttentionShape, flopsOf, kvBytesOf, shapesOf } from "./cases.ts";
import { assertRows, fastUniform, type Operands, oracleRows, swapAxes } from "./compare.ts";
import { contestantOf, openAll, type OpenedOperation } from "./peers/kernels.ts";
import type { BenchContext, Row, Section } from "./report.ts";
import { type Contestant, interleave } from "./timing.ts";

const NAMES = ["eager", "sdpa", "flash_attention_2"] as const;
type Name = typeof NAMES[number] | "flex_attention";

/** Largest score matrix `eager` is asked to make, in elements (64 MiB). */
const EAGER_LIMIT = 2 ** 24;

/** Query length from which on only flash is run: sdpa takes the same kernel, and a run should end. */
const LONG = 4096;

/** Bytes of keys and values from which on a decode step is compared with the read bandwidth. */
const STREAMS_FROM = 64 * 2 ** 20;

/** Query, key and value, and how they lie in memory. */
export interface Inputs extends Disposable {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
}

/** One implementation on one layout, ready to be called. */
interface Ready extends Disposable {
  readonly name: string;
  call(): Promise<Float32Array>;
  arrange(output: Float32Array): Float32Array;
}

function disposing(tensors: readonly (Disposable | null)[]): () => void {
  return () => {
    for (const t of tensors) t?.[Symbol.dispose]();
  };
}

/** Keys or values as a cache keeps them. */
function kept(data: Float32Array<ArrayBuffer>, shape: readonly number[], kv: KvDType): Tensor {
  if (kv !== "int8") return Tensor.from(data, { shape, dtype: kv });
  const device = defaultDevice("wasm");
  using floats = Tensor.from(data, { shape });
  using values = Tensor.empty(device, "int8", shape);
  using scales = Tensor.empty(device, "float32", [...shape.slice(0, 3), 1]);
  device.kernels.quantize(floats.on(device), values.on(device), scales.on(device));
  return Tensor.quantized(values, scales);
}

/** Plain (B, H, N, D) tensors. */
export function plain({ B, H, Hkv, Q, K, D, kv = "float32" }: AttentionShape, o: Operands): Inputs {
  const q = Tensor.from(o.q, { shape: [B, H, Q, D] });
  const k = kept(o.k, [B, Hkv, K, D], kv);
  const v = kept(o.v, [B, Hkv, K, D], kv);
  return { q, k, v, [Symbol.dispose]: disposing([q, k, v]) };
}

/** What a layer hands over: the query as its projection left it, keys and values as part of a larger cache. */
function modelLike({ B, H, Hkv, Q, K, D, kv = "float32" }: AttentionShape, o: Operands): Inputs {
  const SPARE = 64;
  const padded = (x: Float32Array) => {
    const room = new Float32Array(B * Hkv * (K + SPARE) * D).fill(1e4);
    for (let h = 0; h < B * Hkv; h++) room.set(x.subarray(h * K * D, (h + 1) * K * D), h * (K + SPARE) * D);
    return kept(room, [B, Hkv, K + SPARE, D], kv);
  };
  const projected = Tensor.from(swapAxes(o.q, [B, H, Q, D]), { shape: [B, Q, H, D] });
  const [kRoom, vRoom] = [padded(o.k), padded(o.v)];
  const q = ops.permute(projected, [0, 2, 1, 3]);
  const [k, v] = [ops.slice(kRoom, 2, 0, K), ops.slice(vRoom, 2, 0, K)];
  return { q, k, v, [Symbol.dispose]: disposing([q, k, v, projected, kRoom, vRoom]) };
}

/** Makes one implementation ready; masks are built once, as a model builds them once a forward. */
function ready(name: Name, layout: string, shape: AttentionShape, { q, k, v }: Inputs): Ready {
  const { B, Q, K, causal = false, window, see } = shape;
  const flash = name === "flash_attention_2";
  const options: AttentionOptions = { attn_implementation: name };
  const needsMask = !flash && (window !== undefined || (causal && name === "eager"));
  if (see !== undefined) {
    options.attention_mask = create_block_mask((_b, _h, q, kv) => see(q, kv), null, null, Q, K);
  } else if (needsMask) {
    const pattern: MaskFunction = window === undefined
      ? causal_mask_function
      : sliding_window_causal_mask_function(window);
    const format = name === "eager" ? eager_mask : sdpa_mask;
    const sizes = { batch_size: B, q_length: Q, kv_length: K, q_offset: K - Q };
    // Without a padding mask the formatter may say "none, use is_causal"; here the mask itself is wanted.
    options.attention_mask = format({ ...sizes, mask_function: pattern, allow_is_causal_skip: false });
  } else {
    options.is_causal = causal;
    if (flash && window !== undefined) options.sliding_window = window;
  }
  const { attention_mask = null } = options;
  return {
    name: layout === "" ? name : `${name}, ${layout}`,
    async call() {
      const { attn_output, attn_weights } = await attention(q, k, v, options);
      attn_weights?.[Symbol.dispose]();
      using output = attn_output;
      return await output.data() as Float32Array;
    },
    arrange: (output) => output,
    [Symbol.dispose]: disposing([
      attention_mask instanceof Tensor || attention_mask instanceof BlockMask ? attention_mask : null,
    ]),
  };
}

/** Operands rounded to the stored type, so that oracle and kernels see the same numbers. */
export async function operandsOf(
  { name, B, H, Hkv, Q, K, D, kv = "float32" }: AttentionShape,
): Promise<Operands> {
  const rounded = async (n: number, seed: number) => {
    const data = fastUniform(n, seed);
    if (kv === "float32") return data;
    using stored = kept(data, [1, 1, n / D, D], kv);
    return Float32Array.from(await stored.data() as Float32Array);
  };
  const seed = name.length * 7919;
  return {
    q: fastUniform(B * H * Q * D, seed + 1),
    k: await rounded(B * Hkv * K * D, seed + 2),
    v: await rounded(B * Hkv * K * D, seed + 3),
  };
}

/** Whether a peer computes a shape at all. A shape it refuses is a result, not a failure of the bench. */
async function runs(peer: OpenedOperation, shape: AttentionShape, notes: string[]): Promise<boolean> {
  try {
    await peer.call();
    return true;
  } catch (error) {
    const reason = (error instanceof Error ? error.message : String(error)).trim().slice(-60);
    notes.push(`${peer.name} cannot run “${shape.name}”: … ${reason}`);
    return false;
  }
}

/** Compares all, then times all. */
async function runShape(context: BenchContext, shape: AttentionShape, notes: string[]): Promise<Row[]> {
  const { peers: all, probe, effort, depth, clock, threads } = context;
  const { B, H, Q, K } = shape;
  const operands = await operandsOf(shape);
  const decode = Q === 1;
  using plainInputs = plain(shape, operands);
  using modelInputs = modelLike(shape, operands);
  const names: readonly Name[] = shape.see !== undefined
    ? ["flex_attention"]
    : NAMES.filter((n) =>
      n === "flash_attention_2" || (Q < LONG && (n === "sdpa" || B * H * Q * K <= EAGER_LIMIT))
    );
  const ours = [
    ...names.map((n) => ready(n, "", shape, plainInputs)),
    ...names.map((n) => ready(n, "model views", shape, modelInputs)),
  ];
  const opened = shape.noPeer !== undefined ? [] : await openAll(
    all.kernels.filter((p) => shape.peers?.includes(p.name) ?? true),
    (p) => p.attention(shape, operands),
  );
  try {
    context.progress(`${shape.name}: oracle`);
    const oracle = oracleRows(shape, operands);
    const errors = new Map<string, number>();
    let first: Float32Array | null = null;
    const peers: OpenedOperation[] = [];
    for (const p of opened) if (await runs(p, shape, notes)) peers.push(p);
    for (const contestant of [...ours, ...peers]) {
      context.progress(`${shape.name}: comparing ${contestant.name}`);
      const output = contestant.arrange(await contestant.call());
      const kind = contestant.name.startsWith("eager") ? "attention_eager" : "attention_flash";
      const label = `${shape.name}, ${contestant.name}`;
      errors.set(contestant.name, assertRows(output, oracle, kind, label));
      first ??= output.slice();
      assertClose(output, first, toleranceOf(kind, "wasm"), `${label} beside ${ours[0]!.name}`);
    }
    if (depth === "check" || shape.compareOnly) {
      return [...errors].map(([name, error]) => ({
        case: shape.name,
        implementation: name,
        "max error": error,
      }));
    }
    const timed = ours.filter(({ name }) => !name.startsWith("eager,"));
    // A cache that fits the processor's is not read from memory, and the sweep would evict it.
    const streams = threads === 1 && decode && kvBytesOf(shape) >= STREAMS_FROM;
    const contestants: Contestant[] = [
      ...(decode && !streams ? [] : [{ name: "probe", run: () => decode ? probe.sweep() : probe.peak() }]),
      ...timed.map((c) => ({ name: c.name, run: () => c.call() })),
      ...peers.map(contestantOf),
    ];
    const timings = await interleave(
      contestants,
      effort,
      (text) => context.progress(`${shape.name}: ${text}`),
    );
    const yardstick = (decode ? probe.bytes : probe.flops * threads) / (timings.get("probe")?.[clock] ?? NaN);
    const rival = Math.min(...peers.filter((p) => !p.native).map((p) => timings.get(p.name)![clock]));
    return [...timed, ...peers].map((c): Row => {
      const { cpu, wall, median, rounds } = timings.get(c.name)!;
      const time = { cpu, wall }[clock];
      const rate = (decode ? kvBytesOf(shape) : flopsOf(shape)) / time;
      return {
        case: shape.name,
        implementation: c.name,
        "cpu ms": cpu,
        "wall ms": wall,
        "median ms": median,
        rounds,
        "GFLOP/s": decode ? null : rate / 1e6,
        "GB/s": decode ? rate / 1e6 : null,
        "of P128": decode ? null : rate / yardstick,
        "of BW": streams ? rate / yardstick : null,
        "× peer": rival === Infinity ? null : rival / time,
        "max error": errors.get(c.name)!,
      };
    });
  } finally {
    for (const r of ours) r[Symbol.dispose]();
    for (const p of opened) await p.close();
  }
}

/** Runs the table. */
export async function benchAttention(context: BenchContext): Promise<Section> {
  const rows: Row[] = [];
  const compared: string[] = [];
  const refusals: string[] = [];
  for (const shape of shapesOf(context.depth)) {
    if (context.threads > 1 && !shape.threaded) continue;
    const found = await runShape(context, shape, refusals);
    if (context.depth === "check" || !shape.compareOnly) rows.push(...found);
    else compared.push(shape.name);
  }
  return {
    title: "Attention",
    rows,
    notes: [
      "Every row was compared before it was timed: with the float64 oracle (sampled rows of large cases) and with the others.",
      ...(compared.length === 0 ? [] : [`Compared in the same way and not timed: ${compared.join("; ")}.`]),
      "Times end when the output is in a JavaScript array, for the peers as for ours; PyTorch and jax-js hold their operands, ONNX Runtime is given them.",
      "jax-js and tfjs-wasm compute products and a softmax a head at a time, with transposed keys beforehand: the fastest they have.",
      "GFLOP/s count the two products over the pairs the mask leaves (causal: the triangle), for every contestant.",
      "“model views”: the query permuted from (B, Q, H, D), keys and values a slice of a cache with spare room.",
      "Masks that eager, sdpa and flex_attention need are built before timing, as a model builds them once a forward.",
      ...refusals,
      "“× peer”: the time of the fastest peer that is WebAssembly, divided by this time.",
    ],
  };
}
