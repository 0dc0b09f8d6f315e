/**
 * What a GPU can do through WebGPU, right now: multiply-adds on registers, and copying memory.
 *
 * @module
 */

/** Workgroups and turns of the multiply-add probe: eight chains of vec4 an invocation. */
const GROUPS = 512, THREADS = 128, CHAINS = 8, UNROLLED = 16;

function fmaCode(turns: number): string {
  const names = Array.from({ length: CHAINS }, (_, i) => `a${i}`);
  const step = names.map((a) => `${a} = fma(${a}, x, y);`).join(" ");
  return `@group(0) @binding(0) var<storage, read_write> out: array<vec4<f32>>;
@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let x = vec4<f32>(0.999 + f32(id.x) * 1e-9); let y = vec4<f32>(1e-6);
  ${names.map((a, i) => `var ${a} = vec4<f32>(${i}.5);`).join(" ")}
  for (var i = 0u; i < ${turns}u; i++) { ${new Array(UNROLLED).fill(step).join("\n")} }
  out[id.x] = ${names.join(" + ")};
}`;
}

const COPY = `@group(0) @binding(0) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> from_: array<vec4<f32>>;
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let i = (wg.y * n.x + wg.x) * 256u + t;
  if (i < arrayLength(&out)) { out[i] = from_[i]; }
}`;

/** Rates of a GPU. */
export interface GpuRates {
  readonly "GFLOP/s": number;
  /** Bytes read and written. */
  readonly "GB/s": number;
}

/** Measures both, `rounds` times each, the best counts; `size` bytes are copied. */
export async function probeGpu(
  gpu: GPUDevice,
  turns: number,
  size: number,
  rounds: number,
): Promise<GpuRates> {
  const buffer = (bytes: number, usage: number) => gpu.createBuffer({ size: bytes, usage });
  const queries = gpu.createQuerySet({ type: "timestamp", count: 2 });
  const stamps = buffer(16, 0x200 | 0x4), read = buffer(16, 0x1 | 0x8);
  const time = async (code: string, buffers: readonly GPUBuffer[], grid: readonly [number, number]) => {
    const pipeline = await gpu.createComputePipelineAsync({
      layout: "auto",
      compute: { module: gpu.createShaderModule({ code }), entryPoint: "main" },
    });
    const entries = buffers.map((b, binding) => ({ binding, resource: { buffer: b } }));
    const group = gpu.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
    let best = Infinity;
    for (let i = 0; i <= rounds; i++) {
      const encoder = gpu.createCommandEncoder();
      const pass = encoder.beginComputePass({
        timestampWrites: { querySet: queries, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 },
      });
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(...grid);
      pass.end();
      encoder.resolveQuerySet(queries, 0, 2, stamps, 0);
      encoder.copyBufferToBuffer(stamps, 0, read, 0, 16);
      gpu.queue.submit([encoder.finish()]);
      await read.mapAsync(1);
      const [begin, end] = new BigUint64Array(read.getMappedRange().slice(0));
      read.unmap();
      // The first run compiles.
      if (i > 0) best = Math.min(best, Number(end! - begin!));
    }
    return best;
  };
  const sums = buffer(GROUPS * THREADS * 16, 0x80);
  const [a, b] = [buffer(size, 0x80), buffer(size, 0x80)];
  const groups = Math.ceil(size / 16 / 256), x = Math.min(groups, 32768);
  const fma = await time(fmaCode(turns), [sums], [GROUPS, 1]);
  const copy = await time(COPY, [a, b], [x, Math.ceil(groups / x)]);
  for (const made of [stamps, read, sums, a, b]) made.destroy();
  queries.destroy();
  const flops = GROUPS * THREADS * turns * UNROLLED * CHAINS * 4 * 2;
  return { "GFLOP/s": flops / fma, "GB/s": 2 * size / copy };
}
