/**
 * The largest of many values, one after the other, without sorting the rest.
 *
 * @module
 */

/**
 * Yields indices of `values`, largest value first, of equal ones the lower index; −∞ is left out. Taking k of n values costs O(n + k log n): a heap is
 * built and only what is taken is sorted.
 */
export function* descending(values: Float32Array): Generator<number, void> {
  let size = 0;
  const heap = new Uint32Array(values.length);
  for (let i = 0; i < values.length; i++) if (values[i]! > -Infinity) heap[size++] = i;
  const before = (a: number, b: number) => {
    const x = values[a]!, y = values[b]!;
    return x > y || (x === y && a < b);
  };
  const sink = (from: number) => {
    const item = heap[from]!;
    let at = from;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= size) break;
      if (child + 1 < size && before(heap[child + 1]!, heap[child]!)) child++;
      if (!before(heap[child]!, item)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = item;
  };
  for (let i = (size >> 1) - 1; i >= 0; i--) sink(i);
  while (size > 0) {
    yield heap[0]!;
    heap[0] = heap[--size]!;
    sink(0);
  }
}

/** The first `count` of {@linkcode descending}. */
export function largest(values: Float32Array, count: number): number[] {
  const found: number[] = [];
  if (count < 1) return found;
  for (const i of descending(values)) {
    found.push(i);
    if (found.length === count) break;
  }
  return found;
}
