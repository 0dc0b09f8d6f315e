/**
 * Whether `dot4I8Packed`, four products of bytes in one instruction, is here and means what it should.
 *
 * @module
 */
import { copyBuffer, makeBuffer, writeBuffer } from "./buffers.ts";
import { scoped } from "./scopes.ts";

/** WGSL of a kernel that multiplies pairs of words. */
const PROBE = `@group(0) @binding(0) var<storage, read> pairs: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<i32>;
@compute @workgroup_size(1) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
out[id.x] = dot4I8Packed(pairs[id.x].x, pairs[id.x].y); }`;

/** Four signed bytes as a word. */
function packed(bytes: readonly number[]): number {
  return bytes.reduce((word, byte, i) => word | (byte & 255) << i * 8, 0) >>> 0;
}

/** Bytes whose products saturate, change sign or are mixed up where the instruction means something else. */
const PAIRS: readonly (readonly [readonly number[], readonly number[]])[] = [
  [[127, 127, 127, 127], [127, 127, 127, 127]],
  [[-127, -127, -127, -127], [127, 127, 127, 127]],
  [[-128, -128, -128, -128], [-128, -128, -128, -128]],
  [[1, -2, 3, -4], [15, 7, -100, 64]],
  [[-1, 0, 0, 0], [1, 0, 0, 0]],
];

/** Runs the instruction once on `gpu`, a device of `implementation`. */
export async function hasPackedDot(
  gpu: GPUDevice,
  implementation: (GPU & { readonly wgslLanguageFeatures?: ReadonlySet<string> }) | undefined,
): Promise<boolean> {
  if (implementation?.wgslLanguageFeatures?.has("packed_4x8_integer_dot_product") !== true) return false;
  const bytes = PAIRS.length * 4;
  const pairs = makeBuffer(gpu, "pairs", bytes * 2, "slot");
  const sums = makeBuffer(gpu, "sums", bytes, "slot");
  const read = makeBuffer(gpu, "read sums", bytes, "readback");
  try {
    return await scoped(gpu, "multiply bytes", async () => {
      writeBuffer(gpu, pairs, 0, Uint32Array.from(PAIRS.flat(), (four) => packed(four)));
      const module = gpu.createShaderModule({ label: "packed dot", code: PROBE });
      const compute = { module, entryPoint: "main" };
      const pipeline = gpu.createComputePipeline({ label: "packed dot", layout: "auto", compute });
      const layout = pipeline.getBindGroupLayout(0);
      const entries = [pairs, sums].map((buffer, binding) => ({ binding, resource: { buffer } }));
      const encoder = gpu.createCommandEncoder({ label: "packed dot" });
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, gpu.createBindGroup({ layout, entries }));
      pass.dispatchWorkgroups(PAIRS.length);
      pass.end();
      copyBuffer(encoder, sums, 0, read, 0, bytes);
      gpu.queue.submit([encoder.finish()]);
      await read.mapAsync(1);
      const found = new Int32Array(read.getMappedRange().slice(0));
      return PAIRS.every(([a, b], i) => found[i] === a.reduce((sum, x, t) => sum + x * b[t]!, 0));
    });
  } catch {
    // Kernels do without what fails here; a device that is lost says so at its next use.
    return false;
  } finally {
    for (const buffer of [pairs, sums, read]) buffer.destroy();
  }
}
