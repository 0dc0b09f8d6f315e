/**
 * The peer TensorFlow.js: its WASM backend in this process, which in Deno has SIMD and one thread. Attention is products
 * and a softmax, a head at a time: its batched product is nine times slower.
 *
 * @module
 */
import type { AttentionShape } from "../cases.ts";
import { swapAxes, transposed } from "../compare.ts";
import { type KernelPeer, kvHeadOf, type PeerOperation } from "./kernels.ts";

// Not literals in an import, as in jax.ts.
const CORE = "npm:@tensorflow/tfjs-core@4.22.0";
const BACKEND = "npm:@tensorflow/tfjs-backend-wasm@4.22.0";

interface TfTensor {
  data(): Promise<Float32Array>;
  dispose(): void;
}
interface Tf {
  setBackend(name: string): Promise<boolean>;
  tensor2d(data: Float32Array, shape: [number, number]): TfTensor;
  matMul(a: TfTensor, b: TfTensor): TfTensor;
  mul(a: TfTensor, b: number): TfTensor;
  add(a: TfTensor, b: TfTensor): TfTensor;
  softmax(x: TfTensor): TfTensor;
  tidy<T>(fn: () => T): T;
}

/** Added to the scores of keys that are not seen: its exponential is 0. */
const HIDDEN = -1e30;

/** Loads the peer. @throws {Error} when it cannot be loaded here: it is a required peer */
export async function loadTfjs(): Promise<KernelPeer> {
  const tf = await import(CORE) as Tf;
  const { setWasmPaths } = await import(BACKEND) as { setWasmPaths(folder: string): void };
  setWasmPaths(new URL(".", import.meta.resolve(BACKEND)).href);
  if (!await tf.setBackend("wasm")) throw new Error(`${BACKEND} cannot be started`);

  function attention(shape: AttentionShape, o: { q: Float32Array; k: Float32Array; v: Float32Array }) {
    const { B, H, Hkv, Q, K, D, causal = false, window = Infinity } = shape;
    const parts = (data: Float32Array, n: number, rows: number) =>
      Array.from({ length: n }, (_, i) => data.slice(i * rows * D, (i + 1) * rows * D));
    const q = parts(o.q, B * H, Q).map((x) => tf.tensor2d(x, [Q, D]));
    const kT = parts(o.k, B * Hkv, K).map((x) => tf.tensor2d(transposed(x, K, D), [D, K]));
    const v = parts(o.v, B * Hkv, K).map((x) => tf.tensor2d(x, [K, D]));
    let mask: TfTensor | null = null;
    if (causal && Q > 1) {
      const values = new Float32Array(Q * K).fill(HIDDEN);
      for (let i = 0; i < Q; i++) {
        const last = i + K - Q;
        values.fill(0, i * K + Math.max(0, last - window + 1), i * K + last + 1);
      }
      mask = tf.tensor2d(values, [Q, K]);
    }
    const operation: PeerOperation = {
      name: "tfjs-wasm",
      async call() {
        const heads = tf.tidy(() =>
          q.map((x, h) => {
            const kv = kvHeadOf(shape, h);
            const scores = tf.matMul(tf.mul(x, D ** -0.5), kT[kv]!);
            return tf.matMul(tf.softmax(mask === null ? scores : tf.add(scores, mask)), v[kv]!);
          })
        );
        const output = new Float32Array(B * H * Q * D);
        for (const [h, x] of heads.entries()) {
          output.set(await x.data(), h * Q * D);
          x.dispose();
        }
        return output;
      },
      arrange: (output) => swapAxes(output, [B, H, Q, D]),
      close: () => [...q, ...kT, ...v, mask].forEach((x) => x?.dispose()),
    };
    return [operation];
  }

  return {
    name: "tfjs-wasm",
    description: `tfjs-wasm ${BACKEND.split("@").at(-1)}, SIMD, 1 thread`,
    native: false,
    // deno-lint-ignore require-await -- asynchronous by contract
    attention: async (shape, operands) => attention(shape, operands),
    // deno-lint-ignore require-await -- asynchronous by contract
    async linear({ M, I, O }, x, weight) {
      const [a, b] = [tf.tensor2d(x, [M, I]), tf.tensor2d(transposed(weight, O, I), [I, O])];
      return [{
        name: "tfjs-wasm matMul",
        async call() {
          const y = tf.matMul(a, b);
          const data = await y.data();
          y.dispose();
          return data;
        },
        arrange: (output) => output,
        close: () => [a, b].forEach((t) => t.dispose()),
      }];
    },
    close() {},
  };
}
