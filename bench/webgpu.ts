/**
 * The GPU: products, flash attention, decoding and tokens, by the GPU's own clock, beside what it can do at all,
 * onnxruntime-web's WebGPU provider and, on a CUDA machine, torch.
 *
 * @module
 */
import { AutoModelForCausalLM, Tensor } from "../mod.ts";
import { WebGpuDevice } from "../src/devices/webgpu/device.ts";
import { DeviceUnavailable } from "../src/errors.ts";
import { assertClose, toleranceOf } from "../tests/support/tolerance.ts";
import { Bench } from "../tests/support/views.ts";
import type { AttentionShape } from "./cases.ts";
import { assertRows, fastUniform, oracleRows, transposed } from "./compare.ts";
import { probeGpu } from "./gpu_probe.ts";
import { wallOf } from "./gpu_wall.ts";
import { decoderGraph } from "./peers/llama_onnx.ts";
import { type GpuPeer, loadOnnxRuntimeWebGpu } from "./peers/onnxruntime_webgpu.ts";
import { attentionGraph, matmulGraph } from "./peers/onnxruntime.ts";
import { flashCall } from "./raw.ts";
import type { BenchContext, Row, Section } from "./report.ts";

type Shape = AttentionShape & { readonly causal: boolean };

const attention = (H: number, Hkv: number, Q: number, K: number, D: number, causal: boolean): Shape => ({
  name: `${Q === 1 ? "decode" : "flash"} H ${H}/${Hkv} Q ${Q} K ${K} D ${D}${causal ? " causal" : ""}`,
  ...{ depth: "full", B: 1, H, Hkv, Q, K, D, causal },
});

/** By how much a GPU can do: software adapters take seconds for what a GPU does in a millisecond. */
const SIZES = {
  software: {
    products: [[128, 128, 128], [256, 256, 256], [1, 512, 512]],
    attention: [attention(2, 2, 128, 128, 64, true), attention(4, 2, 1, 1024, 64, true)],
    probe: { turns: 20, bytes: 2 ** 22 },
    repeats: 1,
    tokens: 8,
  },
  hardware: {
    products: [[1024, 1024, 1024], [2048, 2048, 2048], [4096, 4096, 4096], [1, 4096, 4096], [8, 4096, 4096]],
    attention: [
      attention(16, 16, 2048, 2048, 64, false),
      attention(16, 16, 4096, 4096, 64, true),
      attention(16, 4, 4096, 4096, 128, true),
      attention(32, 8, 1, 4096, 128, true),
      attention(32, 8, 1, 32768, 128, true),
    ],
    probe: { turns: 2000, bytes: 2 ** 27 },
    repeats: 10,
    tokens: 64,
  },
} as const;

/** Best time of a launch by the GPU's clock, in ms; the first calls compile. */
async function timeOf(
  device: WebGpuDevice,
  rounds: number,
  repeats: number,
  run: () => void,
): Promise<number> {
  let best = Infinity;
  for (let round = 0; round <= rounds; round++) {
    for (let i = 0; i < repeats; i++) run();
    await device.flush();
    const ms = await device.lap() / repeats;
    if (round > 0) best = Math.min(best, ms);
  }
  return best;
}

/** What torch takes for the shapes, as [float32, float16] ms, or why it is not here. */
async function torchTimes(shapes: readonly Shape[]): Promise<{ device: string; ms: number[][] } | string> {
  const script = new URL("peers/torch_sdpa.py", import.meta.url).pathname;
  const asked = shapes.map(({ B, H, Hkv, Q, K, D, causal }) => [B, H, Hkv, Q, K, D, Number(causal)]);
  try {
    const python = Deno.env.get("PYTHON") ?? "python3";
    const { stdout } = await new Deno.Command(python, { args: [script, JSON.stringify(asked)] }).output();
    const said = JSON.parse(new TextDecoder().decode(stdout)) as {
      missing?: string;
      device: string;
      ms: number[][];
    };
    return said.missing ?? said;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** Runs the table; without an adapter it has no rows, and says so. */
export async function benchWebgpu({ depth, peers, effort, progress }: BenchContext): Promise<Section> {
  const title = "WebGPU";
  const device = new WebGpuDevice({ timed: depth !== "check" });
  let info;
  try {
    info = await device.info();
  } catch (error) {
    if (!(error instanceof DeviceUnavailable)) throw error;
    return { title, rows: [], notes: [error.message] };
  }
  const small = info.isFallbackAdapter || depth === "check";
  const sizes = SIZES[small ? "software" : "hardware"];
  const rounds = Math.min(effort.rounds, small ? 3 : 15);
  const notes = [`Adapter: ${info.description || info.vendor}${info.isFallbackAdapter ? ", software" : ""}.`];
  const gpu = await device.acquire();
  progress("probing");
  const rates = depth === "check" ? null : await probeGpu(gpu, sizes.probe.turns, sizes.probe.bytes, rounds);
  if (rates !== null) {
    notes.push(
      `Probes: ${rates["GFLOP/s"].toFixed(1)} GFLOP/s of multiply-adds, ${
        rates["GB/s"].toFixed(1)
      } GB/s of copying.`,
    );
  }
  const loaded = peers.onnx === null || depth === "check" ? "left out" : await loadOnnxRuntimeWebGpu();
  let peer = typeof loaded === "string" ? null : loaded;
  if (typeof loaded === "string") notes.push(`onnxruntime-web's WebGPU provider: ${loaded}.`);
  const beside = async (work: () => Promise<number>): Promise<number | null> => {
    try {
      return peer === null ? null : await work();
    } catch (error) {
      notes.push(`${peer!.name}: ${error instanceof Error ? error.message.split("\n")[0] : error}`);
      peer = null;
      return null;
    }
  };
  const rows: Row[] = [];
  const wallOfOurs = (run: () => void) =>
    wallOf(gpu, rounds, sizes.repeats, () => {
      run();
      return device.flush();
    });
  const row = (name: string, dtype: string, ms: number, flops: number, bytes: number, more: Row): Row =>
    rates === null ? { case: name, dtype, ...more } : {
      ...{ case: name, dtype, "gpu ms": ms, "GFLOP/s": flops / ms / 1e6, "GB/s": bytes / ms / 1e6 },
      ...{
        "of FMA": flops / ms / 1e6 / rates["GFLOP/s"],
        "of copy": bytes / ms / 1e6 / rates["GB/s"],
        ...more,
      },
    };

  for (const [M, I, O] of sizes.products) {
    const name = `linear ${M}×${I}×${O}`;
    const x = fastUniform(M * I, 11), w = fastUniform(O * I, 12).map((v) => v / Math.sqrt(I));
    for (const dtype of ["float32", "float16"] as const) {
      progress(`${name} ${dtype}`);
      using bench = new Bench(device);
      const a = bench.place([M, I], x), b = bench.place([O, I], w, dtype), out = bench.empty([M, O]);
      const run = () => device.kernels.linear(a.view, b.view, null, out);
      run();
      const y = await bench.read(out);
      const columns = Array.from({ length: Math.min(O, 8) }, (_, i) => (i * 37 + M * 5) % O);
      const expected = columns.map((o) =>
        a.values.subarray(0, I).reduce((sum, v, i) => sum + v * b.values[o * I + i]!, 0)
      );
      const found = columns.map((o) => y[o]!);
      assertClose(found, expected, toleranceOf("linear", "webgpu"), name);
      const error = Math.max(...found.map((v, i) => Math.abs(v - expected[i]!)));
      const ms = rates === null ? 0 : await timeOf(device, rounds, sizes.repeats, run);
      const theirs = dtype !== "float32" ? null : await beside(async () => {
        const weight = transposed(w as Float32Array<ArrayBuffer>, O, I);
        const input = { x: { type: "float32", data: x, shape: [M, I] } } as const;
        const { ms, data } = await peer!.time(matmulGraph(M, I, O, weight), input, rounds, sizes.repeats);
        assertClose(data, y, toleranceOf("linear", "webgpu"), `${peer!.name} ${name}`);
        return ms;
      });
      const wall = rates === null || dtype !== "float32" ? null : await wallOfOurs(run);
      const bytes = M * I * 4 + O * I * (dtype === "float16" ? 2 : 4) + M * O * 4;
      rows.push(
        row(name, dtype, ms, 2 * M * I * O, bytes, { ...sideBySide(wall, theirs), "max error": error }),
      );
    }
  }

  const torch = depth === "check" ? "left out" : await torchTimes(sizes.attention);
  notes.push(typeof torch === "string" ? `torch: ${torch}.` : `torch on ${torch.device}, by CUDA events.`);
  for (const [at, shape] of sizes.attention.entries()) {
    const { B, H, Hkv, Q, K, D, causal, name } = shape;
    const [q, k, v] = [
      fastUniform(B * H * Q * D, 1),
      fastUniform(B * Hkv * K * D, 2),
      fastUniform(B * Hkv * K * D, 3),
    ];
    for (const [i, dtype] of (["float32", "float16"] as const).entries()) {
      progress(`${name} ${dtype}`);
      using bench = new Bench(device);
      const [key, value] = [k, v].map((data) => bench.place([B, Hkv, K, D], data, dtype)) as [
        ReturnType<Bench["place"]>,
        ReturnType<Bench["place"]>,
      ];
      const out = bench.empty([B, Q, H, D]);
      const call = flashCall(shape, {
        query: bench.place([B, H, Q, D], q).view,
        key: key.view,
        value: value.view,
        out,
      });
      const run = () => device.kernels.attention(call);
      run();
      const found = await bench.read(out);
      const operands = { q, k: Float32Array.from(key.values), v: Float32Array.from(value.values) };
      const sampled = oracleRows(shape, operands);
      const error = assertRows(Float32Array.from(found), sampled, "attention_flash", name);
      const ms = rates === null ? 0 : await timeOf(device, rounds, sizes.repeats, run);
      const theirs = dtype !== "float32" ? null : await beside(async () => {
        const input = {
          q: { type: "float32", data: q, shape: [B, H, Q, D] },
          k: { type: "float32", data: k, shape: [B, Hkv, K, D] },
          v: { type: "float32", data: v, shape: [B, Hkv, K, D] },
        } as const;
        const graph = attentionGraph({ ...shape, causal: causal && Q > 1 });
        return (await peer!.time(graph, input, rounds, sizes.repeats)).ms;
      });
      const wall = rates === null || dtype !== "float32" ? null : await wallOfOurs(run);
      const pairs = causal && Q === K ? Q * (K + 1) / 2 : Q * K;
      const bytes = B * (2 * H * Q * D * 4 + 2 * Hkv * K * D * (dtype === "float16" ? 2 : 4));
      const cuda = typeof torch === "string" ? null : torch.ms[at]![i]!;
      const more = { ...sideBySide(wall, theirs), "torch ms": cuda, "max error": error };
      rows.push(row(name, dtype, ms, 4 * B * H * D * pairs, bytes, more));
    }
  }
  await device.flush();
  await device.destroy();
  if (depth !== "check") rows.push(...await tokens(sizes.tokens, progress, beside, () => peer));
  notes.push(
    "GPU times are the best of the rounds, by timestamps around the passes. Wall times are of calls in a row that end when " +
      "the GPU has done all, operands and results staying there, for us and for the peer; × peer is theirs by ours.",
  );
  return { title, rows, notes };
}

/** Our wall time, the peer's, and how many times as fast we are. */
function sideBySide(ours: number | null, theirs: number | null): Row {
  return {
    "wall ms": ours,
    "peer wall ms": theirs,
    "× peer": ours === null || theirs === null ? null : theirs / ours,
  };
}

/** Greedy decoding of the demo model; all implementations, the CPU and the peer must choose the same tokens. */
async function tokens(
  count: number,
  progress: (text: string) => void,
  beside: (work: () => Promise<number>) => Promise<number | null>,
  peer: () => GpuPeer | null,
): Promise<Row[]> {
  const rows: Row[] = [];
  const folder = new URL("../tests/models/demo/", import.meta.url), prompt = [21, 6, 49, 10, 35];
  await using model = await AutoModelForCausalLM.from_pretrained(folder);
  const generate = async () => {
    using input_ids = Tensor.from([prompt], { dtype: "int64" });
    using all = await model.generate({ input_ids, max_new_tokens: count, eos_token_id: null });
    return String(await all.tolist());
  };
  const config = model.text_config;
  const cache = {
    layers: Number(config["num_hidden_layers"]),
    heads: Number(config["num_key_value_heads"]),
    width: Number(config["head_dim"]),
  };
  const expected = await generate();
  await model.to("webgpu");
  for (const name of ["eager", "sdpa", "flash_attention_2"]) {
    progress(`tokens ${name}`);
    await model.set_attn_implementation(name);
    if (await generate() !== expected) throw new Error(`${name} on webgpu chose other tokens than the CPU`);
    const start = performance.now();
    await generate();
    rows.push({
      case: `demo model, ${name}`,
      dtype: "as stored",
      "tokens/s": count / (performance.now() - start) * 1e3,
    });
  }
  progress("tokens of the peer");
  const theirs = await beside(async () => {
    const { ms, tokens } = await peer()!.tokens(decoderGraph(folder), cache, prompt, count);
    if (`${[...prompt, ...tokens]}` !== expected) throw new Error("the peer chose other tokens than we");
    return count / ms * 1e3;
  });
  if (theirs !== null) {
    rows.push({ case: `demo model, ${peer()!.name}`, dtype: "float32", "tokens/s": theirs });
  }
  return rows;
}
