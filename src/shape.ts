/**
 * Shapes: checks and arithmetic.
 *
 * @module
 */
import { MAX_RANK } from "./devices/device.ts";
import { InvalidArgument } from "./errors.ts";

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
  return shape.reduce((a, b) => a * b, 1);
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
