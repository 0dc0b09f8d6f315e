/**
 * Whether operations across a subgroup work here, found out by running them.
 *
 * Features do not tell: Deno hides the one it grants, its compiler refuses the `enable` line that others demand, and
 * nothing says that invocation t is lane t % size of subgroup t / size, as the kernels assume.
 *
 * @module
 */
import { copyBuffer, makeBuffer } from "./buffers.ts";
import { firstError, openScopes } from "./scopes.ts";

/** Operations across subgroups as they work on a device. */
export interface Subgroups {
  /** What a shader that uses them begins with. */
  readonly prefix: string;
  /** Least number of lanes. */
  readonly size: number;
}

/** What kernels are told of subgroups of so many lanes, 0 for none: whether they work, and whether 8 or 16 share one. */
export function subgroupFlags(size: number): { SUBGROUPS: boolean; SHUFFLE: boolean; SHUFFLE16: boolean } {
  return { SUBGROUPS: size > 0, SHUFFLE: size >= 8, SHUFFLE16: size >= 16 };
}

const THREADS = 64;

/** Writes the size of each invocation's subgroup, or 0 where the lanes lie otherwise than assumed or sum up wrongly. */
const PROBE = `
@group(0) @binding(0) var<storage, read_write> out: array<u32>;
@compute @workgroup_size(${THREADS})
fn main(
  @builtin(local_invocation_index) t: u32,
  @builtin(subgroup_size) size: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let members = min(size, ${THREADS}u);
  let last = t - lane + members - 1u;
  let sum = subgroupAdd(f32(t));
  let far = subgroupShuffleXor(t, 1u);
  let right = lane == t % size && sum == f32((t - lane + last) * members / 2u) && far == (t ^ 1u);
  out[t] = select(0u, size, right);
}`;

/** How subgroups work on `gpu`, or null where they do not. */
export async function probeSubgroups(gpu: GPUDevice): Promise<Subgroups | null> {
  for (const prefix of ["enable subgroups;\n", ""]) {
    const pipeline = await compiled(gpu, prefix + PROBE);
    if (pipeline === null) continue;
    const sizes = await run(gpu, pipeline);
    const size = Math.min(...sizes);
    return size > 1 && (size & (size - 1)) === 0 ? { prefix, size } : null;
  }
  return null;
}

async function compiled(gpu: GPUDevice, code: string): Promise<GPUComputePipeline | null> {
  const close = openScopes(gpu);
  let pipeline: GPUComputePipeline | null = null;
  try {
    const module = gpu.createShaderModule({ label: "subgroups", code });
    pipeline = await gpu.createComputePipelineAsync({
      layout: "auto",
      compute: { module, entryPoint: "main" },
    });
  } catch {
    // The scopes hold the reason, and there is nobody to tell it.
  }
  return firstError(await Promise.all(close())) === undefined ? pipeline : null;
}

/** What the probe wrote; zeros where it could not run. */
async function run(gpu: GPUDevice, pipeline: GPUComputePipeline): Promise<Uint32Array> {
  const size = THREADS * 4;
  const close = openScopes(gpu);
  const out = makeBuffer(gpu, "subgroups", size, "slot");
  const read = makeBuffer(gpu, "subgroups", size, "readback");
  try {
    const encoder = gpu.createCommandEncoder({ label: "subgroups" });
    const pass = encoder.beginComputePass({ label: "subgroups" });
    pass.setPipeline(pipeline);
    const layout = pipeline.getBindGroupLayout(0);
    pass.setBindGroup(
      0,
      gpu.createBindGroup({ layout, entries: [{ binding: 0, resource: { buffer: out } }] }),
    );
    pass.dispatchWorkgroups(1);
    pass.end();
    copyBuffer(encoder, out, 0, read, 0, size);
    gpu.queue.submit([encoder.finish()]);
    await read.mapAsync(1);
    const values = new Uint32Array(read.getMappedRange().slice(0));
    read.unmap();
    return firstError(await Promise.all(close())) === undefined ? values : new Uint32Array(THREADS);
  } catch {
    // A device that is lost says so at its next use.
    return new Uint32Array(THREADS);
  } finally {
    out.destroy();
    read.destroy();
  }
}
