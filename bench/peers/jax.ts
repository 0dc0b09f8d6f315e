/**
 * The peer jax-js: its WASM backend in this process. It computes attention as products and a softmax; a head at a time,
 * because its product of matrices is half again as fast as its batched one and as its own dotProductAttention.
 *
 * @module
 */
import type { AttentionShape } from "../cases.ts";
import { swapAxes, transposed } from "../compare.ts";
import { type KernelPeer, kvHeadOf, type PeerOperation } from "./kernels.ts";

// Not a literal in an import: what nobody but the bench needs stays out of the lock file. So do its declarations;
// this is the part of them that is used.
const PACKAGE = "npm:@jax-js/jax@0.1.25";

/** An array of the library. Operations consume a reference, `ref` makes another. */
interface JaxArray {
  readonly ref: JaxArray;
  mul(other: number): JaxArray;
  data(): Promise<Float32Array>;
  dispose(): void;
}
interface Jax {
  init(...devices: string[]): Promise<string[]>;
  defaultDevice(device: string): void;
  jit<F extends (...args: JaxArray[]) => JaxArray>(fn: F): F;
  readonly numpy: {
    array(data: Float32Array, options: { shape: readonly number[] }): JaxArray;
    matmul(a: JaxArray, b: JaxArray): JaxArray;
    tri(rows: number, columns: number, k: number, options: { dtype: "bool" }): JaxArray;
    where(condition: JaxArray, a: JaxArray | number, b: JaxArray | number): JaxArray;
  };
  readonly nn: { softmax(x: JaxArray, axis: number): JaxArray };
}

/** Loads the peer on so many threads. @throws {Error} when it cannot be loaded here: it is a required peer */
export async function loadJax(threads: number): Promise<KernelPeer> {
  const { init, defaultDevice, jit, numpy: np, nn } = await import(PACKAGE) as Jax;
  // It starts as many workers as the processor has threads and has no other way to be told.
  Object.defineProperty(navigator, "hardwareConcurrency", { value: threads, configurable: true });
  try {
    const devices = await init("wasm");
    if (!devices.includes("wasm")) throw new Error(`${PACKAGE} offers ${devices.join(", ")}, not wasm`);
    defaultDevice("wasm");
    // Starts its workers.
    await np.array(Float32Array.of(1, 2), { shape: [2] }).mul(2).data();
  } finally {
    Reflect.deleteProperty(navigator, "hardwareConcurrency");
  }
  const array = (data: Float32Array, shape: readonly number[]) => np.array(data, { shape });

  function attention(shape: AttentionShape, o: { q: Float32Array; k: Float32Array; v: Float32Array }) {
    const { B, H, Hkv, Q, K, D, causal = false, window } = shape;
    const parts = (data: Float32Array, n: number, rows: number) =>
      Array.from({ length: n }, (_, i) => data.slice(i * rows * D, (i + 1) * rows * D));
    const q = parts(o.q, B * H, Q).map((x) => array(x, [Q, D]));
    const kT = parts(o.k, B * Hkv, K).map((x) => array(transposed(x, K, D), [D, K]));
    const v = parts(o.v, B * Hkv, K).map((x) => array(x, [K, D]));
    const head = jit((q, kT, v) => {
      let scores = np.matmul(q.mul(D ** -0.5), kT);
      const below = (k: number) => np.tri(Q, K, K - Q + k, { dtype: "bool" });
      if (causal && Q > 1) scores = np.where(below(0), scores, -Infinity);
      if (window !== undefined) scores = np.where(below(-window), -Infinity, scores);
      return np.matmul(nn.softmax(scores, -1), v);
    });
    const operation: PeerOperation = {
      name: "jax-js",
      async call() {
        const heads = q.map((x, h) => {
          const kv = kvHeadOf(shape, h);
          return head(x.ref, kT[kv]!.ref, v[kv]!.ref);
        });
        const output = new Float32Array(B * H * Q * D);
        for (const [h, x] of heads.entries()) output.set(await x.data(), h * Q * D);
        return output;
      },
      arrange: (output) => swapAxes(output, [B, H, Q, D]),
      close: () => [...q, ...kT, ...v].forEach((x) => x.dispose()),
    };
    return [operation];
  }

  return {
    name: "jax-js",
    description: `jax-js ${PACKAGE.split("@").at(-1)}, wasm backend`,
    native: false,
    // deno-lint-ignore require-await -- asynchronous by contract
    attention: async (shape, operands) => attention(shape, operands),
    // deno-lint-ignore require-await -- asynchronous by contract
    async linear({ M, I, O }, x, weight) {
      const [a, b] = [array(x, [M, I]), array(transposed(weight, O, I), [I, O])];
      const product = jit((a, b) => np.matmul(a, b));
      return [{
        name: "jax-js matmul",
        call: () => product(a.ref, b.ref).data(),
        arrange: (output) => output,
        close: () => [a, b].forEach((t) => t.dispose()),
      }];
    },
    close() {},
  };
}
