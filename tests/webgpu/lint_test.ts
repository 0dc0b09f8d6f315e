/**
 * Every kernel variant through a second WGSL compiler: Dawn's Tint, on its null backend, which needs no driver
 * and executes nothing. It refuses what others let pass: barriers in non-uniform control flow, workgroup memory
 * above the limit, bindings that do not match.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { AttentionCall, BinaryOp, BlocksView, UnaryOp, View } from "../../src/devices/device.ts";
import { packedWords, QUANTIZED_FORMATS, roomWords } from "../../src/devices/quantized.ts";
import { WebGpuDevice } from "../../src/devices/webgpu/device.ts";
import { subgroupFlags } from "../../src/devices/webgpu/subgroups.ts";
import { specialise } from "../../src/devices/webgpu/template.ts";
import { type DType, DTYPES } from "../../src/dtype.ts";
import { defaults } from "../../src/devices/webgpu/template.ts";
import { expand, shrink } from "../../kernels/expand.ts";
import { FLOATS, MATRIX_FEATURES, nullGpu, Views } from "./null_gpu.ts";

const gpu = await nullGpu();
const missing = typeof gpu === "string";
const KERNELS = new URL("../../kernels/", import.meta.url);
const STEMS = [...Deno.readDirSync(KERNELS)].filter((e) => e.name.endsWith(".wgsl")).map((e) => e.name);

function elementwise(device: WebGpuDevice, views: Views): void {
  const { kernels } = device;
  const ops: UnaryOp[] = [
    ...["neg", "exp", "log", "tanh", "sigmoid", "sqrt"] as const,
    ...["silu", "gelu", "gelu_tanh", "quick_gelu", "relu"] as const,
  ];
  for (const op of ops) kernels.unary(op, views.make([3, 5]), views.make([3, 5]));
  for (const from of DTYPES) {
    for (const to of DTYPES) {
      kernels.unary("copy", views.make([3, 4], from), views.make([3, 4], to));
      kernels.unary("copy", views.make([3, 3], from), views.make([3, 3], to));
    }
  }
  for (let rank = 1; rank <= 6; rank++) {
    const x = views.make(Array(rank).fill(2));
    const turned: View = { ...x, strides: [...x.strides].reverse() };
    const out = views.make(Array(rank).fill(2));
    kernels.unary("copy", turned, out);
    kernels.binary("add", turned, x, out);
    kernels.where(views.make(Array(rank).fill(2), "bool"), turned, x, out);
  }
  for (const op of ["add", "sub", "mul", "div", "maximum", "silu_mul"] as BinaryOp[]) {
    kernels.binary(op, views.make([7]), views.make([7], "float16"), views.make([7]));
    if (op !== "div" && op !== "silu_mul") {
      kernels.binary(op, views.make([7], "int32"), views.make([7], "int32"), views.make([7], "int32"));
    }
  }
  for (const dtype of FLOATS) {
    kernels.where(
      views.make([7], "bool"),
      views.make([7], dtype),
      views.make([7], dtype),
      views.make([7], dtype),
    );
    kernels.embedding(views.make([3], "int32"), views.make([9, 5], dtype), views.make([3, 5]));
    kernels.rotary(
      views.make([1, 2, 3, 4]),
      views.make([9, 4]),
      views.make([1, 3], "int32"),
      views.make([1, 2, 3, 4]),
    );
  }
}

function rowwise(device: WebGpuDevice, views: Views): void {
  const { kernels } = device;
  for (const op of ["sum", "max", "mean"] as const) kernels.reduce(op, views.make([3, 70]), views.make([3]));
  kernels.reduce("sum", views.make([3, 70], "int32"), views.make([3], "int32"));
  kernels.softmax(views.make([3, 70]), views.make([3, 70]), views.make([3]));
  kernels.softmax(views.make([3, 70]), views.make([3, 70]), null);
  kernels.argmax(views.make([3, 70]), views.make([3], "int32"));
  for (const dtype of FLOATS) {
    kernels.rms_norm(views.make([3, 70]), views.make([70], dtype), 1e-6, 0, views.make([3, 70]));
    kernels.layer_norm(
      views.make([3, 70]),
      views.make([70], dtype),
      views.make([70], dtype),
      1e-6,
      views.make([3, 70]),
    );
    for (const rows of [1, 3, 8, 9, 100]) {
      for (const width of [64, 33]) {
        const bias = rows === 3 ? null : views.make([5], dtype);
        kernels.linear(views.make([rows, width]), views.make([5, width], dtype), bias, views.make([rows, 5]));
      }
    }
    kernels.matmul(views.make([2, 30, 4]), views.make([2, 4, 5], dtype), views.make([2, 30, 5]), false);
    kernels.matmul(views.make([2, 3, 4]), views.make([2, 5, 4], dtype), views.make([2, 3, 5]), true);
    for (const [M, N, P] of [[1300, 64, 1284], [1300, 33, 1281], [300, 64, 64]] as const) {
      kernels.matmul(views.make([M, N]), views.make([N, P], dtype), views.make([M, P]), false);
      kernels.matmul(views.make([M, N]), views.make([P, N], dtype), views.make([M, P]), true);
    }
  }
  kernels.rms_norm(views.make([3, 70]), null, 1e-6, 0, views.make([3, 70]));
  kernels.layer_norm(views.make([3, 70]), views.make([70]), null, 1e-6, views.make([3, 70]));
  device.write(views.make([5], "float16").allocation, 2, new Uint8Array(4));
}

function quantized(device: WebGpuDevice, views: Views): void {
  for (const D of [64, 7]) {
    for (const dtype of FLOATS) {
      const shape = [1, 2, 3, D];
      device.kernels.quantize(views.make(shape, dtype), views.make(shape, "int8"), views.make([1, 2, 3, 1]));
    }
  }
  for (const format of QUANTIZED_FORMATS) {
    const matrix = { format, shape: [9, 70] as const };
    const packed = views.make([packedWords(matrix)], "int32");
    for (const rows of [1, 3, 8, 9, 100]) {
      for (const bias of [null, ...FLOATS.map((dtype) => views.make([9], dtype))]) {
        const room = views.make([roomWords(rows, 70)], "int32");
        device.kernels.linear_quantized(
          views.make([rows, 70]),
          { ...matrix, packed },
          bias,
          views.make([rows, 9]),
          room,
        );
      }
    }
  }
}

function attention(device: WebGpuDevice, views: Views): void {
  const base = { B: 1, H: 4, Hkv: 2, Q: 20, K: 40, D: 64, Dv: 64, kv: "float32" as DType };
  const run = (sizes: Partial<typeof base>, options: (s: typeof base) => Partial<AttentionCall>) => {
    const s = { ...base, ...sizes };
    for (const algorithm of ["flash", "eager"] as const) {
      device.kernels.attention({
        algorithm,
        query: views.make([s.B, s.H, s.Q, s.D]),
        key: views.make([s.B, s.Hkv, s.K, s.D], s.kv),
        value: views.make([s.B, s.Hkv, s.K, s.Dv], s.kv),
        out: views.make([s.B, s.Q, s.H, s.Dv]),
        weights: null,
        lse: views.make([s.B, s.H, s.Q]),
        ...{ scaling: 1, softcap: 0, query_offset: 0, causal: true, window_left: -1, window_right: -1 },
        ...{ padding: null, zero_padded_queries: false, mask: null, blocks: null, sinks: null },
        ...options(s),
      });
    }
  };
  const bytes = (shape: readonly number[]): View => ({
    ...views.make(shape, "int8"),
    scales: views.make([...shape.slice(0, 3), 1]),
  });
  for (const Q of [1, 20, 300]) {
    for (const D of [7, 64, 192]) {
      for (const version of [2, 3, 4] as const) {
        const shape = [base.B, base.Hkv, 600, D];
        run({ Q, K: 600, D, Dv: D }, () => ({ key: bytes(shape), value: bytes(shape), version }));
      }
    }
  }
  for (const kv of FLOATS) {
    for (const D of [1, 4, 7, 8, 16, 24, 64, 80, 96, 128, 192, 256]) {
      for (const Q of [1, 20]) run({ D, Dv: D, kv, Q }, () => ({}));
    }
  }
  for (const K of [600, 9000]) run({ Q: 1, K, kv: "bfloat16" }, (s) => ({ sinks: views.make([s.H]) }));
  run({ Q: 1, K: 600, Dv: 7 }, () => ({ lse: null }));
  run({ D: 192, Dv: 128 }, () => ({ causal: false }));
  run({ D: 16, Dv: 256 }, () => ({ lse: null }));
  run({}, (s) => ({ weights: null, softcap: 5, sinks: views.make([s.H]) }));
  run({}, () => ({ window_left: 3 }));
  run({}, () => ({ causal: false, window_left: 3, window_right: 3 }));
  run({}, (s) => ({ padding: views.make([s.B, s.K], "bool") }));
  const blocks = (s: typeof base): BlocksView => {
    const bands = Math.ceil(s.Q / 8), lists = s.B * s.H * bands * 2;
    const index = views.make([lists + 20], "int32");
    return {
      size: [8, 8],
      lists: { ...index, shape: [s.B, s.H, bands, 2], strides: [s.H * bands * 2, bands * 2, 2, 1] },
      entries: { ...index, shape: [10, 2], strides: [2, 1], offset: lists },
      bits: views.make([10, 8, 1], "uint8"),
    };
  };
  for (const Q of [1, 20, 100]) {
    run({ Q }, (s) => ({ blocks: blocks(s) }));
    run({ Q, K: 600 }, (s) => ({ blocks: blocks(s), sinks: views.make([s.H]), lse: null, softcap: 3 }));
    // More than the eight bindings every adapter has, were they all in one kernel.
    run({ Q }, (s) => ({
      ...{ blocks: blocks(s), sinks: views.make([s.H]), padding: views.make([s.B, s.K], "bool") },
      mask: views.make([s.B, s.H, s.Q, s.K], "bool"),
    }));
  }
  for (const dtype of ["bool", "float32"] as const) {
    run({}, (s) => ({ mask: views.make([s.B, s.H, s.Q, s.K], dtype) }));
    run({ Q: 2 }, (s) => ({
      ...{
        mask: views.make([s.B, s.H, s.Q, s.K], dtype),
        sinks: views.make([s.H]),
        softcap: 5,
        window_left: 3,
      },
      ...{ window_right: 2, padding: views.make([s.B, s.K], "bool"), zero_padded_queries: true },
    }));
  }
}

for (const unrolled of [true, false]) {
  Deno.test({
    name: `lint: every variant compiles in Dawn, ${
      unrolled ? "as for a GPU: loops unrolled, subgroups, bytes multiplied by fours" : "inner loops kept"
    }`,
    ignore: missing,
    fn: async (t) => {
      // Nothing can be probed where nothing is executed.
      const subgroups = unrolled && { prefix: "enable subgroups;\n", size: 32 };
      const device = new WebGpuDevice({ gpu: gpu as GPU, unrolled, packed_dot: unrolled, subgroups });
      for (const sweep of [elementwise, rowwise, quantized, attention]) {
        await t.step(sweep.name, async () => {
          using views = new Views(device);
          sweep(device, views);
          await device.flush();
        });
      }
      assertEquals(device.live, 0);
      await device.destroy();
    },
  });
}

Deno.test({
  name: "lint: the canonical text of every kernel is valid WGSL as it stands",
  ignore: missing,
  fn: async () => {
    const adapter = await (gpu as GPU).requestAdapter();
    const device = await adapter!.requestDevice({ requiredFeatures: MATRIX_FEATURES });
    const problems: string[] = [];
    for (const name of STEMS) {
      const code = Deno.readTextFileSync(new URL(name, KERNELS));
      const unrolled = { ...defaults(code), DEEP: true };
      const subgroups = { ...unrolled, ...subgroupFlags(32) };
      const texts = [
        code,
        specialise(shrink(code), unrolled),
        `enable subgroups;\n${specialise(shrink(code), subgroups)}`,
      ];
      for (const text of texts) {
        device.pushErrorScope("validation");
        device.createShaderModule({ label: name, code: text });
        const error = await device.popErrorScope();
        if (error) problems.push(`${name}: ${error.message}`);
      }
    }
    device.destroy();
    assertEquals(problems, []);
  },
});

Deno.test("lint: the embedded kernels are what kernels/expand.ts makes of kernels/*.wgsl", async () => {
  const path = new URL("../../src/devices/webgpu/shaders.ts", import.meta.url);
  assertEquals(Deno.readTextFileSync(path) === await expand(), true, "run kernels/expand.ts");
});

if (missing) {
  Deno.test(`skips: 3 tests skipped because ${gpu}`, () => console.log(`3 tests skipped because ${gpu}`));
}
