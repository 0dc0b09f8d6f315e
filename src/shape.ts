/**
 * Shapes: checks and arithmetic.
 *
 * @module
 */
import { MAX_RANK } from "./devices/device.ts";
import { InvalidArgument } from "./errors.ts";

/** What has a shape and strides. */
interface Strided {
  readonly shape: readonly number[];
  readonly strides: readonly number[];
}

/** Row-major strides of `shape`. */
export function contiguousStrides(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = step;
    step *= shape[i]!;
  }
  return strides;
}

/** Number of elements of `shape`. */
export function sizeOf(shape: readonly number[]): number {
  let n = 1;
  for (let i = 0; i < shape.length; i++) n *= shape[i]!;
  return n;
}

/** Whether elements lie in row-major order without gaps. */
export function isContiguous({ shape, strides }: Strided): boolean {
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== step) return false;
    step *= shape[i]!;
  }
  return true;
}

/** Strides that give the elements of `x` another shape of as many without a copy, or null. */
export function reshapedStrides(x: Strided, shape: readonly number[]): number[] | null {
  if (isContiguous(x) || sizeOf(shape) === 0) return contiguousStrides(shape);
  const strides = new Array<number>(shape.length).fill(1);
  // Walk both shapes from the right in groups of equal size; inside a group the old dimensions must be mergeable.
  let i = x.shape.length - 1;
  let j = shape.length - 1;
  while (j >= 0) {
    if (shape[j] === 1) {
      strides[j] = 1;
      j--;
      continue;
    }
    while (i >= 0 && x.shape[i] === 1) i--;
    if (i < 0) return null;
    let available = x.shape[i]!;
    let step = x.strides[i]!;
    let taken = 1;
    while (true) {
      strides[j] = step * taken;
      taken *= shape[j]!;
      j--;
      while (taken > available) {
        i--;
        if (i < 0) return null;
        if (x.shape[i] === 1) continue;
        if (x.strides[i] !== step * available) return null;
        available *= x.shape[i]!;
      }
      if (taken === available) break;
      if (available % taken !== 0 || j < 0) return null;
    }
    step = 1;
    i--;
  }
  return strides;
}

/**
 * Checks that `shape` is a list of at most {@linkcode MAX_RANK} non-negative safe integers.
 *
 * @throws {InvalidArgument}
 */
export function checkShape(shape: readonly number[]): readonly number[] {
  if (!Array.isArray(shape)) {
    throw new InvalidArgument(`Cannot use ${String(shape)} as a shape: expected an array of integers`);
  }
  if (shape.length > MAX_RANK) {
    throw new InvalidArgument(
      `Cannot make a tensor of rank ${shape.length}: at most ${MAX_RANK} dimensions are supported`,
    );
  }
  for (const d of shape) {
    if (!Number.isSafeInteger(d) || d < 0) {
      throw new InvalidArgument(
        `Cannot use [${shape}] as a shape: expected non-negative integers, got ${String(d)}`,
      );
    }
  }
  if (!Number.isSafeInteger(sizeOf(shape))) {
    throw new InvalidArgument(`Cannot use [${shape}] as a shape: too many elements`);
  }
  return Object.freeze([...shape]);
}
