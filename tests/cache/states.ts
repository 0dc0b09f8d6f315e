/**
 * Key and value states whose elements say which token they are of.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { DeviceName } from "../../src/devices/device.ts";
import { reshape, slice } from "../../src/ops/shape.ts";
import { tidy } from "../../src/scope.ts";
import { Tensor } from "../../src/tensor.ts";

/** Sizes of states. */
export interface StateOptions {
  readonly B?: number;
  readonly H?: number;
  readonly D?: number;
  readonly device?: DeviceName;
}

/** States (B, H, N, D) of `n` tokens: `first`, then one further from 0 each; batch rows differ in the fraction. */
export function states(first: number, n: number, options: StateOptions = {}): Tensor {
  const { B = 1, H = 2, D = 4, device = "wasm" } = options;
  const sign = Math.sign(first) || 1;
  const data = Float32Array.from({ length: B * H * n * D }, (_, at) => {
    const row = Math.floor(at / (D * n * H));
    return sign * (Math.abs(first) + Math.floor(at / D) % n + row / 8);
  });
  return Tensor.from(data, { shape: [B, H, n, D], device });
}

/** The token numbers along N that `update` returned for the last head of a batch row; disposes what it returned. */
export async function tokens([key, value]: [Tensor, Tensor], row = 0): Promise<number[]> {
  using k = key;
  using v = value;
  assertEquals(v.shape.slice(0, 3), k.shape.slice(0, 3));
  const numbers = async (t: Tensor) => {
    const [, h, , d] = t.shape as [number, number, number, number];
    using line = tidy(() => reshape(slice(slice(slice(t, 0, row, row + 1), 1, h - 1), 3, d - 1), [-1]));
    return await line.tolist() as number[];
  };
  const keys = await numbers(k);
  assertEquals(await numbers(v), keys.map((x) => x === 0 ? 0 : -x), "values are stored beside their keys");
  return keys;
}
